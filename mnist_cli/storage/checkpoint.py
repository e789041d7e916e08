"""Checkpoints: the training state between two epochs, in a file to go on from."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cli import files, training
from mnist_cli.config import FIELDS, Config
from mnist_cli.errors import ConfigError, ModelFileError
from mnist_cli.functional import Array
from mnist_cli.network import Params
from mnist_cli.storage import npz
from mnist_cli.storage.model_file import LIMITS, pack, unpack, unpack_config, weights
from mnist_cli.training import Epoch, State

FORMAT = 1
PARTS = {"": "params", "_velocity": "velocity", "_best": "best"}
COLUMNS = [field.name for field in dataclasses.fields(Epoch) if field.name != "epoch"]
VALIDATION = ("validation_loss", "validation_accuracy")
LONGEST = 1e9  # seconds in one epoch
HISTORY_BYTES = 100_000 * len(COLUMNS) * 8 + 4096


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
        MnistError: a file cannot be written, the checkpoint is not this run's, or what
            `training.train` raises.
    """
    state, history, data = training.start(), list[Epoch](), ""
    if checkpoint_file:
        data = fingerprint(images, labels)
        if checkpoint_file.is_file():
            state, history = load(checkpoint_file, config, data)
        else:
            save(checkpoint_file, state, history, config, data)
    begin = b"".join(map(_line, history))
    with files.append(metrics_file or Path(os.devnull), begin) as metrics:
        yield state, history
        for state in training.train(state, images, labels, config):  # noqa: B020
            history.append(state.last)
            if checkpoint_file:
                save(checkpoint_file, state, history, config, data)
            metrics.write(_line(history[-1]))
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
    """Publish `state`, after the epochs in `history`, bound to `config` and `data`, at `path`.

    `data` is the fingerprint of the training data.

    Raises:
        MnistError: the file cannot be written.

    """
    arrays: dict[str, Array] = {}
    for suffix, part in PARTS.items():
        params: Params = getattr(state, part)
        arrays |= {f"W{suffix}": params.W, f"b{suffix}": params.b}
    metadata = {"format": FORMAT, "config": dataclasses.asdict(config), "data": data}
    rows = [[getattr(epoch, name) for name in _columns(config)] for epoch in history]
    arrays |= {"metadata": pack(metadata)}
    if rows:
        arrays |= {"history": np.array(rows, np.float64)}
    npz.write(path, arrays)


def load(path: Path, config: Config, data: str) -> tuple[State, list[Epoch]]:
    """Return the state at `path` and all epochs up to there, if of this `config` and `data`.

    Raises:
        ModelFileError: the file is damaged, or of another run; it names what differs.

    """
    limits = {"metadata": LIMITS["metadata"], "history": HISTORY_BYTES}
    for suffix in PARTS:
        limits |= {f"{name}{suffix}": LIMITS[name] for name in Params._fields}
    arrays = npz.read(path, limits, size_limit=8 << 20)
    try:
        if "metadata" not in arrays:
            raise ModelFileError("it is no checkpoint")
        metadata = unpack(arrays["metadata"], FORMAT)
        if set(metadata) != {"format", "config", "data"}:
            raise ModelFileError("it is no checkpoint")
        _check_same(unpack_config(metadata["config"]), config)
        if metadata["data"] != data:
            raise ModelFileError("it was made with other training images: the data set changed")
        parts: dict[str, Any] = {
            part: Params(weights(arrays, "W", suffix), weights(arrays, "b", suffix))
            for suffix, part in PARTS.items()
        }
        history = _history(arrays.get("history"), config)
        if not history:
            return State(**parts), history
        best = min(history, key=lambda epoch: epoch.validation_loss or -epoch.epoch)
        return State(**parts, last=history[-1], best_epoch=best), history
    except (ModelFileError, ConfigError) as error:
        raise ModelFileError(
            f"cannot resume from {path}: {error}; name another file or delete it"
        ) from error


def _columns(config: Config) -> list[str]:
    return [name for name in COLUMNS if config.validation_size or name not in VALIDATION]


def _check_same(old: Config, new: Config) -> None:
    for name in FIELDS:
        before, now = getattr(old, name), getattr(new, name)
        if name == "epochs" and now >= before and new.schedule == "constant":
            continue
        if before != now:
            why = ""
            if name == "epochs" and new.schedule == "cosine":
                why = "; with the cosine schedule every learning rate depends on it"
            raise ModelFileError(f"it was made with {name} {before}, not {now}{why}")


def _history(rows: Array | None, config: Config) -> list[Epoch]:
    if rows is None:
        return []
    names = _columns(config)
    if rows.dtype != np.float64 or rows.ndim != 2 or rows.shape[1] != len(names):
        raise ModelFileError("its history does not have the right columns")
    columns = dict(zip(names, rows.T, strict=True))
    shares = [column for name, column in columns.items() if name.endswith("accuracy")]
    if (
        len(rows) > config.epochs
        or not (np.isfinite(rows) & (rows >= 0)).all()
        or not all((column <= 1).all() for column in shares)
        or not ((columns["seconds"] > 0) & (columns["seconds"] < LONGEST)).all()
    ):
        raise ModelFileError("its history cannot be true")
    missing = dict.fromkeys(VALIDATION)
    return [
        Epoch(epoch=number, **missing | dict(zip(names, row, strict=True)))  # type: ignore[arg-type]
        for number, row in enumerate(rows.tolist(), start=1)
    ]
