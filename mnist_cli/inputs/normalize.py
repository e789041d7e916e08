"""The input stage: straighten every image by its own moments before the network sees it."""

from typing import Final

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Fixed = npt.NDArray[np.int32]

VERSION: Final = 1  # of the algorithm: raise it with every change that changes a byte

# Chosen by cross-validation on the training images; docs/normalization.md has the figures.
VARIANCE_Y: Final = 6.0**2  # that `moment` gives the ink, in pixels²
VARIANCE_X: Final = 4.0**2
LEAST_VARIANCE: Final = 2.0**2  # a thinner stroke (a 1, a dash) is magnified no further
MEAN_INK: Final = 1 / 4  # that `moment` gives every image, as a share of full white
EDGE: Final = 1 / 3  # the ramp of the soft threshold goes so far below and above it

_ONE: Final = 1 << 16  # a pixel, in the unit of the positions
_BLOCK: Final = 256  # images at a time, so that the working arrays stay in the cache
_GRID: Final = np.arange(28, dtype=np.float32)
_OFFSET: Final = np.arange(28) - 13.5
_THRESHOLDS: Final = 255 * np.geomspace(0.01, 1.5, 128)
# What the soft threshold makes of each grey value: (thresholds, 256), uint8.
_RAMPS: Final = np.rint(
    255 * np.clip((np.arange(256) / _THRESHOLDS[:, None] - 1) / (2 * EDGE) + 0.5, 0, 1)
).astype(np.uint8)


def normalize(images: Images, method: str) -> Images:
    """Give all images the same centre and slant, and with `moment` the same spread and ink.

    `images` is uint8 (N, 28, 28), and so is the result; with `none` it is the very same array.
    An image without extent (blank, or a single pixel) stays as it is. Each image is treated
    alone: what else is in the batch changes none of its bytes.

    Sources: M.-K. Hu (1962) for the moments; LeCun et al. (1998) for the deskewing; R. G. Casey
    (1970) and C.-L. Liu et al. (2004, 2005) for the moment normalisation. The formulae and the
    reasons of the constants are in docs/normalization.md.
    """
    if method == "none":
        return images
    result = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        rows, columns, has_extent = _sources(block, method)
        straight = _interpolate(block, rows, columns)
        if method == "moment":
            straight = _equalise_ink(_blur(straight))
        result[start : start + _BLOCK] = np.where(has_extent[:, None, None], straight, block)
    return result


def _sources(images: Images, method: str) -> tuple[Fixed, Fixed, npt.NDArray[np.bool_]]:
    """Find where each output pixel comes from: its row (N, 28) and its column (N, 28, 28).

    Tell besides which images have an extent at all, (N,). The sums are integers below 2**24 in
    float32 and below 2**53 in float64, hence exact, in whatever order a BLAS adds them up.
    """
    pixels = images.astype(np.float32)
    powers = np.stack([_GRID**0, _GRID, _GRID**2], axis=1)
    sums = (pixels.reshape(-1, 28) @ powers).reshape(-1, 28, 3).astype(np.float64)
    ink, ink_x, ink_xx = np.moveaxis(sums, 2, 0)  # of each row: (N, 28)
    total = np.maximum(ink.sum(axis=1), 1)  # (N,)
    mean_x, mean_y = ink_x.sum(axis=1) / total, ink @ _GRID / total
    y = _GRID - mean_y[:, None]  # (N, 28)
    var_y = (ink * y**2).sum(axis=1) / total
    slant = (ink_x * y).sum(axis=1) / total / np.maximum(var_y, 1e-3)
    axis = mean_x[:, None] + slant[:, None] * y  # where the slanted axis cuts each row: (N, 28)
    spread = ink_xx - 2 * axis * ink_x + axis**2 * ink  # Σ ink (x - axis)² of each row: (N, 28)
    var_x = spread.sum(axis=1) / total
    has_extent = var_x + var_y > 1e-3

    if method == "deskew":
        dy = np.broadcast_to(_OFFSET, ink.shape)
        dx = np.broadcast_to(_ONE * _OFFSET, images.shape)
    else:
        x = _GRID - _fixed(axis)[:, :, None] / np.float32(_ONE)  # (N, 28, 28)
        x *= np.abs(x)
        x *= pixels
        skew_x = x.reshape(-1, 784).sum(axis=1, dtype=np.float64) / total
        skew_y = (ink * y * np.abs(y)).sum(axis=1) / total
        dy = _stretch(var_y, skew_y, VARIANCE_Y)
        widths = _widths(ink, spread, var_x, var_y, y, dy)
        dx = (_ONE * widths.astype(np.float32))[:, :, None] * _stretch(
            var_x, skew_x, VARIANCE_X
        ).astype(np.float32)[:, None, :]
    rows = _fixed(mean_y[:, None] + dy)
    columns = dx.astype(np.int32)
    columns += _fixed(mean_x[:, None] + slant[:, None] * dy)[:, :, None]
    return rows, columns, has_extent


def _fixed(position: Floats) -> Fixed:
    """Count in fractions of a pixel, so that a move by whole pixels is exact."""
    return np.rint(_ONE * position).astype(np.int32)


def _stretch(var: Floats, skew: Floats, target: float) -> Floats:
    """Map output offsets to input offsets so that both sides of the centre get the same spread.

    The quadratic curve (N, 28) through the centre that takes two target deviations to two
    deviations of the ink on that side, before and after. (Liu's bi-moment normalisation.)
    """
    before = np.sqrt(np.maximum(var - skew, LEAST_VARIANCE))[:, None]
    after = np.sqrt(np.maximum(var + skew, LEAST_VARIANCE))[:, None]
    u = _OFFSET / (2 * np.sqrt(target))
    stretched: Floats = (after + before) * u + (after - before) * np.clip(u, -1, 1) ** 2
    return stretched


def _widths(
    ink: Floats, spread: Floats, var_x: Floats, var_y: Floats, y: Floats, dy: Floats
) -> Floats:
    """Return the width at each output row as a share of the whole image's width, (N, 28).

    It goes linearly from the width of the upper to that of the lower part of the image.
    """
    reach = 2 * np.sqrt(np.maximum(var_y, LEAST_VARIANCE))[:, None]
    whole = np.maximum(var_x, LEAST_VARIANCE)

    def width(weight: Floats) -> Floats:
        """Return the width of the rows that `weight` (N, 28) picks, as such a share, (N, 1)."""
        part = (spread * weight).sum(axis=1) / np.maximum((ink * weight).sum(axis=1), 1e-6)
        return np.sqrt(np.maximum(part, LEAST_VARIANCE) / whole)[:, None]

    upper, share = np.clip(0.5 - y / reach, 0, 1), np.clip(0.5 - dy / reach, 0, 1)
    widths: Floats = width(upper) * share + width(1 - upper) * (1 - share)
    return widths


def _interpolate(images: Images, rows: Fixed, columns: Fixed) -> Images:
    """Look up each pixel between its four neighbours; outside the frame there is no ink.

    A whole output row comes from the same height, so rows are blended first and pixels within
    the blended row after: the same as bilinear interpolation, at half the cost.
    """
    padded = np.zeros((len(images), 30, 30), np.float32)
    padded[:, 1:-1, 1:-1] = images
    lines = padded.reshape(-1, 30)
    index, weight = _neighbour(rows)
    line = lines.take(index, axis=0)  # (N, 28, 30)
    line += weight[:, :, None] * (lines.take(index + 1, axis=0) - line)
    index, weight = _neighbour(columns.reshape(-1, 28))
    pixels = line.take(index)
    index += 1
    pixels += weight * (line.take(index) - pixels)
    pixels += 0.5
    return pixels.astype(np.uint8).reshape(images.shape)


def _neighbour(position: Fixed) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Split positions (M, 28), each row in its own frame padded to 30, in index and remainder."""
    position = np.clip(position + _ONE, 0, 29 * _ONE - 1)
    weight = (position & (_ONE - 1)) * np.float32(1 / _ONE)
    position >>= _ONE.bit_length() - 1
    return position + 30 * np.arange(len(position))[:, None], weight


def _blur(images: Images) -> Images:
    """Blur by the binomial kernel 1 2 1 in both directions; outside the frame there is no ink."""
    padded = np.zeros((len(images), 30, 30), np.uint16)
    padded[:, 1:-1, 1:-1] = images
    padded = padded[:, :-1] + padded[:, 1:]
    padded = padded[:, :-1] + padded[:, 1:]
    padded = padded[:, :, :-1] + padded[:, :, 1:]
    padded = padded[:, :, :-1] + padded[:, :, 1:]
    return (padded + 8 >> 4).astype(np.uint8)


def _equalise_ink(images: Images) -> Images:
    """Cut each image at a soft threshold of its own, such that all have the same mean ink."""
    n = len(images)
    values = images.reshape(n, 784) + (256 * np.arange(n))[:, None]
    counts = np.bincount(values.ravel(), minlength=256 * n).reshape(n, 256)
    # Integers below 2**24: exact in float32.
    ink = counts.astype(np.float32) @ _RAMPS.T.astype(np.float32)  # (N, thresholds)
    best = np.abs(ink - np.float32(MEAN_INK * 255 * 784)).argmin(axis=1)
    cut: Images = _RAMPS.ravel().take(images + (256 * best)[:, None, None])
    return cut
