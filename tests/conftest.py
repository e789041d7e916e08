"""What all tests share: no network but the loopback, the real data, and the program itself."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mnist_cli.cli import cli
from mnist_cli.data import idx, loading

Run = Callable[..., subprocess.CompletedProcess[str]]
Invoke = Callable[..., Result]
QUICK = ("--offline", "--epochs", 2, "--validation-size", 100)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            assert host.startswith("127.") or host in ("::1", "localhost"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the user's decide what a test sees."""
    for name in list(os.environ):
        if name.startswith("MNIST_CLI_") and name != "MNIST_CLI_TEST_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds the official files in mnist/ and fashion-mnist/."""
    folder = os.environ.get("MNIST_CLI_TEST_DATA")
    if not folder:
        pytest.skip("MNIST_CLI_TEST_DATA does not name a folder with the real data")
    return Path(folder).resolve()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `python -m mnist_cli …` as a process of its own, in a temporary directory."""

    def call(
        *args: object, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "mnist_cli", *map(str, args)],
            cwd=options.pop("cwd", tmp_path),
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )
        print(f"$ mnist-cli {' '.join(map(str, args))}\n{result.stdout}{result.stderr}")
        return result

    return call


@pytest.fixture(scope="session")
def digits() -> tuple[Any, Any]:
    """Return 1,000 synthetic images with their labels: quick to train on."""
    split = loading.load("synthetic", "test", Path("nowhere"))
    return split.images[:1000], split.labels[:1000]


@pytest.fixture
def data_dir(tmp_path: Path, digits: tuple[Any, Any]) -> Path:
    """Make a data directory whose mnist/ is 800 training and 200 test images."""
    images, labels = digits
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part, chosen in (("train", slice(800)), ("t10k", slice(800, 1000))):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{part}-{kind}-ubyte").write_bytes(idx.to_bytes(array[chosen]))
    return tmp_path / "data"


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in a temporary directory, and print what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object, **options: Any) -> Result:
        result = CliRunner().invoke(cli, list(map(str, args)), prog_name="mnist-cli", **options)
        print(f"$ mnist-cli {' '.join(map(str, args))}\n{result.output}")
        return result

    return call


@pytest.fixture
def model(invoke: Invoke, data_dir: Path, tmp_path: Path) -> Path:
    """Train a model on the small data set."""
    assert invoke("train", *QUICK, "-q").exit_code == 0
    return tmp_path / "model.npz"


def one_error(result: Result | subprocess.CompletedProcess[str]) -> str:
    """Check that stderr is one line of error, and return it."""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr
