"""How the documentation is built: `make docs`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "unrolled"
author = "the authors of unrolled"
copyright = "2026, the authors of unrolled"
version = release = installed_version("unrolled")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "options_table",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "unrolled"
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,
    "show-inheritance": True,
    "exclude-members": "model_config, count, index",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autosummary_generate = True
autosummary_ignore_module_all = True


CODE = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)")


def write_names_as_code(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write `names` as Markdown does; reStructuredText wants two backquotes, and a break where a letter follows."""
    lines[:] = [re.sub(r"``\\ (?=\s|$)", "``", CODE.sub(lambda code: f"``{code[2].strip()}``\\ ", line)) for line in lines]


def setup(app: Any) -> None:
    """Run before Napoleon, which splits at colons outside of code."""
    app.connect("autodoc-process-docstring", write_names_as_code, priority=400)
