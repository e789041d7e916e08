import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mnist_cli.data import cache, loading, synthetic
from mnist_cli.inputs import normalize
from mnist_cli.inputs.normalize import Images

METHODS = ["deskew", "moment"]
any_images = arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(28), st.just(28)))
# A figure like a 2 or a 5: points in a square of side 1 about the origin, (x, y), y downwards.
ZIGZAG = np.array([(-0.5, -0.5), (0.5, -0.4), (0.3, 0), (-0.5, 0.1), (-0.4, 0.5), (0.5, 0.5)])


def draw(points: NDArray[np.float64], width: float = 1.5) -> Images:
    """Draw a line through `points` (P, 2), in pixels from the middle, as images (1, 28, 28)."""
    y, x = np.mgrid[:28, :28] - 13.5
    nearest = np.full((28, 28), np.inf)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx**2 + dy**2), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return np.rint(255 * np.clip(width + 0.5 - nearest, 0, 1)).astype(np.uint8)[None]


def distance(a: Images, b: Images) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def moments(image: NDArray[np.uint8]) -> dict[str, float]:
    ink = image / image.sum()
    y, x = np.mgrid[:28, :28]
    mean_x, mean_y = float((ink * x).sum()), float((ink * y).sum())
    x, y = x - mean_x, y - mean_y
    central = {"xx": (ink * x * x).sum(), "xy": (ink * x * y).sum(), "yy": (ink * y * y).sum()}
    return {"x": mean_x, "y": mean_y} | {name: float(value) for name, value in central.items()}


def digits() -> Images:
    return synthetic.generate("test")[0][:300]


def test_none_costs_nothing() -> None:
    images = digits()
    assert normalize.normalize(images, "none") is images


@pytest.mark.parametrize("method", METHODS)
@given(images=any_images)
def test_any_images_give_images_and_each_is_treated_alone(method: str, images: Images) -> None:
    batch = normalize.normalize(images, method)
    assert batch.shape == images.shape
    assert batch.dtype == np.uint8
    singly = [normalize.normalize(images[i : i + 1], method) for i in range(len(images))]
    assert np.array_equal(np.concatenate(singly), batch)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_leave_no_trace(method: str) -> None:
    """The images of a batch longer than a block come out as one by one; no input is changed."""
    images = digits()
    before = images.copy()
    images.flags.writeable = False
    batch = normalize.normalize(images, method)
    singly = [normalize.normalize(image[None], method) for image in images]
    assert len(images) > normalize._BLOCK
    assert np.array_equal(np.concatenate(singly), batch)
    assert np.array_equal(images, before)
    assert len(normalize.normalize(images[:0], method)) == 0


@pytest.mark.parametrize("method", METHODS)
@given(row=st.integers(0, 27), column=st.integers(0, 27), level=st.integers(0, 255))
def test_blank_and_single_pixel_images_stay(
    method: str, row: int, column: int, level: int
) -> None:
    images = np.concatenate([np.zeros((2, 28, 28), np.uint8), draw(16 * ZIGZAG)])
    images[1, row, column] = level
    assert np.array_equal(normalize.normalize(images, method)[:2], images[:2])


@pytest.mark.parametrize("method", METHODS)
@given(ink=arrays(np.uint8, (16, 16)), down=st.integers(0, 12), right=st.integers(0, 12))
def test_moving_the_ink_by_whole_pixels_changes_nothing(
    method: str, ink: NDArray[np.uint8], down: int, right: int
) -> None:
    if np.count_nonzero(ink) < 2:
        return
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 6:22, 6:22] = ink
    images[1, down : down + 16, right : right + 16] = ink
    one, other = normalize.normalize(images, method)
    assert np.array_equal(one, other)


def test_deskew_centres_and_straightens() -> None:
    for image in normalize.normalize(digits(), "deskew"):
        after = moments(image)
        assert after["x"] == pytest.approx(13.5, abs=0.2)
        assert after["y"] == pytest.approx(13.5, abs=0.2)
        assert after["xy"] / after["yy"] == pytest.approx(0, abs=0.05)


def test_moment_gives_all_images_the_same_spread_and_ink() -> None:
    """On the average nearly the constants; from image to image, far less different than before.

    The vertical spread of the synthetic digits hardly differs to begin with.
    """
    images = digits()
    straight = normalize.normalize(images, "moment")
    before, after = (
        {
            name: np.array([moments(i)[name] for i in stage])
            for name in ("x", "y", "xx", "xy", "yy")
        }
        for stage in (images, straight)
    )
    targets = {"xx": normalize.VARIANCE_X, "xy": 0, "yy": normalize.VARIANCE_Y}
    for name, target in targets.items():
        assert after[name].mean() == pytest.approx(target, abs=3), name
    assert after["x"] == pytest.approx(np.full(len(images), 13.5), abs=1)
    assert after["y"] == pytest.approx(np.full(len(images), 13.5), abs=1.5)
    assert after["xx"].std() < before["xx"].std() / 2
    assert after["xy"].std() < before["xy"].std() / 3
    ink = straight.mean(axis=(1, 2)) / 255
    assert ink == pytest.approx(np.full(len(ink), normalize.MEAN_INK), abs=0.02)


def test_moment_makes_both_sides_of_the_centre_alike() -> None:
    """A wedge, thick at the bottom and the right, gets two arms and two halves more alike."""
    wedge = np.zeros((1, 28, 28), np.uint8)
    wedge[0, 5:23, 13] = 255
    for row in range(5, 23):
        reach = (row - 3) // 4
        wedge[0, row, 13 - reach : 14 + 2 * reach] = 255
    one, other = ((normalize.normalize(i, "moment")[0] / 255) for i in (wedge, wedge[:, ::-1]))
    upper, lower = one[6:11].sum(axis=1).mean(), one[17:22].sum(axis=1).mean()
    assert wedge[0, 7].sum() * 3 < wedge[0, 21].sum()
    assert lower < 2 * upper
    assert np.abs(one - other[::-1]).mean() < 0.02


@given(
    slant=st.floats(-0.5, 0.5),
    wide=st.floats(9, 17),
    high=st.floats(11, 19),
    x=st.floats(-2, 2),
    y=st.floats(-2, 2),
)
@settings(max_examples=50)
def test_shearing_scaling_and_moving_a_stroke_changes_little(
    slant: float, wide: float, high: float, x: float, y: float
) -> None:
    shape = np.array([[wide, 0], [slant * high, high]])
    plain, changed = draw(16 * ZIGZAG), draw(ZIGZAG @ shape + (x, y))
    other = draw(16 * ZIGZAG * (-1, 1))
    one, same, another = (normalize.normalize(i, "moment") for i in (plain, changed, other))
    assert distance(one, same) < distance(one, another) / 3


@pytest.mark.parametrize(("method", "share"), [("deskew", 0.02), ("moment", 0.35)])
def test_normalising_again_changes_little(method: str, share: float) -> None:
    images = digits()
    once = normalize.normalize(images, method)
    assert distance(once, normalize.normalize(once, method)) < share * distance(images, once)


def test_moment_does_not_mind_the_contrast() -> None:
    images = digits()
    bright, faint = (normalize.normalize(i, "moment") for i in (images, images // 3))
    assert distance(bright, faint) < 6


def test_the_cache_is_made_once_and_then_read(tmp_path: Path) -> None:
    images = digits()
    fresh = cache.cached(images, "moment", tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    kept = cache.cached(images, "moment", tmp_path)
    assert isinstance(kept, np.memmap)
    assert file.stat().st_mtime_ns == written
    assert np.array_equal(kept, fresh)
    assert np.array_equal(fresh, normalize.normalize(images, "moment"))


def test_none_makes_no_cache(tmp_path: Path) -> None:
    images = digits()
    assert cache.cached(images, "none", tmp_path) is images
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, 40, 64, -1])
def test_a_damaged_cache_is_made_again(tmp_path: Path, place: int) -> None:
    """A changed byte in either digest, or in the first or last pixel, is noticed."""
    images = digits()
    good = cache.cached(images, "deskew", tmp_path)
    (file,) = tmp_path.iterdir()
    original = file.read_bytes()
    damaged = bytearray(original)
    damaged[place] ^= 1
    file.write_bytes(damaged)
    assert np.array_equal(cache.cached(images, "deskew", tmp_path), good)
    assert file.read_bytes() == original


@pytest.mark.parametrize("size", [0, 63, 64, 1000])
def test_a_truncated_cache_is_made_again(tmp_path: Path, size: int) -> None:
    images = digits()
    good = cache.cached(images, "deskew", tmp_path)
    (file,) = tmp_path.iterdir()
    os.truncate(file, size)
    assert np.array_equal(cache.cached(images, "deskew", tmp_path), good)
    assert file.stat().st_size == 64 + images.size


def test_a_cache_of_other_images_is_made_again(tmp_path: Path) -> None:
    images = digits()
    cache.cached(images[::-1], "moment", tmp_path)
    assert np.array_equal(
        cache.cached(images, "moment", tmp_path), normalize.normalize(images, "moment")
    )


@pytest.mark.parametrize(("method", "version"), [("moment", 1), ("deskew", 2)])
def test_a_cache_of_another_algorithm_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, version: int
) -> None:
    """Even where it bears the right name."""
    images = digits()
    monkeypatch.setattr(normalize, "VERSION", 1)
    with monkeypatch.context() as before:
        before.setattr(normalize, "normalize", lambda images, method: 255 - images)
        cache.cached(images, "deskew", tmp_path)
    (old,) = tmp_path.iterdir()
    monkeypatch.setattr(normalize, "VERSION", version)
    old.rename(tmp_path / f"train-images.{method}-v{version}.cache")
    expected = normalize.normalize(images, method)
    assert np.array_equal(cache.cached(images, method, tmp_path), expected)


def occupy_by_directory(path: Path) -> None:
    path.mkdir()


def occupy_by_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("occupy", [occupy_by_directory, occupy_by_pipe])
def test_what_is_no_file_is_left_alone(tmp_path: Path, occupy: Any) -> None:
    images = digits()
    path = tmp_path / f"train-images.deskew-v{normalize.VERSION}.cache"
    occupy(path)
    expected = normalize.normalize(images, "deskew")
    assert np.array_equal(cache.cached(images, "deskew", tmp_path), expected)
    assert not path.is_file()


def test_where_no_cache_can_be_written_there_is_none(tmp_path: Path) -> None:
    images = digits()
    expected = normalize.normalize(images, "deskew")
    assert np.array_equal(cache.cached(images, "deskew", tmp_path / "nowhere"), expected)
    tmp_path.chmod(0o500)
    try:
        assert np.array_equal(cache.cached(images, "deskew", tmp_path), expected)
        assert not list(tmp_path.iterdir())  # not even by root
    finally:
        tmp_path.chmod(0o700)


def test_digits_of_a_class_come_closer(real_data: Path) -> None:
    """The scatter within the classes, as a share of the whole, falls from none to moment."""
    split = loading.load("mnist", "train", real_data)
    images, labels = split.images[:5000], split.labels[:5000]
    shares = []
    for method in ("none", *METHODS):
        x = normalize.normalize(images, method).reshape(5000, -1) / 255
        within = sum(x[labels == c].var(axis=0).sum() * (labels == c).mean() for c in range(10))
        shares.append(float(within / x.var(axis=0).sum()))
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.65
