"""The network: input → linear → softmax."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mnist_cli import functional
from mnist_cli.functional import Array

INPUTS = 28 * 28
CLASSES = 10
# The network sees grey values divided by 255. That is folded into W, which is smaller than x:
# (x / 255) W = x (W / 255).
WHITE = 255
LARGEST = 1e30  # parameters beyond it might make logits that float32 cannot hold


class Params(NamedTuple):
    """The 7,850 parameters: W (784, 10) and b (10,), float32."""

    W: Array
    b: Array


def initialise() -> Params:
    """Return the parameters to start from: zeros, which make all classes equally likely.

    The loss is convex and has no symmetry to break, so nothing random is needed; and a pixel that
    is black in every training image keeps the weight 0.
    """
    W = np.zeros((INPUTS, CLASSES), np.float32, order="F")
    return Params(W, np.zeros(CLASSES, np.float32))


def forward(params: Params, x: Array) -> Array:
    """Return the logits: x (B, 784) float32 grey values from 0 to 255 → (B, 10) float32."""
    return functional.linear(x, params.W / WHITE, params.b)


def logits_and_gradients(params: Params, x: Array, y: Array) -> tuple[Array, Params]:
    """Return the logits (B, 10) and the gradients of the batch's mean cross-entropy.

    x (B, 784) float32 grey values from 0 to 255, y (B,) integers in [0, 10).
    """
    logits = forward(params, x)  # (B, C)
    probs = functional.softmax(logits)  # (B, C)
    dprobs = functional.cross_entropy_backward(probs, y)  # (B, C)
    dlogits = functional.softmax_backward(dprobs, probs)  # (B, C), through the Jacobians (B, C, C)
    dW, db = functional.linear_backward(dlogits, x)  # (D, C), (C,)
    dW /= WHITE
    return logits, Params(dW, db)


def predict(params: Params, images: Array) -> Array:
    """Return the probabilities: images (N, 28, 28) uint8 → (N, 10) float64."""
    x = images.reshape(len(images), -1).astype(np.float32)
    return functional.softmax(forward(params, x).astype(np.float64))


def minibatches(
    images: Array, labels: Array, indices: Array, batch_size: int
) -> Iterator[tuple[Array, Array]]:
    """Yield (x, y) for `indices` in their order, `batch_size` at a time, the last one shorter.

    images (N, 28, 28) uint8, labels (N,), indices (M,) → x (B, 784) float32, the grey values from
    0 to 255, and y (B,). The images may be a memory map; each x is overwritten by the next.
    """
    pixels = images.reshape(len(images), -1)  # (N, D)
    y = labels[indices]
    batch_size = min(batch_size, len(indices))
    gathered = np.empty((batch_size, pixels.shape[1]), np.uint8)
    x = np.empty(gathered.shape, np.float32)
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]  # (B,)
        if len(chosen) < len(x):
            gathered, x = gathered[: len(chosen)], x[: len(chosen)]
        pixels.take(chosen, axis=0, out=gathered, mode="clip")  # "clip" spares a buffer
        np.copyto(x, gathered)
        yield x, y[start : start + batch_size]
