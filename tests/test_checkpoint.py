import dataclasses
import itertools
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_cli import training
from mnist_cli.config import Config
from mnist_cli.errors import MnistError, ModelFileError
from mnist_cli.storage import checkpoint, npz
from mnist_cli.storage.checkpoint import run
from mnist_cli.training import State
from tests import hostile
from tests.test_model_file import mutate

CONFIG = Config(
    epochs=4, batch_size=32, learning_rate=0.1, schedule="cosine", validation_size=200, patience=3
)
Digits = tuple[Any, Any]


@pytest.fixture(scope="module")
def state(digits: Digits) -> State:
    """Three of four epochs are done."""
    *_, state, _ = training.train(training.start(), *digits, CONFIG)
    return state


@pytest.fixture
def path(tmp_path: Path, state: State) -> Path:
    path = tmp_path / "state.npz"
    checkpoint.save(path, state, CONFIG, "data")
    return path


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def test_what_is_saved_is_loaded(path: Path, state: State) -> None:
    loaded = checkpoint.load(path, CONFIG, "data")

    assert loaded.history == state.history
    for part in ("params", "velocity", "best"):
        for found, expected in zip(getattr(loaded, part), getattr(state, part), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_the_state_before_the_first_epoch_is_saved_too(path: Path) -> None:
    checkpoint.save(path, training.start(), CONFIG, "data")

    assert checkpoint.load(path, CONFIG, "data").history == ()


def test_without_validation_images_the_figures_are_none(path: Path, digits: Digits) -> None:
    config = Config(epochs=2, validation_size=0)
    *_, state = training.train(training.start(), *digits, config)
    checkpoint.save(path, state, config, "data")

    history = checkpoint.load(path, config, "data").history

    assert history == state.history
    assert history[-1].validation_loss is None


OTHER: dict[str, Any] = {
    "dataset": "synthetic",
    "epochs": 5,
    "batch_size": 33,
    "learning_rate": 0.125,
    "momentum": 0.25,
    "weight_decay": 0.125,
    "schedule": "constant",
    "validation_size": 201,
    "patience": 4,
    "normalize": "deskew",
    "seed": 1,
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Config)])
def test_other_hyperparameters_are_refused_by_name(path: Path, name: str) -> None:
    other = dataclasses.replace(CONFIG, **{name: OTHER[name]})
    words = f"made with {name} {getattr(CONFIG, name)}, not {OTHER[name]}"

    with pytest.raises(ModelFileError, match=rf"cannot resume from .*state.npz: it was {words}"):
        checkpoint.load(path, other, "data")


def test_why_epochs_cannot_change_with_the_cosine_schedule(path: Path) -> None:
    with pytest.raises(ModelFileError, match="with the cosine schedule every learning rate dep"):
        checkpoint.load(path, dataclasses.replace(CONFIG, epochs=9), "data")


def test_epochs_may_be_raised_but_not_lowered_with_the_constant_schedule(
    path: Path, state: State
) -> None:
    constant = dataclasses.replace(CONFIG, schedule="constant")
    checkpoint.save(path, state, constant, "data")

    more = dataclasses.replace(constant, epochs=9)
    assert checkpoint.load(path, more, "data").history == state.history
    with pytest.raises(ModelFileError, match="made with epochs 4, not 3"):
        checkpoint.load(path, dataclasses.replace(constant, epochs=3), "data")


def test_other_data_is_refused(path: Path) -> None:
    with pytest.raises(ModelFileError, match="made with other training images"):
        checkpoint.load(path, CONFIG, "other data")


def test_the_fingerprint_tells_every_pixel_and_every_label(digits: Digits) -> None:
    images, labels = digits
    first = checkpoint.fingerprint(images, labels)
    other_images, other_labels = images.copy(), labels.copy()
    other_images[500, 14, 14] ^= 1
    other_labels[999] = (other_labels[999] + 1) % 10

    assert checkpoint.fingerprint(images[::-1][::-1], labels) == first
    assert checkpoint.fingerprint(other_images, labels) != first
    assert checkpoint.fingerprint(images, other_labels) != first
    assert checkpoint.fingerprint(images[:-1], labels[:-1]) != first


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    arrays = arrays_of(path)
    change(arrays)
    npz.write(path, arrays)


def metadata(arrays: dict[str, Any], **fields: Any) -> None:
    arrays["metadata"] = np.array(json.dumps(json.loads(str(arrays["metadata"])) | fields))


def history(row: int, column: int, value: float) -> Callable[[dict[str, Any]], object]:
    return lambda arrays: arrays["history"].__setitem__((row, column), value)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a model": (lambda a: [a.pop(n) for n in list(a) if n not in "Wb"], "it is no checkpoint"),
    "no velocity": (lambda a: a.pop("W_velocity"), "W_velocity is missing"),
    "nan in the velocity": (lambda a: a["b_velocity"].fill(np.nan), "b_velocity has values"),
    "best of another shape": (lambda a: a.update(W_best=a["W"].T), "W_best must be floats"),
    "later format": (lambda a: metadata(a, format=2), "it is of format 2"),
    "no data": (lambda a: metadata(a, data=None), "other training images"),
    "unknown field": (lambda a: metadata(a, more=1), "it is no checkpoint"),
    "escapes in the config": (lambda a: metadata(a, config={"\x1b[31m": 1}), "the known fields"),
    "config a list": (lambda a: metadata(a, config=[1]), "the known fields"),
    "epochs true": (
        lambda a: metadata(a, config=dataclasses.asdict(CONFIG) | {"epochs": True}),
        "epochs must be an integer",
    ),
    "history of text": (lambda a: a.update(history=np.array("x")), "the right columns"),
    "history of a column": (
        lambda a: a.update(history=a["history"][:, :1]),
        "the right columns",
    ),
    "history longer than the run": (
        lambda a: a.update(history=np.tile(a["history"], (2, 1))),
        "cannot be true",
    ),
    "an infinite loss": (history(0, 1, np.inf), "cannot be true"),
    "a negative loss": (history(0, 1, -1), "cannot be true"),
    "an accuracy above 1": (history(1, 2, 1.5), "cannot be true"),
    "an epoch of no time": (history(2, 5, 0), "cannot be true"),
    "an epoch of all time": (history(2, 5, 1e300), "cannot be true"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_checkpoints_are_refused(path: Path, kind: str) -> None:
    change, words = HOSTILE[kind]
    edit(path, change)

    with pytest.raises(ModelFileError, match=words) as caught:
        checkpoint.load(path, CONFIG, "data")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", hostile.MODELS)
def test_hostile_models_are_no_checkpoints_either(tmp_path: Path, kind: str) -> None:
    hostile.MODELS[kind](tmp_path / "model.npz")

    with pytest.raises(ModelFileError) as caught:
        checkpoint.load(tmp_path / "model.npz", CONFIG, "data")
    assert str(caught.value).isprintable()


def outcome(path: Path) -> State | str:
    """Return the state at `path`, or the words that refuse it."""
    try:
        return checkpoint.load(path, CONFIG, "data")
    except ModelFileError as error:
        return str(error)


def test_mutants_give_a_state_or_an_error_and_nothing_else(path: Path) -> None:
    good = {f"{name}.npy": hostile.npy(array) for name, array in arrays_of(path).items()}
    rng = random.Random(6)
    loaded = 0
    for _ in range(400):
        name = rng.choice([*good, "history.npy", "metadata.npy"])
        path.write_bytes(hostile.archive(good | {name: mutate(good[name], rng)}))
        found = outcome(path)
        if isinstance(found, State):
            loaded += 1
        else:
            assert found.isprintable()
    assert 0 < loaded < 400


RUN = Config(epochs=5, batch_size=32, learning_rate=0.1, validation_size=200)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    return {"checkpoint_file": tmp_path / "c.npz", "metrics_file": tmp_path / "m.jsonl"}


@pytest.fixture(scope="module")
def unbroken(digits: Digits) -> State:
    *_, state = run(*digits, RUN)
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
    for done, state in enumerate(run(*digits, RUN, **files)):
        assert done == len(state.history) == len(lines(files["metrics_file"]))
        assert same(state, checkpoint.load(files["checkpoint_file"], RUN, data))
    assert done == 5


@pytest.mark.parametrize("stops", [[0], [1], [4], [5], [1, 1, 1, 1], [2, 0, 2]])
def test_a_run_that_was_stopped_ends_as_if_it_never_was(
    digits: Digits, files: dict[str, Any], unbroken: State, stops: list[int]
) -> None:
    for epochs in stops:
        stopped(run(*digits, RUN, **files), epochs)

    *_, state = run(*digits, RUN, **files)

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
    state = stopped(run(*digits, RUN, **files), 2)
    files["metrics_file"].write_bytes(found)

    stopped(run(*digits, RUN, **files), 0)

    assert lines(files["metrics_file"]) == figures(state) == figures(unbroken)[:2]


def test_a_finished_run_resumes_to_its_end_at_once(
    digits: Digits, files: dict[str, Any], unbroken: State
) -> None:
    *_, _ = run(*digits, RUN, **files)

    [state] = run(*digits, RUN, **files)

    assert same(state, unbroken)


def test_more_epochs_go_on_from_a_finished_run_with_the_constant_schedule(
    digits: Digits, files: dict[str, Any]
) -> None:
    short = Config(epochs=2, batch_size=32, validation_size=200, schedule="constant")
    long = dataclasses.replace(short, epochs=4)
    *_, _ = run(*digits, short, **files)

    *_, resumed = run(*digits, long, **files)

    *_, unbroken = run(*digits, long)
    assert same(resumed, unbroken)


def test_a_run_that_ran_out_of_patience_stays_so(digits: Digits, files: dict[str, Any]) -> None:
    config = Config(epochs=60, learning_rate=1.0, validation_size=200, patience=2)
    *_, unbroken = run(*digits, config)
    assert len(unbroken.history) < 60
    for _ in range(len(unbroken.history)):
        stopped(run(*digits, config, **files), 1)

    [state] = run(*digits, config, **files)

    assert same(state, unbroken)
    assert state.final(config)[1].epoch == unbroken.best_epoch


def test_other_data_is_refused_and_nothing_is_touched(
    digits: Digits, files: dict[str, Any]
) -> None:
    *_, _ = run(*digits, RUN, **files)
    before = [path.read_bytes() for path in files.values()]
    images, labels = digits

    with pytest.raises(ModelFileError, match="other training images"):
        next(run(255 - images, labels, RUN, **files))
    assert [path.read_bytes() for path in files.values()] == before


def test_a_divergence_leaves_the_last_good_checkpoint(
    digits: Digits, files: dict[str, Any]
) -> None:
    """With one step an epoch, the first epoch is good and the second shows what it led to."""
    config = Config(epochs=9, batch_size=1000, validation_size=0, learning_rate=1e6)

    with pytest.raises(MnistError, match=r"diverged in epoch 2: lower the learning rate \(1e\+06"):
        list(run(*digits, config, **files))

    state = next(run(*digits, config, **files))
    assert len(state.history) == len(lines(files["metrics_file"])) == 1
    assert all(np.isfinite(array).all() for array in (*state.params, *state.velocity))


def test_metrics_go_to_a_pipe_line_by_line(digits: Digits, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        for state in run(*digits, RUN, metrics_file=fifo):
            if state.history:
                assert json.loads(reader.stdout.readline()) == dataclasses.asdict(
                    state.history[-1]
                )


def test_a_full_disk_is_told(digits: Digits) -> None:
    with pytest.raises(MnistError, match="cannot write /dev/full: No space left on device"):
        list(run(*digits, RUN, metrics_file=Path("/dev/full")))
    with pytest.raises(MnistError, match="cannot write /dev/full: No space left on device"):
        list(run(*digits, RUN, checkpoint_file=Path("/dev/full")))


def test_nothing_is_written_where_no_file_is_named(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: State
) -> None:
    monkeypatch.chdir(tmp_path)

    *_, state = run(*digits, RUN)

    assert same(state, unbroken)
    assert training.start().history == ()
    assert not list(tmp_path.iterdir())
