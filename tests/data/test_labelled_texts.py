"""Labelled texts in every format, and one sentence for each way in which a file is none."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data.labelled_texts import LabelledTexts, TextForm, read_texts, texts_of_lines

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "text_classification"
TEXTS = ["good, really", 'a "bad" one', "\u00a0so so |"]
LABELS = [("pos",), ("neg",), ("1",)]


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def as_csv(header: list[str], rows: list[tuple[str, ...]], **options: str) -> str:
    text = io.StringIO()
    csv.writer(text, **options).writerows([header, *rows])  # type: ignore[arg-type]
    return text.getvalue()


def refusal(path: Path, form: TextForm | None = None, *, labelled: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        read_texts(path, form, labelled=labelled)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(read: LabelledTexts) -> tuple[list[str], list[tuple[str, ...]]]:
    return read.texts, read.labels


@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_format_gives_the_same_texts(tmp_path: Path, end: str) -> None:
    pairs = [(text, label) for text, (label,) in zip(TEXTS, LABELS, strict=True)]
    files = {
        "a.csv": as_csv(["text", "label"], pairs),
        "b.csv": as_csv(["label", "id", "text"], [(label, str(n), text) for n, (text, label) in enumerate(pairs)]),
        "a.tsv": "\n".join(["text\tlabel", *("\t".join(pair) for pair in pairs), ""]),
        "a.jsonl": "\n".join(json.dumps({"label": int(y) if y == "1" else y, "text": text}) for text, y in pairs),
    }
    for name, text in files.items():
        read = read_texts(write(tmp_path, name + end, text))
        assert content(read) == (TEXTS, LABELS)
        assert list(read.lines) == ([1, 2, 3] if "json" in name else [2, 3, 4])
        assert list(read.ids) == (["0", "1", "2"] if name == "b.csv" else [None] * 3)
        assert not read.several
    plain = read_texts(write(tmp_path, f"a.txt{end}", "\n".join(f"{label} {text}" for text, label in pairs)))
    assert content(plain) == ([text.strip() for text in TEXTS], LABELS)
    assert plain.place(2).endswith(f"a.txt{end}`, line 3")


def test_a_text_in_quotes_may_have_several_lines(tmp_path: Path) -> None:
    read = read_texts(write(tmp_path, "a.csv", as_csv(["text", "label"], [("one\n\ntwo", "x"), ('"', "y")])))
    assert read.texts == ["one\n\ntwo", '"']
    assert list(read.lines) == [2, 5]


def test_columns_delimiter_and_encoding_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", as_csv(["review", "stars"], [("crème", "5")], delimiter=";"), "latin-1")
    form = TextForm(text="review", label="stars", delimiter=";", encoding="latin-1")
    assert content(read_texts(path, form)) == (["crème"], [("5",)])
    assert "must be UTF-8, got byte 0xe8 at byte 16, line 2" in refusal(path)
    unknown = refusal(path, TextForm(text="revew", delimiter=";", encoding="latin-1"))
    assert "`revew` (option `data.text`) and `label` (option `data.label`) among them, got others; there are `review`, `stars`" in unknown
    assert "(option `data.label`)" in refusal(path, TextForm(text="review", label="x", delimiter=";", encoding="latin-1"))
    assert "try `data.delimiter=;`" in refusal(path, TextForm(encoding="latin-1"))
    with pytest.raises(ConfigurationError, match="`data.delimiter` must be one character, got `;;`"):
        read_texts(path, TextForm(delimiter=";;"))


def test_several_labels(tmp_path: Path) -> None:
    several = [("a", "b"), (), ("b",)]
    path = write(tmp_path, "a.csv", as_csv(["text", "label"], [("x", "a| b|a"), ("y", ""), ("z", "b")]))
    read = read_texts(path, TextForm(separator="|"))
    assert (read.labels, read.several) == (several, True)
    assert "got one without in" in refusal(path)
    listed = "\n".join(json.dumps({"text": t, "label": list(y)}) for t, y in zip("xyz", several, strict=True))
    read = read_texts(write(tmp_path, "a.jsonl", listed))
    assert (read.labels, read.several) == (several, True)
    assert read_texts(write(tmp_path, "a.txt", "a,b x"), TextForm(separator=",")).labels == [("a", "b")]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.csv", "text,label\na,x\nb\n", "every row must have 2 columns, as the first line has, got 1 in `{}`, line 3"),
        ("a.csv", "text,label\na,x,\n", "got 3 in `{}`, line 2"),
        ("a.csv", 'text,label\na,x\n"b,x\nc,x\n', "but the one in `{}`, line 3, is not (unexpected end of data); is a quote not closed?"),
        ("a.csv", 'text,label\n"a"b,x\n', "the one in `{}`, line 2, is not"),
        ("a.csv", "text,label\n", "`{}` must hold at least one text, got none"),
        ("a.csv", "text,label,text\na,x,b", "must have different names, got `text` twice in `{}`, line 1"),
        ("a.csv", "text,label\na, \n", "every text must have a label, got one without in `{}`, line 2"),
        ("a.csv", 'text,label\n" ",x\n', "every text must hold something, got an empty one in `{}`, line 2"),
        (
            "a.csv",
            "good,pos\nbad,neg\n",
            "`text` (option `data.text`) and `label` (option `data.label`) among them, got others; there are `good`, `pos`",
        ),
        ("a.csv", "texts,label\na,x\n", "name the columns, `text` (option `data.text`) among them, got others; did you mean `texts`?"),
        ("a.tsv", "text\tlabel\na x\n", "got 1 in `{}`, line 2"),
        ("a.tsv", "\n", "must name the columns"),
        ("a.txt", "x a\nb\n", "got only `b` in `{}`, line 2"),
        ("a.txt", "x a\n\nx b", "got an empty line in `{}`, line 2"),
        ("a.jsonl", '{"text": 1, "label": "x"}', "`text` must be a text, got another value in `{}`, line 1"),
        ("a.jsonl", '{"text": "a", "label": null}', "got none under `label` in `{}`, line 1"),
        ("a.jsonl", '{"text": "a", "label": 0.5}', "got another value under `label` in `{}`, line 1"),
        ("a.jsonl", '{"text": "a", "label": ["x", ""]}', "got another value under `label` in `{}`, line 1"),
        ("a.jsonl", '{"text": "a"}', "got only `text` in `{}`, line 1 (`label` is wanted)"),
        ("a.jsonl", '{"text": "", "label": "x"}', "got an empty one in `{}`, line 1"),
        ("a.trees", "(2 (2 a) (3 b))\n(5 a)", "got a bracket without a label in `{}`, line 2"),
        ("a.trees", "(2 (2 a)", "got 1 brackets that are not closed in `{}`, line 1"),
        ("a.trees", "(2 a) (2 b)", "got `(2` outside of the brackets in `{}`, line 1"),
        ("a.trees", "(2 a))", "got `)` outside of the brackets"),
        ("a.trees", "word", "got `word` outside of the brackets"),
        ("a.trees", "(2 )", "got a phrase without words"),
        ("a.trees", "((2 a))", "got a bracket without a label"),
        ("a.trees", "(2 ((3 a)))", "got a bracket without a label"),
        ("a.foo", "x", "must end in `.csv`, `.tsv`, `.jsonl`, `.txt` or `.trees` (or that and `.gz`); try naming its form (`data.format`)"),
    ],
)
def test_every_defect_is_one_sentence_with_its_place(tmp_path: Path, name: str, text: str, found: str) -> None:
    path = write(tmp_path, name, text)
    assert found.format(path) in refusal(path)


def test_without_labels(tmp_path: Path) -> None:
    for name, text in {"a.csv": "text,x\na b,1\n", "a.tsv": "text\na b\n", "a.jsonl": '{"text": "a b"}', "a.txt": " a b\n"}.items():
        assert content(read_texts(write(tmp_path, name, text), labelled=False)) == (["a b"], [])
    assert content(texts_of_lines(["x a\r\n", "b"])) == (["x a", "b"], [])
    assert content(texts_of_lines(['{"text": "a"}\n'], TextForm(format="jsonl"))) == (["a"], [])
    labelled = write(tmp_path, "b.txt", "x a\n")
    assert content(read_texts(labelled, TextForm(format="plain"), labelled=False)) == (["a"], [])
    assert "got an empty one in" in refusal(write(tmp_path, "c.txt", "a\n\nb"), labelled=False)
    with pytest.raises(ConfigurationError, match="must be one of `csv`"):
        read_texts(labelled, TextForm(format="text"))
    with pytest.raises(DataError, match="`<stdin>` must hold at least one text, got none"):
        texts_of_lines([])


def test_a_long_document_is_one_text_and_the_limit_of_the_reader_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    document = "word " * 100_000 + "end"
    assert read_texts(write(tmp_path, "a.csv", as_csv(["text", "label"], [(document, "x")]))).texts == [document]
    assert csv.field_size_limit() == before


def test_findings(tmp_path: Path) -> None:
    clean = read_texts(write(tmp_path, "a.csv", "id,text,label\n1,a,x\n2,b,y\n3,a,x\n"))
    assert clean.findings() == []
    ids = read_texts(write(tmp_path, "b.csv", "id,text,label\n1,a,x\n2,b,y\n2,c,x\n1,d,x\n")).findings()
    assert len(ids) == 1
    assert "`1` (and 1 more ids) stands 2 times in" in ids[0]
    assert "lines 2 and 5" in ids[0]
    assert "all 2 in" in read_texts(write(tmp_path, "c.csv", "text,label\na,x\nb,x\n")).findings()[0]
    other = read_texts(write(tmp_path, "d.csv", "text,label\na,x\nb,y\na,y\n")).findings()
    assert len(other) == 1
    assert "first in line 4 (before: line 2)" in other[0]


def test_some_texts_keep_their_places(tmp_path: Path) -> None:
    read = read_texts(write(tmp_path, "a.csv", "id,text,label\n1,a,x\n2,b,y\n3,c,x\n")).select([2, 0])
    assert (read.texts, read.labels, read.lines, read.ids) == (["c", "a"], [("x",), ("x",)], [4, 2], ["3", "1"])


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff")).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(any_text, any_text.filter(lambda label: label.strip() == label)), min_size=1))
def test_csv_and_json_bring_any_text_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    wanted = ([text for text, _ in rows], [(label,) for _, label in rows])
    assert content(read_texts(write(tmp_path, "any.csv", as_csv(["text", "label"], list(rows))))) == wanted
    lines = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    assert content(read_texts(write(tmp_path, "any.jsonl", lines))) == wanted


TREE = "(3 (2 A\\/B) (4 (0 -LRB-) (1 (2 c\u00a0d) (3 -RRB-))))"


def test_a_tree_is_a_sentence_or_all_its_phrases(tmp_path: Path) -> None:
    path = write(tmp_path, "a.trees", TREE + "\n(2 neutral)\n")
    assert content(read_texts(path)) == (["A/B ( c\u00a0d )", "neutral"], [("3",), ("2",)])
    assert content(read_texts(path, TextForm(binary=True))) == (["A/B ( c\u00a0d )"], [("positive",)])
    phrases = read_texts(path, TextForm(phrases=True))
    assert phrases.texts == ["A/B ( c\u00a0d )", "A/B", "( c\u00a0d )", "(", "c\u00a0d )", "c\u00a0d", ")", "neutral"]
    assert [label for (label,) in phrases.labels] == list("32401232")
    binary = read_texts(path, TextForm(phrases=True, binary=True))
    assert [label for (label,) in binary.labels] == ["positive", "positive", "negative", "negative", "positive"]
    assert content(read_texts(path, TextForm(binary=True), labelled=False)) == (["A/B ( c\u00a0d )", "neutral"], [])


def nested(line: str) -> list[tuple[str, str]]:
    """Another way to read a tree: innermost brackets first, each replaced by its words."""
    found, line = [], line.replace(" (", "(")
    while "(" in line:
        start = line.rindex("(")
        stop = line.index(")", start)
        label, text = line[start + 1], line[start + 2 : stop].strip()
        found.append((text, label))
        line = f"{line[:start]} {text}{line[stop + 1 :]}"
    return found


@pytest.mark.skipif(not SHARED.is_dir(), reason="the texts are not there")
@pytest.mark.parametrize(
    ("part", "sentences", "nodes", "binary"), [("dev", 1101, 41_447, 872), pytest.param("test", 2210, 82_600, 1821, marks=pytest.mark.slow)]
)
def test_the_sentiment_trees_are_those_of_the_plain_files(part: str, sentences: int, nodes: int, binary: int) -> None:
    path = SHARED / "sst_trees" / f"{part}.txt.gz"
    whole, phrases = (read_texts(path, TextForm(format="trees", phrases=both)) for both in (False, True))
    assert (len(whole), len(phrases)) == (sentences, nodes)
    two = read_texts(path, TextForm(format="trees", binary=True))
    assert len(two) == binary
    for read, other in ((whole, "fine"), (two, "binary")):
        plain = read_texts(SHARED / f"stsa.{other}.{part}.gz", TextForm(format="plain"))
        names = {"negative": "0", "positive": "1"}
        assert Counter(names.get(label, label) for (label,) in read.labels) == Counter(label for (label,) in plain.labels)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()[:200]
    start = 0
    for line in lines:
        theirs = nested(line.replace("\\/", "/").replace("\\*", "*").replace("-LRB-", "\ue000").replace("-RRB-", "\ue001"))
        ours = [(t.replace("(", "\ue000").replace(")", "\ue001"), y[0]) for t, y in zip(phrases.texts, phrases.labels, strict=True)][start:]
        assert sorted(ours[: len(theirs)]) == sorted(theirs)
        start += len(theirs)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the texts are not there")
def test_the_questions_are_in_latin_1() -> None:
    form = TextForm(format="plain", encoding="latin-1")
    train, test = (read_texts(SHARED / f"TREC.{part}.all.gz", form) for part in ("train", "test"))
    assert (len(train), len(test)) == (5452, 500)
    assert Counter(label for (label,) in train.labels) == {"0": 1162, "1": 1250, "2": 86, "3": 1223, "5": 896, "4": 835}
    assert "must be UTF-8, got byte" in refusal(SHARED / "TREC.train.all.gz", TextForm(format="plain"))
