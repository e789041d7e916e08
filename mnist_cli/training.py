"""The training loop: a generator that yields the state after each epoch."""

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

# A thousand times what guessing costs (ln 10): the steps overshoot, the loss says nothing more.
DIVERGED = 1000 * math.log(network.CLASSES)

# Images whose running loss is reckoned at once: a minibatch at a time is several times slower.
TOGETHER = 2048


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; `seconds` are those spent in its minibatches.

    The training figures are running means over the minibatches, the learning rate is that of
    the first one, and the validation figures are None where no images were set aside.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class State:
    """All that is needed to go on after an epoch, and to finish."""

    params: Params
    velocity: Params
    best: Params
    history: tuple[Epoch, ...] = ()

    @property
    def best_epoch(self) -> int:
        """The number of the epoch with the lowest validation loss, the first of equals."""
        return min(self.history, key=lambda e: (e.validation_loss or 0.0, e.epoch)).epoch

    def is_done(self, config: Config) -> bool:
        """Tell whether all epochs were run, or patience ran out."""
        epochs = len(self.history)
        if epochs >= config.epochs:
            return True
        if not (config.patience and epochs):
            return False
        return epochs - self.best_epoch >= config.patience

    def final(self, config: Config) -> tuple[Params, Epoch]:
        """Return the parameters to keep, with the epoch they come from."""
        if config.patience:
            return self.best, self.history[self.best_epoch - 1]
        return self.params, self.history[-1]


def start(config: Config) -> State:
    """Return the state before the first epoch."""
    params = network.initialise()
    velocity = Params(np.zeros_like(params.W), np.zeros_like(params.b))
    return State(params, velocity, params)


def train(state: State, images: Array, labels: Array, config: Config) -> Iterator[State]:
    """Train epoch after epoch, from `state` on, and yield the state after each.

    images (N, 28, 28) uint8, labels (N,) uint8. What is random in an epoch hangs on the seed and
    on the epoch's number alone, so a run that goes on from a state ends as if never interrupted.

    Raises:
        TrainingError: no image is left to train on, or the training diverges.

    """
    training, validation = _split(len(labels), config)
    while not state.is_done(config):
        number = len(state.history) + 1
        order = _generator(config.seed, number).permutation(training)
        params, velocity = _copy(state.params), _copy(state.velocity)
        rate, loss, accuracy, seconds = _run_epoch(
            params, velocity, images, labels, order, number, config
        )
        sound = loss < DIVERGED and all(
            np.abs(array).max() <= network.LARGEST for array in (*params, *velocity)
        )
        judged: tuple[float, float] | tuple[None, None] = (None, None)
        if sound and len(validation):
            judged = evaluation.loss_and_accuracy(params, images, labels, validation)
        if not sound or (judged[0] or 0.0) >= DIVERGED:
            decay = (
                f" or weight decay ({config.weight_decay:g})" if config.weight_decay > 1 else ""
            )
            raise TrainingError(
                f"the training diverged in epoch {number}: "
                f"lower the learning rate ({config.learning_rate:g}){decay}"
            )
        epoch = Epoch(number, rate, loss, accuracy, judged[0], judged[1], seconds)
        history = (*state.history, epoch)
        state = State(params, velocity, state.best, history)
        if state.best_epoch == number:
            state = dataclasses.replace(state, best=params)
        yield state


def _run_epoch(
    params: Params,
    velocity: Params,
    images: Array,
    labels: Array,
    order: Array,
    number: int,
    config: Config,
) -> tuple[float, float, float, float]:
    """Change `params` and `velocity` in place; return learning rate, loss, accuracy, seconds."""
    started = time.perf_counter()
    steps = math.ceil(len(order) / config.batch_size)
    losses, correct, first_rate = 0.0, 0, 0.0
    seen: list[tuple[Array, Array]] = []
    with np.errstate(over="ignore", invalid="ignore"):  # train() tells what has diverged
        for step, (x, y) in enumerate(minibatches(images, labels, order, config.batch_size)):
            progress = (number - 1 + step / steps) / config.epochs
            rate = learning_rate_at(progress, config.schedule, config.learning_rate)
            first_rate = first_rate or rate
            logits, gradients = network.logits_and_gradients(params, x, y)
            sgd_step(params, velocity, gradients, rate, config.momentum, config.weight_decay)
            seen.append((logits, y))
            if len(seen) * config.batch_size >= TOGETHER or step == steps - 1:
                loss, hits = evaluation.loss_and_hits(
                    *map(np.concatenate, zip(*seen, strict=True))
                )
                losses += loss
                correct += hits
                seen.clear()
    seconds = time.perf_counter() - started
    return first_rate, losses / len(order), correct / len(order), seconds


def _split(examples: int, config: Config) -> tuple[Array, Array]:
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


def _copy(params: Params) -> Params:
    return Params(np.array(params.W, order="F"), np.array(params.b))


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
