"""Parallel text in every form, and one sentence for each way in which it does not pair."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import DataError
from unrolled.data.pairs import Pairs, read_pairs, suspected_swap

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
MULTI30K = SHARED / "multi30k"
SOURCES = ["a  b", " c\t", 'd "e', "\u2028f\x0bg\r h"]
TARGETS = ["eins", "zwei", "drei", "vier"]


def write(folder: Path, **texts: str) -> list[Path]:
    paths = []
    for name, text in texts.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("_gz") else text.encode())
        paths.append(path)
    return paths


def refusal(paths: list[Path], **options: tuple[str, str]) -> str:
    with pytest.raises(DataError) as caught:
        read_pairs(paths, **options)
    return str(caught.value)


@pytest.mark.parametrize("end", ["", "_gz"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_every_form_gives_the_same_pairs(tmp_path: Path, end: str, last: str) -> None:
    text = read_pairs(write(tmp_path, **{f"a_en{end}": "\n".join(SOURCES) + last, f"a_de{end}": "\n".join(TARGETS) + last}))
    rows = [json.dumps({"target": t, "source": s, "more": 1}) for s, t in zip(SOURCES, TARGETS, strict=True)]
    lines = read_pairs(write(tmp_path, **{f"a_jsonl{end}": "\n".join(rows) + last}))
    assert (text.sources, text.targets) == (lines.sources, lines.targets) == (SOURCES, TARGETS)
    assert len(text) == 4
    assert text.source_place(1).endswith("en`, line 2" if not end else "gz`, line 2")
    assert lines.target_place(3).endswith("l`, line 4" if not end else "gz`, line 4")
    tabs = [s.replace("\t", "") for s in SOURCES]
    table = read_pairs(write(tmp_path, **{f"a_tsv{end}": "\n".join(f"{s}\t{t}" for s, t in zip(tabs, TARGETS, strict=True)) + last}))
    assert (table.sources, table.targets) == (tabs, TARGETS)
    assert table.files[0] == table.files[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0")).filter(str.strip)] * 2), min_size=1)
)
def test_json_lines_bring_any_text_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "any.jsonl"
    path.write_text("\n".join(json.dumps({"x": a, "y": b}) for a, b in rows))
    pairs = read_pairs([path], keys=("x", "y"))
    assert list(zip(pairs.sources, pairs.targets, strict=True)) == rows


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, a="\ufeffone\r\ntwo\r\n", b="eins\nzwei"))
    assert (pairs.sources, pairs.targets) == (["one", "two"], ["eins", "zwei"])


def test_lines_longer_than_a_chunk(tmp_path: Path) -> None:
    long = "x" * (3 << 20)
    pairs = read_pairs(write(tmp_path, a=f"s\n{long}\ne\n", b="1\n2\n3\n"))
    assert pairs.sources == ["s", long, "e"]


def test_unequal_counts_name_both_and_where_to_look(tmp_path: Path) -> None:
    paths = write(tmp_path, a_en="1\n\n2\n3\n", a_de="1\n2\n3\n")
    said = refusal(paths)
    assert f"got 4 in `{paths[0]}` and 3 in `{paths[1]}`" in said
    assert f"line 2 of `{paths[0]}`" in said
    assert f"line 2 of `{paths[0]}`" in refusal(paths[::-1])
    assert "no line is empty on one side only" in refusal(write(tmp_path, a_en="1\n\n3\n4", a_de="1\n\n3"))


def test_empty_sentences_are_refused_with_their_place(tmp_path: Path) -> None:
    for texts, side, place in (
        (("1\n \n", "1\n2\n"), "source is", "a`, line 2"),
        (("1\n2\n", "1\n\t\n"), "target is", "b`, line 2"),
        (("1\n\n3", "1\n\n3"), "source and target are", "a`, line 2 (and `"),
    ):
        said = refusal(write(tmp_path, a=texts[0], b=texts[1]))
        assert f"the {side} empty in `" in said
        assert place in said
    assert "the target is empty in `" in refusal(write(tmp_path, a_tsv="1\t2\n3\t\n"))
    assert "line 2; try removing it" in refusal(write(tmp_path, a_tsv="1\t2\n\n3\t4\n"))


@pytest.mark.parametrize(("line", "found"), [("a b", "got 1 column in"), ("a\tb\tc", "got 3 columns in")])
def test_a_table_has_two_columns(tmp_path: Path, line: str, found: str) -> None:
    said = refusal(write(tmp_path, a_tsv_gz=f"1\t2\n{line}\n"))
    assert found in said
    assert said.endswith("a.tsv.gz`, line 2; try mending that line")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "got another value in"),
        ('{"source": "a", "goal": "b"}', "got only `source`, `goal` in"),
        ("{}", "got only an empty object in"),
        ('{"source": "a", "target": 3}', "got no text under it in"),
        ('{"source": "a\\nb", "target": "c"}', "got a line break in `source` of"),
        ('{"source": "a", "target": " "}', "the target is empty in"),
    ],
)
def test_json_lines_are_objects_with_both_texts(tmp_path: Path, line: str, found: str) -> None:
    said = refusal(write(tmp_path, a_jsonl='{"source": "a", "target": "b"}\n' + line))
    assert found in said
    assert ", line 2" in said
    assert "\n" not in said


def test_files_of_no_known_form(tmp_path: Path) -> None:
    one, table, other = write(tmp_path, a_txt="a\tb\n", b_tsv="a\tb\n", c_txt="a\n")
    for paths in ([one], [], [table, other], [one, other, other], [table, table]):
        assert "pairs must be two text files" in refusal(paths)
    assert "there is none of that name" in refusal([one, tmp_path / "d.txt"])


def test_some_pairs_keep_their_lines(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, a="1\n2\n3\n4", b="5\n6\n7\n8")).select(np.array([3, 1]))
    assert (pairs.sources, pairs.targets) == (["4", "2"], ["8", "6"])
    assert pairs.source_place(0).endswith("a`, line 4")
    assert pairs.select([1]).target_place(np.int64(0)).endswith("b`, line 2")
    assert len(pairs.select([])) == 0


def made(sources: list[str], targets: list[str]) -> Pairs:
    return Pairs(sources, targets, ("v.en", "v.de"), range(1, len(sources) + 1))


def test_a_swap_is_suspected_from_shared_words() -> None:
    train = made(["the cat sat", "a dog ran"], ["die Katze saß", "ein Hund lief"])
    right, wrong = made(["the dog"], ["der Hund"]), made(["der Hund"], ["the dog"])
    assert suspected_swap(train, right) is None
    said = suspected_swap(train, wrong)
    assert said is not None
    assert "its targets (`v.de`) 100% are known from the sources of the training and 0% from the targets" in said
    copying = made(["a b", "c"], ["a b", "c"])
    assert suspected_swap(copying, copying) is None
    assert suspected_swap(train, made(["xyz"], ["zyx"])) is None
    assert suspected_swap(train, made([], [])) is None


@pytest.mark.skipif(not MULTI30K.exists(), reason="Multi30k is not here")
def test_multi30k() -> None:
    train, valid = (read_pairs([MULTI30K / f"{name}.en.gz", MULTI30K / f"{name}.de.gz"]) for name in ("train", "val"))
    assert (len(train), len(valid)) == (29_000, 1014)
    assert [sum(len(text.split()) for text in side) for side in (train.sources, train.targets)] == [345_020, 322_383]
    assert suspected_swap(train, valid) is None
    assert suspected_swap(train, Pairs(valid.targets, valid.sources, valid.files, valid.lines)) is not None
