"""Cells named by their import path: what is wrong with a name or a file is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unrolled.core.errors import ConfigurationError
from unrolled.models.cell_choice import find_cell

FILE = "from unrolled.nn.cells import LSTM\n\nclass Doubled(LSTM):\n    pass\n"


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (FILE, "chosen:Dubled", "must be a class in `chosen`, which has no `Dubled`; did you mean `Doubled`?"),
        ("x = 1\n", "chosen:Doubled", "which has no `Doubled`; no class in it is derived from `unrolled.nn.Cell`"),
        (FILE, "chosen.py:Doubled", "leave off `.py`"),
        (FILE, "elsewhere_unknown:Doubled", "No module named 'elsewhere_unknown'); run from the folder of its file or install it"),
        ("def (\n", "chosen:Doubled", "cannot be imported (SyntaxError: invalid syntax (chosen.py, line 1))"),
        ("class Doubled:\n    pass\n", "chosen:Doubled", "must be a class derived from `unrolled.nn.Cell`"),
    ],
)
def test_names_and_files_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, said: str) -> None:
    (tmp_path / "chosen.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "chosen", raising=False)
    with pytest.raises(ConfigurationError) as error:
        find_cell(name, trust=True)
    sys.modules.pop("chosen", None)
    assert said in str(error.value)
    assert str(error.value).endswith(said) or "got" in str(error.value)
