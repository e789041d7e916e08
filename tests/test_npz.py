import os
import time
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_cli.errors import ModelFileError
from mnist_cli.storage import npz
from tests import hostile

LIMITS = {"a": 10_000, "b": 10_000}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.npz"


def test_the_same_arrays_give_the_same_bytes_whatever_the_clock_says(path: Path) -> None:
    arrays = {"a": np.arange(4.0), "b": np.array("text")}
    npz.write(path, arrays)
    first = path.read_bytes()
    before = os.environ.get("TZ")
    try:
        os.environ["TZ"] = "Pacific/Kiritimati"
        time.tzset()
        npz.write(path, arrays)
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()

    assert path.read_bytes() == first
    with zipfile.ZipFile(path) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert [info.extra for info in archive.infolist()] == [b"", b""]


def test_numpy_reads_what_was_written(path: Path) -> None:
    npz.write(path, {"a": np.eye(3, dtype=np.float32), "b": np.array("text")})

    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["a"], np.eye(3))
        assert str(arrays["b"]) == "text"


@given(
    hnp.arrays(st.sampled_from(["<f2", "<f4", ">f8"]), hnp.array_shapes(max_dims=3)),
    st.booleans(),
)
def test_reads_what_numpy_wrote(tmp_path_factory: pytest.TempPathFactory, array, compressed):  # type: ignore[no-untyped-def]
    """Whatever the order of bytes and axes, compressed or not."""
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    (np.savez_compressed if compressed else np.savez)(path, a=array, b=array.T)

    found = npz.read(path, LIMITS, 100_000)

    for name, expected in (("a", array), ("b", array.T)):
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_a_member_or_a_file_beyond_its_limit_is_refused(path: Path) -> None:
    npz.write(path, {"a": np.zeros(100)})

    with pytest.raises(ModelFileError, match="'a' claims 928 bytes"):
        npz.read(path, {"a": 927}, 100_000)
    with pytest.raises(ModelFileError, match="larger than any such file"):
        npz.read(path, LIMITS, path.stat().st_size - 1)
    npz.read(path, {"a": 928}, path.stat().st_size)


def test_a_member_is_not_inflated_beyond_what_it_claims(path: Path) -> None:
    """What it claims is right, and is read; 150 MiB of zeros that follow are not."""
    member = hostile.npy(np.arange(24_000.0))
    stored = hostile.deflated(member, 150)
    path.write_bytes(hostile.forged(("a.npy", stored, len(member), zlib.crc32(member), 8, 0)))
    tracemalloc.start()
    try:
        found = npz.read(path, {"a": 200_000}, 1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    np.testing.assert_array_equal(found["a"], np.arange(24_000.0))
    assert peak < 8 << 20


def test_no_array_of_objects_is_ever_written(path: Path) -> None:
    with pytest.raises(ValueError, match="pickle"):
        npz.write(path, {"a": np.array([object()])})
    assert not list(path.parent.iterdir())


@given(st.binary(max_size=200))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: bytes):  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / "header.npz"
    member = hostile.raw_npy(header.decode("latin1"), b"1234")
    path.write_bytes(hostile.archive({"a.npy": member}))

    with pytest.raises(ModelFileError):
        npz.read(path, LIMITS, 100_000)


def test_an_old_header_of_python_2_is_refused_without_a_warning(path: Path) -> None:
    member = hostile.raw_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L,), }", b"1234")
    path.write_bytes(hostile.archive({"a.npy": member}))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelFileError, match=r"'a.npy' has no .npy header"):
            npz.read(path, LIMITS, 100_000)


def test_a_missing_file_is_told(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot read .*file.npz: No such file or directory"):
        npz.read(path, LIMITS, 100_000)
