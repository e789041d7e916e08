import contextlib
import dataclasses
import io
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_cli.config import Config
from mnist_cli.errors import MnistError, ModelFileError
from mnist_cli.storage import checkpoint
from mnist_cli.storage.checkpoint import run
from mnist_cli.training import Epoch, State
from tests import hostile

CONFIG = Config(epochs=5, batch_size=32, learning_rate=0.1, validation_size=200, patience=4)
Digits = tuple[Any, Any]
Progress = tuple[State, list[Epoch]]
Load = Callable[[bytes], Progress]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    return {"checkpoint_file": tmp_path / "c.npz", "metrics_file": tmp_path / "m.jsonl"}


@pytest.fixture(scope="module")
def unbroken(digits: Digits) -> Progress:
    *_, last = run(*digits, CONFIG)
    return last


@pytest.fixture(scope="module")
def three_epochs(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint after three of five epochs."""
    path = tmp_path_factory.mktemp("checkpoint") / "c.npz"
    stopped(run(*digits, CONFIG, checkpoint_file=path), 3)
    return path.read_bytes()


@pytest.fixture
def load(digits: Digits, tmp_path: Path) -> Load:
    """Return what loads a checkpoint of that content into a run with CONFIG."""
    path, data = tmp_path / "c.npz", checkpoint.fingerprint(*digits)

    def load(content: bytes) -> Progress:
        path.write_bytes(content)
        return checkpoint.load(path, CONFIG, data)

    return load


def stopped(states: Iterator[Progress], epochs: int) -> Progress:
    """Let a run do so many epochs, and no more; return its state."""
    *_, last = itertools.islice(states, epochs + 1)
    return last


def figures(history: list[Epoch]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(epoch) | {"seconds": epoch.seconds > 0} for epoch in history]


def lines(path: Path) -> list[dict[str, Any]]:
    return figures([Epoch(**json.loads(line)) for line in path.read_text().splitlines()])


def same(left: Progress, right: Progress) -> bool:
    """Return whether the arrays have the same bytes and the epochs, but for seconds, are equal."""
    one, other = [
        [array.tobytes("C") for array in (*state.params, *state.velocity, *state.best)]
        + figures([*history, state.last, state.best_epoch])
        for state, history in (left, right)
    ]
    return one == other


@pytest.mark.parametrize("validation_size", [200, 0])
def test_files_have_every_epoch_when_it_is_yielded(
    digits: Digits, files: dict[str, Any], validation_size: int
) -> None:
    config = Config(epochs=5, batch_size=32, validation_size=validation_size)
    data = checkpoint.fingerprint(*digits)
    for done, now in enumerate(run(*digits, config, **files)):
        assert done == len(now[1]) == len(lines(files["metrics_file"]))
        if done:
            loaded = checkpoint.load(files["checkpoint_file"], config, data)
            assert same(now, loaded)
            assert now[1] == loaded[1]
    assert done == 5


@pytest.mark.parametrize("stops", [[0], [1], [4], [5], [1, 1, 1, 1], [2, 0, 2]])
def test_stopped_run_ends_like_an_unbroken_one(
    digits: Digits, files: dict[str, Any], unbroken: Progress, stops: list[int]
) -> None:
    for epochs in stops:
        stopped(run(*digits, CONFIG, **files), epochs)

    *_, last = run(*digits, CONFIG, **files)

    assert same(unbroken, last)
    assert figures(unbroken[1]) == lines(files["metrics_file"])
    [again] = run(*digits, CONFIG, **files)  # trains nothing
    assert same(unbroken, again)


@pytest.mark.parametrize(
    "found", [b"", b'{"epoch": 1, "lear', b'{"epoch": 1}\n' * 9, b"\x00\xff\n"]
)
def test_resumed_metrics_are_those_of_the_checkpoint(
    digits: Digits, files: dict[str, Any], found: bytes
) -> None:
    """Whatever the file holds: lines past the checkpoint, a torn one, none at all."""
    _, history = stopped(run(*digits, CONFIG, **files), 2)
    files["metrics_file"].write_bytes(found)

    stopped(run(*digits, CONFIG, **files), 0)

    assert figures(history) == lines(files["metrics_file"])


def test_constant_schedule_can_get_more_epochs(digits: Digits, files: dict[str, Any]) -> None:
    short = Config(epochs=2, batch_size=32, validation_size=200, schedule="constant")
    long = dataclasses.replace(short, epochs=4)
    *_, _ = run(*digits, short, **files)

    *_, resumed = run(*digits, long, **files)

    *_, unbroken = run(*digits, long)
    assert same(unbroken, resumed)
    with pytest.raises(ModelFileError, match=r"epochs 4, not 3 \(it may grow with the constant"):
        next(run(*digits, dataclasses.replace(long, epochs=3), **files))


def test_patience_counts_on_after_a_stop(digits: Digits, files: dict[str, Any]) -> None:
    config = Config(epochs=60, learning_rate=1.0, validation_size=200, patience=2)
    *_, unbroken = run(*digits, config)
    assert len(unbroken[1]) < 60
    for _ in unbroken[1]:
        stopped(run(*digits, config, **files), 1)

    [last] = run(*digits, config, **files)

    assert same(unbroken, last)


def test_divergence_leaves_the_last_good_checkpoint(digits: Digits, files: dict[str, Any]) -> None:
    config = Config(
        epochs=9, batch_size=1000, validation_size=0, learning_rate=1000, weight_decay=1000
    )

    with pytest.raises(MnistError, match=r"diverged in epoch 3: lower the learning rate \(1000\)"):
        list(run(*digits, config, **files))

    state, history = next(run(*digits, config, **files))
    assert len(history) == len(lines(files["metrics_file"])) == 2
    assert all(np.isfinite(array).all() for array in (*state.params, *state.velocity))


OTHER: dict[str, Any] = {
    "dataset": "synthetic",
    "epochs": 6,
    "batch_size": 33,
    "learning_rate": 0.125,
    "momentum": 0.25,
    "weight_decay": 0.125,
    "schedule": "constant",
    "validation_size": 201,
    "patience": 3,
    "normalize": "deskew",
    "features": "directions",
    "seed": 1,
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Config)])
def test_other_hyperparameter_is_refused_by_name(
    digits: Digits, tmp_path: Path, three_epochs: bytes, name: str
) -> None:
    """Together with other data; and nothing is touched."""
    path, metrics = tmp_path / "c.npz", tmp_path / "m.jsonl"
    path.write_bytes(three_epochs)
    other = dataclasses.replace(CONFIG, **{name: OTHER[name]})
    words = rf"{name} {getattr(CONFIG, name)!r}, not {OTHER[name]!r}( \(.*\))?"
    images, labels = digits

    with pytest.raises(ModelFileError, match=words + " and other training images; name another"):
        next(run(255 - images, labels, other, checkpoint_file=path, metrics_file=metrics))

    assert three_epochs == path.read_bytes()
    assert not metrics.exists()


def test_fingerprint_depends_on_every_pixel_and_every_label(digits: Digits) -> None:
    images, labels = digits
    first = checkpoint.fingerprint(images, labels)
    other_images, other_labels = images.copy(), labels.copy()
    other_images[500, 14, 14] ^= 1
    other_labels[999] = (other_labels[999] + 1) % 10

    assert checkpoint.fingerprint(images[::-1][::-1], labels) == first
    assert checkpoint.fingerprint(other_images, labels) != first
    assert checkpoint.fingerprint(images, other_labels) != first
    assert checkpoint.fingerprint(images[:-1], labels[:-1]) != first


def edited(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    """Return a checkpoint whose arrays and metadata were changed."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    metadata = json.loads(str(arrays["metadata"]))
    change(arrays, metadata)
    arrays["metadata"] = np.array(json.dumps(metadata))
    return hostile.archive({f"{name}.npy": hostile.npy(arrays[name]) for name in arrays})


def figure(row: int, column: int, value: object) -> Callable[[Any, Any], object]:
    return lambda arrays, metadata: metadata["history"][row].__setitem__(column, value)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "nothing": (lambda a, m: None, ""),
    "a model": (lambda a, m: m.pop("history"), "it is not a checkpoint"),
    "no velocity": (lambda a, m: a.update(W=a["W"][:1]), "out of bounds"),
    "no W": (lambda a, m: a.pop("W"), "W"),
    "nan in the velocity": (lambda a, m: a["b"][1].fill(np.nan), "b has values"),
    "best of another shape": (lambda a, m: a.update(W=a["W"][:, :10]), "no W of float32"),
    "later format": (lambda a, m: m.update(format=2), "its format is 2"),
    "no data": (lambda a, m: m.update(data=None), "other training images"),
    "config a list": (lambda a, m: m.update(config=[1]), "list indices"),
    "escapes in the config": (
        lambda a, m: m["config"].update(seed="\x1b[3m"),
        r"'\\x1b\[3m', not",
    ),
    "empty history": (lambda a, m: m.update(history=[]), "empty"),
    "history of text": (lambda a, m: m.update(history="x"), "impossible|not supported"),
    "short row": (lambda a, m: m["history"][1].pop(), "its history is impossible"),
    "infinite loss": (figure(0, 1, float("1e999")), "its history is impossible"),
    "nan": (figure(0, 1, float("nan")), "its history is impossible"),
    "negative loss": (figure(0, 1, -1), "its history is impossible"),
    "no validation loss": (figure(2, 3, None), "its history is impossible"),
    "loss of text": (figure(2, 3, "0.1"), "not supported"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_checkpoint_is_refused(load: Load, three_epochs: bytes, kind: str) -> None:
    change, words = HOSTILE[kind]
    content = edited(three_epochs, change)
    if not words:
        assert len(load(content)[1]) == 3
        return

    with pytest.raises(
        ModelFileError, match=rf"cannot resume .*{words}.*; name another"
    ) as caught:
        load(content)
    assert str(caught.value).isprintable()


def test_mutant_gives_a_state_or_an_error(load: Load, three_epochs: bytes) -> None:
    with np.load(io.BytesIO(three_epochs)) as arrays:
        good = {f"{name}.npy": hostile.npy(arrays[name]) for name in arrays}
    rng = random.Random(6)
    loaded = 0
    for _ in range(400):
        with contextlib.suppress(ModelFileError):
            load(hostile.mutant(good, rng))
            loaded += 1
    assert 0 < loaded < 400
