"""The program from Python, printing nothing. `import mnist_cli` gives the names of this module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cli import inputs, network, training
from mnist_cli.config import DATASETS, Config
from mnist_cli.data import catalogue, loading
from mnist_cli.errors import ArrayError, DataError
from mnist_cli.functional import Array
from mnist_cli.storage import model_file

PathName = str | os.PathLike[str]


class Model(model_file.Model):
    """A trained model: its `params` W and b, and how it was trained."""

    def predict(self, images: Array) -> Array:
        """Return the probabilities of the ten labels: images (N, 28, 28) uint8 → (N, 10) float64.

        The images are prepared as the training images were. Raises ArrayError for other arrays.
        """
        seen = inputs.apply(_check(images), self.normalize, self.features)
        return network.predict(self.params, seen)

    def save(self, path: PathName) -> None:
        """Write the model to a file, whole or not at all; raises MnistError if it cannot."""
        model_file.save(Path(path), self)


def load_model(path: PathName) -> Model:
    """Return the model in a file; raises ModelFileError if it is missing, damaged or hostile."""
    return Model(**vars(model_file.load(Path(path))))


def load_data(name: str, split: str = "train", data_dir: PathName = "data") -> tuple[Array, Array]:
    """Return the images uint8 (N, 28, 28) and labels uint8 (N,) of a data set in `data_dir`.

    Raises DataError if there is no such data set or split, or a file is missing or invalid.
    """
    if name not in DATASETS or split not in catalogue.NAMES:
        known = f"data sets are {', '.join(DATASETS)}, splits {', '.join(catalogue.NAMES)}"
        raise DataError(f"no split {split!r} of a data set {name!r}: {known}")
    loaded = loading.load(name, split, Path(data_dir))
    return loaded.images, loaded.labels


def train(images: Array, labels: Array, **hyperparameters: Any) -> Model:
    """Return a model trained on images (N, 28, 28) uint8 and labels (N,) integers from 0 to 9.

    The hyperparameters are the fields of `config.Config`, `dataset` among them, a mere name here.
    Raises ArrayError for other arrays, ConfigError for a hyperparameter out of its range, and
    TrainingError if `validation_size` leaves no image to train on, or if the training diverges.
    """
    config = Config(**hyperparameters)
    labels = np.asarray(labels)
    images = inputs.apply(_check(images, labels), config.normalize, config.features)
    states = training.train(training.start(), images, labels.astype(np.uint8), config)
    *_, state = states
    return Model(**vars(model_file.trained(state, config)))


def _check(images: Array, labels: Array | None = None) -> Array:
    """Return `images` as an array if it and `labels` are what training and prediction take."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        found = f"{images.dtype} of shape {images.shape}"
        raise ArrayError(f"images must be uint8 (0 to 255) of shape (N, 28, 28), not {found}")
    if labels is not None:
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            found = f"{labels.dtype} of shape {labels.shape}"
            raise ArrayError(f"labels must be {len(images)} integers, one an image, not {found}")
        if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
            raise ArrayError(f"labels must be 0 to 9, not {labels.min()} to {labels.max()}")
    return images
