"""The hyperparameters: one frozen record, its ranges, its JSON form."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from mnist_cli.errors import ConfigError

DATASETS = ("mnist", "fashion-mnist", "kmnist", "synthetic")
NORMALIZATIONS = ("none", "deskew")
FEATURES = ("pixels", "directions")
SCHEDULES = ("cosine", "constant")


def _number(
    default: float, help_: str, low: float, high: float = math.inf, ends: str = "[]"
) -> Any:
    """Return a field for a number from `low` to `high`; a round end is excluded."""
    rule = f"at least {low:g}" if ends[0] == "[" else f"above {low:g}"
    if high < math.inf:
        rule += f" and at most {high:g}" if ends[1] == "]" else f" and below {high:g}"
    # The next float beyond an excluded end makes every range a closed one.
    low = low if ends[0] == "[" else math.nextafter(low, math.inf)
    high = high if ends[1] == "]" else math.nextafter(high, -math.inf)
    metadata = {"help": help_, "rule": rule, "holds": lambda value: low <= value <= high}
    return dataclasses.field(default=default, metadata=metadata)


def _choice(default: str, help_: str, choices: tuple[str, ...]) -> Any:
    rule = f"one of {', '.join(choices)}"
    metadata = {"help": help_, "rule": rule, "holds": choices.__contains__, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What decides a training run, besides the data itself.

    Raises:
        ConfigError: a value has the wrong type or is out of its range.
    """

    dataset: str = _choice("mnist", "Data set to train on.", DATASETS)
    epochs: int = _number(10, "Passes over the training images.", 1)
    batch_size: int = _number(120, "Images in a minibatch.", 1)
    learning_rate: float = _number(0.2, "Peak learning rate.", 0, 1000, "(]")
    momentum: float = _number(0.9, "Momentum.", 0, 1, "[)")
    weight_decay: float = _number(1e-4, "L2 penalty on W.", 0, 1000)
    schedule: str = _choice("cosine", "Learning-rate schedule.", SCHEDULES)
    validation_size: int = _number(5000, "Training images held out for validation.", 0)
    patience: int = _number(
        0, "Stop after this many epochs without a lower validation loss (0: never).", 0
    )
    normalize: str = _choice("none", "Normalization of each image.", NORMALIZATIONS)
    features: str = _choice("pixels", "What the network sees of each image.", FEATURES)
    seed: int = _number(0, "Seed of everything random.", 0)

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            check(name, value)
        if self.patience and not self.validation_size:
            raise ConfigError("patience needs validation images: raise validation_size above 0")


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
NOUNS: dict[object, str] = {int: "an integer", float: "a number", str: "a string"}


def check(name: str, value: object) -> None:
    """Raise ConfigError if the hyperparameter `name` cannot be `value`."""
    if (name, value) == ("normalize", "moment"):
        raise ConfigError(
            "normalize moment was removed in 0.2.0: use --normalize deskew --features directions"
        )
    kind, rule = FIELDS[name].type, FIELDS[name].metadata["rule"]
    fits = isinstance(value, (int, float) if kind is float else kind)  # type: ignore[arg-type]
    if isinstance(value, bool) or not fits:
        raise ConfigError(f"{name} must be {NOUNS[kind]}, {rule}, not {_show(value)}")
    if not FIELDS[name].metadata["holds"](value):
        raise ConfigError(f"{name} must be {rule}, not {_show(value)}")


def load(path: Path) -> dict[str, Any]:
    """Return the hyperparameters in the JSON config file at `path`.

    Raises:
        ConfigError: it names the file and, where one is at fault, the key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
        if not isinstance(values, dict):
            raise ConfigError('a config is one JSON object, like {"epochs": 10}')
        for name, value in values.items():
            if name not in FIELDS:
                raise ConfigError(f"unknown key {_show(name)}{_suggestion(name)}")
            check(name, value)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    return values


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict; raise ConfigError if a key is given twice."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"the key {_show(key)} is given twice")
        values[key] = value
    return values


def _suggestion(name: str) -> str:
    import difflib  # slow to import, and seldom needed

    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(FIELDS)}"


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
