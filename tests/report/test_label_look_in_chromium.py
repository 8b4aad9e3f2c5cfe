"""The page of labels in a browser: colours by sign and size, every value told to pointer and keys, labels and methods to choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_labels import classified, explained, tagged, word
from test_in_chromium import CHROMIUM
from test_look_in_chromium import TIP, ask

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
COLOURS = "[...document.querySelectorAll('.w b')].map((b) => [b.className, Number(b.style.getPropertyValue('--c'))])"


def test_colours_follow_sign_and_size_of_what_is_chosen(tmp_path: Path) -> None:
    script = f"answer = [{COLOURS}]; document.querySelectorAll('[data-target]')[1].click(); answer.push({COLOURS});"
    script += f"document.querySelector('input[value=attention]').click(); answer.push({COLOURS}[1], document.getElementById('greatest').textContent)"
    negative, positive, weight, most = ask(classified(), tmp_path, script)
    assert negative == [["for", 0.25], ["for strong", 1], ["", 0], ["against strong", 0.5]]
    assert positive == [["against", 0.25], ["against strong", 1], ["", 0], ["for strong", 0.5]]
    assert weight == ["weight strong", 1] and most == "0.60"


def test_pointer_and_keys_are_told_every_value(tmp_path: Path) -> None:
    script = f"""
    document.querySelectorAll('.w')[1].dispatchEvent(new PointerEvent('pointermove', {{clientX: 9, clientY: 9, bubbles: true}}));
    answer = [{TIP}]; press('words', 'End', 'ArrowLeft', 'Enter');
    answer.push(document.getElementById('told').textContent, document.getElementById('sum').textContent, document.getElementById('target').value);
    press('matrix', 'ArrowDown', 'ArrowRight'); answer.push({TIP}); press('matrix', 'Escape'); answer.push(document.getElementById('tip').hidden)"""
    pointed, told, sums, target, spot, hidden = ask(tagged(), tmp_path, script)
    assert pointed == "Gaga: +0.500 nats\nword 2, towards 1 Lady: B-person\nits own label: I-person 0.850"
    assert told == "sings: +0.000 nats, word 3, towards 3 sings: O, its own label: O 0.950" and target == "2"
    assert sums.startswith("O: probability 0.562 log-odds +0.250 = −1.250 without words +1.500 from words")
    assert spot == "Gaga: +0.500 nats\ntowards 1 Lady: B-person" and hidden


MANY = tagged(
    words=[word(f"a-long-word-number-{i}", "O", 0.5) for i in range(120)],
    found=["O"] * 120,
    sequences=[],
    spans=[],
    explained=[explained("O", i, [0.1] * 120) for i in range(20)],
)
BROKEN = classified(
    explained=[explained("negative", None, [None] * 4) | {"score": None, "baseline_score": None, "gap": None}], attention=None
)


@pytest.mark.parametrize(
    "made", [classified(), tagged(), MANY, BROKEN, tagged(explained=[])], ids=["text", "words", "many", "no number", "none"]
)
def test_nothing_is_wider_than_a_telephone(tmp_path: Path, made: dict[str, Any]) -> None:
    script = "document.body.style.width = '360px'; press('words', 'End', 'Enter', 'Escape');"
    script += "setTimeout(() => { document.title = 'answer ' + document.querySelector('main').scrollWidth; }, 500);"
    assert ask(made, tmp_path, script, width=500) == 360
