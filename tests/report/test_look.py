"""The page of a trace: what it says and embeds, that no text in it becomes a tag, and that a wrong trace is one sentence."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_trace import LONG, attention, trace
from test_report import HOSTILE, Page

from unrolled.core.errors import DataError, RunError
from unrolled.report import write_look

NAN = math.nan
Made = dict[str, Any]


def page_of(made: Made, folder: Path) -> Page:
    return Page(write_look(made, folder / "look.html").read_text(encoding="utf-8"))


def drawn_on(page: Page) -> Any:
    return json.loads(page.scripts[0], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def node(number: int, parent: int | None, symbol: str, score: float | None = -1.0, kept: bool = True, finished: bool = False) -> Made:
    return {"id": number, "parent": parent, "symbol": symbol, "log_probability": -2.0, "score": score, "kept": kept, "finished": finished}


def hypothesis(*symbols: str) -> Made:
    values = [-0.5 for _ in symbols]
    return {"text": " ".join(symbols), "symbols": list(symbols), "score": -0.5, "log_probability": -1.0, "token_log_probabilities": values}


def one_map(weights: Any, rows: int = 2, columns: int = 3) -> list[Made]:
    return [{"name": "a", "rows": [f"r{i}" for i in range(rows)], "columns": [f"c{j}" for j in range(columns)], "weights": weights}]


def test_everything_of_a_trace_is_told(tmp_path: Path) -> None:
    made = trace(LONG, layers=2, heads=3)
    page = page_of(made, tmp_path)
    assert page.headings == [made["source_text"], "Hypotheses", "Probability of each symbol", "Attention", "Beam search"]
    best = made["hypotheses"][0]
    assert len(made["hypotheses"]) > 1
    score, log_probability = best["score"], best["log_probability"]
    told = f"The best of {len(made['hypotheses'])} hypotheses has score {score:.3f} and log-probability {log_probability:.3f}"
    assert f"{told}: {len(best['symbols'])} symbols made from {len(made['source'])}." in page.said
    for entry in made["hypotheses"]:
        assert entry["text"] in page.said and f"{entry['score']:.3f}" in page.said and f"{entry['log_probability']:.3f}" in page.said
    bars = [attributes["style"] for tag, attributes in page.tags if tag == "b"]
    assert bars == [f"width: {round(100 * math.exp(value), 1)}%" for value in best["token_log_probabilities"]]
    for word in ("translation", "runs/deen", "steps saved", "decoder, source, layer 2", "␣Gletsch"):
        assert word in page.said
    assert [attributes["value"] for tag, attributes in page.tags if tag == "option" and "selected" in attributes] == ["5"]


def test_weights_are_embedded_in_thousandths_the_mean_of_the_heads_first(tmp_path: Path) -> None:
    made = trace(attention=[attention("a", ["x", "y", "z"], ["p", "q"], 3), attention("b", ["x", "y"], ["x", "y"], 1, causal=True)])
    first, second = drawn_on(page_of(made, tmp_path))["attention"]
    heads = made["attention"][0]["weights"]
    assert first["rows"] == ["x", "y", "z"] and first["columns"] == ["p", "q"]
    assert first["heads"][1:] == [[round(1000 * w) for line in head for w in line] for head in heads]
    assert first["heads"][0] == [round(1000 * sum(head[i][j] for head in heads) / 3) for i in range(3) for j in range(2)]
    line = made["attention"][1]["weights"][0]
    assert second["heads"] == [[1000, -1, round(1000 * line[1][0]), round(1000 * line[1][1])]]


def test_maps_are_told_in_one_line_each(tmp_path: Path) -> None:
    weights = [[[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]], [[0.3, 0.6, 0.1], [None, NAN, None]]]
    said = page_of(trace(attention=one_map(weights)), tmp_path).said
    assert "a, the mean of 2 heads; most attention goes from r0 to c1 (0.40)." in said
    assert (
        "a, 1 head; most attention goes from r0 to c2 (0.70), r1 to c0 (0.80)."
        in page_of(trace(attention=one_map(weights[:1])), tmp_path).said
    )
    many = [[[1.0]] * 20]
    assert "r11 to c0 (1.00) and 8 more." in page_of(trace(attention=one_map(many, 20, 1)), tmp_path).said


def tree_of(steps: list[list[Made]], hypotheses: list[Made], folder: Path) -> tuple[list[int], dict[int, int]]:
    """Ids of the best path, and places in the list by id."""
    page = page_of(trace(hypotheses=hypotheses, tree={"steps": steps}), folder)
    nodes = [found for step in drawn_on(page)["tree"] for found in step]
    return [found["id"] for found in nodes if found["best"]], {found["id"]: found["rank"] for found in nodes if found["rank"]}


FORK = [
    [node(1, None, "a"), node(2, None, "b", -0.1)],
    [node(3, 1, "a"), node(4, 1, "</s>", -0.2, finished=True), node(5, 2, "</s>", -0.9, finished=True), node(6, 2, "c", kept=False)],
    [node(7, 3, "b", -0.4), node(8, 3, "c", -0.3), node(9, 3, "</s>", 0.0, kept=False, finished=True)],
]


@pytest.mark.parametrize(
    ("hypotheses", "best", "ranks"),
    [
        ([("b", "</s>"), ("a", "</s>")], [2, 5], {5: 1, 4: 2}),
        ([("a", "a", "b"), ("b",), ("z",)], [1, 3, 7], {7: 1, 5: 2}),  # cut off by the limit; end symbol left out; unknown
        ([("a", "a")], [1, 4], {}),  # neither what was dropped nor what goes on
        ([("z",)], [1, 4], {}),  # the finished one of the highest score, dropped ones aside
    ],
)
def test_the_best_path_is_the_one_of_the_list(
    tmp_path: Path, hypotheses: list[tuple[str, ...]], best: list[int], ranks: dict[int, int]
) -> None:
    assert tree_of(FORK, [hypothesis(*symbols) for symbols in hypotheses], tmp_path) == (best, ranks)


def test_a_start_symbol_in_the_tree_alone_is_no_obstacle(tmp_path: Path) -> None:
    steps = [
        [node(0, None, "<s>")],
        [node(1, 0, "a"), node(2, 0, "b")],
        [node(3, 1, "</s>", -9.0, finished=True), node(4, 2, "</s>", finished=True)],
    ]
    assert tree_of(steps, [hypothesis("a", "</s>"), hypothesis("b")], tmp_path) == ([0, 1, 3], {3: 1, 4: 2})


def test_a_start_symbol_is_left_out_only_where_nothing_else_fits(tmp_path: Path) -> None:
    steps = [[node(1, None, "a"), node(2, None, "b")], [node(3, 1, "b")]]
    assert tree_of(steps, [hypothesis("b"), hypothesis("a", "b")], tmp_path) == ([2], {2: 1, 3: 2})


def test_a_search_that_finished_nothing_shows_its_last_best(tmp_path: Path) -> None:
    steps = [[node(1, None, "a"), node(2, None, "b")], [node(3, 1, "x", None), node(4, 2, "y", -7.0), node(5, 1, "z", kept=False)], []]
    assert tree_of(steps, [hypothesis("q")], tmp_path) == ([2, 4], {})


def test_the_page_asks_nothing_of_anybody(tmp_path: Path) -> None:
    text = write_look(trace(LONG, 2, 2), tmp_path / "look.html").read_text(encoding="utf-8")
    without = text.replace('createElementNS("http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert without != text
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(|sendBeacon|innerHTML", without)
    for tag, attributes in Page(text).tags:
        assert not attributes.keys() & {"src", "srcset", "action"}
        assert tag == "link" or "href" not in attributes
        assert attributes.get("href") in (None, "data:,")
    assert "default-src 'none'" in text


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    made = trace(
        source=[HOSTILE],
        source_text=HOSTILE,
        run=HOSTILE,
        task=HOSTILE,
        hypotheses=[hypothesis(HOSTILE)],
        attention=[{"name": HOSTILE, "rows": [HOSTILE], "columns": [HOSTILE], "weights": [[[1.0]]]}],
        tree={"steps": [[node(1, None, HOSTILE, finished=True)]]},
        figures={HOSTILE: HOSTILE},
    )
    page = page_of(made, tmp_path)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in page.tags)
    assert page.said.count(HOSTILE) >= 7 and HOSTILE in page.headings
    assert drawn_on(page)["tree"][0][0]["symbol"] == HOSTILE.replace(" ", "␣")


@pytest.mark.parametrize(("symbol", "shown"), [("\n", "↵"), (" a\t", "␣a⇥"), ("", "∅"), ("\ud800x", "?x"), ("שלום", "שלום")])
def test_symbols_can_be_seen_whatever_they_are(tmp_path: Path, symbol: str, shown: str) -> None:
    made = trace(hypotheses=[hypothesis(symbol)], source_text=symbol, tree={"steps": [[node(1, None, symbol)]]})
    page = page_of(made, tmp_path)
    assert shown in page.said and drawn_on(page)["tree"][0][0]["symbol"] == shown
    assert drawn_on(page)["tree"][0][0]["rank"] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": []}, "This model has no attention."),
        ({"attention": one_map(None)}, "a: there are no weights."),
        ({"attention": one_map([[[], []]], columns=0)}, "a: there are no weights."),
        ({"attention": one_map([[]], rows=0)}, "a: there are no weights."),
        ({"attention": one_map([[[None, None, NAN]] * 2])}, "a, 1 head; all of it is masked."),
        ({"tree": None}, "No tree of the search was recorded."),
        ({"tree": {"steps": []}}, "No tree of the search was recorded."),
        ({"tree": {"steps": [[], []]}}, "No tree of the search was recorded."),
        ({"hypotheses": [hypothesis()], "source": [], "source_text": ""}, "The best hypothesis is empty."),
        ({"hypotheses": [hypothesis("a")]}, "The only hypothesis has score"),
        ({"figures": {}}, "runs/deen"),
        ({"figures": {"beam": True, "time": 0.12345, "mode": None, "nothing": NAN}}, "0.123"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, changes: Made, said: str) -> None:
    assert said in page_of(trace(**changes), tmp_path).said


@pytest.mark.parametrize("broken", [NAN, math.inf, -math.inf, None])
def test_values_that_are_no_numbers_are_dashes(tmp_path: Path, broken: float | None) -> None:
    entry = hypothesis("a", "b") | {"score": broken, "log_probability": broken, "token_log_probabilities": [broken, -0.1]}
    steps = [[node(1, None, "a", broken) | {"log_probability": broken}]]
    page = page_of(trace(hypotheses=[entry], tree={"steps": steps}), tmp_path)
    assert "has score – and log-probability –" in page.said and "0.905" in page.said
    assert drawn_on(page)["tree"][0][0]["score"] is None
    assert not re.search(r"\b(nan|inf|None)\b", page.said, re.IGNORECASE)


def paths_of(value: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every key of nested dictionaries; of a list its first entry stands for all."""
    inside = list(value.items()) if isinstance(value, dict) else list(enumerate(value[:1])) if isinstance(value, list) else []
    found = [(*here, key) for key, _ in inside if isinstance(key, str) and here[:1] != ("figures",)]
    return found + [path for key, below in inside for path in paths_of(below, (*here, key))]


def changed(path: tuple[str | int, ...], change: Callable[[Any, Any], object]) -> Made:
    made = copy.deepcopy(trace())
    holder: Any = made
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return made


@pytest.mark.parametrize("path", paths_of(trace()), ids=lambda path: ".".join(map(str, path)))
def test_every_key_is_needed(tmp_path: Path, path: tuple[str | int, ...]) -> None:
    with pytest.raises(DataError) as caught:
        write_look(changed(path, lambda holder, key: holder.pop(key)), tmp_path / "look.html")
    name = ".".join(map(str, path))
    assert str(caught.value) == f"`{name}` must be in the trace, and it is not there; write the trace again with this version"
    assert not (tmp_path / "look.html").exists()


WEIGHTS = [[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]]
WRONG: list[tuple[Made, str]] = [
    ({"format": 2}, "`format` of the trace must be 1, got 2; write the trace again with this version"),
    ({"scource": []}, "`scource` is not known in a trace; did you mean `source`?"),
    ({"source": "Ein Hund"}, "`source` of the trace must be a valid list, got 'Ein Hund'"),
    ({"hypotheses": [hypothesis("a") | {"score": "-0.5"}]}, "`hypotheses.0.score` of the trace must be a valid number, got '-0.5'"),
    ({"hypotheses": []}, "`hypotheses` of the trace must hold at least one, got none"),
    (
        {"hypotheses": [hypothesis("a"), hypothesis("a") | {"token_log_probabilities": [-1.0, -1.0]}]},
        "`hypotheses.1.token_log_probabilities` must hold one value for each of the 1 symbols, got 2",
    ),
    ({"attention": one_map([])}, "`attention.0.weights` must hold at least one head, got none"),
    ({"attention": one_map([*WEIGHTS, WEIGHTS[0][:1]])}, "`attention.0.weights.1` must hold one line for each of the 2 rows, got 1"),
    (
        {"attention": one_map([[WEIGHTS[0][0], [1.0]]])},
        "`attention.0.weights.0` must hold one weight for each of the 3 columns in every line, got 1",
    ),
    ({"attention": one_map([[[0.5, 1.5, 0.0], [0.0] * 3]])}, "`attention.0.weights.0` must hold weights from 0 to 1, got 1.5"),
    ({"attention": one_map([[[0.5, NAN, -3.0], [0.0] * 3]])}, "`attention.0.weights.0` must hold weights from 0 to 1, got -3"),
    ({"attention": one_map([[[0.5, "x", 0.0], [0.0] * 3]])}, "`attention.0.weights.0.0.1` of the trace must be a valid number, got 'x'"),
    (
        {"tree": {"steps": [[node(1, None, "a"), node(2, 1, "b")]]}},
        "`parent` of a node in `tree.steps.0` must be the id of a node of an earlier step, got 1",
    ),
    ({"tree": {"steps": [[node(1, None, "a")], [node(1, 1, "b")]]}}, "`id` of each node in `tree.steps.1` must be its own"),
    ({"tree": {"steps": [[node(1, None, "a"), node(1, None, "b")]]}}, "`id` of each node in `tree.steps.0` must be its own"),
    ({"figures": {"beam": [5]}}, "`figures.beam` must be a number or a word, got [5]"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=[sentence[:50] for _, sentence in WRONG])
def test_a_wrong_trace_is_one_sentence(tmp_path: Path, changes: Made, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        write_look(trace() | changes, tmp_path / "look.html")
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_half_precision_may_leave_the_interval_a_little(tmp_path: Path) -> None:
    made = trace(attention=one_map([[[1.0005, -0.0003, 0.0], [0.0] * 3]]))
    assert drawn_on(page_of(made, tmp_path))["attention"][0]["heads"] == [[1000, 0, 0, 0, 0, 0]]


def test_two_hundred_symbols_make_a_page_that_can_be_sent(tmp_path: Path) -> None:
    symbols = [f"s{i}" for i in range(200)]
    made = trace(source=symbols, attention=[attention("a", symbols, symbols, 8)])
    assert write_look(made, tmp_path / "look.html").stat().st_size < 1_500_000


def test_drawing_again_replaces_the_page_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "new" / "look.html"
    assert write_look(trace(), page) == write_look(trace(), page) == page
    assert [path.name for path in page.parent.iterdir()] == ["look.html"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        write_look(trace(), tmp_path / "file" / "look.html")


def test_torch_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(trace()))
    code = "import json, sys, pathlib; from unrolled.report import write_look; "
    code += f"folder = pathlib.Path({str(tmp_path)!r}); write_look(json.loads((folder / 'trace.json').read_text()), folder / 'look.html'); "
    done = subprocess.run([sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
