"""IDX, the format of the MNIST files: bytes ↔ array.

Two zero bytes, a byte for the type, a byte for the number of dimensions, one big-endian uint32 a
dimension, then the data, big-endian and row-major (http://yann.lecun.com/exdb/mnist/).
"""

import contextlib
import gzip
import math
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mnist_cli.errors import DataError

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAX_DIMENSIONS = 32  # numpy 1's limit
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Header:
    """What the first bytes of an IDX file promise."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def offset(self) -> int:
        """Where the data begin, in bytes."""
        return 4 + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """The length of the whole file, uncompressed, in bytes."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def mismatch(path: Path, field: str, expected: object, found: object) -> DataError:
    """Say in one sentence which field of which file is not what it has to be."""
    return DataError(f"{path}: {field}: expected {expected}, found {found}")


def read(path: Path) -> NDArray[Any]:
    """Read an IDX file, plain or gzip whatever its name, into a read-only array of native order.

    A plain file of bytes is memory-mapped. The length is compared with the header's before
    anything is allocated; of gzip data at most one byte more than promised is unpacked.

    Raises:
        DataError: it is no regular file, cannot be read, or is not exactly what its header says.

    """
    with _opened(path) as file:
        header = _parse_header(file, path)
        length = _length(file, header.size)
        if length != header.size:
            more = "or more " if length > header.size else ""
            raise mismatch(path, "length", f"{header.size} bytes", f"{length} {more}bytes")
        try:
            if isinstance(file, gzip.GzipFile):
                file.seek(0)
                buffer: bytes | mmap.mmap = file.read(header.size)
            else:
                buffer = mmap.mmap(file.fileno(), header.size, access=mmap.ACCESS_READ)
            array = np.ndarray(header.shape, header.dtype, buffer, header.offset)
            array = array.astype(header.dtype.newbyteorder("="), copy=False)
        except MemoryError:
            raise DataError(f"{path}: its {header.size} bytes do not fit in memory") from None
        except ValueError:  # an empty array whose other dimensions are more than numpy can count
            raise mismatch(path, "shape", "one that numpy can hold", header.shape) from None
    array.flags.writeable = False
    return array


def read_header(path: Path) -> Header:
    """Read only what an IDX file says of itself.

    Raises:
        DataError: it is no regular file, cannot be read, or does not begin as an IDX file does.

    """
    with _opened(path) as file:
        return _parse_header(file, path)


def chunks(path: Path, limit: int) -> Iterator[bytes]:
    """Yield the first `limit` bytes of a file, unpacking gzip data.

    Raises:
        DataError: it is no regular file, cannot be read, or is damaged gzip data.

    """
    with _opened(path) as file:
        while (left := limit - file.tell()) > 0 and (chunk := file.read(min(left, _CHUNK))):
            yield chunk


def write(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write `array` as IDX bytes.

    Raises:
        DataError: IDX has no type for the array's dtype.

    """
    dtype = array.dtype.newbyteorder(">")
    code = next((code for code, known in _DTYPES.items() if known == dtype), None)
    if code is None:
        raise DataError(f"IDX has no type for arrays of {array.dtype}")
    file.write(struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape))
    file.write(array.astype(dtype, copy=False).tobytes())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open `path`, unpacking gzip data as they are read, and name the file in what goes wrong.

    Raises:
        DataError: it is no regular file, cannot be read, or is damaged gzip data.

    """
    try:
        # Looked at before it is opened, which would block on a pipe.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path}: expected a regular file, found a directory, pipe or device")
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip data: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from error


def _parse_header(file: BinaryIO, path: Path) -> Header:
    start = file.read(4)
    if len(start) < 4:
        raise mismatch(path, "length", "at least 4 bytes", len(start))
    zeros, code, ndim = struct.unpack(">HBB", start)
    if zeros != 0:
        raise mismatch(path, "magic number", "two zero bytes at its start", start[:2])
    if code not in _DTYPES:
        known = ", ".join(f"0x{known:02X}" for known in _DTYPES)
        raise mismatch(path, "type", f"one of {known}", f"0x{code:02X}")
    if ndim > _MAX_DIMENSIONS:
        raise mismatch(path, "number of dimensions", f"at most {_MAX_DIMENSIONS}", ndim)
    dimensions = file.read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise mismatch(path, "header", f"{4 + 4 * ndim} bytes", f"{4 + len(dimensions)} bytes")
    return Header(_DTYPES[code], struct.unpack(f">{ndim}I", dimensions))


def _length(file: BinaryIO, promised: int) -> int:
    """Count the bytes of the whole file; those of gzip data up to one more than `promised`."""
    if not isinstance(file, gzip.GzipFile):
        return os.fstat(file.fileno()).st_size
    while (left := promised + 1 - file.tell()) > 0 and file.read(min(left, _CHUNK)):
        pass
    return file.tell()
