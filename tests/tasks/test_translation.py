"""Translation from files to scores: training, resuming, decoding, scoring, and one objective held to loops written by hand."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from sacrebleu.metrics import BLEU
from torch.nn.functional import cross_entropy

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.settings import merge, resolve
from unrolled.data.batches import PairBatch, build_pair_corpus
from unrolled.data.pairs import read_pairs
from unrolled.data.sentences import train_codec
from unrolled.decode.hypotheses import Hypothesis
from unrolled.models.encoder_decoder import EncoderDecoder, Sizes
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.report import write_look
from unrolled.tasks import translating
from unrolled.tasks.loading import load
from unrolled.tasks.row_windows import RowWindow
from unrolled.tasks.translating import Translator, Voice
from unrolled.tasks.translation import TranslationRun, resume_translation, train_translation
from unrolled.tasks.translation_data import Codecs, PairWindows
from unrolled.tasks.translation_look import trace_translation
from unrolled.tasks.translation_objective import TranslationObjective, teach
from unrolled.tasks.translation_scores import group_references, score_texts
from unrolled.train.checkpoint import read_checkpoint
from unrolled.train.group import Group

WORDS = ["ba", "du", "ki", "lo", "me", "no"]
TINY: dict[str, Any] = {
    "data": {"tokens": "words"},
    "model": {"hidden_size": 32, "embedding_size": 16, "input_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0},
    "train": {
        "steps": 120,
        "batch_tokens": 128,
        "average": 0.9,
        "evaluations": 2,
        "evaluation_decodes": 20,
        "log_every": 10,
        "precision": "fp32",
        "threads": 1,
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"warmup_steps": 5},
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sentences and the same in capitals, back to front."""
    folder, chance = tmp_path_factory.mktemp("pairs"), random.Random(0)
    sources = [" ".join(chance.choices(WORDS, k=chance.randint(1, 4))) for _ in range(300)]
    source, target = folder / "train.low", folder / "train.high"
    source.write_text("\n".join(sources) + "\n")
    target.write_text("\n".join(" ".join(reversed(line.upper().split())) for line in sources) + "\n")
    return source, target


@pytest.fixture(scope="module")
def trained(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> TranslationRun:
    return train_translation(files, out=tmp_path_factory.mktemp("runs") / "r", differences=TINY)


def test_it_learns_to_turn_sentences_round(trained: TranslationRun) -> None:
    scores = trained.evaluate(beam=1)
    assert scores.exact_match is not None and scores.exact_match > 90
    assert scores.wer == pytest.approx(100 - scores.exact_match)
    assert trained.translate("ba du ki") == "KI DU BA"
    assert scores.bleu_signature is not None and "tok:13a" in scores.bleu_signature


def test_what_is_loaded_is_what_was_trained(trained: TranslationRun) -> None:
    again = load(trained.folder.path)
    assert isinstance(again, TranslationRun)
    lines = ["ba", "lo me", "ki ki no ba"]
    assert again.translations(lines, beam=3, n_best=2) == trained.translations(lines, beam=3, n_best=2)
    assert trained.summary()["status"] == "finished" and trained.folder.report.exists()


def test_order_and_empty_lines_are_kept(trained: TranslationRun) -> None:
    lines = ["ba du ki no", "", "lo", "me me", ""]
    together = [one[0].text for one in trained.translations(lines)]
    assert together == [trained.translate(line) if line else "" for line in lines]
    assert [one[0].text for one in trained.translations([])] == []


def test_a_translation_does_not_depend_on_its_batch(trained: TranslationRun) -> None:
    lines = ["ba du ki no", "lo", "me me", "du du du du"]
    for one, alone in zip(
        trained.translations(lines, beam=4, n_best=4), (trained.translations([x], beam=4, n_best=4)[0] for x in lines), strict=True
    ):
        assert [t.text for t in one] == [t.text for t in alone]
        assert [t.score for t in one] == pytest.approx([t.score for t in alone], abs=1e-5)


@pytest.mark.parametrize(("kind", "text"), [("words", "A zu C"), ("characters", "Azu C")])
def test_unknown_symbols_are_replaced_from_the_source(kind: str, text: str) -> None:
    """A hypothesis made by hand: its second symbol is unknown and looked at the second word of the source."""
    codec = train_codec(kind, ["A C", "x y"], unknown=True)
    known = [int(i) for i in codec.encode("A C")]
    assert codec.unknown is not None
    tokens = [known[0], codec.unknown, *known[1:]]
    translator = Translator([Voice(small(), Codecs(train_codec("words", ["x zu y"]), codec))])
    rows = torch.zeros(len(tokens), 3)
    rows[:, 1] = 1
    hypothesis = Hypothesis(tokens, -1.0, -1.0, [], rows, True, True)
    request = resolve_request(replace_unknowns=True)
    assert translator.render(hypothesis, "x zu y", request).text == text
    assert "zu" not in translator.render(hypothesis, "x zu y", resolve_request()).text


def test_words_are_aligned_with_their_source(trained: TranslationRun, files: tuple[Path, Path], tmp_path: Path) -> None:
    links = trained.translations(["ba du ki"], alignments=True)[0][0].words
    assert links is not None and [target for _, target in links] == [0, 1, 2] and all(0 <= source < 3 for source, _ in links)
    assert trained.translations(["ba du ki"])[0][0].words is None
    kinds = {"encoder": {"kind": "transformer"}, "decoder": {"kind": "transformer"}}
    other = train_translation(files, out=tmp_path / "t", differences=merge(TINY, {"model": kinds, "train": {"steps": 5}}))
    found = other.translations(["ba du ki"], alignments=True, max_ratio=1.0, max_extra=1)[0][0]
    assert found.alignment is not None and len(found.alignment) == len(found.symbols)
    assert sum(found.alignment[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("at_once", [1, translating.WEIGHTS_AT_ONCE])
def test_alignments_do_not_depend_on_their_batch(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    kinds = {"encoder": {"kind": "transformer"}, "decoder": {"kind": "transformer", "layers": 2}}
    run = train_translation(files, out=tmp_path / "t", differences=merge(TINY, {"model": kinds, "train": {"steps": 5}}))
    monkeypatch.setattr(translating, "WEIGHTS_AT_ONCE", at_once)
    lines = ["ba du ki no", "lo", "", "me me"]
    found = run.translations(lines, beam=3, n_best=3, alignments=True, max_ratio=2.0, max_extra=1)
    for line, several in zip(lines, found, strict=True):
        for one in several if line else []:
            # The model by itself: the last layer over this one translation, the mean over heads.
            source, target = (codec.encode(text) for codec, text in zip(run.codecs, (line, one.text), strict=True))
            if len(target) + one.ended != len(one.symbols):
                continue  # it wrote a symbol that is no text
            read = torch.tensor([[run.codecs.target.start, *target.tolist()][: len(one.symbols)]])
            _, looks = run.model.looks(Padded(torch.from_numpy(source).long()[None], torch.tensor([len(source)])), read)
            weights = looks["2"].memory
            assert weights is not None and one.alignment is not None
            torch.testing.assert_close(torch.tensor(one.alignment), weights[0].mean(0), atol=1e-5, rtol=0)
            assert one.words is not None and len(one.words) == len(one.text.split())
    assert sum(len(one.symbols) > 1 for several in found for one in several) > 3


def test_constraints(trained: TranslationRun) -> None:
    assert "ME" in trained.translate("ba du", require=("ME",)).split()
    assert "BA" not in trained.translate("ba du", forbid=("BA",)).split()
    assert trained.translate("ba du", prefix="NO").startswith("NO")
    looked = trace_translation(trained, "ba du", beam=3, prefix="NO", require="ME")["hypotheses"][0]["text"]
    assert looked.startswith("NO ") and "ME" in looked.split()


def test_words_that_share_their_letters(tmp_path: Path) -> None:
    """Letter by letter: a word may be required that begins the sentence, and forbidding one leaves those that begin with it."""
    (tmp_path / "p.tsv").write_text("a\tdog\nb\tdogs\na b\tdog dogs\nb a\tdogs dog\n" * 20)
    differences = merge(TINY, {"data": {"tokens": "characters"}})
    run = train_translation(tmp_path / "p.tsv", valid=tmp_path / "p.tsv", out=tmp_path / "r", differences=differences)
    assert [run.translate(line) for line in ("a", "b", "b a")] == ["dog", "dogs", "dogs dog"]
    assert run.translate("b", forbid="dog") == "dogs" != run.translate("b", forbid="dog", beam=1)
    assert run.translate("b a", forbid="dog").split()[0] == "dogs" and "dog" not in run.translate("b a", forbid="dog").split()
    plain, required = (run.translations(["b a"], **wishes)[0][0] for wishes in ({}, {"require": "dogs"}))
    assert required.text == plain.text and required.met
    assert "dog" in run.translate("b", require="dog").split()


@pytest.mark.parametrize("option", ["require", "forbid", "prefix"])
def test_what_is_asked_for_must_be_in_the_vocabulary(trained: TranslationRun, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{option}` must be made of symbols of the target vocabulary, got `XX`"):
        trained.translate("ba du", **{option: "XX"})


def test_sub_words_keep_what_is_asked(files: tuple[Path, Path], tmp_path: Path) -> None:
    data = {"tokens": "bpe", "vocabulary_size": 290}
    run = train_translation(files, out=tmp_path / "r", differences={**TINY, "data": data})
    assert "ME" in run.translate("ba du ba", require="ME").split()
    plain = run.translate("ba du")
    for word in plain.split():
        assert word not in run.translate("ba du", forbid=word).split()
    assert run.translate("ba du", prefix="LO ").startswith("LO")


def test_a_short_source_may_have_a_long_target(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text(("a\t" + "x " * 39 + "y\nb\ty\n") * 10)
    run = train_translation(tmp_path / "p.tsv", valid=tmp_path / "p.tsv", out=tmp_path / "r", differences=TINY)
    assert len(run.translations(["a"], beam=1)[0][0].symbols) > 30  # more than twice its source and twenty
    short = run.translations(["a"], max_extra=3, max_ratio=0.0)[0][0]
    assert not short.ended and len(short.symbols) == 3


def test_a_terminology_counts_only_where_its_term_is(trained: TranslationRun, tmp_path: Path) -> None:
    (tmp_path / "terms.tsv").write_text("ba\tNO\n")
    with_term, without = (trained.translate(line, terminology=tmp_path / "terms.tsv") for line in ("ba du", "du"))
    assert "NO" in with_term.split() and without == "DU"


def test_sampling_follows_its_seed(trained: TranslationRun) -> None:
    wishes = {"sampling": True, "n_best": 3, "temperature": 3.0}
    one, same, other = ([t.text for t in trained.translations(["ba du ki"], seed=seed, **wishes)[0]] for seed in (1, 1, 2))
    assert one == same != other
    beside = trained.translations(["lo", "ba du ki", "me me me"], seed=1, **wishes)[1]
    assert [t.text for t in beside] == one
    with pytest.raises(ConfigurationError, match="`coverage` is for searching"):
        trained.translate("ba", sampling=True, coverage=0.2)
    assert trained.translations(["ba du ki"], sampling=True, temperature=0.0)[0][0].text == trained.translate("ba du ki", beam=1)


def test_several_models_together(trained: TranslationRun, files: tuple[Path, Path], tmp_path: Path) -> None:
    kinds = {"encoder": {"kind": "transformer"}, "decoder": {"kind": "transformer"}}
    other = train_translation(files, out=tmp_path / "t", differences=merge(TINY, {"model": kinds, "train": {"steps": 5}}))
    together = trained.translator([other]).translate(["ba du"], resolve_request(beam=2))
    assert together[0][0].text
    alone = trained.translator([trained]).translate(["ba du"], resolve_request(beam=2))
    assert alone[0][0].score == pytest.approx(trained.translations(["ba du"], beam=2)[0][0].score, abs=1e-5)
    scores = trained.evaluate(beam=2, ensemble=[other.folder.path])
    assert scores.loss is None and scores.bleu is not None
    elsewhere = tmp_path / "o.high"
    elsewhere.write_text(files[1].read_text().replace("BA", "XA"))
    foreign = train_translation([files[0], elsewhere], out=tmp_path / "f", differences=merge(TINY, {"train": {"steps": 1}}))
    with pytest.raises(ConfigurationError, match="same target vocabulary"):
        trained.translator([foreign])


def resolve_request(**wishes: Any) -> Any:
    from unrolled.tasks.translation_request import TranslationRequest

    return resolve(TranslationRequest, wishes)


def test_resuming_ends_where_an_uninterrupted_run_does(files: tuple[Path, Path], tmp_path: Path) -> None:
    short = merge(TINY, {"train": {"steps": 24, "evaluations": 4}, "model": {"output_dropout": 0.2}})
    whole = train_translation(files, out=tmp_path / "whole", differences=short)
    # Ends in the middle of an epoch, then goes on; the schedule of the part is that of the whole.
    constant = merge(short, {"train": {"schedule": {"name": "constant"}}})
    whole = train_translation(files, out=tmp_path / "w", differences=constant)
    part = train_translation(files, out=tmp_path / "p", differences=merge(constant, {"train": {"steps": 12, "evaluations": 2}}))
    config = part.folder.config.read_text()
    part.folder.config.write_text(config.replace("evaluations = 2", "evaluations = 4"))
    resume_translation(part.folder.path, changes={"train": {"steps": 24}})
    one, other = (read_checkpoint(run.folder.checkpoint)[0] for run in (whole, part))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_scoring_agrees_with_the_search(trained: TranslationRun, tmp_path: Path) -> None:
    lines = ["ba du ki", "lo", "me no"]
    found = [one[0] for one in trained.translations(lines, beam=3)]
    assert trained.score(lines, [one.text for one in found]) == pytest.approx([one.log_probability for one in found], abs=1e-4)
    trained.evaluate(beam=2, lines=tmp_path / "lines.jsonl")
    written = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert len(written) == len(trained.parts().valid) and written[0]["output"] == trained.translate(written[0]["source"], beam=2)


def test_models_with_other_source_symbols_translate_together(files: tuple[Path, Path], tmp_path: Path, trained: TranslationRun) -> None:
    data = {"source_tokens": "characters", "target_tokens": "words"}
    other = train_translation(files, out=tmp_path / "c", differences=merge(TINY, {"data": data, "train": {"steps": 5}}))
    assert trained.translator([other]).translate(["ba du", "lo"], resolve_request())[1][0].text
    with pytest.raises(ConfigurationError, match="different source vocabularies"):
        trained.translator([other]).translate(["ba du"], resolve_request(alignments=True))


def test_early_stopping_is_counted(trained: TranslationRun) -> None:
    with_stop, without = (trained.evaluate(beam=4, early_stopping=stop, normalisation="none") for stop in (True, False))
    assert with_stop.bleu == without.bleu
    assert with_stop.steps < without.steps and with_stop.steps_saved > 0 == without.steps_saved


def test_learned_positions_must_reach(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = {"encoder": {"kind": "transformer"}, "transformer": {"positions": "learned", "longest": 3}}
    with pytest.raises(ConfigurationError, match=r"must reach the longest source, 4 symbols.*longest=3"):
        train_translation(files, out=tmp_path / "r", differences=merge(TINY, {"model": model}))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "model",
    [
        {"encoder": {"kind": "transformer"}, "decoder": {"kind": "transformer"}},
        {"encoder": {"kind": "none"}, "decoder": {"kind": "transformer"}},
        {"attention": {"kind": "none"}},
        {"encoder": {"kind": "convolutional"}},
    ],
)
def test_every_kind_can_be_looked_into(files: tuple[Path, Path], tmp_path: Path, model: dict[str, Any]) -> None:
    run = train_translation(files, out=tmp_path / "r", differences=merge(TINY, {"model": model, "train": {"steps": 3}}))
    trace = trace_translation(run, "ba du", beam=2, max_extra=4, max_ratio=0.0)
    page = write_look(trace, tmp_path / "look.html")
    assert page.exists()
    for one in trace["attention"]:
        for head in one["weights"]:
            assert len(head) == len(one["rows"]) and all(len(row) == len(one["columns"]) for row in head)
    assert bool(trace["attention"]) == (model.get("attention") is None)


@pytest.mark.parametrize("tokens", ["characters", "bpe", "unigram"])
def test_every_kind_of_symbol(files: tuple[Path, Path], tmp_path: Path, tokens: str) -> None:
    data = {"tokens": tokens} | ({} if tokens == "characters" else {"vocabulary_size": 300})
    few = merge(TINY, {"train": {"steps": 3, "evaluations": 1}})
    run = train_translation(files, out=tmp_path / "r", differences={**few, "data": data})
    assert run.codecs.joint == (tokens != "characters")
    assert isinstance(run.translate("ba du ✓"), str)
    assert math.isfinite(run.evaluate(beam=2).loss)


def test_other_symbols_on_each_side(tmp_path: Path) -> None:
    """Pronunciation: characters in, words out; a source may have several targets."""
    lines = [("ab", "A B"), ("ba", "B A"), ("aab", "A A B"), ("ab", "A P")] * 10
    (tmp_path / "g2p.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in lines))
    data = {"source_tokens": "characters", "target_tokens": "words"}
    run = train_translation(tmp_path / "g2p.tsv", valid=tmp_path / "g2p.tsv", out=tmp_path / "r", differences={**TINY, "data": data})
    scores = run.evaluate(beam=2)
    assert scores.sentences == 3  # `ab` once, with two references
    assert scores.exact_match == 100


def test_bpe_dropout_trains(files: tuple[Path, Path], tmp_path: Path) -> None:
    few = merge(TINY, {"train": {"steps": 3, "evaluations": 1}})
    data = {"tokens": "bpe", "vocabulary_size": 290, "bpe_dropout": 0.5}
    assert train_translation(files, out=tmp_path / "r", differences={**few, "data": data}).summary()["steps"] == 3


def test_bpe_dropout_cuts_anew_every_epoch_and_batches_by_what_it_cut(files: tuple[Path, Path]) -> None:
    pairs = read_pairs(files)
    codec = train_codec("bpe", [*pairs.sources, *pairs.targets], vocabulary_size=290)
    codecs = Codecs(codec, codec)
    corpus = build_pair_corpus(pairs, *codecs, max_length=9)
    kept = sorted((pairs.sources[i], pairs.targets[i]) for i in corpus.kept)

    def reading(rank: int = 0, size: int = 1) -> PairWindows:
        return PairWindows(pairs, corpus, codecs, batch_tokens=150, seed=1, group=Group(rank, size), dropout=0.5)

    def ids(window: RowWindow) -> list[tuple[list[int], ...]]:
        sides = ([row[:n].tolist() for row, n in zip(*side, strict=True)] for side in window.batch)
        return list(zip(*sides, strict=True))

    def epoch(windows: PairWindows) -> list[RowWindow]:
        begun = int(windows.epochs_done)
        taken = []
        while int(windows.epochs_done) == begun:
            taken.append(windows.take())
        return taken

    windows = reading()
    first = epoch(windows)
    halfway = windows.take(), windows.state_dict()
    second = [halfway[0], *epoch(windows)]
    for taken in (first, second):
        read = [pair for window in taken for pair in ids(window)]
        assert sorted((codec.decode(source), codec.decode(target)) for source, target in read) == kept
        assert all(len(target) * max(source.shape[1], target.shape[1] + 1) <= 150 for (source, _), (target, _) in (w.batch for w in taken))
    cuts = [{codec.decode(source): source for window in taken for source, _ in ids(window)} for taken in (first, second)]
    assert sum(cuts[0][text] != cuts[1][text] for text in cuts[0]) > len(cuts[0]) / 2
    other = reading()
    other.load_state_dict(halfway[1])
    assert ids(other.take()) == ids(second[1])
    shares = reading(0, 2).take(), reading(1, 2).take()
    assert ids(shares[0]) + ids(shares[1]) == ids(first[0])


def test_the_trace_of_a_sentence(trained: TranslationRun) -> None:
    trace = trace_translation(trained, "ba du", beam=3)
    json.dumps(trace)
    best = trace["hypotheses"][0]
    assert best["text"] == "DU BA" and len(trace["source"]) == 2
    attention = trace["attention"][0]
    assert len(attention["rows"]) == len(best["symbols"]) and len(attention["weights"][0][0]) == 2
    kept = [node for step in trace["tree"]["steps"] for node in step if node["finished"]]
    assert any(node["score"] == pytest.approx(best["score"], abs=1e-4) for node in kept)
    with pytest.raises(DataError, match="must be a sentence"):
        trace_translation(trained, "")


# --- The objective ---------------------------------------------------------------------------------------------------


def small(**differences: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    settings = resolve(
        EncoderDecoderSettings, {"hidden_size": 6, "input_dropout": 0, "hidden_dropout": 0, "output_dropout": 0, **differences}
    )
    return EncoderDecoder(settings, Sizes(7, 9)).double()


def window(rows: slice = slice(0, 3)) -> RowWindow:
    source = Padded(torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]]), torch.tensor([3, 1, 2]))
    target = Padded(torch.tensor([[1, 2], [3, 0], [0, 0]]), torch.tensor([2, 1, 0]))
    parts = [Padded(side.data[rows], side.lengths[rows]) for side in (source, target)]
    return RowWindow(PairBatch(*parts), rows.start, 3)


def test_teaching_shifts_by_one() -> None:
    taught = teach(window().batch.target, start=8, end=7)
    assert taught.inputs.tolist() == [[8, 1, 2], [8, 3, 0], [8, 0, 0]]
    assert taught.wanted[taught.mask].tolist() == [1, 2, 7, 3, 7, 7]
    assert taught.mask.sum(1).tolist() == [3, 2, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_objective_is_a_mean_over_symbols(smoothing: float) -> None:
    model = small().train()
    loss = TranslationObjective(model, start=8, end=7, label_smoothing=smoothing)(window(), None, Noise())
    taught, state = teach(window().batch.target, 8, 7), model.encode(window().batch.source)
    rows = []
    for t in range(3):
        logits, state = model.step(taught.inputs[:, t], state)
        rows.append(logits)
    logits = torch.stack(rows, 1)[taught.mask]
    wanted = taught.wanted[taught.mask]
    assert loss.nats.item() == pytest.approx(cross_entropy(logits, wanted, reduction="sum").item(), rel=1e-6)
    assert loss.objective.item() == pytest.approx(cross_entropy(logits, wanted, label_smoothing=smoothing).item(), rel=1e-6)


def test_shares_of_a_batch_add_up() -> None:
    objective = TranslationObjective(small(output_dropout=0.4).train(), start=8, end=7)

    def nats(rows: slice) -> float:
        return objective(window(rows), None, Noise(torch.Generator().manual_seed(0))).nats.item()

    assert nats(slice(0, 2)) + nats(slice(2, 3)) == pytest.approx(nats(slice(0, 3)))
    assert objective.scored(window()) == 6


def test_scheduled_sampling_reads_its_own_symbols() -> None:
    model = small().train()
    seen: list[torch.Tensor] = []
    read = model.read

    def spy(state: Any, targets: torch.Tensor, noise: Any = None) -> Any:
        seen.append(targets)
        return read(state, targets, noise)

    model.read = spy  # type: ignore[method-assign]
    TranslationObjective(model, start=8, end=7, scheduled_sampling=1.0)(window(), None, Noise(torch.Generator().manual_seed(0)))
    true, mixed = seen
    assert (mixed[:, 0] == 8).all() and (mixed != true).any()
    seen.clear()
    TranslationObjective(model, start=8, end=7)(window(), None, Noise())
    assert len(seen) == 1


def test_scheduled_sampling_takes_one_number_from_the_shared_source() -> None:
    """However many symbols a process has: or dropout would differ between processes from then on."""
    objective = TranslationObjective(small(output_dropout=0.3).train(), start=8, end=7, scheduled_sampling=0.5)
    after = []
    for rows in (slice(0, 3), slice(0, 1)):
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(len(after))
        loss = objective(window(rows), None, Noise(generator))
        after.append((generator.get_state(), loss.nats.item()))
    assert torch.equal(after[0][0], after[1][0])
    torch.manual_seed(9)
    assert objective(window(), None, Noise(torch.Generator().manual_seed(0))).nats.item() == after[0][1]


def test_coverage_loss_counts_what_is_attended_to_again() -> None:
    model = small(attention={"coverage": True, "coverage_loss": 2.0}).train()
    without = small(attention={"coverage": True, "coverage_loss": 0.0}).train()
    with_loss, plain = (TranslationObjective(m, start=8, end=7)(window(), None, Noise()).objective for m in (model, without))
    taught = teach(window().batch.target, 8, 7)
    weights = model.read(model.encode(window().batch.source), taught.inputs).weights[:, :, 0]
    total, expected = torch.zeros(3, 3, dtype=torch.float64), 0.0
    for t in range(3):
        again = torch.minimum(weights[:, t], total).sum(-1)
        expected += again[taught.mask[:, t]].sum().item()
        total = total + weights[:, t]
    assert (with_loss - plain).item() == pytest.approx(2.0 * expected / 6, rel=1e-5)


# --- Scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_sacrebleus_and_an_edit_distance() -> None:
    outputs = ["a b c d e", "x y", ""]
    references = [["a b c d e"], ["x z"], ["q r"]]
    found = score_texts(outputs, references)
    assert found.bleu == pytest.approx(BLEU().corpus_score(outputs, [[r[0] for r in references]]).score)
    assert found.exact_match == pytest.approx(100 / 3)
    assert found.symbol_error_rate == pytest.approx(100 * (0 + 1 + 2) / 9)


def test_several_references() -> None:
    grouped = group_references(["a", "b", "a"], ["1", "2", "3"])
    assert grouped == (["a", "b"], [["1", "3"], ["2"]])
    assert score_texts(["3", "2"], grouped.references).exact_match == 100
    # Where every source has one target, repeated lines stay lines of the test set.
    assert group_references(["a", "a"], ["1", "1"]).sources == ["a", "a"]
