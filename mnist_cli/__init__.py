"""Train, evaluate and apply softmax regression on MNIST, with numpy alone."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_cli.api import Model, load_data, load_model, train

__version__ = "0.2.0"
__all__ = ["Model", "load_data", "load_model", "train"]


def __getattr__(name: str) -> Any:
    """Import the Python API, or a module, when it is first asked for: numpy is slow to import."""
    if name in __all__:
        return getattr(importlib.import_module("mnist_cli.api"), name)
    if name in ("functional", "gradcheck"):
        return importlib.import_module(f"mnist_cli.{name}")
    raise AttributeError(f"module 'mnist_cli' has no attribute {name!r}")
