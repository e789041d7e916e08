import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli.config import Config
from mnist_cli.errors import ModelFileError
from mnist_cli.network import Params
from mnist_cli.storage import model_file
from mnist_cli.storage.model_file import Model
from tests import hostile


def make(seed: int = 0, **fields: Any) -> Model:
    rng = np.random.default_rng(seed)
    params = Params(rng.normal(size=(784, 10)).astype("f4"), rng.normal(size=10).astype("f4"))
    return Model(params, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.npz"


def test_what_is_saved_is_loaded(path: Path) -> None:
    config = Config(seed=7, learning_rate=0.25)
    saved = make(
        dataset="kmnist",
        normalize="moment",
        config=config,
        metrics={"epoch": 3, "train_loss": 0.5, "validation_loss": None},
    )
    model_file.save(path, saved)

    loaded = model_file.load(path)

    np.testing.assert_array_equal(loaded.params.W, saved.params.W)
    np.testing.assert_array_equal(loaded.params.b, saved.params.b)
    assert (loaded.dataset, loaded.normalize) == ("kmnist", "moment")
    assert loaded.config == config
    assert loaded.metrics == saved.metrics


def test_the_same_model_gives_the_same_bytes_in_whatever_layout(path: Path) -> None:
    model = make()
    model_file.save(path, model)
    first = path.read_bytes()
    model_file.save(path, Model(Params(np.asfortranarray(model.params.W), model.params.b)))

    assert path.read_bytes() == first


def test_numpy_alone_reads_the_file_as_it_is_documented(path: Path) -> None:
    model_file.save(path, make(config=Config()))

    with np.load(path, allow_pickle=False) as arrays:
        found = {name: (arrays[name].dtype.kind, arrays[name].shape) for name in arrays}
        metadata = json.loads(str(arrays["metadata"]))
    assert found == {"W": ("f", (784, 10)), "b": ("f", (10,)), "metadata": ("U", ())}
    fields = ["format", "dataset", "normalize", "config", "metrics", "versions"]
    assert list(metadata) == fields
    assert metadata["format"] == 1


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8"])
def test_w_and_b_alone_are_a_model(path: Path, dtype: str) -> None:
    """Of any float type; the data set is then mnist, the normalisation none."""
    params = make().params
    np.savez_compressed(path, W=params.W.astype(dtype), b=params.b.astype(dtype))

    loaded = model_file.load(path)

    assert loaded.params.W.dtype == loaded.params.b.dtype == np.float32
    np.testing.assert_array_equal(loaded.params.W, params.W.astype(dtype).astype("f4"))
    assert (loaded.dataset, loaded.normalize, loaded.config) == ("mnist", "none", None)


def test_the_good_model_that_the_hostile_ones_are_made_from(path: Path) -> None:
    path.write_bytes(hostile.archive(hostile.GOOD))

    assert model_file.load(path).metrics["train_loss"] == 0.25


@pytest.mark.parametrize("kind", hostile.MODELS)
def test_hostile_files_are_refused_in_one_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("model.npz")
    hostile.MODELS[kind](path)

    with pytest.raises(ModelFileError) as caught:
        model_file.load(path)

    message = str(caught.value)
    print(message)
    assert "model.npz" in message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty zip", "W is missing"),
        ("directory", "no regular file"),
        ("fifo", "no regular file"),
        ("device", "no regular file"),
        ("npy instead of npz", "no .npz"),
        ("member twice", "'W' twice"),
        ("encrypted member", "'W' is encrypted"),
        ("lzma", "compressed in an unknown way"),
        ("pickled W", "neither of floats nor of text"),
        (
            "shape transposed",
            r"W must be floats of shape \(784, 10\), not <f4 of shape \(10, 784\)",
        ),
        ("nan", "b has values that are not finite"),
        ("terabyte header", "holds 31360 bytes, but claims <f4 of shape"),
        ("bomb inside an array", "'W' holds more than it claims"),
        ("bomb that says so", "'W' claims 943718400 bytes"),
        ("bomb beside the arrays", "unknown member, 'c.npy'"),
        ("json 10,000 levels deep", "nested too deeply"),
        ("later format", "format 2, this version reads 1: upgrade mnist-cli"),
        ("unknown data set", "unknown dataset 'cifar-10'"),
        ("unknown normalisation", "unknown normalize 'whiten'"),
        ("escapes in the data set", r"unknown dataset '\\x1b\]0;owned"),
    ],
)
def test_the_line_says_what_is_wrong(path: Path, kind: str, words: str) -> None:
    hostile.MODELS[kind](path)

    with pytest.raises(ModelFileError, match=words):
        model_file.load(path)


def outcome(path: Path) -> Model | str:
    """Return the model at `path`, or the words that refuse it."""
    try:
        return model_file.load(path)
    except ModelFileError as error:
        return str(error)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove or double some bytes, mostly where the structure is."""
    mutant = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        near = rng.choice(
            [rng.randrange(len(mutant)), rng.randrange(300), -rng.randrange(1, 3000)]
        )
        place = near % len(mutant)
        length = rng.choice([1, 1, 2, 4, 50])
        match rng.randrange(5):
            case 0:
                mutant[place] ^= 1 << rng.randrange(8)
            case 1:
                mutant[place : place + length] = rng.randbytes(length)
            case 2:
                del mutant[place : place + length]
            case 3:
                mutant[place:place] = mutant[place : place + length]
            case 4:
                mutant[place : place + length] = rng.choice([b"\xff", b"\x00", b"9"]) * length
    return bytes(mutant)


def mutate_file(good: dict[str, bytes], rng: random.Random) -> bytes:
    """Mutate the archive as a whole, where mostly a checksum tells."""
    return mutate(
        hostile.archive(good, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])), rng
    )


def mutate_member(good: dict[str, bytes], rng: random.Random) -> bytes:
    """Mutate one member, so that the checksums are right."""
    name = rng.choice(list(good))
    return hostile.archive(good | {name: mutate(good[name], rng)})


@pytest.mark.parametrize("change", [mutate_file, mutate_member])
def test_mutants_give_a_model_or_an_error_and_nothing_else(
    path: Path, change: Callable[[dict[str, bytes], random.Random], bytes]
) -> None:
    model_file.save(path, make(config=Config()))
    with zipfile.ZipFile(path) as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    rng = random.Random(6)
    loaded = 0
    for _ in range(1100):
        path.write_bytes(change(good, rng))
        found = outcome(path)
        if isinstance(found, Model):
            loaded += 1
            assert all(np.isfinite(array).all() for array in found.params)
        else:
            assert found.isprintable()
    assert 0 < loaded < 1000


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
FIELD = st.sampled_from([*hostile.METADATA, "seed", "epochs", "learning_rate"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(FIELD, JSON, max_size=3), st.dictionaries(FIELD, JSON), st.booleans())
def test_any_json_as_metadata_gives_a_model_or_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    fields: dict[str, Any],
    config: dict[str, Any],
    with_config: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "model.npz"
    values: dict[str, Any] = {"config": Config().__dict__ | config} if with_config else {}
    hostile.metadata(**values | fields)(path)
    found = outcome(path)
    if isinstance(found, Model):
        assert found.dataset in ("mnist", "fashion-mnist", "kmnist", "synthetic")
    else:
        assert found.isprintable()
