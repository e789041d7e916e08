"""The network, input → linear → softmax, its gradients, and the minibatches it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mnist_cli.functional import Array, cross_entropy_backward, softmax, softmax_backward

INPUTS = 28 * 28
CLASSES = 10
LARGEST = 1e30  # parameters beyond it might make logits that float32 cannot hold
BLOCK = 1000  # images evaluated at a time: large enough for BLAS, small enough for the cache


class Params(NamedTuple):
    """The 7,850 parameters: W (784, 10) and b (10,), float32."""

    W: Array
    b: Array


def initialize() -> Params:
    """Return the parameters to start from: zeros, which make all classes equally likely.

    The loss is convex and has no symmetry to break, so nothing random is needed; and the weights
    of a pixel that is black in every training image stay 0.
    """
    return Params(np.zeros((INPUTS, CLASSES), np.float32), np.zeros(CLASSES, np.float32))


def forward(params: Params, x: Array) -> Array:
    """Return the logits z = x W + b, class-first in memory: x (B, D) → (B, C)."""
    return np.asfortranarray(x @ params.W + params.b)


def gradients(params: Params, x: Array, y: Array) -> tuple[Array, Params]:
    """Return the logits (B, C) and the gradients of the batch's mean cross-entropy.

    x (B, D) inputs from 0 to 1, y (B,) integers in [0, C).
    """
    logits = forward(params, x)  # (B, C)
    probs = softmax(logits)  # (B, C)
    dprobs = cross_entropy_backward(probs, y)  # (B, C)
    dlogits = softmax_backward(dprobs, probs)  # (B, C), through the Jacobians (B, C, C)
    return logits, Params(x.T @ dlogits, dlogits.sum(axis=0))  # dW (D, C), db (C,)


def minibatches(images: Array, indices: Array, batch_size: int) -> Iterator[tuple[Array, Array]]:
    """Yield inputs and their indices, `batch_size` at a time in the order of `indices`.

    images (N, 28, 28) uint8, indices (M,) → x (B, 784) float32 from 0 to 1, chosen (B,). The
    images may be a memory map, and there is never a float copy of the whole data set: each x is
    overwritten by the next. The last minibatch may be shorter.
    """
    pixels = images.reshape(len(images), -1)  # (N, D)
    gathered = np.empty((min(batch_size, len(indices)), pixels.shape[1]), np.uint8)
    x = np.empty(gathered.shape, np.float32)
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]  # (B,)
        gathered, x = gathered[: len(chosen)], x[: len(chosen)]
        pixels.take(chosen, axis=0, out=gathered, mode="clip")  # "clip" spares a buffer
        np.copyto(x, gathered)
        x *= np.float32(1 / 255)
        yield x, chosen


def predict(params: Params, images: Array) -> Array:
    """Return the probabilities: images (N, 28, 28) uint8 → (N, 10) float64."""
    probs = np.empty((len(images), CLASSES))
    for x, chosen in minibatches(images, np.arange(len(images)), BLOCK):
        probs[chosen] = softmax(forward(params, x).astype(np.float64))
    return probs
