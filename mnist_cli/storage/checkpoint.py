"""Checkpoints: the training state between two epochs, in a file to resume from."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cli import files, training
from mnist_cli.config import Config
from mnist_cli.errors import ModelFileError
from mnist_cli.functional import Array
from mnist_cli.storage import npz
from mnist_cli.storage.model_file import FORMAT, LIMITS, pack, to_params, unpack
from mnist_cli.training import Epoch, State

FIGURES = [field.name for field in dataclasses.fields(Epoch)][1:]  # a row of the history


def run(
    images: Array,
    labels: Array,
    config: Config,
    *,
    checkpoint_file: Path | None = None,
    metrics_file: Path | None = None,
) -> Iterator[tuple[State, list[Epoch]]]:
    """Yield the state to begin with, then that after each epoch, and all epochs up to there.

    It resumes from the checkpoint where there is one. The checkpoint is written before a state is
    yielded, so whoever stops here, by a signal as well, loses no finished epoch. The metrics file
    always has the epochs of the history, a JSON object a line, each once.

    Raises:
        MnistError: a file cannot be written, or the checkpoint is not of this run.
    """
    state, history, data = training.start(), list[Epoch](), ""
    if checkpoint_file:
        data = fingerprint(images, labels)
        if checkpoint_file.is_file():
            state, history = load(checkpoint_file, config, data)
    with files.stream(metrics_file or Path(os.devnull)) as metrics:
        metrics.writelines(map(_line, history))
        yield state, history
        for state in training.train(state, images, labels, config):  # noqa: B020
            history.append(state.last)
            if checkpoint_file:
                save(checkpoint_file, state, history, config, data)
            metrics.write(_line(state.last))
            metrics.flush()
            yield state, history


def _line(epoch: Epoch) -> bytes:
    return json.dumps(dataclasses.asdict(epoch), allow_nan=False).encode() + b"\n"


def fingerprint(images: Array, labels: Array) -> str:
    """Return the SHA-256 of a data set's content, in hexadecimal."""
    digest = hashlib.sha256(np.ascontiguousarray(labels).data)
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def save(path: Path, state: State, history: list[Epoch], config: Config, data: str) -> None:
    """Publish `state`, the `history` up to it, and what tells its run from others."""
    metadata = {"format": FORMAT, "config": config, "data": data}
    metadata["history"] = list(map(attrgetter(*FIGURES), history))
    W, b = map(np.stack, zip(state.params, state.velocity, state.best, strict=True))
    npz.write(path, {"W": W, "b": b, "metadata": pack(metadata)})  # W (3, D, C), b (3, C)


def load(path: Path, config: Config, data: str) -> tuple[State, list[Epoch]]:
    """Return the state at `path` and the history, or raise ModelFileError: what differs."""
    try:
        arrays = npz.read(path, LIMITS)
        metadata = unpack(arrays["metadata"]) if "metadata" in arrays else {}
        if "history" not in metadata:
            raise ModelFileError("it is not a checkpoint")
        if differences := " and ".join(_differences(metadata, config, data)):
            raise ModelFileError(f"it was made with {differences}")
        params, velocity, best = (to_params({n: arrays[n][i] for n in "Wb"}) for i in range(3))
        history = _history(metadata["history"], config)
        compared = history if config.validation_size else history[-1:]
        best_epoch = min(compared, key=attrgetter("validation_loss"))
        return State(params, velocity, best, history[-1], best_epoch), history
    except (ModelFileError, LookupError, TypeError, ValueError) as error:
        reason = f"{error}; name another file or delete it"
        raise ModelFileError(f"cannot resume from {path}: {reason}") from error


def _differences(metadata: dict[str, Any], config: Config, data: str) -> Iterator[str]:
    """Describe what differs from this run."""
    for name, now in dataclasses.asdict(config).items():
        then = metadata["config"][name]
        more = name == "epochs" and config.schedule == "constant" and then <= now
        if then != now and not more:
            hint = " (it may grow with the constant schedule alone)" if name == "epochs" else ""
            yield f"{name} {then!a:.40}, not {now!a}{hint}"
    if metadata["data"] != data:
        yield "other training images"


def _history(rows: list[list[Any]], config: Config) -> list[Epoch]:
    """Return the epochs with the figures in `rows`, if a run can have such."""
    valid = ["validation" not in name or config.validation_size > 0 or None for name in FIGURES]
    for row in rows:
        if [None if figure is None else 0 <= figure < 1e9 for figure in row] != valid:
            raise ValueError("its history is impossible")
    return [Epoch(number, *row) for number, row in enumerate(rows, start=1)]
