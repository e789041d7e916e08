"""A training run with the files it keeps: the checkpoint and the metrics."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mnist_cli import checkpoint, files, training
from mnist_cli.config import Config
from mnist_cli.functional import Array
from mnist_cli.training import Epoch, State


def run(
    images: Array,
    labels: Array,
    config: Config,
    *,
    checkpoint_file: Path | None = None,
    resume: bool = False,
    metrics_file: Path | None = None,
) -> Iterator[State]:
    """Yield the state to begin with, then the state after each epoch, with its files written.

    With `resume` it goes on from the checkpoint where there is one; otherwise it starts anew and
    replaces it. The checkpoint is written before a state is yielded, so whoever stops here, by a
    signal as well, loses no epoch that is done. The metrics file always has the epochs of the
    history, a JSON object a line, each once.

    Raises:
        MnistError: a file cannot be written, the checkpoint is not this run's, or what
            `training.train` raises.
    """
    state = training.start(config)
    data = ""
    if checkpoint_file:
        data = checkpoint.fingerprint(images, labels)
        if resume and checkpoint_file.exists():
            state = checkpoint.load(checkpoint_file, config, data)
        else:
            checkpoint.save(checkpoint_file, state, config, data)
    begin = b"".join(map(_line, state.history))
    with files.append(metrics_file or Path(os.devnull), begin) as metrics:
        yield state
        for state in training.train(state, images, labels, config):  # noqa: B020
            if checkpoint_file:
                checkpoint.save(checkpoint_file, state, config, data)
            metrics.write(_line(state.history[-1]))
            metrics.flush()
            yield state


def _line(epoch: Epoch) -> bytes:
    return json.dumps(dataclasses.asdict(epoch), allow_nan=False).encode() + b"\n"
