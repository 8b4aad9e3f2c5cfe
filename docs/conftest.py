r"""The examples of the documentation are run: Python blocks, and `console` blocks as a person would type them.

One page is one story: its examples run from the top in one new folder, which holds a short text, `shakespeare.txt`. In a `console`
block a line that begins with `$ ` is a command (`\` at its end continues it) and must end with exit status 0; the lines below it, where
there are any, must be what it prints, with `...` for anything at all. Blocks of other kinds (`shell`, `toml`, `text`) are not run.
"""

from __future__ import annotations

import atexit
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

from .started import started  # noqa: TID252 (a folder of pages is no package)

collect_ignore = ["conf.py", "conftest.py", "started.py", "_build", "_extensions", "_templates"]
TEXT_LENGTH = 60_000
SECONDS = 240


class Command(NamedTuple):
    """A command of a console block and the output that the page shows for it."""

    line: str
    shown: str


def read_commands(block: str) -> list[Command]:
    """The commands of a console block in their order."""
    lines: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            lines.append([line[2:]])
        elif lines:
            lines[-1].append(line)
        elif line.strip():
            raise ValueError(f"a console block begins with a command (`$ …`), got {line!r}")
    return [Command(first, "\n".join(rest)) for first, *rest in lines]


def matches(shown: str, printed: str) -> bool:
    """Whether output is what the page shows, where `...` stands for anything and white space at the ends of lines does not count."""
    shown, printed = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (shown, printed))
    return re.fullmatch(".*?".join(map(re.escape, shown.split("..."))), printed, re.DOTALL) is not None


@cache
def bin_folder() -> str:
    """Where the `unrolled` of the examples lies: one that starts at once, where the system can fork."""
    if sys.platform != "linux":
        return str(Path(sys.executable).parent)
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unrolled-started-")))
    return str(stack.enter_context(started(folder)))


def run_console(example: Example) -> str | None:
    """Run a console block; the answer is what went wrong, if anything did."""
    path = os.pathsep.join([bin_folder(), str(Path(sys.executable).parent), os.environ["PATH"]])
    surroundings = os.environ | {"PATH": path, "COLUMNS": "140", "NO_COLOR": "1", "TERM": "dumb"}
    for command in read_commands(example.parsed):
        ran = subprocess.run(
            ["bash", "-c", command.line],
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if ran.returncode != 0:
            return f"`{command.line}` ended with {ran.returncode}:\n{ran.stdout}"
        if command.shown.strip() and not matches(command.shown, ran.stdout):
            return f"`{command.line}` printed:\n{ran.stdout}\nand the page shows:\n{command.shown}"
    return None


def enter_folder(namespace: dict[str, Any]) -> None:
    """Give a page its own folder with a short text in it."""
    namespace["_came_from"], namespace["_folder"] = os.getcwd(), tempfile.mkdtemp(prefix="unrolled-page-")
    os.chdir(namespace["_folder"])
    text = gzip.decompress((files("unrolled") / "demo" / "tinyshakespeare.txt.gz").read_bytes()).decode()
    Path("shakespeare.txt").write_text(text[:TEXT_LENGTH], encoding="utf-8")


def leave_folder(namespace: dict[str, Any]) -> None:
    """Remove the page's folder."""
    os.chdir(namespace["_came_from"])
    shutil.rmtree(namespace["_folder"], ignore_errors=True)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser(language="console", evaluator=run_console)],
    patterns=["*.md", "**/*.md"],
    setup=enter_folder,
    teardown=leave_folder,
).pytest()
