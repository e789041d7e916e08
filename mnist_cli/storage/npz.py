"""Archives of arrays, .npz: written always the same, read with suspicion."""

import io
import math
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mnist_cli.errors import ModelFileError
from mnist_cli.files import publish
from mnist_cli.functional import Array

HEADER_LIMIT = 512  # characters; numpy writes 118 for arrays like these


def write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Publish `arrays` at `path`: the same arrays give the same bytes, whatever the clock says."""
    with publish(path) as file:
        file.write(_archive(arrays))


def read(path: Path, limits: Mapping[str, int], size_limit: int) -> dict[str, Array]:
    """Return the arrays of the archive at `path`, trusting nothing that it says.

    Only members named in `limits` are accepted, each at most that many bytes long, in a file of
    at most `size_limit` bytes. What a member's header promises must be what it holds before an
    array is made; arrays of floats and of text are all there is.

    Raises:
        ModelFileError: it names the file and what is wrong with it.

    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise ModelFileError("it is no regular file")
        with path.open("rb") as file:
            content = file.read(size_limit + 1)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        if len(content) > size_limit:
            raise ModelFileError(f"it is larger than any such file, {size_limit} bytes at most")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_members(archive, limits)
            return {
                info.filename.removesuffix(".npy"): _read_member(archive, info)
                for info in archive.infolist()
            }
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except Exception as error:  # whatever zipfile, zlib and numpy raise on a hostile file
        raise ModelFileError(f"{path} is damaged or no .npz: {_brief(error)}") from error


def _archive(arrays: Mapping[str, Array]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())  # dated 1980
    return content.getvalue()


def _check_members(archive: zipfile.ZipFile, limits: Mapping[str, int]) -> None:
    names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
    for info, name in zip(archive.infolist(), names, strict=True):
        if name not in limits or info.filename != f"{name}.npy":
            raise ModelFileError(f"it has an unknown member, {info.filename[:40]!a}")
        if names.count(name) > 1:
            raise ModelFileError(f"it has the member {name!r} twice")
        if info.flag_bits & 1:
            raise ModelFileError(f"its member {name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelFileError(f"its member {name!r} is compressed in an unknown way")
        if info.file_size > limits[name]:
            raise ModelFileError(f"its member {name!r} claims {info.file_size} bytes")
        if info.compress_size > info.file_size + 1024:  # deflate adds 5 bytes to 64 KiB at most
            raise ModelFileError(f"its member {name!r} holds more than it claims")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as member:
        data = member.read(info.file_size)  # read() without a size inflates a bomb first
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("another version of .npy")
            header = np.lib.format.read_array_header_1_0(stream, HEADER_LIMIT)
    except Exception as error:  # the header is evaluated as a Python literal
        raise ModelFileError(f"its member {info.filename!r} has no .npy header") from error
    shape, fortran_order, dtype = header
    if dtype.kind not in "fU":
        raise ModelFileError(f"its member {info.filename!r} is neither of floats nor of text")
    promised = math.prod(shape) * dtype.itemsize
    held = len(data) - stream.tell()
    if min(shape, default=0) < 0 or promised != held or not held:
        raise ModelFileError(
            f"its member {info.filename!r} holds {held} bytes, "
            f"but claims {dtype.str} of shape {str(shape)[:60]}"
        )
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _brief(error: Exception) -> str:
    return ascii(str(error) or type(error).__name__)[1:-1][:100]
