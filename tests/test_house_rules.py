"""The tail is watched: no long function, no long file, no deep inheritance, nothing that names the machine it was written on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FUNCTION, LONGEST_FILE = 60, 450
WRITTEN = (".py", ".md", ".toml", ".txt", ".html", ".j2", ".css", ".js", "")
MACHINE = re.compile(r"(?<![\w.])/(work|home|root|Users)/\w|https?://\d+\.\d+|extra-index-url|(?<!\w)find-links")


def long_functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if (node.end_lineno or first) - first + 1 > LONGEST_FUNCTION:
                yield f"{node.name} (line {first})"


def own_files() -> Iterator[Path]:
    folders = [ROOT / name for name in ("src", "tests", "docs", "benchmarks", ".ci")]
    found = [path for folder in folders for path in folder.rglob("*")] + list(ROOT.glob("*"))
    for path in found:
        if path.is_file() and path.suffix in WRITTEN and not {"__pycache__", "_build"} & set(path.parts):
            yield path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_functions_and_files_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not list(long_functions(ast.parse(text))), f"functions of at most {LONGEST_FUNCTION} lines"
    assert text.count("\n") <= LONGEST_FILE


def test_a_long_function_is_found() -> None:
    body = "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION
    assert list(long_functions(ast.parse(body))) == ["f (line 1)"]


def test_no_file_names_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in own_files()
        if path != Path(__file__)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if MACHINE.search(line)
    ]
    assert not found
