"""Gradient directions, against loops that anyone can read, and under symmetries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_cli import inputs
from mnist_cli.functional import Array
from mnist_cli.inputs.directions import directions

images = hnp.arrays(np.uint8, (28, 28), elements=st.integers(0, 255))
few = settings(deadline=None, max_examples=25)


def parts(gx: int, gy: int) -> list[tuple[int, int]]:
    """Return the two directions that a gradient lies between, each with its part."""
    long, short = max(abs(gx), abs(gy)), min(abs(gx), abs(gy))
    vertical, horizontal = (4 if gy > 0 else 12), (0 if gx >= 0 else 8)
    axis = vertical if abs(gy) > abs(gx) else horizontal
    right, down = gx >= 0, gy >= 0
    diagonal = {(True, True): 2, (False, True): 6, (False, False): 10, (True, False): 14}[
        right, down
    ]
    between = (axis + 1) % 16 if (diagonal - axis) % 16 == 2 else (axis - 1) % 16
    along = 35 * long - 84 * short
    even = axis if along > 0 else diagonal
    return [(even, abs(along)), (between, min(91 * short, 65 * (long - short)))]


def by_loops(image: Array) -> Array:
    """Return the tiles (4, 7, 4, 7) as the page on inputs describes them, step by step."""
    frame = np.pad(image, 1, "edge").astype(int).tolist()
    half_cells = np.zeros((16, 14, 14), int)
    for y in range(28):
        for x in range(28):
            above, here, below = (row[x : x + 3] for row in frame[y : y + 3])
            gx = above[2] + 2 * here[2] + below[2] - above[0] - 2 * here[0] - below[0]
            gy = sum(below) + below[1] - sum(above) - above[1]
            for direction, part in parts(gx, gy):
                half_cells[direction, y // 2, x // 2] += part
    tiles = np.zeros((4, 7, 4, 7), np.uint8)
    for k, row, column in np.ndindex(16, 7, 7):
        total = 0
        for i, j in np.ndindex(4, 4):
            y, x = 2 * row + i - 1, 2 * column + j - 1
            if 0 <= y < 14 and 0 <= x < 14:
                total += (1, 3, 3, 1)[i] * (1, 3, 3, 1)[j] * int(half_cells[k, y, x])
        tiles[k // 4, row, k % 4, column] = min(255, math.isqrt(total // 4))
    return tiles.reshape(28, 28)


def maps(image: Array) -> Array:
    """Return the directions of one image as (16, 7, 7)."""
    return directions(image[None])[0].reshape(4, 7, 4, 7).transpose(0, 2, 1, 3).reshape(16, 7, 7)


@few
@given(images)
def test_features_are_those_of_plain_loops(image: Array) -> None:
    np.testing.assert_array_equal(by_loops(image), directions(image[None])[0])


def test_features_of_drawn_digits_are_those_of_plain_loops(digits: tuple[Array, Array]) -> None:
    for image in digits[0][:20]:
        np.testing.assert_array_equal(by_loops(image), directions(image[None])[0])


@few
@given(images)
def test_quarter_turn_permutes_directions_and_places(image: Array) -> None:
    """Right becomes up: direction k becomes k − 4, wherever no two directions are as near."""
    turned = np.rot90(maps(image), axes=(1, 2))[(np.arange(16) + 4) % 16]
    np.testing.assert_array_equal(turned, maps(np.rot90(image)))


@few
@given(images)
def test_inverted_image_turns_every_direction_by_half_a_circle(image: Array) -> None:
    np.testing.assert_array_equal(maps(image)[(np.arange(16) + 8) % 16], maps(255 - image))


@few
@given(hnp.arrays(np.uint8, (10, 10), elements=st.integers(0, 255)), st.integers(0, 2))
def test_shift_by_a_whole_cell_moves_the_places(ink: Array, cells: int) -> None:
    image = np.zeros((28, 28), np.uint8)
    image[6:16, 6:16] = ink
    moved = np.roll(image, 4 * cells, axis=1)
    np.testing.assert_array_equal(np.roll(maps(image), cells, axis=2), maps(moved))


@pytest.mark.parametrize("gray", [0, 255])
def test_image_without_an_edge_gives_zeros(gray: int) -> None:
    assert not directions(np.full((1, 28, 28), gray, np.uint8)).any()


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("cores", [1, 2])
def test_neither_blocks_nor_threads_change_a_byte(
    digits: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch, block: int, cores: int
) -> None:
    some = digits[0][:300]
    expected = inputs.apply(some, "deskew", "directions").tobytes()
    monkeypatch.setattr(inputs, "BLOCK", block)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert expected == inputs.apply(some, "deskew", "directions").tobytes()
