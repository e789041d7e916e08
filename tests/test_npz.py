import tracemalloc
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


def test_same_arrays_give_the_same_bytes_at_any_time(path: Path) -> None:
    npz.write(path, {"a": np.arange(4.0), "b": np.array("text")})

    with zipfile.ZipFile(path) as archive:
        dates = {info.date_time for info in archive.infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}


@given(
    hnp.arrays(st.sampled_from(["<f4", ">f8", "<U3"]), hnp.array_shapes(max_dims=3)),
    st.sampled_from([np.savez, np.savez_compressed]),
)
def test_reads_what_numpy_wrote(tmp_path_factory: pytest.TempPathFactory, array, save):  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    save(path, a=array, b=array.T)

    found = npz.read(path, LIMITS)

    for name, expected in (("a", array), ("b", array.T)):
        assert expected.dtype == found[name].dtype
        np.testing.assert_array_equal(expected, found[name])


def test_member_or_file_beyond_its_limit_is_refused(path: Path) -> None:
    npz.write(path, {"a": np.zeros(100)})
    npz.read(path, {"a": 928, "b": 500})

    with pytest.raises(ModelFileError, match=r"'a\.npy' is unknown, duplicate or too large"):
        npz.read(path, {"a": 927, "b": 500})
    with pytest.raises(ModelFileError, match="not a zip file"):
        npz.read(path, {"a": 928})  # and no byte for the zip's own


def test_member_is_not_inflated_beyond_its_claim(path: Path) -> None:
    """What it claims is right, and is read; 900 MiB of zeros that follow are not."""
    member = hostile.npy(np.arange(500_000.0))
    stored, crc = hostile.bomb(member), zlib.crc32(member)
    path.write_bytes(hostile.forged(hostile.Member("a.npy", stored, len(member), 8, crc=crc)))
    tracemalloc.start()
    try:
        found = npz.read(path, {"a": 5_000_000})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    np.testing.assert_array_equal(np.arange(500_000.0), found["a"])
    assert peak < 50 << 20
