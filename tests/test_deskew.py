"""Deskewing: what it promises about centers, slants and bytes."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_cli.data import loading, synthetic
from mnist_cli.functional import Array
from mnist_cli.inputs.deskew import deskew

images_of_noise = arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(28), st.just(28)))


def digits() -> Array:
    return synthetic.generate("test")[0][:200]


def plain(image: Array) -> Array:
    """Deskew one image by the formulae of the docstring, in Python's own numbers."""
    gray = image.tolist()
    points = [(x, y, gray[y][x]) for x in range(28) for y in range(28)]
    m00, m10, m01, m11, m02 = (
        sum(x**j * y**k * ink for x, y, ink in points)
        for j, k in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2))
    )
    m00 = max(m00, 1)
    slant = (m00 * m11 - m10 * m01) / max(m00 * m02 - m01 * m01, 1)

    def fixed(pixels: float) -> int:
        return math.floor(256 * pixels + 0.5)

    def at(x: int, y: int) -> int:
        return gray[y][x] if 0 <= x < 28 and 0 <= y < 28 else 0

    straight = np.zeros((28, 28), np.uint8)
    for y in range(28):
        row, below = divmod(fixed(m01 / m00) + 256 * y - 3456, 256)
        for x in range(28):
            shear = fixed(slant * (y - 13.5))
            column, right = divmod(fixed(m10 / m00) + shear + 256 * x - 3456, 256)
            upper = at(column, row) * (256 - right) + at(column + 1, row) * right
            lower = at(column, row + 1) * (256 - right) + at(column + 1, row + 1) * right
            straight[y, x] = (upper * (256 - below) + lower * below + 2**15) // 2**16
    return straight


def moments(image: Array) -> tuple[float, float, float]:
    """Return the mean column, the mean row and the slant of the ink."""
    ink = image / image.sum()
    y, x = np.mgrid[:28, :28]
    mean_x, mean_y = (ink * x).sum(), (ink * y).sum()
    x, y = x - mean_x, y - mean_y
    return mean_x, mean_y, (ink * x * y).sum() / (ink * y * y).sum()


def test_plain_loops_give_the_same_bytes() -> None:
    images = digits()[:20]
    assert np.array_equal(deskew(images), [plain(image) for image in images])


@given(images=images_of_noise)
def test_plain_loops_give_the_same_bytes_for_noise(images: Array) -> None:
    assert np.array_equal(deskew(images), [plain(image) for image in images])


def test_ink_ends_up_centered_and_upright() -> None:
    for image in deskew(digits()):
        assert moments(image) == pytest.approx((13.5, 13.5, 0), abs=0.1)


def test_blank_images_stay_blank() -> None:
    assert not deskew(np.zeros((3, 28, 28), np.uint8)).any()


@given(ink=arrays(np.uint8, (16, 16)), down=st.integers(0, 12), right=st.integers(0, 12))
def test_moving_the_ink_by_whole_pixels_changes_nothing(ink: Array, down: int, right: int) -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 6:22, 6:22] = ink
    images[1, down : down + 16, right : right + 16] = ink
    one, other = deskew(images)
    assert np.array_equal(one, other)


def test_deskewing_again_changes_little() -> None:
    once = deskew(digits())
    twice = deskew(once)
    first, second = (
        np.abs(after.astype(float) - before).mean()
        for before, after in ((digits(), once), (once, twice))
    )
    assert second < first / 20


def test_digits_of_a_class_come_closer(real_data: Path) -> None:
    split = loading.load("mnist", "train", real_data)
    images, labels = split.images[:5000], split.labels[:5000]

    def scatter(images: Array) -> float:
        """Return the variance within the classes as a fraction of the whole."""
        x = images.reshape(len(images), -1) / 255
        within = sum(x[labels == c].var(axis=0).sum() * (labels == c).mean() for c in range(10))
        return float(within / x.var(axis=0).sum())

    assert scatter(deskew(images)) < 0.95 * scatter(images)
