"""Archives of arrays, .npz: always written the same way, read with suspicion."""

import io
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mnist_cli.errors import ModelFileError
from mnist_cli.files import publish
from mnist_cli.functional import Array


def write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Publish `arrays` at `path`: the same arrays give the same bytes, for no time is written."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # none is named allow_pickle
    with publish(path) as file:
        file.write(buffer.getvalue())


def read(path: Path, limits: Mapping[str, int]) -> dict[str, Array]:
    """Return the arrays in the archive at `path`, or raise a ModelFileError that names the file.

    Only members named in `limits` are accepted, each at most that many bytes long.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            content = file.read(sum(limits.values()) + 1)
        if content.count(b"PK\1\2") > 99:  # zipfile would make an object of each
            raise ValueError("it has too many members")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check(archive, content, {f"{name}.npy": limits[name] for name in limits})
            return {info.filename[:-4]: _array(archive, info) for info in archive.infolist()}
    except Exception as error:  # whatever the system, zipfile, zlib and numpy raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ModelFileError(f"cannot read {path}: {ascii(reason)[1:-1][:150]}") from error


def _check(archive: zipfile.ZipFile, content: bytes, limits: dict[str, int]) -> None:
    """Raise ValueError unless the archive is known members, their directory, and nothing else."""
    infos = archive.infolist()
    starts = [*(info.header_offset for info in infos), archive.start_dir]
    entries = sum(46 + len(info.filename) for info in infos)  # without extra fields and comments
    whole = starts[0] == 0 and starts[-1] + entries + 22 == len(content)
    for info, start, end in zip(infos, starts, starts[1:], strict=False):
        # `filename` ends at a NUL, and `compress_size` may hide something behind the content.
        known = info.compress_size <= info.file_size <= limits.pop(info.orig_filename, -1)
        if not known or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.orig_filename[:40]!a} is unknown, duplicate or too large")
        header = content[start : end - info.compress_size]  # np.savez writes one for zip64
        whole &= header in (info.FileHeader(zip64=False), info.FileHeader(zip64=True))
    if not whole:
        raise ValueError("it is not a zip archive from its first byte to its last")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as member, warnings.catch_warnings(action="error"):
        data = io.BytesIO(member.read(info.file_size))  # without a size it inflates a bomb
        return np.lib.format.read_array(data, max_header_size=512)  # numpy writes 118
