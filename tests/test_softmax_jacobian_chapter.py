import contextlib
import io
import re
from pathlib import Path
from typing import Any

CHAPTER = Path(__file__).parents[1] / "docs" / "softmax-jacobian.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_chapter_runs_in_order_and_prints_what_it_shows() -> None:
    chapter = CHAPTER.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(chapter))
    assert len(blocks) == chapter.count("```python") == chapter.count("```text")
    namespace: dict[str, Any] = {}
    for block in blocks:
        line = chapter.count("\n", 0, block.start()) + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # The empty lines make a traceback show the line of the chapter.
            exec(compile("\n" * line + block[1], CHAPTER, "exec"), namespace)
        assert printed.getvalue() == (block[2] or ""), f"line {line}"
