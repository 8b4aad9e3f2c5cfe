"""The page of a trace in a browser: no error, every weight and hypothesis where it belongs, told to pointer and keys alike."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_trace import LONG, attention, trace
from test_in_chromium import CHROMIUM, browse

from unrolled.report import write_look

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
KEYS = (
    "const press = (id, ...keys) => keys.forEach((key) => document.getElementById(id).dispatchEvent(new KeyboardEvent('keydown', {key})));"
)
TIP = "document.getElementById('tip').textContent"


def ask(made: dict[str, Any], folder: Path, script: str, width: int = 1000) -> Any:
    """What `script` leaves in `answer`, from a page that said nothing on the console."""
    page = write_look(made, folder / "look.html")
    dom, console = browse(page, folder, f"let answer; {KEYS} {script}; document.title = 'answer ' + JSON.stringify(answer);", width)
    assert console == []
    assert "NaN" not in re.sub(r"<(script|style).*?</\1>", "", dom, flags=re.DOTALL)
    found = re.search(r"<title>answer (.*?)</title>", dom, re.DOTALL)
    assert found is not None
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def test_a_pointer_is_told_each_weight(tmp_path: Path) -> None:
    made = trace(attention=[attention("a", list("rst"), list("wxyz"), 2)])
    script = """
    document.querySelectorAll('#heads button')[2].click();
    const box = document.querySelector('.cells canvas').getBoundingClientRect(); answer = [];
    for (let i = 0; i < 3; i++) for (let j = 0; j < 4; j++) {
      const place = {clientX: box.left + (j + 0.5) / 4 * box.width, clientY: box.top + (i + 0.5) / 3 * box.height, bubbles: true};
      document.querySelector('.cells canvas').dispatchEvent(new PointerEvent('pointermove', place));
      answer.push([document.getElementById('tip').textContent, ...[...document.querySelectorAll('#map .here')].map((e) => e.textContent)]);
    }"""
    weights = made["attention"][0]["weights"][1]
    wanted = [
        [f"{row} attends to {column}: {weights[i][j]:.3f}\nrow {i + 1}, column {j + 1}, head 2", column, row]
        for i, row in enumerate("rst")
        for j, column in enumerate("wxyz")
    ]
    assert ask(made, tmp_path, script) == wanted


def test_keys_move_from_weight_to_weight_and_are_told_aloud(tmp_path: Path) -> None:
    made = trace(attention=[attention("a", list("rst"), list("wxyz"), causal=True)])
    script = "press('map', 'ArrowDown', 'ArrowUp', 'ArrowDown', 'End', 'ArrowRight');"
    script += "answer = [document.getElementById('told').textContent]; const tip = document.getElementById('tip');"
    script += "answer.push(tip.hidden); press('map', 'Escape'); answer.push(tip.hidden)"
    assert ask(made, tmp_path, script) == ["s attends to z: masked, row 2, column 4", False, True]


PIXELS = """
const read = (canvas) => {
  const {width, height} = canvas, data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  return [width, height, Array.from({length: width * height}, (_, i) => [...data.slice(4 * i, 4 * i + 4)])];
};"""


def test_colours_grow_with_the_weights_and_masked_ones_are_clear(tmp_path: Path) -> None:
    weights = [[[0.0, 0.1, None], [0.2, 0.3, 0.5]]]
    made = trace(attention=[{"name": "a", "rows": ["r", "s"], "columns": ["x", "y", "z"], "weights": weights}])
    width, height, pixels = ask(made, tmp_path, PIXELS + "answer = read(document.querySelector('.cells canvas'))")
    assert (width, height) == (3, 2)
    assert [pixel[3] for pixel in pixels] == [255, 255, 0, 255, 255, 255]
    dark = [sum(pixels[place][:3]) for place in (0, 1, 3, 4, 5)]
    assert dark == sorted(dark, reverse=True) and len(set(dark)) == 5
    assert pixels[0][:3] == [0xF4, 0xF5, 0xF7] and pixels[5][:3] == [0x0C, 0x27, 0x48]


def test_layers_heads_and_scale_can_be_chosen(tmp_path: Path) -> None:
    maps = [attention("a", list("rs"), list("xy"), 2), {"name": "b", "rows": ["r"], "columns": ["x"], "weights": None}]
    maps[0]["weights"] = [[[0.5, 0.5], [0.25, 0.75]], [[0.9, 0.1], [0.8, 0.2]]]
    script = """
    answer = [];
    const note = () => answer.push([document.querySelectorAll('#heads button').length, document.getElementById('most').textContent]);
    note();
    document.querySelectorAll('#heads button')[1].click(); note();
    document.getElementById('shared').click(); note();
    document.getElementById('heads').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
    answer.push(document.querySelector('#heads [aria-checked=true]').textContent);
    const layer = document.getElementById('layer'); layer.value = '1'; layer.dispatchEvent(new Event('change'));
    press('map', 'ArrowDown', 'Escape');
    answer.push(document.getElementById('map').textContent);"""
    answer = ask(trace(attention=maps), tmp_path, script)
    assert answer == [[3, "0.70"], [3, "0.75"], [3, "0.90"], "head 2 · 0.90", "There are no weights of this layer."]


PLACES = """
answer = [...document.querySelectorAll('#tree g.node')].map((g) => {
  const r = g.querySelector('rect'), n = (name) => Number(r.getAttribute(name));
  return [Number(g.dataset.id), n('x'), n('y'), n('width'), n('height'), g.getAttribute('class')];
});"""


@pytest.mark.parametrize("shown", [True, False])
def test_the_tree_is_drawn_without_crossings_the_best_path_straight(tmp_path: Path, shown: bool) -> None:
    made = trace(LONG, beam=5)
    made["hypotheses"].reverse()  # so that the best path is not the one of the highest scores at each step
    answer = ask(made, tmp_path, ("" if shown else "document.getElementById('dropped').click();") + PLACES)
    nodes = {node["id"]: node for step in made["tree"]["steps"] for node in step if node["kept"] or shown}
    assert sorted(entry[0] for entry in answer) == sorted(nodes)
    place = {entry[0]: entry[1:5] for entry in answer}
    for step in made["tree"]["steps"]:
        column = sorted((place[node["id"]][1], node["id"]) for node in step if node["id"] in nodes)
        assert len({place[number][0] for _, number in column}) == 1
        for (above, first), (below, second) in pairwise(column):
            assert above + place[first][3] < below, "boxes lie over each other"
            parents = nodes[first]["parent"], nodes[second]["parent"]
            assert None in parents or place[parents[0]][1] <= place[parents[1]][1], "edges cross"
    best = [entry for entry in answer if "best" in entry[5]]
    assert [nodes[entry[0]]["symbol"] for entry in best] == made["hypotheses"][0]["symbols"]
    assert len({entry[2] for entry in best}) == 1
    assert all(("dropped" in entry[5]) != nodes[entry[0]]["kept"] for entry in answer)


def test_the_tree_tells_pointer_and_keys(tmp_path: Path) -> None:
    made = trace()
    script = f"""
    const node = document.querySelectorAll('#tree g.node')[1]; answer = [Number(node.dataset.id)];
    node.dispatchEvent(new PointerEvent('pointermove', {{clientX: 9, clientY: 9, bubbles: true}}));
    answer.push({TIP});
    press('tree', 'Escape', 'End'); answer.push(document.getElementById('told').textContent);
    press('tree', 'ArrowLeft', 'ArrowLeft', 'ArrowRight', 'ArrowDown', 'Home'); answer.push({TIP});
    answer.push(document.querySelectorAll('#tree .place').length, document.querySelectorAll('#tree .node.path').length);"""
    number, pointed, end, home, places, path = ask(made, tmp_path, script)
    pointed_at = next(node for node in made["tree"]["steps"][0] if node["id"] == number)
    score, log_probability = pointed_at["score"], pointed_at["log_probability"]
    assert pointed == f"{pointed_at['symbol']}\nstep 1, kept\nscore {score:.3f}, log-probability {log_probability:.3f}"
    best = made["hypotheses"][0]
    assert end.startswith(f"{' '.join(best['symbols'])}, step 8, kept, finished, number 1 of the list, score {best['score']:.3f}")
    assert home.startswith(f"{best['symbols'][0]}\nstep 1, kept\n")
    assert places == len(made["hypotheses"]) and path == 1


def test_what_hangs_on_a_hidden_hypothesis_stays(tmp_path: Path) -> None:
    steps = [[made | {"id": i, "parent": i - 1 if i else None, "kept": i == 1}] for i, made in enumerate(LONE[0] * 3)]
    script = "document.getElementById('dropped').click(); press('tree', 'ArrowRight', 'ArrowLeft', 'ArrowRight');" + PLACES
    script += (
        "answer = [answer.map((e) => e[0]), document.querySelectorAll('#tree .edge').length, document.getElementById('told').textContent]"
    )
    shown, edges, told = ask(trace(tree={"steps": steps}), tmp_path, script)
    assert (shown, edges) == ([1], 0) and ", step 2, kept, finished, score –" in told


@pytest.mark.parametrize("symbols", [1, 120])
def test_nothing_is_wider_than_a_telephone(tmp_path: Path, symbols: int) -> None:
    source = [f"␣a-long-word-number-{i}" for i in range(symbols)]
    made = trace((" ".join(source), " ".join([*source[:60], "</s>"])), layers=2, heads=4)
    script = "document.body.style.width = '360px'; document.querySelectorAll('details').forEach((d) => (d.open = true));"
    script += "setTimeout(() => { document.title = 'answer ' + document.querySelector('main').scrollWidth; }, 500);"
    assert ask(made, tmp_path, script, width=500) == 360


EMPTY = {"text": "", "symbols": [], "score": None, "log_probability": None, "token_log_probabilities": []}
LONE = [[{"id": -3, "parent": None, "symbol": "", "log_probability": None, "score": None, "kept": False, "finished": True}]]


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": [], "tree": None, "hypotheses": [EMPTY], "source": [], "source_text": ""},
        {"attention": [{"name": "a", "rows": ["r"], "columns": ["c"], "weights": [[[None]]] * 2}], "tree": {"steps": [[], *LONE]}},
        {"attention": [{"name": "a", "rows": ["r"], "columns": [], "weights": [[[]]]}], "tree": {"steps": LONE}},
    ],
)
def test_hardly_anything(tmp_path: Path, changes: dict[str, Any]) -> None:
    script = "for (const id of ['map', 'tree']) if (document.getElementById(id)) "
    script += "press(id, 'End', 'ArrowUp', 'ArrowLeft', 'ArrowRight', 'Home', 'Escape'); document.getElementById('dropped')?.click();"
    script += "if (document.getElementById('tree')) press('tree', 'End', 'ArrowUp'); answer = 1"
    assert ask(trace(**changes), tmp_path, script) == 1
