"""Load a split of a data set from its files."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_cli.data import idx
from mnist_cli.data.catalogue import NAMES
from mnist_cli.errors import DataError, MissingDataError


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, 28, 28) and their labels uint8 (N,), N ≥ 1, labels 0–9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load(name: str, split: str, data_dir: Path) -> Split:
    """Read the train or test split of a data set from `data_dir`/`name`.

    Plain and gzip files, with a dash or a dot before `idx`, any number of images. The synthetic
    data set is made in memory where no file of it is there.

    Raises:
        MissingDataError: a file is not there; it says how to get it.
        DataError: a file is not what it has to be.

    """
    directory = data_dir / name
    check_directory(directory)
    found = {file: find(directory, file) for names in NAMES.values() for file in names}
    if name == "synthetic" and not any(found.values()):
        from mnist_cli.data import synthetic

        return Split(*synthetic.generate(split))
    command = f"mnist-cli download --dataset {name} --data-dir {shlex.quote(str(data_dir))}"
    missing = [file for file in NAMES[split] if not found[file]]
    if missing:
        raise MissingDataError(f"no {' and no '.join(missing)} in {directory}; get it: {command}")
    try:
        return _read(*(found[file][0] for file in NAMES[split]))
    except DataError as error:
        hint = f"to have the official file instead, move it away and: {command}"
        raise DataError(f"{error}; {hint}") from error


def find(directory: Path, name: str) -> list[Path]:
    """List what bears an official file's name, plain before gzip, a dash before a dot.

    Raises:
        DataError: the directory may not be looked into.

    """
    spellings = (name, name.replace("-idx", ".idx"))
    paths = [directory / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in spellings]
    return [path for path in paths if _exists(path)]


def check_directory(directory: Path) -> None:
    """Raise DataError if `directory`, or what should hold it, is there but no directory."""
    for path in (directory.parent, directory):
        if _exists(path) and not path.is_dir():
            raise DataError(
                f"{path} is not a directory; move it away or choose another --data-dir"
            )


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(f"{path}: cannot look at it: {error.strerror}") from error
    return True


def _read(images_path: Path, labels_path: Path) -> Split:
    """Read two IDX files that belong together; from the headers alone, refuse any others."""
    images, labels = idx.read_header(images_path), idx.read_header(labels_path)
    for path, header in ((images_path, images), (labels_path, labels)):
        if header.dtype != np.uint8:
            raise idx.mismatch(path, "type", "unsigned bytes", header.dtype.name)
    if len(images.shape) != 3 or images.shape[1:] != (28, 28):
        raise idx.mismatch(images_path, "shape of the images", "(N, 28, 28)", images.shape)
    if len(labels.shape) != 1:
        raise idx.mismatch(labels_path, "shape of the labels", "(N,)", labels.shape)
    if images.shape[0] == 0:
        raise idx.mismatch(images_path, "number of images", "at least 1", 0)
    if labels.shape[0] != images.shape[0]:
        expected = f"{images.shape[0]}, as many as images"
        raise idx.mismatch(labels_path, "number of labels", expected, labels.shape[0])
    split = Split(idx.read(images_path), idx.read(labels_path))
    wrong = np.flatnonzero(split.labels > 9)
    if wrong.size:
        found = f"{split.labels[wrong[0]]} at index {wrong[0]}"
        raise idx.mismatch(labels_path, "labels", "0 to 9", found)
    return split
