"""A table of every option below a settings class, taken from the class itself: there is no second list to keep."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

COLUMNS = ("key", "default", "may be", "what it does")


class OptionsTable(Directive):
    """The directive `options`; its argument is `module:Class`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        from unrolled.core.settings import options
        from unrolled.core.wording import written

        module, name = self.arguments[0].split(":")
        group = getattr(importlib.import_module(module), name)
        rows = [(one.key, "" if one.default is None else written(one.default), one.may_be, one.what) for one in options(group)]
        layout = nodes.tgroup(cols=len(COLUMNS))
        layout += [nodes.colspec(colwidth=width) for width in (28, 12, 18, 42)]
        layout += [_part(nodes.thead(), [COLUMNS]), _part(nodes.tbody(), rows)]
        return [nodes.table("", layout)]


def _part(part: nodes.Element, rows: Any) -> nodes.Element:
    for row in rows:
        line = nodes.row()
        for place, text in enumerate(row):
            code = place < 2 and text and row is not COLUMNS
            line += nodes.entry("", nodes.paragraph("", "", nodes.literal(text=text) if code else nodes.Text(text)))
        part += line
    return part


def setup(app: Any) -> dict[str, bool]:
    """Make the directive known to Sphinx."""
    app.add_directive("options", OptionsTable)
    return {"parallel_read_safe": True}
