"""The optimiser: SGD with momentum and weight decay, and its learning-rate schedules."""

import math

from mnist_cli.network import Params


def learning_rate_at(progress: float, schedule: str, learning_rate: float) -> float:
    """Return the learning rate when the share `progress` in [0, 1] of all steps is done.

    `constant` stays; `cosine` falls from the full rate to 0 along half a cosine wave
    (Loshchilov & Hutter 2017, SGDR, without restarts).
    """
    if schedule == "constant":
        return learning_rate
    return learning_rate * (1 + math.cos(math.pi * progress)) / 2


def sgd_step(
    params: Params,
    velocity: Params,
    gradients: Params,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Take one step in place: v ← momentum · v + gradient + weight_decay · W, θ ← θ − rate · v.

    The weights decay, the biases do not. All three records of arrays are changed.
    """
    if weight_decay:
        gradients.W.__iadd__(weight_decay * params.W)
    for parameter, v, gradient in zip(params, velocity, gradients, strict=True):
        v *= momentum
        v += gradient
        parameter -= learning_rate * v
