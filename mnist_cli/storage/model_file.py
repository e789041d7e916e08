"""The versioned model file: saved, and loaded with suspicion."""

import dataclasses
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cli import __version__
from mnist_cli.config import Config, check, unique
from mnist_cli.errors import ConfigError, ModelFileError
from mnist_cli.functional import Array
from mnist_cli.network import CLASSES, INPUTS, LARGEST, Params
from mnist_cli.storage import npz
from mnist_cli.training import State

FORMAT = 1
FIGURES = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
# Bytes in a model's or checkpoint's member: W once in float64 or three times in float32, and
# metadata with 160 characters for each of 100,000 epochs.
LIMITS = {"W": 3 * 4 * INPUTS * CLASSES + 4096, "b": 4096, "metadata": 4 * 160 * 100_000 + 4096}


@dataclasses.dataclass(frozen=True)
class Model:
    """The parameters, and what it takes to use them as they were trained."""

    params: Params
    dataset: str = "mnist"
    normalize: str = "none"
    features: str = "pixels"
    config: Config | None = None
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)


def trained(state: State, config: Config) -> Model:
    """Return the model that a finished run leaves, with the figures of the epoch it kept."""
    params, epoch = state.final(config)
    metrics = {name: getattr(epoch, name) for name in FIGURES}
    return Model(params, config.dataset, config.normalize, config.features, config, metrics)


def save(path: str | Path, model: Model) -> None:
    """Publish the model at `path`, or raise MnistError; the same model gives the same bytes."""
    named = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)[1:]}
    versions = {"mnist_cli": __version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    metadata = pack({"format": FORMAT} | named | {"versions": versions})
    W, b = model.params
    npz.write(Path(path), {"W": np.ascontiguousarray(W), "b": b, "metadata": metadata})


def load(path: str | Path) -> Model:
    """Return the model at `path`, or raise a ModelFileError that says what is wrong with it."""
    arrays = npz.read(Path(path), LIMITS)
    try:
        metadata = unpack(arrays["metadata"]) if "metadata" in arrays else {}
        if "history" in metadata:
            raise ModelFileError("it is a checkpoint, not a model; finish the training to get one")
        names = ("dataset", "normalize", "features")
        named = {name: metadata[name] for name in names if name in metadata}
        for name, value in named.items():
            check(name, value)
        config = Config(**metadata["config"]) if metadata.get("config") else None
        metrics = dict(metadata.get("metrics", {}))
        return Model(to_params(arrays), **named, config=config, metrics=metrics)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: invalid config or metrics in the metadata") from error
    except (ConfigError, ModelFileError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def to_params(arrays: Mapping[str, Array]) -> Params:
    """Return the arrays `W` and `b` as float32, if they are floats of the right shapes."""
    for name, shape in {"W": (INPUTS, CLASSES), "b": (CLASSES,)}.items():
        array = arrays.get(name, np.array(None))
        if array.shape != shape or array.dtype.str[1:] not in ("f4", "f8"):
            raise ModelFileError(f"it has no {name} of float32 or float64 and shape {shape}")
        if not np.abs(array).max() <= LARGEST:  # false for NaN as well
            raise ModelFileError(f"{name} has values that are not finite, or beyond {LARGEST:g}")
    return Params(arrays["W"].astype(np.float32), arrays["b"].astype(np.float32))


def pack(metadata: dict[str, Any]) -> Array:
    """Return `metadata` as JSON in a 0-d array of text."""
    return np.array(json.dumps(metadata, default=dataclasses.asdict, allow_nan=False))


def unpack(array: Array) -> dict[str, Any]:
    """Return the JSON object in a 0-d array of text, if its format is the known one."""
    try:
        if array.shape or array.dtype.kind != "U":
            raise ValueError("it is not one string")
        # Decoded here, for a string of numpy's may hold code points beyond Unicode.
        text = array.astype(array.dtype.newbyteorder("<")).tobytes().decode("utf-32-le")
        metadata = json.loads(text.rstrip("\0"), object_pairs_hook=unique)
        if not isinstance(metadata, dict) or type(metadata.get("format")) is not int:
            raise ValueError("it is not an object with a format number")
    except (ValueError, RecursionError, ConfigError) as error:
        raise ModelFileError(f"the metadata is invalid: {error}") from error
    if metadata["format"] != FORMAT:
        raise ModelFileError(f"its format is {str(metadata['format'])[:20]}: upgrade mnist-cli")
    return metadata
