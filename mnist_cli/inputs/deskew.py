"""Straighten a digit: move its center of mass to the middle of the frame, and remove its slant."""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mnist_cli.functional import Array

UNIT: Final = 256  # positions are counted in 1/256 of a pixel
GRID: Final = np.arange(28)
MIDDLE: Final = 13.5  # of the frame, in pixels from the middle of the first row and column


def deskew(images: Array) -> Array:
    """Shift each image's center of mass to the middle, and shear it until it stands upright.

    images (N, 28, 28) uint8 → (N, 28, 28) uint8; each image alone decides what becomes of it.
    With the column x and the row y counted from 0, M_jk = Σ x^j y^k I(x, y) and M_00 at least 1,

        x̄ = M_10 / M_00,  ȳ = M_01 / M_00,
        slant a = (M_00 M_11 − M_10 M_01) / max(M_00 M_02 − M_01², 1)

    and v = y − 13.5, the pixel (x, y) of the result is what the image has at
    (x̄ + a v + x − 13.5, ȳ + v), interpolated between four pixels; outside the frame there is no
    ink (LeCun et al. 1998). Any program that rounds as this one does gets the same bytes: x̄, ȳ
    and a v each to a 256th of a pixel, and the interpolated value to an integer, halves up; all
    else are sums and products of integers.
    """
    mean_x, mean_y, slant = _moments(images)
    corner = round(UNIT * MIDDLE)
    columns = _fixed(mean_x) + _fixed(slant * (GRID - MIDDLE)) - corner  # (N, 28), one a row
    rows = _shift(images.reshape(-1, 784), _fixed(mean_y[:, 0]) - corner, step=28)
    pixels = _shift(rows.reshape(-1, 28), columns.ravel(), step=1)
    pixels *= 1 / UNIT**2
    pixels += 0.5
    return pixels.astype(np.uint8).reshape(images.shape)


def _moments(images: Array) -> tuple[Array, Array, Array]:
    """Return mean column, mean row and slant of each image: float64, (N, 1) each.

    All sums are integers that their floats hold exactly, in whatever order they are added up.
    """
    powers = np.stack([GRID**0, GRID], axis=1).astype(np.float32)
    sums = images.reshape(-1, 28).astype(np.float32) @ powers
    ink, ink_x = sums.astype(np.float64).reshape(-1, 28, 2).transpose(2, 0, 1)  # of each row
    powers = np.stack([GRID**0, GRID, GRID**2], axis=1).astype(np.float64)
    m00, m01, m02 = np.split(ink @ powers, 3, axis=1)
    m10, m11, _ = np.split(ink_x @ powers, 3, axis=1)
    m00 = np.maximum(m00, 1)
    slant = (m00 * m11 - m10 * m01) / np.maximum(m00 * m02 - m01**2, 1)
    return m10 / m00, m01 / m00, slant


def _fixed(position: Array) -> Array:
    return np.floor(UNIT * position + 0.5).astype(np.int32)


def _shift(lines: Array, position: Array, step: int) -> Array:
    """Return UNIT times what is in each line `position` farther on, interpolated linearly.

    lines (M, 28 · step), each 28 pixels of `step` numbers; position (M,) in pixels, fixed point
    → (M, 28 · step) float32, whose numbers are integers.
    """
    padded = np.zeros((len(lines), 29 + 28 + 29, step), np.float32)  # no ink outside the frame
    padded[:, 29:-29] = lines.reshape(-1, 28, step)
    start = np.clip(position // UNIT, -29, 28) + 29 + 86 * np.arange(len(lines))
    near = sliding_window_view(padded.ravel(), 29 * step)[start * step]
    weight = (position % UNIT).astype(np.float32)[:, None]
    shifted: Array = near[:, step:] - near[:, :-step]
    shifted *= weight
    near *= UNIT
    shifted += near[:, :-step]
    return shifted
