"""The documentation is true: its commands exist, its outputs have the shape of the real ones."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mnist_cli import functional, network
from mnist_cli.cli import cli
from tests.conftest import Run

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page that are in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield every command of the program in a page's shell blocks, split into words."""
    for block in (*blocks(page, "sh"), *blocks(page, "console")):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\||;", line.removeprefix("$ ")):
                words = shlex.split(re.sub(r"\d?>+ ?\S+", "", part), comments=True)
                if words and words[0] == "mnist-cli":
                    yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_with_its_options(page: Path) -> None:
    for words in commands(page):
        if not words or words[0].startswith("-"):
            continue
        command = cli.commands[words[0]]
        known = {name for option in command.params for name in option.opts} | {"-h", "--help"}
        for word in words[1:]:
            if word.startswith("-") and word != "-":
                assert word.split("=")[0] in known, words
        if all(not word.startswith("<") for word in words):
            parsed = [word for word in words[1:] if word not in ("-h", "--help")]
            if "--config" in parsed:
                parsed[parsed.index("--config") + 1] = str(
                    ROOT / parsed[parsed.index("--config") + 1]
                )
            command.make_context(words[0], parsed, resilient_parsing=False)


def test_readme_shows_commands() -> None:
    """The test above looks at something."""
    assert len(list(commands(ROOT / "README.md"))) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_its_section(page: Path) -> None:
    """Nothing that the program offers is missing from the page of commands."""
    if page.name == "commands.md":
        for name in cli.commands:
            assert f"## mnist-cli {name}\n" in page.read_text()


def test_page_of_commands_is_made_from_the_commands() -> None:
    environment = os.environ | {"PYTHONUTF8": "1"}
    made = subprocess.check_output(
        [sys.executable, "docs/generate.py"], cwd=ROOT, env=environment, text=True
    )
    assert (ROOT / "docs" / "commands.md").read_text() == made


def plain_functions(source: str) -> dict[str, str]:
    """Return each function of `source` without its docstring and annotations."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            if ast.get_docstring(node):
                del node.body[0]
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            found[node.name] = ast.unparse(node)
    return found


def test_functions_in_the_readme_are_those_of_the_package() -> None:
    [block] = blocks(ROOT / "README.md", "python")
    package: dict[str, str] = {}
    for module in (functional, network):
        package |= plain_functions(Path(str(module.__file__)).read_text())

    shown = plain_functions(block)

    assert "gradients" in shown
    assert {name: package[name] for name in shown} == shown
    assert f"FLOOR = {functional.FLOOR}\n" in block


def shape(text: str) -> str:
    """Return what stays of an output when its figures are taken out."""
    return re.sub(r"[\d.,%]+", "#", re.sub(r" +", " ", text)).strip()


def test_outputs_of_the_readme_have_the_shape_of_the_real_ones(run: Run, real_data: Path) -> None:
    shown = {}
    for block in blocks(ROOT / "README.md", "console"):
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            shown[command] = output
    for command in ("mnist-cli train --epochs 10", "mnist-cli evaluate model.npz"):
        real = run(*command.split()[1:], env={"MNIST_CLI_DATA_DIR": str(real_data)}).stdout
        assert shape(shown[command]) == shape(real)


def test_ci_job_runs_as_it_stands(real_data: Path, tmp_path: Path) -> None:
    """The README's CI job runs with `sh -e` from an empty directory, twice: fresh and cached."""
    [job] = [block for block in blocks(ROOT / "README.md", "sh") if "--min-accuracy" in block]
    assert len(job.splitlines()) <= 10
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "MNIST_CLI_DOWNLOAD_MIRROR": str(real_data / "mnist"),
    }
    for _ in range(2):
        result = subprocess.run(
            ["sh", "-e"],
            input=job,
            cwd=tmp_path,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads((tmp_path / "evaluation.json").read_text())["accuracy"] >= 0.92
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 10


def test_completion_scripts_are_had_as_documented() -> None:
    for shell in ("bash", "zsh", "fish"):
        program = Path(sys.executable).with_name("mnist-cli")
        script = subprocess.check_output(
            [program], env=os.environ | {"_MNIST_CLI_COMPLETE": f"{shell}_source"}, text=True
        )
        assert "_mnist_cli_completion" in script


def test_help_texts_end_with_a_full_stop() -> None:
    for command in cli.commands.values():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert (option.help or "").endswith((".", ").")), option.name
