import gzip
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from mnist_cli.data import idx
from mnist_cli.errors import DataError

TWO_BY_THREE = b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03\x01\x02\x03\x04\x05\x06"
plain_or_gzip = pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
Pack = Callable[[bytes], bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def read(path: Path, content: bytes) -> NDArray[np.uint8]:
    path.unlink(missing_ok=True)  # some file systems are slow to overwrite
    path.write_bytes(content)
    return idx.read(path)


def header(*shape: int) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


@plain_or_gzip
def test_literal_bytes(path: Path, pack: Pack) -> None:
    array = read(path, pack(TWO_BY_THREE))
    assert [[1, 2, 3], [4, 5, 6]] == array.tolist()
    assert np.uint8 == array.dtype
    assert not array.flags.writeable


@given(
    array=npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=3, max_side=9)),
    packed=st.booleans(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(path: Path, array: NDArray[np.uint8], packed: bool) -> None:
    """Array → bytes → array → bytes changes nothing."""
    written = idx.to_bytes(array)
    again = read(path, gzip.compress(written) if packed else written)
    np.testing.assert_array_equal(array, again, strict=True)
    assert written == idx.to_bytes(again)


def test_strided_array_is_written_row_by_row(path: Path) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    assert header(3, 2) + bytes([0, 3, 1, 4, 2, 5]) == idx.to_bytes(array)


MAGIC = r"magic number: expected b'\x00\x00\x08', found "
REFUSED = {
    "empty": (b"", MAGIC + "b''"),
    "html": (b"<!DOCTYPE html>", MAGIC + "b'<!D'"),
    "float": (b"\0\0\x0d" + TWO_BY_THREE[3:], MAGIC + r"b'\x00\x00\r'"),
    "three bytes": (TWO_BY_THREE[:3], "number of dimensions: expected 1 to 3, found 0"),
    "scalar": (header() + b"x", "number of dimensions: expected 1 to 3, found 0"),
    "4 dimensions": (header(1, 1, 1, 1) + b"x", "number of dimensions: expected 1 to 3, found 4"),
    "cut header": (TWO_BY_THREE[:10], "header: expected 12 bytes, found 10 bytes"),
    "no rows": (header(0, 28, 28), "shape: expected at least one item, found (0, 28, 28)"),
    "no data": (header(2, 3), "length: expected 18 bytes, found 12 bytes"),
    "cut": (TWO_BY_THREE[:-1], "length: expected 18 bytes, found 17 bytes"),
    "trailing": (TWO_BY_THREE + b"\0", "length: expected 18 bytes, found more"),
    "4 billion": (header(2**32 - 1, 28, 28), "length: expected 3367254359296 bytes, found 16 "),
    "wraps to 0": (header(2**16, 2**31, 2**31), "length: expected 302231454903657293676560 bytes"),
}


@plain_or_gzip
@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_invalid_content_is_refused(path: Path, pack: Pack, content: bytes, message: str) -> None:
    """The error names the file, the field, what was expected and what was found."""
    with pytest.raises(DataError) as error:
        read(path, pack(content))
    assert str(error.value).startswith(f"{path}: {message}")


PACKED = gzip.compress(TWO_BY_THREE, mtime=0)
DAMAGED = {
    "cut": PACKED[:-12],
    "cut trailer": PACKED[:-4],
    "only magic": PACKED[:2],
    "flipped": PACKED[:24] + bytes([PACKED[24] ^ 1]) + PACKED[25:],
    "checksum": PACKED[:-8] + bytes(4) + PACKED[-4:],
    "trailing": PACKED + b"rubbish",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_gzip_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=f"^{path}: damaged gzip data: "):
        read(path, content)


def test_gzip_members_are_one_file(path: Path) -> None:
    members = gzip.compress(TWO_BY_THREE[:7]) + gzip.compress(TWO_BY_THREE[7:])
    assert (2, 3) == read(path, members).shape
    with pytest.raises(DataError, match="length: expected 18 bytes, found more"):
        read(path, members + gzip.compress(bytes(100)))


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "device", "link"])
def test_anything_but_a_regular_file_is_refused(path: Path, kind: str) -> None:
    """And nothing blocks."""
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link":
            path.symlink_to(path)
    with pytest.raises(DataError, match=f"^{path}: (cannot read it: |expected a regular file)"):
        idx.read(path)


def test_plain_file_is_mapped(path: Path) -> None:
    """1 TiB of holes costs nothing."""
    with path.open("wb") as sparse:
        sparse.write(header(1 << 20, 1 << 20))
        sparse.truncate((1 << 40) + 12)
    array = idx.read(path)
    assert (1 << 20, 1 << 20) == array.shape
    assert 0 == array[-1, -1]


def test_gzip_bomb_is_inflated_no_further_than_promised(path: Path) -> None:
    """512 MiB in gzip data that promise 1 MiB are refused in 256 MiB of memory."""
    path.write_bytes(gzip.compress(header(1, 1 << 20)) + gzip.compress(bytes(1 << 20)) * 512)
    script = f"from mnist_cli.data import idx; idx.read(idx.Path({str(path)!r}))"
    process = subprocess.run(
        [sys.executable, "-c", script],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20)),
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    expected = f"DataError: {path}: length: expected 1048588 bytes, found more\n"
    assert process.stderr.endswith(expected)


def test_read_bytes_inflates_up_to_the_limit(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(3 << 20)))
    assert bytes(2_500_000) == idx.read_bytes(path, 2_500_000)
    assert bytes(3 << 20) == idx.read_bytes(path, 1 << 30)


def change(content: bytearray, at: int, rng: np.random.Generator) -> None:
    """Replace a byte, flip a bit, cut off what follows, or insert some bytes."""
    match rng.integers(4):
        case 0:
            content[at] = rng.integers(256)
        case 1:
            content[at] ^= 1 << rng.integers(8)
        case 2:
            del content[at + 1 :]
        case 3:
            content[at:at] = rng.bytes(int(rng.integers(1, 5)))


def test_changed_bytes_are_refused_or_kept(path: Path) -> None:
    """Whatever changes in a file: it is refused, or becomes an array of exactly its bytes."""
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(2_000):
        content = bytearray(PACKED if rng.random() < 0.5 else TWO_BY_THREE)
        for _ in range(rng.integers(1, 4)):
            change(content, int(rng.integers(len(content))), rng)
        try:
            array = read(path, bytes(content))
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            refused += 1
        else:
            whole = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else bytes(content)
            assert whole == idx.to_bytes(array)
    assert refused > 1_000
