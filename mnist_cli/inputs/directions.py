"""Gradient directions: how much edge runs in each of 16 directions at each of 7 × 7 places."""

from typing import Final

import numpy as np

from mnist_cli.functional import Array

# Which of the directions a gradient lies between, by gx < 0, gy < 0, |gy| > |gx|: the axis, the
# diagonal, and the odd direction between them. Direction k points k/16 of a circle from gx to gy.
AXIS: Final = np.array([0, 8, 0, 8, 4, 4, 12, 12])
DIAGONAL: Final = np.array([2, 6, 14, 10, 2, 6, 14, 10])
BETWEEN: Final = np.array([1, 7, 15, 9, 3, 5, 13, 11])
WINDOW: Final = (1, 3, 3, 1)  # of a place, over half cells of 2 × 2 pixels
SCALE: Final = 1 / 4


def directions(images: Array) -> Array:
    """Return each image's gradient directions, as an image of 4 × 4 tiles of 7 × 7 places.

    images (N, 28, 28) uint8 → (N, 28, 28) uint8; each image alone decides its features, a blank
    one gets zeros. Tile k, at row k // 4 and column k % 4, shows direction k.

    1. Gradient: gx and gy are Sobel's; beyond the frame the image goes on as at its edge.
    2. Direction: with long and short the larger and smaller of |gx|, |gy|, the gradient is taken
       apart into its two neighbors among 16 directions, the parallelogram of Liu et al. (2004):
       t = 35 long − 84 short is the part along the axis, or −t that along the diagonal, and
       min(91 short, 65 (long − short)) that along the direction between them. (5/12 stands for
       tan 22.5°, 7/5 for √2, so that all are integers.)
    3. Place: the parts are summed up over half cells of 2 × 2 pixels, and those over windows of
       4 × 4 half cells, weighted 1 3 3 1 in rows and in columns, one every other half cell.
    4. The root of each sum s: min(255, floor(√(s · SCALE))).
    """
    gx, gy = _sobel(images)
    pixel = np.flatnonzero(gx | gy)
    gx, gy = gx.take(pixel).astype(np.int32), gy.take(pixel).astype(np.int32)
    across, down = np.abs(gx), np.abs(gy)
    octant = (gx < 0) + 2 * (gy < 0) + 4 * (down > across)
    long, short = np.maximum(across, down), np.minimum(across, down)
    along = 35 * long - 84 * short
    even = np.where(along > 0, AXIS[octant], DIAGONAL[octant])
    between = np.minimum(91 * short, 65 * (long - short))
    image, place = np.divmod(pixel, 784)
    cell = image * (16 * 196) + HALF_CELL[place]
    bins = np.concatenate([cell + 196 * even, cell + 196 * BETWEEN[octant]])
    parts = np.concatenate([np.abs(along), between])
    sums = np.bincount(bins, parts, minlength=len(images) * 16 * 196)
    windows = sums.reshape(-1, 196).astype(np.float32) @ WINDOWS  # integers below 2**24
    root = np.sqrt(windows * np.float32(SCALE))
    features = np.minimum(root, 255).astype(np.uint8)
    tiles: Array = features.reshape(-1, 4, 4, 7, 7).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(images.shape)


def _sobel(images: Array) -> tuple[Array, Array]:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), "edge").astype(np.int16)
    x = padded[:, :, 2:] - padded[:, :, :-2]
    y = padded[:, 2:] - padded[:, :-2]
    return (
        x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:],
        y[:, :, :-2] + 2 * y[:, :, 1:-1] + y[:, :, 2:],
    )


def _windows() -> Array:
    """Return the matrix that sums half cells (196) to places (49)."""
    one = np.zeros((16, 7), np.float32)
    for place in range(7):
        one[2 * place : 2 * place + 4, place] = WINDOW
    return np.kron(one[1:-1], one[1:-1])


WINDOWS: Final = _windows()
HALF_CELL: Final = np.arange(14).repeat(2)[:, None] * 14 + np.arange(14).repeat(2)
HALF_CELL.shape = 784
