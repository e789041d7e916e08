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
        DataError: a file is invalid.

    """
    directory = data_dir / name
    check_directory(directory)
    found = {file: find(directory, file) for names in NAMES.values() for file in names}
    if name == "synthetic" and not any(found.values()):
        from mnist_cli.data import synthetic

        return Split(*synthetic.generate(split))
    missing = [file for file in NAMES[split] if not found[file]]
    if missing:
        names = " and no ".join(missing)
        raise MissingDataError(f"no {names} in {directory}; {hint(directory)}")
    try:
        return _read(*(found[file][0] for file in NAMES[split]))
    except DataError as error:
        raise DataError(f"{error}; {hint(directory)}") from error


def hint(directory: Path) -> str:
    """Say how to get the official files."""
    data_dir = shlex.quote(str(directory.parent))
    command = f"mnist-cli download --dataset {directory.name} --data-dir {data_dir}"
    return f"get the official files, with any others moved aside: {command}"


def find(directory: Path, name: str) -> list[Path]:
    """List what bears an official file's name, in the order of preference: `load` reads the first.

    Raises:
        DataError: the directory cannot be searched.

    """
    spellings = (name, name.replace("-idx", ".idx"))
    paths = [directory / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in spellings]
    return [path for path in paths if _exists(path)]


def check_directory(directory: Path) -> None:
    """Raise DataError if `directory` or its parent is there but not a directory."""
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
    """Read two IDX files that belong together."""
    images, labels = idx.read(images_path), idx.read(labels_path)
    if images.shape[1:] != (28, 28):
        raise idx.mismatch(images_path, "shape of the images", "(N, 28, 28)", images.shape)
    if labels.shape != images.shape[:1]:
        expected = f"({len(images)},), one per image"
        raise idx.mismatch(labels_path, "shape of the labels", expected, labels.shape)
    if labels.max() > 9:
        found = f"{labels.max()} at index {labels.argmax()}"
        raise idx.mismatch(labels_path, "labels", "0 to 9", found)
    return Split(images, labels)
