"""The versioned model file: save, and load with suspicion."""

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cli import __version__
from mnist_cli.config import DATASETS, FIELDS, NORMALIZATIONS, Config
from mnist_cli.errors import ConfigError, ModelFileError
from mnist_cli.functional import Array
from mnist_cli.network import CLASSES, INPUTS, LARGEST, Params
from mnist_cli.storage import npz

FORMAT = 1
# What a member of the archive may take up, in bytes: float64 or 65,536 characters, and a header.
LIMITS = {"W": INPUTS * CLASSES * 8 + 4096, "b": 4096, "metadata": 4 * (1 << 16) + 4096}
SHAPES = {"W": (INPUTS, CLASSES), "b": (CLASSES,)}


@dataclasses.dataclass(frozen=True)
class Model:
    """The parameters, and what is needed to use them as they were trained."""

    params: Params
    dataset: str = "mnist"
    normalize: str = "none"
    config: Config | None = None
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)


def save(path: Path, model: Model) -> None:
    """Publish the model at `path`; the same model gives the same bytes.

    Raises:
        MnistError: the file cannot be written.

    """
    metadata = {
        "format": FORMAT,
        "dataset": model.dataset,
        "normalize": model.normalize,
        "config": dataclasses.asdict(model.config) if model.config else {},
        "metrics": model.metrics,
        "versions": {
            "mnist_cli": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    W, b = model.params
    npz.write(path, {"W": np.ascontiguousarray(W), "b": b, "metadata": pack(metadata)})


def load(path: Path) -> Model:
    """Return the model at `path`.

    Raises:
        ModelFileError: the file is missing, damaged, hostile, or of a later format.

    """
    arrays = npz.read(path, LIMITS, size_limit=1 << 20)
    try:
        params = Params(weights(arrays, "W"), weights(arrays, "b"))
        if "metadata" not in arrays:
            return Model(params)
        metadata = unpack(arrays["metadata"], FORMAT)
        _check(metadata)
        config = None if metadata["config"] == {} else unpack_config(metadata["config"])
        dataset, normalize = metadata["dataset"], metadata["normalize"]
        return Model(params, dataset, normalize, config, metadata["metrics"])
    except (ModelFileError, ConfigError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def weights(arrays: dict[str, Array], name: str, suffix: str = "") -> Array:
    """Return the array `name + suffix` as float32, if it is what W or b has to be."""
    full_name = name + suffix
    if full_name not in arrays:
        raise ModelFileError(f"{full_name} is missing")
    array = arrays[full_name]
    if array.shape != SHAPES[name] or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ModelFileError(
            f"{full_name} must be floats of shape {SHAPES[name]}, "
            f"not {array.dtype.str} of shape {array.shape}"
        )
    with np.errstate(all="ignore"):
        narrow = array.astype(np.float32)
    if not np.abs(narrow).max() <= LARGEST:  # false for NaN as well
        raise ModelFileError(f"{full_name} has values that are not finite, or beyond {LARGEST:g}")
    return narrow


def pack(metadata: dict[str, Any]) -> Array:
    """Return `metadata` as JSON in a 0-d array of text."""
    return np.array(json.dumps(metadata, allow_nan=False))


def unpack(array: Array, known_format: int) -> dict[str, Any]:
    """Return the JSON object in a 0-d array of text, if its `format` is the known one."""
    if array.shape or array.dtype.kind != "U":
        raise ModelFileError("the metadata must be one string")
    try:
        text = str(array[()])
        if text.count("{") + text.count("[") > 100:
            raise ModelFileError("the metadata is nested too deeply")
        metadata = json.loads(text, parse_constant=_refuse)
    except ValueError as error:  # of JSON or of Unicode
        raise ModelFileError("the metadata is no JSON") from error
    if not isinstance(metadata, dict) or type(metadata.get("format")) is not int:
        raise ModelFileError("the metadata is no object with a format number")
    if metadata["format"] != known_format:
        raise ModelFileError(
            f"it is of format {str(metadata['format'])[:20]}, this version reads {known_format}: "
            "upgrade mnist-cli"
        )
    return metadata


def _refuse(constant: str) -> float:
    raise ModelFileError(f"the metadata holds {constant}, which is no number")


def unpack_config(values: object) -> Config:
    """Return the hyperparameters that the metadata holds."""
    if not isinstance(values, dict) or set(values) != set(FIELDS):
        raise ModelFileError("the config in the metadata does not have the known fields")
    return Config(**values)


def _check(metadata: dict[str, Any]) -> None:
    fields = {"format", "dataset", "normalize", "config", "metrics", "versions"}
    if set(metadata) != fields:
        wrong = ", ".join(sorted(ascii(name)[:40] for name in set(metadata) ^ fields)[:3])
        raise ModelFileError(f"unknown or missing fields in the metadata: {wrong}")
    for name, known in (("dataset", DATASETS), ("normalize", NORMALIZATIONS)):
        if metadata[name] not in known:
            raise ModelFileError(f"unknown {name} {ascii(metadata[name])[:40]}")
    figures, versions = metadata["metrics"], metadata["versions"]
    if not isinstance(figures, dict) or not all(map(_is_figure, figures.values())):
        raise ModelFileError("the metrics in the metadata must be finite numbers")
    if not isinstance(versions, dict) or not all(type(v) is str for v in versions.values()):
        raise ModelFileError("the versions in the metadata must be strings")


def _is_figure(value: object) -> bool:
    """Tell whether `value` is None or a number; json.loads makes an infinity of 1e999."""
    return value is None or (type(value) in (int, float) and -1e300 < value < 1e300)  # type: ignore[operator]
