import gzip
import io
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from mnist_cli.data import idx
from mnist_cli.errors import DataError

DTYPES = ("u1", "i1", "i2", "i4", "f4", "f8")
TWO_BY_THREE = b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03\x01\x02\x03\x04\x05\x06"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def read(path: Path, content: bytes) -> NDArray[Any]:
    path.unlink(missing_ok=True)  # some file systems are slow to overwrite
    path.write_bytes(content)
    return idx.read(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TWO_BY_THREE, np.array([[1, 2, 3], [4, 5, 6]], np.uint8)),
        (b"\0\0\x09\x01\0\0\0\x02\xff\x7f", np.array([-1, 127], np.int8)),
        (b"\0\0\x0b\x01\0\0\0\x02\xff\xfe\x01\x00", np.array([-2, 256], np.int16)),
        (b"\0\0\x0c\x01\0\0\0\x01\x00\x01\x00\x00", np.array([65536], np.int32)),
        (b"\0\0\x0d\x01\0\0\0\x01\x3f\x80\0\0", np.array([1.0], np.float32)),
        (b"\0\0\x0e\x01\0\0\0\x01\xc0\0\0\0\0\0\0\0", np.array([-2.0], np.float64)),
        (b"\0\0\x08\0\x07", np.array(7, np.uint8)),
        (b"\0\0\x08\x02\0\0\0\0\0\0\0\x1c", np.zeros((0, 28), np.uint8)),
    ],
)
def test_bytes(path: Path, pack: Any, content: bytes, expected: NDArray[Any]) -> None:
    """Each type, packed or not, becomes the array of native order that was written down."""
    array = read(path, pack(content))
    assert (expected.dtype, expected.shape) == (array.dtype, array.shape)
    assert array.dtype.isnative
    assert not array.flags.writeable
    np.testing.assert_array_equal(expected, array)
    assert expected.shape == idx.read_header(path).shape


@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=5, min_side=0))
    ),
    order=st.sampled_from(("<", ">")),
    packed=st.booleans(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_identity(path: Path, array: NDArray[Any], order: Any, packed: bool) -> None:
    """Array → bytes → array → bytes changes nothing, not even the payload of a NaN."""
    file = io.BytesIO()
    idx.write(file, array.astype(array.dtype.newbyteorder(order)))
    written = file.getvalue()

    again = read(path, gzip.compress(written) if packed else written)

    assert (array.dtype, array.shape, array.tobytes()) == (
        again.dtype,
        again.shape,
        again.tobytes(),
    )
    file = io.BytesIO()
    idx.write(file, again)
    assert written == file.getvalue()


@pytest.mark.parametrize("dtype", ["?", "u2", "i8", "c8", "U3", "O", "M8[s]"])
def test_write_refuses(dtype: str) -> None:
    """What IDX has no type for is not written."""
    file = io.BytesIO()
    with pytest.raises(DataError, match="IDX has no type for arrays of"):
        idx.write(file, np.zeros(3, dtype))
    assert file.getvalue() == b""


def header(*dimensions: int, code: int = 8) -> bytes:
    return struct.pack(f">HBB{len(dimensions)}I", 0, code, len(dimensions), *dimensions)


FOUR_BILLION = header(2**32 - 1, 28, 28)
REFUSED = {
    "empty": (b"", "length: expected at least 4 bytes, found 0"),
    "three bytes": (b"\0\0\x08", "length: expected at least 4 bytes, found 3"),
    "magic": (
        b"\x01" + TWO_BY_THREE[1:],
        r"magic number: expected two zero bytes .* b'\\x01\\x00'",
    ),
    "html": (
        b"<!DOCTYPE html>",
        "magic number: expected two zero bytes at its start, found b'<!'",
    ),
    "type": (b"\0\0\x0a" + TWO_BY_THREE[3:], "type: expected one of 0x08, .* 0x0E, found 0x0A"),
    "dimensions": (
        header(*[1] * 33) + b"x",
        "number of dimensions: expected at most 32, found 33",
    ),
    "cut header": (TWO_BY_THREE[:10], "header: expected 12 bytes, found 10 bytes"),
    "cut": (TWO_BY_THREE[:-1], "length: expected 18 bytes, found 17 bytes"),
    "trailing": (TWO_BY_THREE + b"\0", "length: expected 18 bytes, found 19 "),
    "four billion": (FOUR_BILLION + b"x", "length: expected 3367254359296 bytes, found 17 bytes"),
    "overflow": (header(*[2**32 - 1] * 4), r"length: expected 340\d{36} bytes, found 20 bytes"),
    "wraps to 0": (header(2**16, 2**16, 2**16, 2**16), "length: expected 18446744073709551636"),
    "uncountable": (header(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "shape: .*, found .0, 4294967295"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(path: Path, pack: Any, content: bytes, message: str) -> None:
    """What is not exactly what it says is refused, with file, field, expected and found."""
    with pytest.raises(DataError) as error:
        read(path, pack(content))
    assert str(error.value).startswith(f"{path}: ")
    error.match(message)


PACKED = gzip.compress(TWO_BY_THREE, mtime=0)
DAMAGED = {
    "cut": PACKED[:-12],
    "cut trailer": PACKED[:-4],
    "only magic": PACKED[:2],
    "flipped": PACKED[:14] + bytes([PACKED[14] ^ 0x55]) + PACKED[15:],
    "checksum": PACKED[:-8] + bytes(4) + PACKED[-4:],
    "trailing": PACKED + b"rubbish",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_gzip(path: Path, content: bytes) -> None:
    """Cut, changed or lengthened gzip data are refused as such."""
    with pytest.raises(DataError, match=f"^{path}: damaged gzip data: "):
        read(path, content)


def test_gzip_members(path: Path) -> None:
    """Gzip data in several members are one file, as they are for gzip."""
    members = gzip.compress(TWO_BY_THREE[:7]) + gzip.compress(TWO_BY_THREE[7:])
    assert read(path, members).shape == (2, 3)
    with pytest.raises(DataError, match="length: expected 18 bytes, found 19 or more"):
        read(path, members + gzip.compress(bytes(100)))


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "device", "link", "unreadable"])
def test_no_file(path: Path, kind: str) -> None:
    """What is no readable regular file is refused without blocking."""
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link":
            path.symlink_to(path)
        case "unreadable":
            path.touch(0o000)
            if os.access(path, os.R_OK):
                pytest.skip("root reads everything")
    with pytest.raises(DataError, match=f"^{path}: (cannot read it: |expected a regular file)"):
        idx.read(path)


LITTLE_MEMORY = """
import sys
from pathlib import Path
from mnist_cli import errors
from mnist_cli.data import idx
try:
    print(idx.read(Path(sys.argv[1])).shape)
except errors.DataError as error:
    print(error)
"""


def read_with_little_memory(path: Path, size: int) -> str:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    args = [sys.executable, "-c", LITTLE_MEMORY, str(path)]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(args, preexec_fn=limit, capture_output=True, text=True, env=env)
    assert (run.stderr, run.returncode) == ("", 0)
    return run.stdout


def zeros(promised: int) -> bytes:
    """Gzip data of 512 MiB of zeros whose header promises so many MiB."""
    return gzip.compress(header(promised, 1 << 20)) + gzip.compress(bytes(1 << 20)) * 512


@pytest.mark.parametrize(
    ("promised", "found"), [(1, "1048589 or more bytes"), (1 << 20, "536870924 bytes")]
)
def test_bomb(path: Path, promised: int, found: str) -> None:
    """Gzip data that unpack to more than there is memory cost none, whatever was promised."""
    path.write_bytes(zeros(promised))
    expected = f"length: expected {(promised << 20) + 12} bytes, found {found}\n"
    assert read_with_little_memory(path, 512 << 20) == f"{path}: {expected}"


@pytest.mark.parametrize("packed", [True, False])
def test_too_much_for_memory(path: Path, packed: bool) -> None:
    """A file that is all it says, and more than there is room for, is refused in one line."""
    path.write_bytes(zeros(512) if packed else header(512, 1 << 20))
    if not packed:
        os.truncate(path, (512 << 20) + 12)
    reason = (
        f"its {(512 << 20) + 12} bytes do not fit in memory"
        if packed
        else "cannot read it: Cannot allocate memory"
    )
    assert f"{path}: {reason}\n" == read_with_little_memory(path, 512 << 20)


def test_mapped(path: Path) -> None:
    """A plain file of bytes is mapped, not read: 1 TiB of holes is no matter."""
    with path.open("wb") as sparse:
        sparse.write(header(1 << 20, 1 << 20))
        sparse.truncate((1 << 40) + 12)
    array = idx.read(path)
    assert array.shape == (1 << 20, 1 << 20)
    assert array[-1, -1] == 0


def test_chunks(path: Path) -> None:
    """The first bytes come unpacked, and no more than were asked for."""
    path.write_bytes(gzip.compress(bytes(3 << 20)))
    assert sum(map(len, idx.chunks(path, 2_500_000))) == 2_500_000
    assert sum(map(len, idx.chunks(path, 1 << 30))) == 3 << 20


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


def test_mutations(path: Path) -> None:
    """Whatever changes in a file: it is refused, or is an array of that header's shape."""
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
            assert idx.read_header(path).shape == array.shape
            file = io.BytesIO()
            idx.write(file, array)
            whole = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else bytes(content)
            assert whole == file.getvalue()
    assert refused > 1_000
