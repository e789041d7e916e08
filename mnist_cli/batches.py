"""Minibatches: uint8 images in, float32 inputs out, with no float copy of the whole data set."""

from collections.abc import Iterator

import numpy as np

from mnist_cli.functional import Array


def minibatches(
    images: Array, labels: Array, indices: Array, batch_size: int
) -> Iterator[tuple[Array, Array]]:
    """Yield (x, y) for `indices` in their order, `batch_size` at a time, the last one shorter.

    images (N, 28, 28) uint8, labels (N,), indices (M,) → x (B, 784) float32, the grey values from
    0 to 255, and y (B,). The images may be a memory map; each x is overwritten by the next.
    """
    pixels = images.reshape(len(images), -1)  # (N, D)
    y = labels[indices]
    batch_size = min(batch_size, len(indices))
    gathered = np.empty((batch_size, pixels.shape[1]), np.uint8)
    x = np.empty(gathered.shape, np.float32)
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]  # (B,)
        if len(chosen) < len(x):
            gathered, x = gathered[: len(chosen)], x[: len(chosen)]
        pixels.take(chosen, axis=0, out=gathered, mode="clip")  # "clip" spares a buffer
        np.copyto(x, gathered)
        yield x, y[start : start + batch_size]
