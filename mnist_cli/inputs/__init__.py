"""What the network sees: the stages between a picture and its 784 numbers."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mnist_cli.functional import Array
from mnist_cli.inputs.deskew import deskew
from mnist_cli.inputs.directions import directions

VERSION = 2  # of both stages: raise it with every change that changes a byte
BLOCK = 64  # images at a time, so that the working arrays stay in the cache


def apply(
    images: Array, normalize: str, features: str, advance: Callable[[int], object] = int
) -> Array:
    """Return what the network sees of images (N, 28, 28) uint8, in the same shape and dtype.

    With normalize `none` and features `pixels` it is the very same array. Each image is treated
    alone, blocks of them by as many threads as there are cores; `advance` is told how many more
    are done.
    """
    stages = [deskew] * (normalize == "deskew") + [directions] * (features == "directions")
    if not stages:
        return images
    seen = np.empty(images.shape, np.uint8)

    def process(start: int) -> int:
        block = images[start : start + BLOCK]
        for stage in stages:
            block = stage(block)
        seen[start : start + BLOCK] = block
        return len(block)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(process, range(0, len(images), BLOCK)):
            advance(done)
    return seen
