"""The chapters' code runs as it stands, in order, and prints what the page shows."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)
RUN = re.compile(r"^\$ mnist-cli (.*)\n((?:(?!\$ ).*\n)*)", re.M)


@pytest.mark.parametrize("page", ["softmax-jacobian.md", "hidden-layer.md"])
def test_every_block_runs_in_order_and_prints_what_it_shows(
    page: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    """A block that begins with a file's name is that file; the others run one after another."""
    chapter = (DOCS / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(chapter))
    assert len(blocks) == len(re.findall("^```(?:python|console)$", chapter, re.M))
    namespace: dict[str, Any] = {}
    for kind, code, shown in (block.groups() for block in blocks):
        if kind == "console":
            for command, output in RUN.findall(code):
                assert output == invoke(*command.split()).output
        elif name := re.match(r"# (\S+\.py)\n", code):
            (tmp_path / name[1]).write_text(code, encoding="utf-8")
        else:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, page, "exec"), namespace)
            assert (shown or "") == printed.getvalue()


def test_readme_shows_what_gradcheck_says_of_the_question() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^\$ mnist-cli gradcheck .*?^```$", readme, re.M | re.S)
    assert shown in (DOCS / "softmax-jacobian.md").read_text(encoding="utf-8")
