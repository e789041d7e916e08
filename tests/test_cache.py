"""The cache of the training inputs: made once, checked, and made again when in doubt."""

from pathlib import Path

import numpy as np
import pytest

from mnist_cli import inputs
from mnist_cli.config import Config
from mnist_cli.data import cache, synthetic
from mnist_cli.functional import Array

DESKEW = Config(normalize="deskew")
NAME = f"train-images.deskew-pixels-v{inputs.VERSION}.cache"


@pytest.fixture
def images() -> Array:
    return synthetic.generate("test")[0][:100]


@pytest.mark.parametrize(
    ("normalize", "features"),
    [("deskew", "pixels"), ("none", "directions"), ("deskew", "directions")],
)
def test_cache_is_made_once_and_then_read(
    tmp_path: Path, images: Array, normalize: str, features: str
) -> None:
    config = Config(normalize=normalize, features=features)
    counts: list[int] = []

    fresh, kept = (cache.cached(images, config, tmp_path, counts.append) for _ in range(2))

    (file,) = tmp_path.iterdir()
    assert file.name == f"train-images.{normalize}-{features}-v{inputs.VERSION}.cache"
    assert isinstance(kept, np.memmap)
    assert np.array_equal(inputs.apply(images, normalize, features), fresh)
    assert np.array_equal(fresh, kept)
    assert sum(counts) == len(images)  # computed once


def test_plain_pixels_need_no_cache(tmp_path: Path, images: Array) -> None:
    assert cache.cached(images, Config(), tmp_path) is images
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, 40, 64, -1])
def test_damaged_cache_is_made_again(tmp_path: Path, images: Array, place: int) -> None:
    """A changed byte in either digest, or in the first or last pixel, is noticed."""
    good = cache.cached(images, DESKEW, tmp_path)
    original = (tmp_path / NAME).read_bytes()
    damaged = bytearray(original)
    damaged[place] ^= 1
    (tmp_path / NAME).write_bytes(damaged)
    assert np.array_equal(good, cache.cached(images, DESKEW, tmp_path))
    assert original == (tmp_path / NAME).read_bytes()


@pytest.mark.parametrize("size", [0, 63, 64, 1000])
def test_truncated_cache_is_made_again(tmp_path: Path, images: Array, size: int) -> None:
    good = cache.cached(images, DESKEW, tmp_path)
    with (tmp_path / NAME).open("r+b") as file:
        file.truncate(size)
    assert np.array_equal(good, cache.cached(images, DESKEW, tmp_path))
    assert (tmp_path / NAME).stat().st_size == 64 + images.size


def test_cache_of_other_images_is_made_again(tmp_path: Path, images: Array) -> None:
    cache.cached(images[::-1], DESKEW, tmp_path)
    expected = inputs.apply(images, "deskew", "pixels")
    assert np.array_equal(expected, cache.cached(images, DESKEW, tmp_path))


def test_renamed_cache_of_other_stages_is_made_again(tmp_path: Path, images: Array) -> None:
    cache.cached(images, Config(features="directions"), tmp_path)
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / NAME)
    expected = inputs.apply(images, "deskew", "pixels")
    assert np.array_equal(expected, cache.cached(images, DESKEW, tmp_path))


def test_directory_of_the_same_name_is_left_alone(tmp_path: Path, images: Array) -> None:
    (tmp_path / NAME).mkdir()
    expected = inputs.apply(images, "deskew", "pixels")
    assert np.array_equal(expected, cache.cached(images, DESKEW, tmp_path))
    assert (tmp_path / NAME).is_dir()


def test_read_only_directory_gets_no_cache(tmp_path: Path, images: Array) -> None:
    expected = inputs.apply(images, "deskew", "pixels")
    assert np.array_equal(expected, cache.cached(images, DESKEW, tmp_path / "nowhere"))
    tmp_path.chmod(0o500)
    try:
        assert np.array_equal(expected, cache.cached(images, DESKEW, tmp_path))
        assert not list(tmp_path.iterdir())  # not even by root
    finally:
        tmp_path.chmod(0o700)
