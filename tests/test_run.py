import dataclasses
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_cli import checkpoint, training
from mnist_cli.config import Config
from mnist_cli.errors import MnistError, ModelFileError
from mnist_cli.run import run
from mnist_cli.training import State

CONFIG = Config(epochs=5, batch_size=32, learning_rate=0.1, validation_size=200)
Digits = tuple[Any, Any]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    return {"checkpoint_file": tmp_path / "c.npz", "metrics_file": tmp_path / "m.jsonl"}


@pytest.fixture(scope="module")
def unbroken(digits: Digits) -> State:
    *_, state = run(*digits, CONFIG)
    return state


def figures(state: State) -> list[dict[str, Any]]:
    return [without_seconds(dataclasses.asdict(epoch)) for epoch in state.history]


def lines(path: Path) -> list[dict[str, Any]]:
    return [without_seconds(json.loads(line)) for line in path.read_text().splitlines()]


def without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    assert values.pop("seconds") > 0
    return values


def stopped(states: Iterator[State], epochs: int) -> State:
    """Let a run do so many epochs, and no more; return its state."""
    *_, state = itertools.islice(states, epochs + 1)
    return state


def same(left: State, right: State) -> bool:
    arrays = [(*state.params, *state.velocity, *state.best) for state in (left, right)]
    equal = [a.tobytes("C") == b.tobytes("C") for a, b in zip(*arrays, strict=True)]
    return all(equal) and figures(left) == figures(right)


def test_every_epoch_is_in_the_files_when_it_is_told(
    digits: Digits, files: dict[str, Any]
) -> None:
    data = checkpoint.fingerprint(*digits)
    for done, state in enumerate(run(*digits, CONFIG, **files)):
        assert done == len(state.history) == len(lines(files["metrics_file"]))
        assert same(state, checkpoint.load(files["checkpoint_file"], CONFIG, data))
    assert done == 5


@pytest.mark.parametrize("stops", [[0], [1], [4], [5], [1, 1, 1, 1], [2, 0, 2]])
def test_a_run_that_was_stopped_ends_as_if_it_never_was(
    digits: Digits, files: dict[str, Any], unbroken: State, stops: list[int]
) -> None:
    for epochs in stops:
        stopped(run(*digits, CONFIG, resume=True, **files), epochs)

    *_, state = run(*digits, CONFIG, resume=True, **files)

    assert same(state, unbroken)
    assert lines(files["metrics_file"]) == figures(unbroken)
    assert [line["epoch"] for line in lines(files["metrics_file"])] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "found", [b"", b'{"epoch": 1, "lear', b'{"epoch": 1}\n' * 9, b"\x00\xff\n"]
)
def test_resume_makes_the_metrics_those_of_the_checkpoint(
    digits: Digits, files: dict[str, Any], unbroken: State, found: bytes
) -> None:
    """Whatever the file holds: lines past the checkpoint, a torn one, none at all."""
    state = stopped(run(*digits, CONFIG, **files), 2)
    files["metrics_file"].write_bytes(found)

    stopped(run(*digits, CONFIG, resume=True, **files), 0)

    assert lines(files["metrics_file"]) == figures(state) == figures(unbroken)[:2]


def test_a_fresh_run_replaces_what_is_there(digits: Digits, files: dict[str, Any]) -> None:
    *_, _ = run(*digits, CONFIG, **files)

    state = next(run(*digits, CONFIG, **files))

    assert state.history == ()
    assert files["metrics_file"].read_bytes() == b""
    resumed = next(run(*digits, CONFIG, resume=True, **files))
    assert resumed.history == ()


def test_a_finished_run_resumes_to_its_end_at_once(
    digits: Digits, files: dict[str, Any], unbroken: State
) -> None:
    *_, _ = run(*digits, CONFIG, **files)

    [state] = run(*digits, CONFIG, resume=True, **files)

    assert same(state, unbroken)


def test_more_epochs_go_on_from_a_finished_run_with_the_constant_schedule(
    digits: Digits, files: dict[str, Any]
) -> None:
    short = Config(epochs=2, batch_size=32, validation_size=200, schedule="constant")
    long = dataclasses.replace(short, epochs=4)
    *_, _ = run(*digits, short, **files)

    *_, resumed = run(*digits, long, resume=True, **files)

    *_, unbroken = run(*digits, long)
    assert same(resumed, unbroken)


def test_a_run_that_ran_out_of_patience_stays_so(digits: Digits, files: dict[str, Any]) -> None:
    config = Config(epochs=60, learning_rate=1.0, validation_size=200, patience=2)
    *_, unbroken = run(*digits, config)
    assert len(unbroken.history) < 60
    for _ in range(len(unbroken.history)):
        stopped(run(*digits, config, resume=True, **files), 1)

    [state] = run(*digits, config, resume=True, **files)

    assert same(state, unbroken)
    assert state.final(config)[1].epoch == unbroken.best_epoch


def test_other_data_is_refused_and_nothing_is_touched(
    digits: Digits, files: dict[str, Any]
) -> None:
    *_, _ = run(*digits, CONFIG, **files)
    before = [path.read_bytes() for path in files.values()]
    images, labels = digits

    with pytest.raises(ModelFileError, match="other training images"):
        next(run(255 - images, labels, CONFIG, resume=True, **files))
    assert [path.read_bytes() for path in files.values()] == before


def test_a_divergence_leaves_the_last_good_checkpoint(
    digits: Digits, files: dict[str, Any]
) -> None:
    """With one step an epoch, the first epoch is good and the second shows what it led to."""
    config = Config(epochs=9, batch_size=1000, validation_size=0, learning_rate=1e6)

    with pytest.raises(MnistError, match=r"diverged in epoch 2: lower the learning rate \(1e\+06"):
        list(run(*digits, config, **files))

    state = next(run(*digits, config, resume=True, **files))
    assert len(state.history) == len(lines(files["metrics_file"])) == 1
    assert all(np.isfinite(array).all() for array in (*state.params, *state.velocity))


def test_metrics_go_to_a_pipe_line_by_line(digits: Digits, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        for state in run(*digits, CONFIG, metrics_file=fifo):
            if state.history:
                assert json.loads(reader.stdout.readline()) == dataclasses.asdict(
                    state.history[-1]
                )


def test_a_full_disk_is_told(digits: Digits) -> None:
    with pytest.raises(MnistError, match="cannot write /dev/full: No space left on device"):
        list(run(*digits, CONFIG, metrics_file=Path("/dev/full")))
    with pytest.raises(MnistError, match="cannot write /dev/full: No space left on device"):
        list(run(*digits, CONFIG, checkpoint_file=Path("/dev/full")))


def test_nothing_is_written_where_no_file_is_named(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: State
) -> None:
    monkeypatch.chdir(tmp_path)

    *_, state = run(*digits, CONFIG)

    assert same(state, unbroken)
    assert training.start(CONFIG).history == ()
    assert not list(tmp_path.iterdir())
