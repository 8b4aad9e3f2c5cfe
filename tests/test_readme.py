"""The README shows nothing that no page of the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines_of(path: Path) -> list[str]:
    code = "".join(block for _, block in BLOCK.findall(path.read_text(encoding="utf-8")))
    return [" ".join(line.split()) for line in code.splitlines() if line.strip() and line.strip() != "..."]


@pytest.mark.parametrize("line", lines_of(ROOT / "README.md"))
def test_every_line_is_run_on_a_page(line: str) -> None:
    run = {shown for page in (ROOT / "docs").glob("*.md") for shown in lines_of(page)}
    assert line in run
