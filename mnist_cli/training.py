"""The training loop: SGD with momentum, weight decay and a learning-rate schedule."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator

import numpy as np

from mnist_cli import evaluation, network
from mnist_cli.config import Config
from mnist_cli.errors import TrainingError
from mnist_cli.functional import Array
from mnist_cli.network import Params, minibatches

# A thousand times the loss of guessing, ln 10: the steps overshoot and the loss is meaningless.
DIVERGED = 1000 * math.log(network.CLASSES)
TOGETHER = 2048  # images whose running loss is computed at once, four times faster than in batches


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; `seconds` are those spent in its minibatches.

    The training figures are running means over the minibatches, the learning rate is that of
    the first one, and the validation figures are None where no images were held out.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


BEFORE = Epoch(0, 0.0, math.inf, 0.0, math.inf, 0.0, 0.0)  # the first epoch


@dataclasses.dataclass(frozen=True)
class State:
    """All it takes to go on after an epoch, and to finish.

    `last` holds the figures of the latest epoch; `best` and `best_epoch` are the parameters and
    the figures of the epoch with the lowest validation loss so far.
    """

    params: Params
    velocity: Params
    best: Params
    last: Epoch = BEFORE
    best_epoch: Epoch = BEFORE

    def is_done(self, config: Config) -> bool:
        """Return whether all epochs were run, or patience ran out."""
        waited = self.last.epoch - self.best_epoch.epoch
        return self.last.epoch >= config.epochs or 0 < config.patience <= waited

    def final(self, config: Config) -> tuple[Params, Epoch]:
        """Return the parameters to keep, and the figures of the epoch they come from."""
        return (self.best, self.best_epoch) if config.patience else (self.params, self.last)


def start() -> State:
    """Return the state before the first epoch."""
    params = network.initialize()
    return State(params, network.initialize(), params)


def train(state: State, images: Array, labels: Array, config: Config) -> Iterator[State]:
    """Train epoch after epoch, from `state` on, and yield the state after each.

    images (N, 28, 28) uint8, labels (N,) uint8. What is random in an epoch depends on the seed
    and the epoch's number alone, so a run that goes on from a state ends as if never interrupted.

    Raises:
        TrainingError: no image is left to train on, or the training diverges.
    """
    training, validation = split(len(labels), config)
    while not state.is_done(config):
        order = _generator(config.seed, state.last.epoch + 1).permutation(training)
        state = _run_epoch(state, images, labels, order, config)
        params, epoch = state.params, state.last
        sound = epoch.train_loss < DIVERGED  # false for NaN as well
        sound = sound and all(np.abs(array).max() <= network.LARGEST for array in params)
        if sound and len(validation):
            held_out = evaluation.loss_and_accuracy(params, images, labels, validation)
            epoch = dataclasses.replace(
                epoch, validation_loss=held_out[0], validation_accuracy=held_out[1]
            )
            sound = held_out[0] < DIVERGED
        if not sound:
            raise TrainingError(
                f"training diverged in epoch {epoch.epoch}: lower the learning rate "
                f"({config.learning_rate:g}) or the weight decay ({config.weight_decay:g})"
            )
        state = dataclasses.replace(state, last=epoch)
        loss, lowest = epoch.validation_loss, state.best_epoch.validation_loss
        if loss is None or lowest is None or loss < lowest:
            state = dataclasses.replace(state, best=params, best_epoch=epoch)
        yield state


def _run_epoch(state: State, images: Array, labels: Array, order: Array, config: Config) -> State:
    """Return the state after a pass over the images in `order`, not yet validated."""
    started, done = time.perf_counter(), state.last.epoch
    params, velocity = (Params(*map(np.copy, old)) for old in (state.params, state.velocity))
    steps, loss, correct = math.ceil(len(order) / config.batch_size), 0.0, 0
    seen: list[tuple[Array, Array]] = []  # logits and labels whose loss is still to be computed
    with np.errstate(over="ignore", invalid="ignore"):  # train() reports what has diverged
        for step, (x, chosen) in enumerate(minibatches(images, order, config.batch_size)):
            y = labels[chosen]
            learning_rate = learning_rate_at((done + step / steps) / config.epochs, config)
            logits, gradients = network.gradients(params, x, y)
            sgd_step(params, velocity, gradients, learning_rate, config)
            seen.append((logits, y))
            if len(seen) * len(y) >= TOGETHER or step == steps - 1:
                added, hits = evaluation.loss_and_hits(
                    *map(np.concatenate, zip(*seen, strict=True))
                )
                loss, correct = loss + added, correct + hits
                seen.clear()
    rate = learning_rate_at(done / config.epochs, config)
    seconds = time.perf_counter() - started
    figures = (loss / len(order), correct / len(order), None, None)
    epoch = Epoch(done + 1, rate, *figures, seconds)
    return dataclasses.replace(state, params=params, velocity=velocity, last=epoch)


def sgd_step(
    params: Params, velocity: Params, gradients: Params, learning_rate: float, config: Config
) -> None:
    """Take one step in place: v ← momentum · v + gradient + weight_decay · W, θ ← θ − rate · v.

    The weights decay, the biases do not. All three records of arrays are changed.
    """
    gradients.W.__iadd__(config.weight_decay * params.W)
    for parameter, v, gradient in zip(params, velocity, gradients, strict=True):
        v *= config.momentum
        v += gradient
        parameter -= learning_rate * v


def learning_rate_at(progress: float, config: Config) -> float:
    """Return the learning rate when the fraction `progress` of all steps, in [0, 1], is done.

    `constant` stays; `cosine` falls from the peak to 0 along half a cosine wave (Loshchilov &
    Hutter 2017, SGDR, without restarts).
    """
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def split(examples: int, config: Config) -> tuple[Array, Array]:
    """Return the indices of the training and of the validation images, drawn by the seed."""
    if config.validation_size >= examples:
        raise TrainingError(
            f"a validation size of {config.validation_size} leaves none of the {examples} images "
            "to train on: lower it"
        )
    order = _generator(config.seed, 0).permutation(examples)
    return order[config.validation_size :], np.sort(order[: config.validation_size])


def _generator(seed: int, stream: int) -> np.random.Generator:
    """Return the generator of one epoch, or, as stream 0, of what comes before the first."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
