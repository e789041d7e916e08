import gzip
import hashlib
import os
import resource
import shlex
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


# The registry


def test_names() -> None:
    """Each data set goes by its own name, the same that configs know."""
    assert [dataset.name for dataset in DATASETS.values()] == list(DATASETS)
    assert set(NAMES_IN_CONFIGS) == set(DATASETS)


@pytest.mark.parametrize("dataset", [MNIST, FASHION_MNIST, KMNIST], ids=lambda d: d.name)
def test_official_files(dataset: Dataset) -> None:
    """Four files of the official sizes, with digests that are digests, from https mirrors."""
    assert [file.name for file in dataset.files] == [*NAMES["train"], *NAMES["test"]]
    assert [file.size for file in dataset.files] == [47040016, 60008, 7840016, 10008]
    for file in dataset.files:
        for digest in (file.gz_sha256, file.sha256):
            assert digest is None or len(bytes.fromhex(digest)) == 32
        assert (file.sha256 is None) == (dataset is KMNIST)
    assert all(m.startswith("https://") and m.endswith("/") for m in dataset.mirrors)
    assert not any("lecun" in mirror for mirror in dataset.mirrors)
    assert len(dataset.label_names) in (0, 10)


@pytest.mark.parametrize("dataset", [MNIST, FASHION_MNIST], ids=lambda d: d.name)
def test_real_files(dataset: Dataset, real_data: Path) -> None:
    """The real files have the sizes and digests the registry says, and can be loaded."""
    for file in dataset.files:
        packed = (real_data / dataset.name / f"{file.name}.gz").read_bytes()
        content = gzip.decompress(packed)
        assert (len(packed), len(content)) == (file.gz_size, file.size)
        assert hashlib.sha256(packed).hexdigest() == file.gz_sha256
        assert hashlib.sha256(content).hexdigest() == file.sha256
    for split, count in (("train", 60_000), ("test", 10_000)):
        loaded = load(dataset.name, split, real_data)
        assert loaded.images.shape == (count, 28, 28)
        assert (np.bincount(loaded.labels).sum(), loaded.labels.max()) == (count, 9)


# Loading


@pytest.mark.parametrize("dotted", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_spellings(tmp_path: Path, dotted: bool, packed: bool, suffix: str) -> None:
    """Plain and gzip content, under either name, with a dash or a dot, are the same data."""
    pack: Callable[[bytes], bytes] = gzip.compress if packed else bytes
    put(tmp_path, pack(GOOD_IMAGES), pack(GOOD_LABELS), suffix)
    if dotted:
        for path in (tmp_path / "mnist").iterdir():
            path.rename(path.with_name(path.name.replace("-idx", ".idx")))

    split = load("mnist", "train", tmp_path)

    assert split.images.dtype == np.uint8
    assert split.images.shape == (5, 28, 28)
    assert split.images.tobytes() == GOOD_IMAGES[16:]
    assert split.labels.tolist() == [0, 1, 2, 3, 4]


def test_plain_before_gzip(tmp_path: Path) -> None:
    """Of two copies the plain one is read."""
    put(tmp_path, GOOD_IMAGES, GOOD_LABELS)
    put(tmp_path, b"rubbish", b"rubbish", ".gz")
    assert len(load("mnist", "train", tmp_path).labels) == 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_synthetic_in_memory(tmp_path: Path, split: str) -> None:
    """The synthetic data set needs no files, and no data directory."""
    loaded = load("synthetic", split, tmp_path / "nowhere")
    images, labels = synthetic.generate(split)
    assert (loaded.images == images).all()
    assert (loaded.labels == labels).all()


def test_synthetic_from_files(tmp_path: Path) -> None:
    """Where there is a file of it, the synthetic data set is what the files are."""
    put(tmp_path, GOOD_IMAGES, GOOD_LABELS)
    (tmp_path / "mnist").rename(tmp_path / "synthetic")
    assert len(load("synthetic", "train", tmp_path).labels) == 5
    with pytest.raises(MissingDataError, match="no t10k-images-idx3-ubyte and no t10k-labels"):
        load("synthetic", "test", tmp_path)


def test_loads_without_requests(tmp_path: Path) -> None:
    """Only who downloads waits for requests."""
    code = (
        "import sys; from pathlib import Path; from mnist_cli.data import loading;"
        "loading.load('synthetic', 'test', Path('nowhere'));"
        "sys.exit('requests' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What is not there


def test_missing(tmp_path: Path) -> None:
    """The error holds the very command that gets the data, whatever the directory is called."""
    data_dir = tmp_path / "my data"
    with pytest.raises(MissingDataError) as error:
        load("fashion-mnist", "test", data_dir)
    command = str(error.value).partition(": ")[2]
    assert shlex.split(command) == [
        *("mnist-cli", "download", "--dataset", "fashion-mnist", "--data-dir", str(data_dir))
    ]


def test_half_missing(tmp_path: Path) -> None:
    """Only what is missing is named."""
    put(tmp_path, GOOD_IMAGES, GOOD_LABELS)
    (tmp_path / "mnist" / LABELS).unlink()
    with pytest.raises(MissingDataError, match=f"^no {LABELS} in {tmp_path / 'mnist'}; "):
        load("mnist", "train", tmp_path)


# What is there and wrong: the sentence that says so, the images, the labels

LYING = idx(2**32 - 1, 28, 28, data=b"")
BROKEN: dict[str, tuple[str, bytes, bytes]] = {
    "empty images": (f"{IMAGES}: length: expected at least 4 bytes, found 0", b"", GOOD_LABELS),
    "empty labels": (f"{LABELS}: length: expected at least 4 bytes, found 0", GOOD_IMAGES, b""),
    "html": (f"{IMAGES}: magic number: expected two zero", b"<!DOCTYPE html>", GOOD_LABELS),
    "wrong magic": (f"{LABELS}: magic number: ", GOOD_IMAGES, b"\x08" + GOOD_LABELS[1:]),
    "unknown type": (f"{IMAGES}: type: expected one of", idx(5, 28, 28, code=7), GOOD_LABELS),
    "cut header": (f"{IMAGES}: header: expected 16 bytes, found 9", GOOD_IMAGES[:9], GOOD_LABELS),
    "cut images": (
        f"{IMAGES}: length: expected 3936 bytes, found 3935",
        GOOD_IMAGES[:-1],
        GOOD_LABELS,
    ),
    "trailing": (
        f"{LABELS}: length: expected 13 bytes, found 14",
        GOOD_IMAGES,
        GOOD_LABELS + b"x",
    ),
    "signed": (
        f"{IMAGES}: type: expected unsigned bytes, found int8",
        idx(5, 28, 28, code=9),
        GOOD_LABELS,
    ),
    "float labels": (
        f"{LABELS}: type: expected unsigned bytes, found float32",
        GOOD_IMAGES,
        idx(5, code=13, itemsize=4),
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
        f"{LABELS}: shape of the labels: expected (N,), found (5, 10)",
        GOOD_IMAGES,
        idx(5, 10),
    ),
    "swapped": (
        f"{IMAGES}: shape of the images: expected (N, 28, 28), found (5,)",
        GOOD_LABELS,
        GOOD_IMAGES,
    ),
    "none": (f"{IMAGES}: number of images: expected at least 1, found 0", idx(0, 28, 28), idx(0)),
    "fewer labels": (
        f"{LABELS}: number of labels: expected 5, as many as images, found 4",
        GOOD_IMAGES,
        idx(4),
    ),
    "more labels": (
        f"{LABELS}: number of labels: expected 5, as many as images, found 6",
        GOOD_IMAGES,
        idx(6),
    ),
    "label 10": (
        f"{LABELS}: labels: expected 0 to 9, found 10 at index 3",
        GOOD_IMAGES,
        idx(5, data=bytes([0, 9, 1, 10, 255])),
    ),
    "four billion": (
        f"{IMAGES}: length: expected 3367254359296 bytes, found 16 bytes",
        LYING,
        idx(2**32 - 1, data=b""),
    ),
    "four billion images": (
        f"{LABELS}: number of labels: expected 4294967295",
        LYING,
        GOOD_LABELS,
    ),
    "gzip bomb": (
        f"{IMAGES}: length: expected 3936 bytes, found 3937 or more bytes",
        gzip.compress(GOOD_IMAGES) + gzip.compress(bytes(1 << 20)) * 8192,
        GOOD_LABELS,
    ),
    "cut gzip": (
        f"{IMAGES}: damaged gzip data: ",
        gzip.compress(GOOD_IMAGES)[:-20],
        GOOD_LABELS,
    ),
    "gzip twice": (
        f"{IMAGES}: magic number: expected two zero bytes at its start, found b'\\x1f\\x8b'",
        gzip.compress(gzip.compress(GOOD_IMAGES)),
        GOOD_LABELS,
    ),
    "gzip checksum": (
        f"{LABELS}: damaged gzip data: CRC check failed",
        GOOD_IMAGES,
        gzip.compress(GOOD_LABELS)[:-8] + bytes(8),
    ),
}


@pytest.mark.parametrize(("message", "images", "labels"), BROKEN.values(), ids=BROKEN)
def test_broken(tmp_path: Path, message: str, images: bytes, labels: bytes) -> None:
    """Each violation has its own sentence, and the way out follows it."""
    put(tmp_path, images, labels)
    with pytest.raises(DataError) as error:
        load("mnist", "train", tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'mnist'}/{message}")
    assert f"mnist-cli download --dataset mnist --data-dir {tmp_path}" in str(error.value)


def images_are_a_directory(directory: Path) -> None:
    (directory / IMAGES).unlink()
    (directory / IMAGES).mkdir()


def labels_are_a_pipe(directory: Path) -> None:
    (directory / LABELS).unlink()
    os.mkfifo(directory / LABELS)


def images_are_a_device(directory: Path) -> None:
    (directory / IMAGES).unlink()
    (directory / IMAGES).symlink_to("/dev/zero")


def labels_are_a_broken_link(directory: Path) -> None:
    (directory / LABELS).unlink()
    (directory / LABELS).symlink_to("nowhere")


def labels_are_missing(directory: Path) -> None:
    (directory / LABELS).unlink()


def directory_is_a_file(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    directory.touch()


def data_dir_is_a_file(directory: Path) -> None:
    directory_is_a_file(directory)
    directory.unlink()
    directory.parent.rmdir()
    directory.parent.touch()


SPOILT = {
    images_are_a_directory: f"{IMAGES}: expected a regular file, found a directory, pipe",
    labels_are_a_pipe: f"{LABELS}: expected a regular file",
    images_are_a_device: f"{IMAGES}: expected a regular file",
    labels_are_a_broken_link: f"{LABELS}: cannot read it: No such file or directory",
    labels_are_missing: f"no {LABELS} in ",
    directory_is_a_file: "data/mnist is not a directory",
    data_dir_is_a_file: "data is not a directory",
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.items())
def test_spoilt(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    """What is no file, or no directory, is refused without blocking."""
    put(tmp_path / "data", GOOD_IMAGES, GOOD_LABELS)
    spoil(tmp_path / "data" / "mnist")
    with pytest.raises(DataError) as error:
        load("mnist", "train", tmp_path / "data")
    assert message in str(error.value)


def test_no_looking(tmp_path: Path) -> None:
    """A directory that cannot even be looked for is an error like any other."""
    with pytest.raises(DataError, match="cannot look at it: File name too long"):
        load("mnist", "train", tmp_path / ("x" * 300))


def train(data_dir: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """Run the program offline in 3 GiB of address space."""
    limit = 3 << 30
    return subprocess.run(
        [
            *(sys.executable, "-m", "mnist_cli", "train", "--offline", "--validation-size=0"),
            *(f"--data-dir={data_dir}", f"--output={model}"),
        ],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("case", [*BROKEN, *(spoil.__name__ for spoil in SPOILT)])
def test_no_model_from_broken_data(tmp_path: Path, case: str) -> None:
    """The program says it in one line, exits with 1 and writes no model."""
    put(tmp_path / "data", *BROKEN.get(case, ("", GOOD_IMAGES, GOOD_LABELS))[1:])
    for spoil in SPOILT:
        if spoil.__name__ == case:
            spoil(tmp_path / "data" / "mnist")

    result = train(tmp_path / "data", tmp_path / "model.npz")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_model_from_good_data(tmp_path: Path) -> None:
    """The same call, with nothing wrong, writes a model."""
    put(tmp_path / "data", GOOD_IMAGES, GOOD_LABELS)
    assert train(tmp_path / "data", tmp_path / "model.npz").returncode == 0
    assert (tmp_path / "model.npz").exists()


def test_mutations(tmp_path: Path) -> None:
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
        assert (split.images.shape, split.labels.shape) == ((count, 28, 28), (count,))
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert count >= 1
        assert split.labels.max() <= 9
    assert 100 < accepted < 5_000
