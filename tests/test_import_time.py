"""The command line answers at once: torch is imported inside a verb only."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "numpy", "tokenizers")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["unrolled", "unrolled.cli"])
def test_torch_is_not_imported_before_it_is_needed(module: str) -> None:
    ran = run_python(f"import {module}, sys; print(*(name for name in {HEAVY} if name in sys.modules))")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


def test_a_report_is_drawn_without_torch() -> None:
    ran = run_python("import unrolled.report, sys; assert 'torch' not in sys.modules")
    assert ran.returncode == 0, ran.stderr


def test_the_check_sees_torch_where_it_is() -> None:
    """The check above can fail: a room that needs torch is found out."""
    ran = run_python("import unrolled.core.state, sys; print('torch' in sys.modules)")
    assert ran.stdout.strip() == "True", ran.stderr


def test_help_is_fast() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        ran = subprocess.run([sys.executable, "-c", "from unrolled.cli import main; main()", "--help"], capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return time.perf_counter() - start

    # Torch alone takes about two seconds; the best of three, because the machine may be busy.
    assert min(seconds() for _ in range(3)) < 1.5
