import dataclasses
import json
import math
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mnist_cli import config
from mnist_cli.config import Config
from mnist_cli.errors import ConfigError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.json"


def refusal(file: Path, content: str | bytes) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message
    return message.replace(str(file), "FILE")


def load_or_message(file: Path) -> dict[str, Any] | str:
    try:
        return config.load(file)
    except ConfigError as error:
        return str(error)


def test_a_config_gives_back_what_it_says(file: Path) -> None:
    values = {"dataset": "fashion-mnist", "epochs": 3, "learning_rate": 0.5, "momentum": 0}
    file.write_text(json.dumps(values))
    assert values == config.load(file)
    assert Config(**config.load(file)) == Config(
        dataset="fashion-mnist", epochs=3, learning_rate=0.5, momentum=0
    )


@pytest.mark.parametrize("content", ["{}", " {\n} ", "\ufeff{}"])
def test_every_key_may_be_missing(file: Path, content: str) -> None:
    """A byte-order mark, as some editors write it, does no harm."""
    file.write_text(content, encoding="utf-8")
    assert config.load(file) == {}


def test_the_defaults_survive_json(file: Path) -> None:
    file.write_text(json.dumps(dataclasses.asdict(Config())))
    assert Config() == Config(**config.load(file))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("epoch", "epochs"),
        ("learningRate", "learning_rate"),
        ("learning-rate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("normalise", "normalize"),
        ("data_set", "dataset"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(
    file: Path, key: str, nearest: str
) -> None:
    message = refusal(file, json.dumps({"seed": 1, key: 1}))
    assert f"FILE: unknown key \"{key}\"; did you mean '{nearest}'?" == message


@given(st.text().filter(lambda key: key not in config.FIELDS))
@example("")
@example("\ud800\n\x00")
@example("x" * 100_000)
@settings(deadline=None)
def test_any_unknown_key_is_refused_in_a_short_line(file: Path, key: str) -> None:
    message = refusal(file, json.dumps({key: 1}))
    assert "unknown key" in message
    assert "did you mean" in message or "the keys are dataset, epochs, " in message
    assert len(message) < 300


INTEGERS = ("epochs", "batch_size", "validation_size", "patience", "seed")
NUMBERS = ("learning_rate", "momentum", "weight_decay")
STRINGS = ("dataset", "schedule", "normalize", "features")


def test_the_three_types_make_up_the_config() -> None:
    assert sorted(config.FIELDS) == sorted((*INTEGERS, *NUMBERS, *STRINGS))


@pytest.mark.parametrize("value", ["true", "1.5", "1.0", '"1"', "null", "[1]", "{}"])
@pytest.mark.parametrize("key", INTEGERS)
def test_an_integer_is_no_boolean_and_no_fraction(file: Path, key: str, value: str) -> None:
    message = refusal(file, f'{{"{key}": {value}}}')
    assert message.startswith(f"FILE: {key} must be an integer, at least ")
    assert message.endswith(f", not {value}")


@pytest.mark.parametrize("value", ["true", "false", '"0.1"', "null", "[0.1]"])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_no_boolean_and_no_string(file: Path, key: str, value: str) -> None:
    message = refusal(file, f'{{"{key}": {value}}}')
    assert message.startswith(f"FILE: {key} must be a number, ")
    assert message.endswith(f", not {value}")


@pytest.mark.parametrize("value", ["1", "true", "null", '["mnist"]'])
@pytest.mark.parametrize("key", STRINGS)
def test_a_choice_is_a_string(file: Path, key: str, value: str) -> None:
    message = refusal(file, f'{{"{key}": {value}}}')
    assert message.startswith(f"FILE: {key} must be a string, one of ")


@pytest.mark.parametrize("key", STRINGS)
def test_a_wrong_choice_is_refused_with_the_right_ones(file: Path, key: str) -> None:
    message = refusal(file, json.dumps({key: "MNIST"}))
    assert message.startswith(f"FILE: {key} must be one of ")
    assert all(choice in message for choice in config.FIELDS[key].metadata["choices"])


@pytest.mark.parametrize(
    ("key", "inside", "outside"),
    [
        ("epochs", (1, 10**6), (0, -1)),
        ("batch_size", (1, 10**6), (0, -1)),
        ("learning_rate", (5e-324, 1, 1000), (0, -0.1, -1e-300, 1000.1, 10**400)),
        ("momentum", (0, 0.9999), (-1e-9, 1, 1.0, 2)),
        ("weight_decay", (0, 0.0, 1000), (-1e-9, -1, 1000.1, 10**400)),
        ("validation_size", (0, 10**6), (-1,)),
        ("patience", (0, 10**6), (-1,)),
        ("seed", (0, 2**64), (-1,)),
    ],
)
def test_a_range_includes_its_ends_and_nothing_beyond(
    file: Path, key: str, inside: tuple[Any, ...], outside: tuple[Any, ...]
) -> None:
    for value in inside:
        file.write_text(json.dumps({key: value}))
        assert {key: value} == config.load(file)
        assert value == getattr(Config(**{key: value}), key)
    for value in outside:
        message = refusal(file, json.dumps({key: value}))
        assert message.startswith(f"FILE: {key} must be ")
        with pytest.raises(ConfigError, match=key):
            Config(**{key: value})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_not_finite_is_refused_by_name(file: Path, key: str, value: str) -> None:
    assert key in refusal(file, f'{{"{key}": {value}}}')


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_config_record_is_finite_too(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        Config(**{key: value})


def test_a_key_given_twice_is_refused_by_name(file: Path) -> None:
    message = refusal(file, '{"seed": 1, "epochs": 1, "momentum": 0, "epochs": 1}')
    assert message == 'FILE: the key "epochs" is given twice'


def test_patience_without_validation_images_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"patience .* validation_size"):
        Config(patience=1, validation_size=0)


@pytest.mark.parametrize("content", ["[]", '"epochs"', "1", "null", "true", "[{}]"])
def test_a_config_is_an_object(file: Path, content: str) -> None:
    assert "one JSON object" in refusal(file, content)


@pytest.mark.parametrize(
    "content", [b"\x00\xff\xfe\x80", "{}".encode("utf-16"), bytes(range(256))]
)
def test_binary_garbage_is_refused(file: Path, content: bytes) -> None:
    assert refusal(file, content).startswith("FILE is not valid JSON: ")


@pytest.mark.parametrize(
    "content", ["", "{", '{"epochs": 1,}', "{'epochs': 1}", "{} {}", "epochs: 1", '{"epochs": 01}']
)
def test_what_is_no_json_is_refused(file: Path, content: str) -> None:
    assert refusal(file, content).startswith("FILE is not valid JSON: ")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"seed":' * 100_000])
@pytest.mark.parametrize("start", ["", '{"epochs": '])
def test_deep_nesting_is_refused(file: Path, start: str, content: str) -> None:
    assert refusal(file, start + content).startswith("FILE is not valid JSON: ")


def test_an_integer_of_many_digits_is_refused(file: Path) -> None:
    assert len(refusal(file, '{"seed": 1' + "0" * 100_000 + "}")) < 300


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(ConfigError, match=f"cannot read the config {re.escape(str(path))}: "):
            config.load(path)


@given(st.sampled_from(list(config.FIELDS)), json_values)
@settings(deadline=None, max_examples=200)
def test_any_value_is_refused_by_name_or_valid(file: Path, key: str, value: Any) -> None:
    file.write_text(json.dumps({key: value}))
    outcome = load_or_message(file)
    if isinstance(outcome, str):
        assert key in outcome.replace(str(file), "")
        assert "\n" not in outcome
    else:
        assert {key: value} == outcome
        assert value == getattr(Config(**outcome), key)
        assert not isinstance(value, bool)
        assert value in config.FIELDS[key].metadata.get("choices", [value])


@given(st.binary() | st.text(string.printable).map(str.encode))
@settings(deadline=None)
def test_any_bytes_are_a_config_or_a_config_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    outcome = load_or_message(file)
    if isinstance(outcome, str):
        assert str(file) in outcome
        assert "\n" not in outcome
    else:
        assert set(outcome) <= set(config.FIELDS)
