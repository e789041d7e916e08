import gzip
import hashlib
import os
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_cli.config import DATASETS as NAMES_IN_CONFIGS
from mnist_cli.data import synthetic
from mnist_cli.data.catalogue import DATASETS, FASHION_MNIST, KMNIST, MNIST, NAMES, Dataset
from mnist_cli.data.loading import load
from mnist_cli.errors import DataError, MissingDataError
from tests.conftest import Run
from tests.test_idx import change

IMAGES, LABELS = NAMES["train"]


def idx(*shape: int, data: bytes | None = None, code: int = 8, itemsize: int = 1) -> bytes:
    """IDX bytes written out here, independently of the package."""
    size = int(np.prod(shape, dtype=object)) * itemsize
    head = struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)
    return head + (bytes(i % 10 for i in range(size)) if data is None else data)


GOOD_IMAGES, GOOD_LABELS = idx(5, 28, 28), idx(5)


def put(data_dir: Path, images: bytes, labels: bytes, suffix: str = "") -> None:
    directory = data_dir / "mnist"
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((IMAGES, images), (LABELS, labels)):
        path = directory / f"{name}{suffix}"
        path.unlink(missing_ok=True)  # some file systems are slow to overwrite
        path.write_bytes(content)


def test_data_sets_go_by_the_names_in_configs() -> None:
    assert list(DATASETS) == [dataset.name for dataset in DATASETS.values()]
    assert tuple(DATASETS) == NAMES_IN_CONFIGS


@pytest.mark.parametrize("dataset", [MNIST, FASHION_MNIST, KMNIST], ids=lambda d: d.name)
def test_catalogue_of_official_files(dataset: Dataset) -> None:
    """Four files of the official sizes, with digests that are digests, from https mirrors."""
    assert [*NAMES["train"], *NAMES["test"]] == [file.name for file in dataset.files]
    assert [47040016, 60008, 7840016, 10008] == [file.size for file in dataset.files]
    for file in dataset.files:
        for digest in (file.gz_sha256, file.sha256):
            assert digest is None or len(bytes.fromhex(digest)) == 32
        assert (dataset is KMNIST) == (file.sha256 is None)
    assert all(m.startswith("https://") and m.endswith("/") for m in dataset.mirrors)
    assert not any("lecun" in mirror for mirror in dataset.mirrors)
    assert len(dataset.label_names) in (0, 10)


@pytest.mark.parametrize("dataset", [MNIST, FASHION_MNIST], ids=lambda d: d.name)
def test_real_files_match_the_catalogue(dataset: Dataset, real_data: Path) -> None:
    """The real files have the sizes and digests the registry says, and can be loaded."""
    for file in dataset.files:
        packed = (real_data / dataset.name / f"{file.name}.gz").read_bytes()
        content = gzip.decompress(packed)
        assert (file.gz_size, file.size) == (len(packed), len(content))
        assert file.gz_sha256 == hashlib.sha256(packed).hexdigest()
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    for split, count in (("train", 60_000), ("test", 10_000)):
        loaded = load(dataset.name, split, real_data)
        assert (count, 28, 28) == loaded.images.shape
        assert (count, 9) == (len(loaded.labels), loaded.labels.max())


@pytest.mark.parametrize("dotted", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_plain_and_gzip_files_under_any_name_are_the_same_data(
    tmp_path: Path, dotted: bool, packed: bool, suffix: str
) -> None:
    pack: Callable[[bytes], bytes] = gzip.compress if packed else bytes
    put(tmp_path, pack(GOOD_IMAGES), pack(GOOD_LABELS), suffix)
    if dotted:
        for path in (tmp_path / "mnist").iterdir():
            path.rename(path.with_name(path.name.replace("-idx", ".idx")))

    split = load("mnist", "train", tmp_path)

    assert (5, 28, 28) == split.images.shape
    assert GOOD_IMAGES[16:] == split.images.tobytes()
    assert [0, 1, 2, 3, 4] == split.labels.tolist()


def test_plain_copy_is_preferred(tmp_path: Path) -> None:
    put(tmp_path, GOOD_IMAGES, GOOD_LABELS)
    put(tmp_path, b"rubbish", b"rubbish", ".gz")
    assert 5 == len(load("mnist", "train", tmp_path).labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_synthetic_needs_no_files(tmp_path: Path, split: str) -> None:
    loaded = load("synthetic", split, tmp_path / "nowhere")
    for expected, array in zip(
        synthetic.generate(split), (loaded.images, loaded.labels), strict=True
    ):
        np.testing.assert_array_equal(expected, array)


def test_synthetic_files_are_read_where_there_are_any(tmp_path: Path) -> None:
    put(tmp_path, GOOD_IMAGES, GOOD_LABELS)
    (tmp_path / "mnist").rename(tmp_path / "synthetic")
    assert 5 == len(load("synthetic", "train", tmp_path).labels)
    with pytest.raises(MissingDataError, match="no t10k-images-idx3-ubyte and no t10k-labels"):
        load("synthetic", "test", tmp_path)


def test_loading_imports_no_requests() -> None:
    code = (
        "import sys; from pathlib import Path; from mnist_cli.data import loading;"
        "loading.load('synthetic', 'test', Path('nowhere'));"
        "sys.exit('requests' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_files_come_with_the_command_that_gets_them(tmp_path: Path) -> None:
    data_dir = tmp_path / "my data"
    with pytest.raises(MissingDataError) as error:
        load("fashion-mnist", "test", data_dir)
    command = str(error.value).partition(": ")[2]
    expected = ["mnist-cli", "download", "--dataset", "fashion-mnist", "--data-dir"]
    assert [*expected, str(data_dir)] == shlex.split(command)


def test_only_missing_files_are_named(tmp_path: Path) -> None:
    put(tmp_path, GOOD_IMAGES, GOOD_LABELS)
    (tmp_path / "mnist" / LABELS).unlink()
    with pytest.raises(MissingDataError, match=f"^no {LABELS} in {tmp_path / 'mnist'}; "):
        load("mnist", "train", tmp_path)


# What is there and wrong: the sentence that says so, the images, the labels

MAGIC = r"magic number: expected b'\x00\x00\x08', found "
BROKEN: dict[str, tuple[str, bytes, bytes]] = {
    "empty images": (f"{IMAGES}: {MAGIC}b''", b"", GOOD_LABELS),
    "empty labels": (f"{LABELS}: {MAGIC}b''", GOOD_IMAGES, b""),
    "html": (f"{IMAGES}: {MAGIC}b'<!D'", b"<!DOCTYPE html>", GOOD_LABELS),
    "float labels": (f"{LABELS}: {MAGIC}b", GOOD_IMAGES, b"\0\0\x0d" + GOOD_LABELS[3:]),
    "cut images": (
        f"{IMAGES}: length: expected 3936 bytes, found 3935 bytes",
        GOOD_IMAGES[:-1],
        GOOD_LABELS,
    ),
    "trailing": (
        f"{LABELS}: length: expected 13 bytes, found more",
        GOOD_IMAGES,
        GOOD_LABELS + b"x",
    ),
    "flat images": (
        f"{IMAGES}: shape of the images: expected (N, 28, 28), found (5, 784)",
        idx(5, 784),
        GOOD_LABELS,
    ),
    "small images": (
        f"{IMAGES}: shape of the images: expected (N, 28, 28), found (5, 14, 14)",
        idx(5, 14, 14),
        GOOD_LABELS,
    ),
    "one-hot labels": (
        f"{LABELS}: shape of the labels: expected (5,), one per image, found (5, 10)",
        GOOD_IMAGES,
        idx(5, 10),
    ),
    "swapped": (
        f"{IMAGES}: shape of the images: expected (N, 28, 28), found (5,)",
        GOOD_LABELS,
        GOOD_IMAGES,
    ),
    "none": (f"{IMAGES}: shape: expected at least one item, found (0, ", idx(0, 28, 28), idx(0)),
    "fewer labels": (
        f"{LABELS}: shape of the labels: expected (5,), one per image, found (4,)",
        GOOD_IMAGES,
        idx(4),
    ),
    "label 10": (
        f"{LABELS}: labels: expected 0 to 9, found 255 at index 4",
        GOOD_IMAGES,
        idx(5, data=bytes([0, 9, 1, 10, 255])),
    ),
    "four billion": (
        f"{IMAGES}: length: expected 3367254359296 bytes, found 16 bytes",
        idx(2**32 - 1, 28, 28, data=b""),
        GOOD_LABELS,
    ),
    "gzip bomb": (
        f"{IMAGES}: length: expected 3936 bytes, found more",
        gzip.compress(GOOD_IMAGES) + gzip.compress(bytes(1 << 20)) * 8192,
        GOOD_LABELS,
    ),
    "cut gzip": (f"{IMAGES}: damaged gzip data: ", gzip.compress(GOOD_IMAGES)[:-20], GOOD_LABELS),
    "gzip twice": (
        f"{IMAGES}: {MAGIC}b'\\x1f\\x8b\\x08'",
        gzip.compress(gzip.compress(GOOD_IMAGES)),
        GOOD_LABELS,
    ),
}


@pytest.mark.parametrize(("message", "images", "labels"), BROKEN.values(), ids=BROKEN)
def test_invalid_files_are_refused(
    tmp_path: Path, message: str, images: bytes, labels: bytes
) -> None:
    """Each violation has its own sentence, and the way out follows it."""
    put(tmp_path, images, labels)
    with pytest.raises(DataError) as error:
        load("mnist", "train", tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'mnist'}/{message}")
    assert str(error.value).endswith(f": mnist-cli download --dataset mnist --data-dir {tmp_path}")


def images_are_a_directory(directory: Path) -> None:
    (directory / IMAGES).unlink()
    (directory / IMAGES).mkdir()


def labels_are_a_pipe(directory: Path) -> None:
    (directory / LABELS).unlink()
    os.mkfifo(directory / LABELS)


def labels_are_a_broken_link(directory: Path) -> None:
    (directory / LABELS).unlink()
    (directory / LABELS).symlink_to("nowhere")


def directory_is_a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.touch()


def data_dir_is_a_file(directory: Path) -> None:
    shutil.rmtree(directory.parent)
    directory.parent.touch()


SPOILED = {
    images_are_a_directory: f"{IMAGES}: expected a regular file, found a directory, pipe",
    labels_are_a_pipe: f"{LABELS}: expected a regular file",
    labels_are_a_broken_link: f"{LABELS}: cannot read it: No such file or directory",
    directory_is_a_file: "data/mnist is not a directory",
    data_dir_is_a_file: "data is not a directory",
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.items())
def test_anything_but_files_in_a_directory_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    """And nothing blocks."""
    put(tmp_path / "data", GOOD_IMAGES, GOOD_LABELS)
    spoil(tmp_path / "data" / "mnist")
    with pytest.raises(DataError) as error:
        load("mnist", "train", tmp_path / "data")
    assert message in str(error.value)


def test_unsearchable_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot look at it: File name too long"):
        load("mnist", "train", tmp_path / ("x" * 300))


@pytest.mark.parametrize("case", ["good", "gzip bomb", "cut images", "labels_are_a_pipe"])
def test_no_model_from_invalid_files(tmp_path: Path, run: Run, case: str) -> None:
    """The program says it in one line, exits with 1 and writes no model."""
    put(tmp_path / "data", *BROKEN.get(case, ("", GOOD_IMAGES, GOOD_LABELS))[1:])
    if case == "labels_are_a_pipe":
        labels_are_a_pipe(tmp_path / "data" / "mnist")

    result = run("train", "--offline", "--validation-size=0", "--epochs=1")

    assert (case != "good") == result.returncode
    assert (case == "good") == (tmp_path / "model.npz").exists()
    if case != "good":
        assert ("Error: ", "", 1) == (
            result.stderr[:7],
            result.stdout,
            result.stderr.count("\n"),
        )


def test_changed_files_are_refused_or_valid(tmp_path: Path) -> None:
    """Ten thousand changed files are either refused or a data set that keeps every promise."""
    rng = np.random.default_rng(55)
    plain = (GOOD_IMAGES, GOOD_LABELS)
    packed = tuple(gzip.compress(content, mtime=0) for content in plain)
    accepted = 0
    for _ in range(10_000):
        contents = [bytearray(pair[rng.integers(2)]) for pair in zip(plain, packed, strict=True)]
        chosen = contents[rng.integers(2)]
        for _ in range(rng.integers(1, 4)):
            # Half of the changes hit the header.
            at = int(rng.integers(rng.choice([min(20, len(chosen)), len(chosen)])))
            change(chosen, at, rng)
        put(tmp_path, bytes(contents[0]), bytes(contents[1]))
        try:
            split = load("mnist", "train", tmp_path)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        accepted += 1
        count = len(split.labels)
        assert ((count, 28, 28), (count,)) == (split.images.shape, split.labels.shape)
        assert 1 <= count
        assert 9 >= split.labels.max()
    assert 100 < accepted < 5_000
