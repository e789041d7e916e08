import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli.config import FIELDS, Config
from mnist_cli.errors import ModelFileError
from mnist_cli.network import Params
from mnist_cli.storage import model_file
from mnist_cli.storage.model_file import Model
from tests import hostile


def make(**fields: Any) -> Model:
    rng = np.random.default_rng(0)
    params = Params(rng.normal(size=(784, 10)).astype("f4"), rng.normal(size=10).astype("f4"))
    return Model(params, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.npz"


@pytest.mark.parametrize("kind", [str, Path])
def test_loaded_model_is_the_saved_one(path: Path, kind: type[str] | type[Path]) -> None:
    saved = make(
        dataset="kmnist",
        normalize="deskew",
        features="directions",
        config=Config(seed=7, learning_rate=0.25),
        metrics={"epoch": 3, "train_loss": 0.5, "validation_loss": None},
    )

    model_file.save(kind(path), saved)
    loaded = model_file.load(kind(path))

    np.testing.assert_array_equal(loaded.params.W, saved.params.W)
    np.testing.assert_array_equal(loaded.params.b, saved.params.b)
    for name in ("dataset", "normalize", "features", "config", "metrics"):
        assert getattr(saved, name) == getattr(loaded, name)


def test_memory_layout_does_not_change_the_bytes(path: Path) -> None:
    model = make()
    model_file.save(path, model)
    expected = path.read_bytes()

    model_file.save(path, Model(Params(np.asfortranarray(model.params.W), model.params.b)))

    assert expected == path.read_bytes()


def test_numpy_reads_the_documented_format(path: Path) -> None:
    model_file.save(path, make(config=Config()))

    with np.load(path, allow_pickle=False) as arrays:
        found = {name: (arrays[name].dtype.str, arrays[name].shape) for name in ("W", "b")}
        metadata = json.loads(str(arrays["metadata"]))
    assert {"W": ("<f4", (784, 10)), "b": ("<f4", (10,))} == found
    keys = ["format", "dataset", "normalize", "features", "config", "metrics", "versions"]
    assert keys == list(metadata)
    assert metadata["format"] == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_bare_weights_are_a_model(path: Path, save: Any, dtype: str) -> None:
    params = make().params
    save(path, W=params.W.astype(dtype), b=params.b.astype(dtype))

    loaded = model_file.load(path)

    assert loaded.params.W.dtype == loaded.params.b.dtype == np.float32
    np.testing.assert_array_equal(params.W, loaded.params.W)
    assert Model(loaded.params) == loaded


@pytest.mark.parametrize(
    "content",
    [
        hostile.archive(hostile.GOOD),
        hostile.forged(*hostile.BARE),
        hostile.compressed(hostile.GOOD, zipfile.ZIP_DEFLATED),
        hostile.text('{"format": 1}'),
    ],
)
def test_good_file_that_hostile_ones_are_made_of_is_loaded(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    model = model_file.load(path)

    assert model.params.W[0, 0] == 0.5
    assert (model.dataset, model.normalize, model.features) == ("mnist", "none", "pixels")


@pytest.mark.parametrize("kind", hostile.MODELS)
def test_hostile_file_is_refused_in_one_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile.put(kind, Path("model.npz"))

    with pytest.raises(ModelFileError, match=hostile.MODELS[kind][1]) as caught:
        model_file.load("model.npz")

    message = str(caught.value)
    assert "model.npz" in message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250
    assert not Path("harm").exists()


def outcome(path: Path) -> Model | str:
    """Return the model at `path`, or the words that refuse it."""
    try:
        return model_file.load(path)
    except ModelFileError as error:
        return str(error)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, None])
def test_mutant_gives_a_model_or_an_error(path: Path, method: int | None) -> None:
    """Mutated as a whole, where mostly a checksum tells, or in a member before it is packed."""
    model_file.save(path, make(config=Config()))
    with zipfile.ZipFile(path) as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    rng = random.Random(6)
    loaded = 0
    for _ in range(700):
        if method is None:
            path.write_bytes(hostile.mutant(good, rng))
        else:
            path.write_bytes(hostile.mutate(hostile.compressed(good, method), rng))
        found = outcome(path)
        if isinstance(found, Model):
            loaded += 1
            assert all(np.isfinite(array).all() for array in found.params)
        else:
            assert found.isprintable()
    assert (method is None) <= loaded < 600


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
CONFIG = st.dictionaries(st.sampled_from(list(FIELDS)), JSON)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(list(hostile.METADATA)), JSON | CONFIG, max_size=3))
def test_any_json_as_metadata_gives_a_model_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "model.npz"
    path.write_bytes(hostile.metadata(**fields))

    found = outcome(path)

    assert found.isprintable() if isinstance(found, str) else isinstance(found.metrics, dict)
