"""Imports point one way, and each heavy package has one importer."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mnist_cli

ROOT = Path(mnist_cli.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it, and what it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        name: imports(path) & MODULES.keys() - {"mnist_cli"} for name, path in MODULES.items()
    }

    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names it

    assert order.index("mnist_cli.functional") < order.index("mnist_cli.network")
    assert order[-1] == "mnist_cli.__main__"


@pytest.mark.parametrize(
    ("package", "importers"),
    [
        ("click", {"mnist_cli.cli", "mnist_cli.output.console"}),
        ("tqdm", {"mnist_cli.output.console"}),
        ("requests", {"mnist_cli.data.mirror"}),
        ("matplotlib", {"mnist_cli.output.plots"}),
        ("PIL", {"mnist_cli.inputs.pictures"}),
    ],
)
def test_only_its_module_imports_a_package(package: str, importers: set[str]) -> None:
    found = {
        name
        for name, path in MODULES.items()
        if any(module.split(".")[0] == package for module in imports(path))
    }
    assert importers == found


def test_core_imports_nothing_of_what_serves_it() -> None:
    served = ("data", "inputs", "storage", "output")
    for name in ("functional", "network", "evaluation", "training", "config", "files", "errors"):
        parts = {module.split(".")[1] for module in imports(MODULES[f"mnist_cli.{name}"])
                 if module.startswith("mnist_cli.")}  # fmt: skip
        assert not parts & set(served), name
