"""Keep what the input stages make of the training images beside the files they were made of."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mnist_cli.config import Config
from mnist_cli.errors import MnistError
from mnist_cli.files import publish
from mnist_cli.functional import Array
from mnist_cli.inputs import VERSION, apply


def cached(
    images: Array,
    config: Config,
    directory: Path,
    advance: Callable[[int], object] = int,
) -> Array:
    """Do as `inputs.apply`, but keep the result in a file in `directory` for the next time.

    `train-images.NORMALIZE-FEATURES-vVERSION.cache` holds the digest of what it was made from, the
    digest of the result, and the result, uint8 (N, 28, 28), which is memory-mapped. A file that
    does not fit the images or its own digest is made again. Where it cannot be written, there is
    none.
    """
    stages = (config.normalize, config.features)
    if stages == ("none", "pixels"):
        return images
    path = directory / f"train-images.{'-'.join(stages)}-v{VERSION}.cache"
    source = _digest(path.name.encode(), images)
    with contextlib.suppress(OSError):
        if path.stat().st_size == 2 * len(source) + images.size:
            header = np.fromfile(path, np.uint8, count=2 * len(source)).tobytes()
            kept = np.memmap(path, np.uint8, "r", offset=len(header), shape=images.shape)
            if header == source + _digest(source, kept):
                return kept
    result = apply(images, *stages, advance)
    with contextlib.suppress(MnistError, OSError):
        # Root could write to a read-only directory as well, but shall not.
        if directory.stat().st_mode & 0o222:
            with publish(path) as file:
                file.write(source + _digest(source, result))
                file.write(result.data)
    return result


def _digest(prefix: bytes, images: Array) -> bytes:
    digest = hashlib.sha256(prefix)
    digest.update(np.ascontiguousarray(images).data)
    return digest.digest()
