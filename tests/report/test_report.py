"""The page of a run: what it says, and that no run folder, however broken, breaks it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import facts, make_run, metric_lines
from hypothesis import given
from hypothesis import strategies as st

from unrolled.core.errors import RunError
from unrolled.report import write_report
from unrolled.report.curves import MOST_POINTS, thin
from unrolled.report.wording import count, duration

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.said = ""
        self.scripts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside in ("h1", "h2", "h3"):
            self.headings.append(data)
        elif inside != "style":
            self.said += " " + data

    @property
    def curves(self) -> dict[str, list[list[float | None]]]:
        found = json.loads(self.scripts[0], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert isinstance(found, dict)
        return found


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_whole_run(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert page.headings == [
        "tiny-shakespeare",
        "Loss",
        "Samples by stage",
        "at first …",
        *["after more training …"] * 11,
        "Configuration and machine",
        *[f"configuration: {name}" for name in ("data", "model", "train", "samples")],
        *["data", "machine", "versions"],
    ]
    valid = [line for line in metric_lines() if line["kind"] == "valid"]
    loss = min(line["loss"] for line in valid)
    told = f"{loss:.3f}, perplexity {math.exp(loss):.2f}, {loss / math.log(2):.3f} bits per character"
    assert f"Best validation loss {told}, after 8.19 M tokens in 3 min 0 s, 45,511 a second." in page.said
    for text in ("finished", "21 November 2026, 07:13", "AMD EPYC 9B14", "learning_rate", "0.002", "0.9, 0.99", "1,003,855", "2.13.0+cpu"):
        assert text in page.said
    charts = [attributes["data-curves"] for tag, attributes in page.tags if attributes.get("class") == "chart"]
    assert charts == ["train valid", "learning_rate", "gradient_norm", "tokens_per_second"]
    assert [point[0] for point in page.curves["valid"]] == [line["step"] for line in valid]
    assert page.curves["train"][0][1] == pytest.approx(metric_lines()[0]["seconds"] / 60, rel=1e-5)
    assert sum(tag == "article" for tag, _ in page.tags) == 12
    assert "The 7 samples between" in page.said
    assert "not there yet" not in page.said


def test_the_page_asks_nothing_of_anybody(tmp_path: Path) -> None:
    text = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(|sendBeacon", text)
    for tag, attributes in Page(text).tags:
        assert not attributes.keys() & {"src", "srcset", "action"}
        assert tag == "link" or "href" not in attributes
        assert attributes.get("href") in (None, "data:,")
    assert "default-src 'none'" in text


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}"


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", name=HOSTILE, note=HOSTILE, status=HOSTILE, created=HOSTILE)
    write_lines(run / "samples.jsonl", [{"step": 1, "loss": HOSTILE, "prompt": HOSTILE[:20], "text": HOSTILE}])
    (run / "config.toml").write_text(f"[model]\ncell = {json.dumps(HOSTILE)}\n[{json.dumps(HOSTILE)}]\n{json.dumps(HOSTILE)} = 1\n")
    page = page_of(run)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in page.tags)
    assert page.said.count(HOSTILE) >= 4 and HOSTILE in page.headings
    assert HOSTILE[:20] in page.said and HOSTILE[20:] in page.said


NAMES = ("run.json", "config.toml", "metrics.jsonl", "samples.jsonl")


@pytest.mark.parametrize("kept", [(), *((name,) for name in NAMES), *(tuple(n for n in NAMES if n != name) for name in NAMES)])
def test_whatever_is_missing_is_said(tmp_path: Path, kept: tuple[str, ...]) -> None:
    run = make_run(tmp_path / "the run")
    for name in set(NAMES) - set(kept):
        (run / name).unlink()
    page = page_of(run)
    for name in NAMES:
        assert (f"`{name}` is not there yet." in page.said) == (name not in kept)
    if "metrics.jsonl" not in kept:
        assert "Training has just begun: nothing is measured yet." in page.said
        assert "No line of metrics yet: the curves appear with the first one." in page.said
    if "samples.jsonl" not in kept:
        assert "No sample yet: the first one is drawn at the first evaluation." in page.said
    if "run.json" not in kept:
        assert page.headings[0] == "the run"
    if not kept:
        assert "Nothing is recorded yet." in page.said


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\xfe", b"[1, 2", b"[1, 2]\n", b'"x"', b"null\n3\n", b'{"kind": "train"}\n{"kind": "valid"}\n{"ki', b"[" * 100_000],
)
def test_broken_files_do_not_break_the_page(tmp_path: Path, name: str, content: bytes) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(content)
    page_of(run)


def test_a_run_before_its_first_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="running")
    write_lines(run / "metrics.jsonl", metric_lines()[:3])
    page = page_of(run)
    assert "Trained on 49,152 tokens in 1.08 s, 45,511 a second; not yet evaluated." in page.said
    assert "No evaluation yet." in page.said and "running" in page.said


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, None, "many", True, [1], 10**400])
@pytest.mark.parametrize("kind", ["train", "valid"])
def test_values_that_are_no_numbers_are_left_out(tmp_path: Path, broken: object, kind: str) -> None:
    run, lines = make_run(tmp_path / "run"), metric_lines()
    for line in lines[::7]:
        if line["kind"] == kind:
            line |= dict.fromkeys(("loss", "seconds", "tokens", "learning_rate", "perplexity", "bits_per_character"), broken)
    lines.append({"kind": kind, **dict.fromkeys(("step", "loss", "tokens", "seconds", "epoch"), broken)})
    write_lines(run / "metrics.jsonl", lines)
    write_lines(run / "samples.jsonl", [dict.fromkeys(("step", "share", "seconds", "loss", "prompt", "text"), broken)])
    page = page_of(run)
    assert page.curves["train"] and page.curves["valid"]
    assert all(point[0] is not None and point[3] is not None for points in page.curves.values() for point in points)
    assert not re.search(r"\b(nan|inf|None)\b", page.said.replace("None</div>", ""), re.IGNORECASE) or broken in (
        math.inf,
        math.nan,
        -math.inf,
    )


def test_a_run_whose_losses_are_all_nan(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", [line | {"loss": math.nan} for line in metric_lines()])
    page = page_of(run)
    assert page.curves["train"] == [] and page.curves["valid"] == []
    assert "not yet evaluated" in page.said


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(4, 50))
def test_thinning_keeps_the_ends_and_the_extremes(heights: list[float], most: int) -> None:
    points: list[list[float | None]] = [[i, None, None, height] for i, height in enumerate(heights)]
    kept = thin(points, most)
    assert len(kept) <= max(most, 0) or len(points) <= most
    assert [p[0] for p in kept] == sorted(p[0] or 0 for p in kept)
    if points:
        assert kept[0] == points[0] and kept[-1] == points[-1]
        assert {min(heights), max(heights)} <= {p[3] for p in kept}


def test_a_long_run_makes_a_small_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", metric_lines(steps=20_000, every=1))
    page = page_of(run)
    assert all(len(points) <= MOST_POINTS for points in page.curves.values())
    assert (run / "report.html").stat().st_size < 300_000


def test_drawing_again_replaces_the_page_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert write_report(run) == write_report(run) == run / "report.html"
    assert sorted(path.name for path in run.iterdir()) == sorted([*NAMES, "report.html"])


def test_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        write_report(tmp_path / "nowhere")
    assert str(caught.value) == f"`{tmp_path}/nowhere` must be a run folder, and there is none; `unrolled runs` lists the runs"
    assert not (tmp_path / "nowhere").exists()


def test_torch_is_not_imported(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    code = "import sys, pathlib; from unrolled.report import write_report; "
    code += f"write_report(pathlib.Path({str(tmp_path / 'run')!r})); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_wording() -> None:
    assert [count(x) for x in (None, 0, 999.6, 12_300, 1e6, 4.561e6, 2e9, 1e15)] == [
        "–",
        "0",
        "1,000",
        "12,300",
        "1 M",
        "4.56 M",
        "2 G",
        "1e+15",
    ]
    assert [duration(x) for x in (None, 0, 12.34, 59.96, 60, 185, 3599.7, 7440)] == [
        "–",
        "0 s",
        "12.3 s",
        "60 s",
        "1 min 0 s",
        "3 min 5 s",
        "1 h 0 min",
        "2 h 4 min",
    ]
    assert facts(name="x")["name"] == "x"
