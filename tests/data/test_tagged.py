"""Tagged sentences in every format, and one sentence for each way in which a file is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data.tagged import TaggedForm, TaggedSentences, read_tagged, read_tokens, tokens_of_lines

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TOKENS = [["The", "cat", "\u00a0sat"], ["#", "-"]]
LABELS = [["B-x", "I-x", "O"], ["O", "O"]]
CONLLU = """# newdoc
# sent_id = a-1
# text = ignored
1-2\tDu\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\tIN\t_\t3\tcase\t_\t_
2\tle\tle\tDET\tDT\tDefinite=Def|Number=Sing\t3\tdet\t_\tSpaceAfter=No|NER=B-X
2.1\tle\tle\tDET\tDT\t_\t_\t_\t3:det\t_
3\t10 000\t_\tNUM\tCD\tNumber=Plur\t0\troot\t_\t_

# sent_id = a-2
1\t#\t#\tSYM\tSYM\t_\t0\troot\t_\t_
"""


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def rows(separator: str, *more: str) -> str:
    pairs = zip(TOKENS, LABELS, strict=True)
    return "\n\n".join("\n".join(separator.join((token, *more, label)) for token, label in zip(*one, strict=True)) for one in pairs)


def as_json() -> str:
    return "\n".join(json.dumps({"tokens": t, "labels": y, "id": n}) for n, (t, y) in enumerate(zip(TOKENS, LABELS, strict=True)))


def refusal(path: Path, form: TaggedForm | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_tagged(path, form)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n \n", "\r\n"])
def test_every_format_gives_the_same_sentences(tmp_path: Path, end: str, last: str) -> None:
    texts = {"tsv": rows("\t"), "conll": rows("\t"), "bio": rows(" ", "NN", "x"), "txt": f"-DOCSTART- -X- O\n\n{rows('  ')}"}
    for ending, text in texts.items():
        read = read_tagged(write(tmp_path, f"a.{ending}{end}", text + last))
        assert (read.tokens, read.labels) == (TOKENS, LABELS)
        assert list(read.lines) == ([3, 7] if ending == "txt" else [1, 5])
        assert list(read.ids) == [None, None]
    read = read_tagged(write(tmp_path, f"a.jsonl{end}", as_json()))
    assert (read.tokens, read.labels, list(read.lines), list(read.ids)) == (TOKENS, LABELS, [1, 2], ["0", "1"])
    assert read.place(1).endswith(f"a.jsonl{end}`, line 2")


def test_conllu_skips_ranges_and_empty_nodes_and_names_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conllu", CONLLU)
    read = read_tagged(path)
    assert read.tokens == [["de", "le", "10 000"], ["#"]]
    assert (list(read.lines), list(read.ids)) == ([5, 11], ["a-1", "a-2"])
    labels = {
        None: [["ADP", "DET", "NUM"], ["SYM"]],
        "xpos": [["IN", "DT", "CD"], ["SYM"]],
        "deprel": [["case", "det", "root"], ["root"]],
        "feats": [["_", "Definite=Def|Number=Sing", "Number=Plur"], ["_"]],
        "feats.Number": [["_", "Sing", "Plur"], ["_"]],
        "misc.NER": [["_", "B-X", "_"], ["_"]],
    }
    for name, wanted in labels.items():
        assert read_tagged(path, TaggedForm(label=name)).labels == wanted
    assert "did you mean `NER`?" in refusal(path, TaggedForm(label="misc.NERR"))
    for wrong in ("upso", "misc", "upos.x", "head", "form"):
        with pytest.raises(ConfigurationError, match=f"must be a column of CoNLL-U, got `{wrong}`"):
            read_tagged(path, TaggedForm(label=wrong))


def test_the_label_of_columns_is_chosen_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", rows(" ", "NN", "x"))
    for label in (2, "2"):
        assert read_tagged(path, TaggedForm(label=label)).labels == [["NN"] * 3, ["NN"] * 2]
    assert read_tagged(path, TaggedForm(label=4)).labels == read_tagged(path, TaggedForm(label="last")).labels == LABELS
    for wrong in (0, 1, 5):
        assert f"so 2 to 4 in `{path}`, got {wrong}; try `last`" in refusal(path, TaggedForm(label=wrong))
    with pytest.raises(ConfigurationError, match="must be the number of a column or `last` for a file of columns, got `upos`"):
        read_tagged(path, TaggedForm(label="upos"))
    with pytest.raises(ConfigurationError, match="must be left out for a TSV file"):
        read_tagged(write(tmp_path, "a.tsv", rows("\t")), TaggedForm(label="upos"))


def test_the_format_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a.data", rows("\t"))
    assert read_tagged(path, TaggedForm(format="columns")).labels == LABELS
    said = refusal(path)
    assert "must end in `.conllu`, `.conll`" in said
    assert said.endswith("try naming its form (`data.format`): `conllu`, `columns`, `tsv` or `jsonl`")
    with pytest.raises(ConfigurationError, match="got `colums`; did you mean `columns`"):
        read_tagged(path, TaggedForm(format="colums"))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.conll", "a O\n\nb\n", "every token must have a label, got one without in `{}`, line 3"),
        ("a.conll", "a\tO\nb\t\n", "every token must have a label, got one without in `{}`, line 2"),
        ("a.conll", "a\nb\n", "every token must have a label, got one without in `{}`, line 1"),
        ("a.conll", "a X O\n\nb O\n", "must have 3 columns, as line 1 has, got 2 in `{}`, line 3"),
        ("a.conll", "a O\n\tO\n", "must hold a token, got an empty one in `{}`, line 2"),
        ("a.tsv", "a\tO\nb\tX\tO\n", "must have 2 columns, as line 1 has, got 3 in `{}`, line 2"),
        ("a.tsv", "a\tO\nb c\n", "every token must have a label, got one without in `{}`, line 2"),
        ("a.tsv", "\n \n", "`{}` must hold at least one sentence, got none"),
        ("a.conllu", "1\ta\n", "must have 10 columns with tabs between them, got 2 in `{}`, line 1"),
        ("a.conllu", "# only\n\n", "`{}` must hold at least one sentence"),
        ("a.conllu", CONLLU.replace("\n\n# sent_id = a-2", ""), "so on (here 4), got `1` in `{}`, line 9; try an empty line between two"),
        ("a.conllu", CONLLU.replace("3\t10", "x\t10"), "so on (here 3), got `x` in `{}`, line 8; try mending that line"),
        ("a.conllu", CONLLU.replace("DET", "_", 1), "every token must have a label, got one without in `{}`, line 6"),
        ("a.jsonl", '{"tokens": ["a"], "labels": ["O", "O"]}', "got 2 for 1 tokens in `{}`, line 1"),
        ("a.jsonl", '{"tokens": [], "labels": []}', "every sentence must have a token, got an empty list in `{}`, line 1"),
        ("a.jsonl", '{"tokens": ["a", " "], "labels": []}', "`tokens` must be a list of tokens"),
        ("a.jsonl", '{"tokens": "a b", "labels": []}', "`tokens` must be a list of tokens"),
        ("a.jsonl", '{"tokens": ["a"], "labels": [null]}', "got none for token 1 in `{}`, line 1"),
        ("a.jsonl", '{"tokens": ["a"], "labels": [true]}', "got none for token 1 in `{}`, line 1"),
        ("a.jsonl", '{"tokens": ["a"], "labels": "O"}', "`labels` must be a list of labels"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O"]}', "got only `tokens`, `tags` in `{}`, line 1 (`labels` is wanted)"),
        ("a.jsonl", '{"tokens": ["a"], "labels": ["O"]}\n\n{}', "got an empty line in `{}`, line 2"),
        ("a.jsonl", '{"tokens": ["a"', "`{}`, line 1, is no JSON"),
        ("a.jsonl", "[" * 100_000, "`{}`, line 1, is no JSON"),
        ("a.jsonl", "[1]", "got another value in `{}`, line 1"),
    ],
)
def test_every_defect_is_one_sentence_with_its_place(tmp_path: Path, name: str, text: str, found: str) -> None:
    path = write(tmp_path, name, text)
    assert found.format(path) in refusal(path)


def test_a_wrong_encoding_is_named_and_another_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "a\tO\nthé\tX\n", "latin-1")
    assert "must be UTF-8, got byte 0xe9 at byte 6, line 2" in refusal(path)
    assert read_tagged(path, TaggedForm(encoding="latin-1")).tokens == [["a", "thé"]]
    assert "must be `ascii`, got byte 0xe9 at byte 6, line 2; try the real encoding of the file" in refusal(
        path, TaggedForm(encoding="ascii")
    )
    with pytest.raises(ConfigurationError, match="must be the name of a text encoding, got `latin-99`"):
        read_tagged(path, TaggedForm(encoding="latin-99"))
    for wide in ("utf-16", "utf-32-le"):
        with pytest.raises(ConfigurationError, match=f"in which a line ends with the byte 10, got `{wide}`"):
            read_tagged(path, TaggedForm(encoding=wide))


def test_keys_and_numbers_in_json(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"words": ["a", "b"], "ner_tags": [0, 1]}')
    assert read_tagged(path, TaggedForm(tokens="words", label="ner_tags")).labels == [["0", "1"]]


def test_without_labels_every_format_reads_on(tmp_path: Path) -> None:
    bare = rows("\t").replace("\tB-x", "")
    for name, text in {
        "a.conll": bare,
        "b.conll": rows(" ", "NN"),
        "a.tsv": rows("\t"),
        "a.jsonl": as_json().replace("labels", "no"),
    }.items():
        read = read_tokens(write(tmp_path, name, text))
        assert (read.tokens, read.labels) == (TOKENS, [])
    unlabelled = read_tokens(write(tmp_path, "a.conllu", CONLLU.replace("ADP", "_")))
    assert unlabelled.tokens == [["de", "le", "10 000"], ["#"]]
    plain = read_tokens(write(tmp_path, "a.txt", "The  cat\tsat\n\n x \n"))
    assert (plain.tokens, list(plain.lines)) == ([["The", "cat", "sat"], ["x"]], [1, 3])
    assert tokens_of_lines(["a b\r\n", "\n", "c"]).tokens == [["a", "b"], ["c"]]
    assert tokens_of_lines(["a\tO\n", "b\tO\n"], TaggedForm(format="tsv")).tokens == [["a", "b"]]
    with pytest.raises(DataError, match="`<stdin>` must hold at least one sentence"):
        tokens_of_lines([])


def test_findings_are_doubled_ids_and_one_label_only(tmp_path: Path) -> None:
    assert read_tagged(write(tmp_path, "a.conllu", CONLLU)).findings() == []
    doubled = read_tagged(write(tmp_path, "b.conllu", CONLLU.replace("a-2", "a-1"))).findings()
    assert len(doubled) == 1
    assert "`a-1` stands 2 times in" in doubled[0]
    assert "lines 5 and 11" in doubled[0]
    one = read_tagged(write(tmp_path, "a.tsv", "a\tO\nb\tO\n")).findings()
    assert len(one) == 1
    assert "all 2 in" in one[0]
    assert "are `O`" in one[0]


def test_some_sentences_keep_their_places(tmp_path: Path) -> None:
    chosen = read_tagged(write(tmp_path, "a.conllu", CONLLU)).select([1])
    assert (chosen.tokens, chosen.labels, chosen.lines, chosen.ids) == ([["#"]], [["SYM"]], [11], ["a-2"])
    assert len(read_tokens(write(tmp_path, "a.txt", "a\nb")).select([1, 0])) == 2


def test_a_document_of_many_tokens_is_one_sentence(tmp_path: Path) -> None:
    read = read_tagged(write(tmp_path, "a.tsv", "w\tO\n" * 100_000))
    assert [len(tokens) for tokens in read.tokens] == [100_000]


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda t: t.strip() == t and not t.startswith("-DOCSTART-")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(text, text), min_size=1), min_size=1))
def test_any_tokens_come_back_from_tsv_and_json(tmp_path: Path, sentences: list[list[tuple[str, str]]]) -> None:
    tokens, labels = ([[pair[i] for pair in one] for one in sentences] for i in (0, 1))
    table = "\n\n".join("\n".join("\t".join(pair) for pair in one) for one in sentences)
    lines = "\n".join(json.dumps({"tokens": t, "labels": y}) for t, y in zip(tokens, labels, strict=True))
    for name, content in {"any.tsv": table, "any.conll": table, "any.jsonl": lines}.items():
        read = read_tagged(write(tmp_path, name, content))
        assert (read.tokens, read.labels) == (tokens, labels)


def parsed_by_another(path: Path) -> list[list[tuple[str, str]]]:
    conllu = pytest.importorskip("conllu")
    sentences = conllu.parse(gzip.decompress(path.read_bytes()).decode())
    return [[(token["form"], token["upos"]) for token in one if isinstance(token["id"], int)] for one in sentences]


@pytest.mark.skipif(not (SHARED / "ud_english_ewt").is_dir(), reason="the treebank is not there")
def test_the_treebank_is_read_as_another_reader_reads_it() -> None:
    counts = {"train": (12_544, 204_577), "dev": (2_001, 25_147), "test": (2_077, 25_094)}
    read: dict[str, TaggedSentences] = {}
    for part, (sentences, words) in counts.items():
        read[part] = read_tagged(SHARED / "ud_english_ewt" / f"en_ewt-ud-{part}.conllu.gz")
        assert (len(read[part]), sum(map(len, read[part].tokens))) == (sentences, words)
        assert len({label for labels in read[part].labels for label in labels}) == 17
        assert read[part].findings() == []
    other = parsed_by_another(SHARED / "ud_english_ewt" / "en_ewt-ud-test.conllu.gz")
    assert [list(zip(t, y, strict=True)) for t, y in zip(read["test"].tokens, read["test"].labels, strict=True)] == other


@pytest.mark.skipif(not (SHARED / "wnut17").is_dir(), reason="the entities are not there")
@pytest.mark.parametrize(
    ("name", "sentences", "tokens", "entities"),
    [("wnut17train.conll.gz", 3394, 62_730, 1975), ("emerging.dev.conll.gz", 1009, 15_733, 836)],
)
def test_emerging_entities_are_as_many_as_published(name: str, sentences: int, tokens: int, entities: int) -> None:
    read = read_tagged(SHARED / "wnut17" / name)
    assert (len(read), sum(map(len, read.tokens))) == (sentences, tokens)
    assert sum(label.startswith("B-") for labels in read.labels for label in labels) == entities
