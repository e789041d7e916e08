"""The Python API: its models are those of the commands, and wrong arrays are refused."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mnist_cli
from mnist_cli.errors import ConfigError, DataError, MissingDataError, ModelFileError
from mnist_cli.functional import Array
from tests.conftest import Run

QUICK: dict[str, Any] = {"epochs": 2, "validation_size": 100}


@pytest.fixture
def chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("chdir")
def test_api_and_command_agree(
    data_dir: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """They train the same model, and evaluate counts what predict answers."""
    images, labels = mnist_cli.load_data("mnist")
    mnist_cli.train(images, labels, normalize="deskew", **QUICK).save("api.npz")
    test_images, test_labels = mnist_cli.load_data("mnist", split="test", data_dir="data")
    probs = mnist_cli.load_model("api.npz").predict(test_images)
    assert capfd.readouterr() == ("", "")
    options = ("--epochs", 2, "--validation-size", 100, "--normalize", "deskew", "--offline")
    assert run("train", *options, "-o", "command.npz").returncode == 0
    ours, theirs = mnist_cli.load_model(Path("api.npz")), mnist_cli.load_model("command.npz")
    assert theirs.config == ours.config
    np.testing.assert_allclose(theirs.params.W, ours.params.W, atol=1e-5)  # BLAS threads differ
    evaluation = json.loads(run("evaluate", "api.npz", "--json").stdout)
    assert evaluation["correct"] == (probs.argmax(axis=1) == test_labels).sum()
    assert probs.shape == (200, 10)
    assert probs.dtype == np.float64


def test_dataset_is_the_name_written_in_the_model(digits: tuple[Array, Array]) -> None:
    assert mnist_cli.train(*digits, **QUICK).dataset == "mnist"
    assert mnist_cli.train(*digits, dataset="kmnist", **QUICK).dataset == "kmnist"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x, y: (x / 255, y),
            "images must be uint8 .*, not float64 of shape (1000, 28, 28)",
        ),
        (lambda x, y: (x.reshape(-1, 784), y), "(N, 28, 28), not uint8 of shape (1000, 784)"),
        (lambda x, y: (x[0], y), "(N, 28, 28), not uint8 of shape (28, 28)"),
        (lambda x, y: (x, y[1:]), "labels must be 1000 integers, .* not uint8 of shape (999,)"),
        (lambda x, y: (x, np.eye(10)[y]), "labels must be .*, not float64 of shape (1000, 10)"),
        (lambda x, y: (x, y + 1), "labels must be 0 to 9, not 1 to 10"),
        (lambda x, y: (x, y.astype(int) - 1), "labels must be 0 to 9, not -1 to 8"),
    ],
)
def test_other_arrays_are_refused(
    digits: tuple[Array, Array], change: Callable[[Array, Array], Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words).replace(r"\.\*", ".*")):
        mnist_cli.train(*change(*digits), **QUICK)


def test_predict_refuses_other_images(digits: tuple[Array, Array]) -> None:
    model = mnist_cli.train(*digits, **QUICK)
    with pytest.raises(ValueError, match="images must be uint8"):
        model.predict(digits[0] / 255)


@pytest.mark.usefixtures("chdir")
def test_errors_are_exceptions_that_say_what_is_known(digits: tuple[Array, Array]) -> None:
    with pytest.raises(DataError, match=r"data sets are mnist, .*, splits train, test"):
        mnist_cli.load_data("minst")
    with pytest.raises(MissingDataError, match=r"data/mnist; .*: mnist-cli download"):
        mnist_cli.load_data("mnist")
    with pytest.raises(ModelFileError, match="nowhere"):
        mnist_cli.load_model("nowhere.npz")
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        mnist_cli.train(*digits, epochs=0)
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        mnist_cli.tran  # noqa: B018


def test_import_is_quick() -> None:
    """Numpy is imported with the first name that needs it, and modules come without an import."""
    script = (
        "import sys, mnist_cli; assert 'numpy' not in sys.modules;"
        "assert mnist_cli.functional.softmax; assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
