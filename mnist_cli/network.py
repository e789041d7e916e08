"""The network: input → linear → softmax."""

from typing import NamedTuple

import numpy as np

from mnist_cli import functional
from mnist_cli.functional import Array

INPUTS = 28 * 28
CLASSES = 10
LARGEST = 1e30  # parameters beyond it might make logits that float32 cannot hold


class Params(NamedTuple):
    """The 7,850 parameters: W (784, 10) and b (10,), float32."""

    W: Array
    b: Array


def initialise(rng: np.random.Generator) -> Params:
    """Return small random weights and zero biases.

    The loss is convex, so any start will do; a small one makes all classes nearly equally likely.
    """
    W = rng.normal(0, 0.01, (INPUTS, CLASSES)).astype(np.float32)
    return Params(np.asfortranarray(W), np.zeros(CLASSES, np.float32))


def forward(params: Params, x: Array) -> Array:
    """Return the logits: x (B, 784) float32 in [0, 1] → (B, 10) float32."""
    return functional.linear(x, *params)


def loss_and_gradients(params: Params, x: Array, y: Array) -> tuple[float, int, Params]:
    """Return the mean loss, the number of correct answers, and the gradients of that loss.

    x (B, 784) float32 in [0, 1], y (B,) integers in [0, 10).
    """
    logits = forward(params, x)  # (B, C)
    probs = functional.softmax(logits)  # (B, C)
    dprobs = functional.cross_entropy_backward(probs, y)  # (B, C)
    dlogits = functional.softmax_backward(dprobs, probs)  # (B, C), through the Jacobians (B, C, C)
    dW, db = functional.linear_backward(dlogits, x)  # (D, C), (C,)
    loss = float(functional.cross_entropy(logits, y).mean())
    correct = int((logits.argmax(axis=1) == y).sum())
    return loss, correct, Params(dW, db)


def predict(params: Params, images: Array) -> Array:
    """Return the probabilities: images (N, 28, 28) uint8 → (N, 10) float64."""
    x = images.reshape(len(images), -1) / np.float32(255)
    return functional.softmax(forward(params, x).astype(np.float64))
