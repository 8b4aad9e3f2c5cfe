"""The page in a browser: no error, curves drawn, axes switched, values under the pointer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_run import make_run, metric_lines

from unrolled.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
MOVE = "document.querySelector('.chart').dispatchEvent(new PointerEvent('pointermove', {clientX: 400, clientY: 300}));"


def browse(page: Path, scratch: Path, script: str = "", width: int = 1000) -> tuple[str, list[str]]:
    """The page's DOM after its script (and one of ours) ran, and what stands on its console."""
    copy = scratch / "copy.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        *QUIET,
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
    ]
    command += [f"--user-data-dir={scratch / 'profile'}", f"--window-size={width},900", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True, env={**os.environ, "HOME": str(scratch)})
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_curves_are_drawn_without_a_word_on_the_console(tmp_path: Path) -> None:
    dom, console = browse(write_report(make_run(tmp_path / "run")), tmp_path, MOVE)
    drawn = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert console == []
    assert drawn.count("<svg") == 4 and drawn.count("<polyline") == 5
    assert re.search(
        r'class="tip"[^>]*>step .*training <b>[\d.]+</b>.*validation <b>[\d.]+</b> \(perplexity [\d.]+, [\d.]+ bits/char\.\)', dom
    )
    assert "NaN" not in drawn


@pytest.mark.parametrize(("axis", "name"), [(1, "minutes"), (2, "tokens")])
def test_the_axis_can_be_switched(tmp_path: Path, axis: int, name: str) -> None:
    script = f"document.querySelectorAll('input[name=axis]')[{axis}].click();" + MOVE
    dom, console = browse(write_report(make_run(tmp_path / "run")), tmp_path, script)
    assert console == []
    assert re.search(rf'class="tip"[^>]*>{name} ', dom)


def test_nothing_is_wider_than_a_telephone(tmp_path: Path) -> None:
    # A window of Chromium is at least 500 wide; a frame is not.
    page = write_report(make_run(tmp_path / "run", name="a-name-without-any-blank-" * 8))
    script = "document.body.style.width = '360px'; document.querySelectorAll('details').forEach((d) => (d.open = true));"
    script += "setTimeout(() => { document.title = 'width ' + document.querySelector('main').scrollWidth; }, 500);"
    dom, console = browse(page, tmp_path, script, width=500)
    assert console == [] and "<title>width 360</title>" in dom


@pytest.mark.parametrize(
    "lines",
    [
        [],
        metric_lines()[:1],
        [{"kind": "train", "step": 1, "loss": 2.0}],
        [{"kind": "valid", "step": 0, "loss": 0.0, "seconds": 0, "tokens": 0}],
    ],
)
def test_hardly_any_points(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    switch = "document.querySelectorAll('input[name=axis]').forEach((i) => { i.click(); " + ("" if not lines else MOVE) + " });"
    dom, console = browse(write_report(run), tmp_path, switch)
    assert console == []
    assert "NaN" not in re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)


def test_an_error_on_the_console_would_be_seen(tmp_path: Path) -> None:
    _, console = browse(write_report(make_run(tmp_path / "run")), tmp_path, "undefined.x")
    assert len(console) == 1
