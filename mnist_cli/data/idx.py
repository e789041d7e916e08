"""IDX, the format of the MNIST files: unsigned bytes in one to three dimensions.

Two zero bytes, the type 0x08, a byte for the number of dimensions, one big-endian uint32 a
dimension, then the data, row-major (http://yann.lecun.com/exdb/mnist/).
"""

import contextlib
import gzip
import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mnist_cli.errors import DataError


def mismatch(path: Path, field: str, expected: object, found: object) -> DataError:
    """Return the error that says which field of which file is wrong."""
    return DataError(f"{path}: {field}: expected {expected}, found {found}")


def read(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file, plain (then memory-mapped) or gzip, into a read-only array.

    Raises:
        DataError: it is no regular file, cannot be read, or is not exactly what its header says.

    """
    with _opened(path) as file:
        shape = _read_header(file, path)
        offset, size = file.tell(), math.prod(shape)
        if isinstance(file, gzip.GzipFile):
            data = np.frombuffer(_read_up_to(file, size + 1), np.uint8)
        else:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            data = np.frombuffer(mapped, np.uint8)[offset:]
    if len(data) != size:
        found = "more" if len(data) > size else f"{offset + len(data)} bytes"
        raise mismatch(path, "length", f"{offset + size} bytes", found)
    data.flags.writeable = False
    return data.reshape(shape)


def read_bytes(path: Path, limit: int) -> bytearray:
    """Return the first `limit` bytes of a file, gzip inflated; raise DataError as `read` does."""
    with _opened(path) as file:
        return _read_up_to(file, limit)


def to_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return the IDX file that holds `array`."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.exists() and not path.is_file():  # asked first: opening a pipe would wait
            raise DataError(f"{path}: expected a regular file, found a directory, pipe or device")
        with path.open("rb") as file:
            packed = file.peek(2).startswith(b"\x1f\x8b")
            yield cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip data: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from error


def _read_header(file: BinaryIO, path: Path) -> tuple[int, ...]:
    start = file.read(4)
    if start[:3] != b"\0\0\x08":
        raise mismatch(path, "magic number", b"\0\0\x08", start[:3])
    ndim = int.from_bytes(start[3:])
    if not 1 <= ndim <= 3:
        raise mismatch(path, "number of dimensions", "1 to 3", ndim)
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise mismatch(path, "header", f"{4 + 4 * ndim} bytes", f"{4 + len(sizes)} bytes")
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        raise mismatch(path, "shape", "at least one item", shape)
    return shape


def _read_up_to(file: BinaryIO, limit: int) -> bytearray:
    """Read in chunks, so that what a header promises is not allocated before it is there."""
    data = bytearray()
    while chunk := file.read(min(1 << 20, limit - len(data))):
        data += chunk
    return data
