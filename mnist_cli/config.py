"""The hyperparameters: one frozen record, its ranges, its JSON form."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnist_cli.errors import ConfigError

DATASETS = ("mnist", "fashion-mnist", "kmnist", "synthetic")
NORMALIZATIONS = ("none", "deskew", "moment")
SCHEDULES = ("cosine", "constant")


def _field(default: Any, help_: str, rule: str, holds: Callable[[Any], bool], **extra: Any) -> Any:
    metadata = {"help": help_, "rule": rule, "holds": holds} | extra
    return dataclasses.field(default=default, metadata=metadata)


def _choice(default: str, help_: str, choices: tuple[str, ...]) -> Any:
    rule = f"one of {', '.join(choices)}"
    return _field(default, help_, rule, choices.__contains__, choices=choices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What decides a training run, besides the data itself.

    Raises:
        ConfigError: a value has the wrong type or is out of its range.

    """

    dataset: str = _choice("mnist", "Data set to train on.", DATASETS)
    epochs: int = _field(
        10, "Passes over the training images.", "from 1 to 100000", lambda v: 1 <= v <= 100_000
    )
    batch_size: int = _field(
        128, "Images in a minibatch.", "from 1 to 2147483647", lambda v: 1 <= v < 2**31
    )
    learning_rate: float = _field(
        0.2,
        "Step size of SGD, at its highest.",
        "above 0 and below 1e300",
        lambda v: 0 < v < 1e300,
    )
    momentum: float = _field(
        0.9, "Share of the last step that goes on.", "from 0 to below 1", lambda v: 0 <= v < 1
    )
    weight_decay: float = _field(
        1e-4, "L2 penalty on W.", "from 0 to below 1e300", lambda v: 0 <= v < 1e300
    )
    schedule: str = _choice("cosine", "Course of the learning rate.", SCHEDULES)
    validation_size: int = _field(
        5000,
        "Training images set aside to judge by.",
        "from 0 to 2147483647",
        lambda v: 0 <= v < 2**31,
    )
    patience: int = _field(
        0,
        "Stop after this many epochs without a lower validation loss (0: never).",
        "from 0 to 2147483647",
        lambda v: 0 <= v < 2**31,
    )
    normalize: str = _choice("none", "How to straighten each image first.", NORMALIZATIONS)
    seed: int = _field(
        0,
        "Seed of everything random.",
        "from 0 to 18446744073709551615",
        lambda v: 0 <= v < 2**64,
    )

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            check(name, value)
        if self.patience and not self.validation_size:
            raise ConfigError("patience needs validation images: raise validation_size above 0")


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def check(name: str, value: object) -> None:
    """Raise ConfigError if `value` is none that the hyperparameter `name` can have."""
    kind, rule = FIELDS[name].type, FIELDS[name].metadata["rule"]
    fits = isinstance(value, (int, float) if kind is float else kind)  # type: ignore[arg-type]
    if isinstance(value, bool) or not fits:
        noun = {int: "an integer", float: "a number", str: "a string,"}[kind]  # type: ignore[index]
        raise ConfigError(f"{name} must be {noun} {rule}, not {_show(value)}")
    if not FIELDS[name].metadata["holds"](value):
        raise ConfigError(f"{name} must be {rule}, not {_show(value)}")


def load(path: Path) -> dict[str, Any]:
    """Return the hyperparameters that the JSON config file at `path` gives.

    Raises:
        ConfigError: it names the file and, where one is at fault, the key.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(values, dict):
            raise ConfigError('a config is one JSON object, like {"epochs": 10}')
        for name, value in values.items():
            if name not in FIELDS:
                import difflib

                nearest = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0)[0]
                raise ConfigError(f"unknown key {_show(name)}; did you mean {nearest!r}?")
            check(name, value)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply for a config") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"the key {_show(twice)} is given twice")
    return values


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
