from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cutline.caption import BaseCaptioner, Caption, Captioner
from cutline.data import Example
from cutline.errors import DataError, ImageCorruptError, MissingExtraError, OptionError
from cutline.evaluation import metrics
from cutline.evaluation.evaluate import Report, evaluate
from cutline.progress import Progress

KINDS = ("dog", "girl", "boat", "horse")
PLACES = ("on the sand", "in the snow", "near a red house", "under a tree")


def example(number: int, folder: str) -> Example:
    kind, place = KINDS[number % 4], PLACES[number // 4 % 4]
    return Example(
        Path(f"{folder}/{kind}-{number}.jpg"),
        (f"A {kind} rests {place}.", f"The {kind} is {place} .", f"One {kind} {place}"),
    )


TRAIN = tuple(example(number, "train") for number in range(40))
DEV = tuple(example(number, "dev") for number in range(12))


def embed(paths: Sequence[Path]) -> NDArray[np.float32]:
    vectors = np.zeros((len(paths), 5), dtype=np.float32)
    for row, path in zip(vectors, paths, strict=True):
        row[KINDS.index(path.name.split("-")[0])] = 3.0
        row[4] = 0.1
    return vectors


@dataclass
class FakeCaptioner(BaseCaptioner):
    """Says what the file's name says, and embeds what it says; breaks on the images it is told."""

    name: str = "fake-v1"
    broken: frozenset[str] = frozenset()
    seen: list[Path] = field(default_factory=list)
    score: float = -0.5

    def stream(self, images: Iterable[Any], options: Any = None) -> Iterator[Caption]:
        for path in images:
            self.seen.append(path)
            if path.name in self.broken:
                error = ImageCorruptError(path.name, "cut short")
                yield Caption(str(path), "", float("nan"), error=error)
            else:
                text = f"A {path.name.split('-')[0]} rests on the sand."
                yield Caption(str(path), text, self.score, embedding=embed([path])[0])


def judge(captioner: Captioner | None = None, **options: Any) -> Report:
    options = {"meteor": False, "train": TRAIN, "embed": embed, **options}
    return evaluate(captioner or FakeCaptioner(), options.pop("examples", DEV), **options)


def test_a_report_scores_the_captioner_beside_its_baselines() -> None:
    report = judge()
    names = [result.name for result in (report.captioner, *report.baselines)]
    assert names == ["fake-v1", "human", "nearest neighbour", "most common", "random"]
    for result in (report.captioner, *report.baselines):
        assert list(result.scores) == [*(f"BLEU-{n}" for n in range(1, 5)), "ROUGE-L", "CIDEr-D"]
        for value in result.scores.values():
            assert 0 <= value.low <= value.high
    by_name = {result.name: result for result in report.baselines}
    score = report.captioner.scores["CIDEr-D"].value
    assert score > by_name["nearest neighbour"].scores["CIDEr-D"].value
    assert score > by_name["most common"].scores["CIDEr-D"].value
    assert report.seconds > 0
    assert report.images_per_s == pytest.approx(len(DEV) / report.seconds)


def test_scores_are_those_of_the_metrics_module() -> None:
    report = judge()
    said = [metrics.tokenize(image.caption) for image in report.images]
    truth = [[metrics.tokenize(text) for text in each.captions] for each in DEV]
    expected = metrics.CiderD(truth).corpus(said)
    assert [image.cider_d for image in report.images] == pytest.approx(expected)
    assert report.captioner.scores["CIDEr-D"].value == pytest.approx(expected.mean())
    rows = metrics.bleu_statistics(said, truth)
    assert report.captioner.scores["BLEU-2"].value == pytest.approx(
        float(metrics.bleu(rows.sum(axis=0), 2))
    )


def test_each_image_keeps_its_own_caption_and_references() -> None:
    captioner = FakeCaptioner()
    report = judge(captioner)
    assert captioner.seen == [each.image for each in DEV]
    for image, each in zip(report.images, DEV, strict=True):
        assert (image.image, image.references) == (each.name, each.captions)
        assert each.name.split("-")[0] in image.caption
        assert (image.score, image.error) == (-0.5, None)


def test_a_failed_image_is_listed_and_scored_as_nothing_said() -> None:
    report = judge(FakeCaptioner(broken=frozenset({"girl-1.jpg"})))
    (failed,) = report.failed
    assert failed.image == "girl-1.jpg"
    assert (failed.caption, failed.cider_d, failed.score) == ("", 0.0, None)
    assert "cut short" in str(failed.error)
    assert "girl-1.jpg" in report.to_markdown()
    whole = judge().captioner.scores["CIDEr-D"].value
    assert report.captioner.scores["CIDEr-D"].value < whole
    assert report.captioner.diversity.mean_length == judge().captioner.diversity.mean_length
    assert Report.from_json(report.to_json()) == report


def test_a_captioner_that_always_fails_is_scored_zero() -> None:
    broken = frozenset(each.name for each in DEV)
    report = judge(FakeCaptioner(broken=broken))
    assert len(report.failed) == len(DEV)
    assert report.captioner.scores["CIDEr-D"].value == 0
    assert report.captioner.diversity.words == 0


def test_the_report_survives_json() -> None:
    report = judge()
    assert Report.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["captioner"]["scores"]["BLEU-4"]["value"] > 0


def test_the_table_has_a_line_a_metric_and_a_column_a_source() -> None:
    report = judge()
    lines = [line for line in report.to_markdown().splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {7}
    assert any(line.startswith("| CIDEr-D | ") and "[" in line for line in lines)
    assert any(line.startswith("| different captions | ") for line in lines)


def test_the_same_seed_gives_the_same_report() -> None:
    first, again, other = judge(seed=1), judge(seed=1), judge(seed=2)
    assert first.captioner == again.captioner
    assert first.baselines == again.baselines
    assert first.baselines[-1].scores != other.baselines[-1].scores


def test_leads_are_the_differences_of_the_scores() -> None:
    report = judge()
    by_name = {result.name: result for result in report.baselines}
    assert by_name["human"].lead == {}
    for name in ("nearest neighbour", "most common", "random"):
        for metric, lead in by_name[name].lead.items():
            ours, theirs = report.captioner.scores[metric], by_name[name].scores[metric]
            assert lead.difference == pytest.approx(ours.value - theirs.value)
            assert lead.low <= lead.high


def test_humans_are_the_first_reference_against_the_others() -> None:
    (human, *_) = judge().baselines
    assert human.references == 2
    said = [metrics.tokenize(each.captions[0]) for each in DEV]
    rest = [[metrics.tokenize(text) for text in each.captions[1:]] for each in DEV]
    expected = metrics.CiderD(rest).corpus(said).mean()
    assert human.scores["CIDEr-D"].value == pytest.approx(expected)


def test_what_is_missing_is_skipped_with_a_reason() -> None:
    alone = [Example(each.image, each.captions[:1]) for each in DEV]
    report = judge(examples=alone, train=None)
    assert report.baselines == ()
    assert set(report.skipped) == {"human", "nearest neighbour, most common, random"}
    report = judge(embed=None)
    assert [result.name for result in report.baselines] == ["human", "most common", "random"]
    assert "nearest neighbour" in report.skipped

    def blind(images: Sequence[Path]) -> NDArray[np.float32]:
        raise ImageCorruptError(str(images[0]), "cut short")

    report = judge(embed=blind)
    assert [result.name for result in report.baselines] == ["human", "most common", "random"]
    assert report.skipped["nearest neighbour"].endswith("cut short")
    assert judge(baselines=False).baselines == ()
    assert judge(train=None).captioner.diversity.novel_rate is None


def test_without_java_the_other_metrics_stand_and_meteor_is_asked_for_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*_: object) -> None:
        raise MissingExtraError("METEOR", "eval")

    monkeypatch.setattr(metrics, "meteor_statistics", absent)
    monkeypatch.setattr(metrics, "spice", absent)
    report = judge(meteor=None)
    assert set(report.skipped) == {"METEOR", "SPICE"}
    assert "cutline[eval]" in report.to_markdown()
    assert "METEOR" not in report.captioner.scores
    with pytest.raises(MissingExtraError):
        judge(meteor=True)


def test_java_metrics_are_run_once_for_all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def statistics(candidates: Sequence[Any], references: Sequence[Any]) -> NDArray[np.float64]:
        calls.append(len(candidates))
        identical = [6, 6, 3, 3, 3, 3, 3, 3, *[0] * 12, 0, 6, 6]
        return np.array([identical if len(words) else [0] * 23 for words in candidates], float)

    monkeypatch.setattr(metrics, "meteor_statistics", statistics)
    monkeypatch.setattr(metrics, "spice", lambda c, r: np.linspace(0, 1, len(c)))
    report = judge(meteor=True)
    assert calls == [5 * len(DEV)]
    for result in (report.captioner, *report.baselines):
        assert result.scores["METEOR"].value == pytest.approx(1.0)
    spices = [r.scores["SPICE"].value for r in (report.captioner, *report.baselines)]
    assert spices == sorted(spices)
    assert len(set(spices)) == 5


def test_limit_takes_the_first_images() -> None:
    report = judge(limit=3)
    assert [image.image for image in report.images] == [each.name for each in DEV[:3]]
    with pytest.raises(OptionError, match="got limit 0"):
        judge(limit=0)
    with pytest.raises(DataError, match="got no images, as in an empty split"):
        judge(examples=())


def test_a_captioner_that_loses_an_image_is_found_out() -> None:
    class Lossy(FakeCaptioner):
        def stream(self, images: Iterable[Any], options: Any = None) -> Iterator[Caption]:
            return super().stream(list(images)[1:])

    with pytest.raises(DataError, match="got 11 captions for 12 images"):
        judge(Lossy())


def test_a_captioner_without_scores_is_reported_all_the_same() -> None:
    report = judge(FakeCaptioner(score=float("nan")))
    assert {image.score for image in report.images} == {None}
    assert Report.from_json(report.to_json()) == report


def test_a_file_nested_too_deep_is_no_report() -> None:
    with pytest.raises(DataError, match="no report"):
        Report.from_json("[" * 100_000)


def test_progress_is_reported_for_each_caption() -> None:
    seen: list[Progress] = []
    judge(on_progress=seen.append)
    assert [(each.step, each.done, each.total) for each in seen] == [
        ("captioning", done, len(DEV)) for done in range(1, len(DEV) + 1)
    ]


def test_another_language_is_said_not_to_fit_the_metrics() -> None:
    assert "comparison with published scores" not in judge(baselines=False).skipped
    german = [replace(each, captions=("Ein weißer Hund läuft über die Straße.",)) for each in DEV]
    report = judge(examples=german, baselines=False)
    assert "does not fit the language" in report.skipped["comparison with published scores"]
