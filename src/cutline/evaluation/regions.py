"""Metrics for described regions: class naming, proposal recall and dense-captioning mAP."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutline.boxes import Box, overlaps
from cutline.data.region_readers import RegionExample
from cutline.errors import DataError, ImageError, OptionError
from cutline.evaluation.metrics import meteor, meteor_statistics, tokenize

IOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
METEOR_THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
"""Thresholds of Johnson et al. (2016), section 4.3."""


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    text = (files("cutline.evaluation") / "coco_names.txt").read_text(encoding="utf-8")
    patterns = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, names = line.partition(": ")
            either = "|".join(map(re.escape, names.split(", ")))
            patterns[name] = re.compile(rf"\b(?:{either})(?:e?s)?\b", re.IGNORECASE)
    return patterns


def classes() -> tuple[str, ...]:
    """The 80 object classes of COCO."""
    return tuple(_patterns())


def names_class(text: str, name: str) -> bool:
    """Whether a text names an object class, by the list of names in `coco_names.txt`.

    Args:
        text: a caption, phrase or label.
        name: one of `classes()`.

    Raises:
        DataError: there is no such class.
    """
    if name not in _patterns():
        raise DataError(f"got class {name!r}; expected one of COCO's 80 classes")
    return _patterns()[name].search(text) is not None


def recall(
    proposals: Sequence[NDArray[np.float64]],
    references: Sequence[NDArray[np.float64]],
    count: int,
    threshold: float = 0.5,
) -> float:
    """The share of reference boxes that one of an image's first proposals overlaps enough.

    Args:
        proposals: for each image (P, 4), x, y, width, height, best first.
        references: for each image (R, 4).
        count: how many proposals of each image count.
        threshold: least intersection over union.

    Raises:
        DataError: there is no reference box.
    """
    hits = total = 0
    for boxes, expected in zip(proposals, references, strict=True):
        total += len(expected)
        if len(boxes) and len(expected):
            hits += int((overlaps(expected, boxes[:count]).max(axis=1) >= threshold).sum())
    if not total:
        raise DataError("got no reference box; expected at least one")
    return hits / total


@dataclass(frozen=True)
class PredictedRegions:
    """The described regions of one image.

    Attributes:
        boxes: (P, 4), x, y, width, height.
        scores: (P,), higher is better.
        phrases: P phrases.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    phrases: Sequence[str]


@dataclass(frozen=True)
class ReferenceRegions:
    """What people wrote about the regions of one image.

    Attributes:
        boxes: (R, 4), x, y, width, height.
        phrases: R phrases.
    """

    boxes: NDArray[np.float64]
    phrases: Sequence[str]


Similarity = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[float]]
"""Scores candidates against their references: (candidates, references of each) -> scores."""


def dense_map(
    predictions: Mapping[str, PredictedRegions],
    references: Mapping[str, ReferenceRegions],
    similarity: Similarity,
) -> float:
    """Mean average precision of dense captioning (Johnson et al., 2016, section 4.3).

    As in the authors' evaluation, reference boxes that overlap by more than 0.7 are merged to
    their mean with all their phrases; predictions of all images are taken by descending score; one
    is correct at a pair of thresholds if the merged reference that it overlaps most has not been
    taken, the overlap is at least the first and the similarity of the phrases above the second
    (at the threshold 0 any similarity counts). Average precision is interpolated at 101 recalls.

    Args:
        predictions: by image.
        references: by image.
        similarity: METEOR in the paper.

    Returns:
        the mean over the 30 pairs of thresholds, 0..1.

    Raises:
        DataError: there is no reference.
    """
    scores: list[float] = []
    shares: list[float] = []
    candidates: list[str] = []
    wanted: list[Sequence[str]] = []
    matched: list[tuple[str, int] | None] = []
    total = 0
    merged = {image: _merged(each) for image, each in references.items()}
    for image, (boxes, phrases) in merged.items():
        total += len(boxes)
        if image not in predictions:
            continue
        found = predictions[image]
        shared = overlaps(found.boxes, boxes) if len(boxes) else np.zeros((len(found.boxes), 0))
        for row, score, phrase in zip(shared, found.scores, found.phrases, strict=True):
            target = int(row.argmax()) if row.size and row.max() > 0 else None
            scores.append(float(score))
            shares.append(float(row.max()) if target is not None else 0.0)
            candidates.append(phrase)
            wanted.append(phrases[target] if target is not None else [])
            matched.append(None if target is None else (image, target))
    if not total:
        raise DataError("got no reference region; expected at least one")
    likeness = np.zeros(len(candidates))
    rated = [place for place, target in enumerate(matched) if target is not None]
    if rated:
        likeness[rated] = similarity([candidates[i] for i in rated], [wanted[i] for i in rated])
    order = np.argsort(-np.array(scores), kind="stable")
    precisions = []
    for least in IOU_THRESHOLDS:
        for similar in METEOR_THRESHOLDS:
            taken: set[tuple[str, int]] = set()
            correct = np.zeros(len(order), bool)
            for place, index in enumerate(order):
                target = matched[index]
                alike = similar == 0 or likeness[index] > similar
                if target is not None and shares[index] >= least and target not in taken and alike:
                    taken.add(target)
                    correct[place] = True
            precisions.append(_average_precision(correct, total))
    return float(np.mean(precisions))


def _merged(
    given: ReferenceRegions, threshold: float = 0.7
) -> tuple[NDArray[np.float64], list[list[str]]]:
    """Reference boxes that overlap, as their mean box with all their phrases."""
    boxes, phrases = [], []
    waiting = np.arange(len(given.boxes))
    shared = overlaps(given.boxes, given.boxes) if len(given.boxes) else np.zeros((0, 0))
    while waiting.size:
        groups = [waiting[shared[index, waiting] >= threshold] for index in waiting]
        group = max(groups, key=len)
        boxes.append(given.boxes[group].mean(axis=0))
        phrases.append([given.phrases[index] for index in group])
        waiting = np.setdiff1d(waiting, group)
    return np.array(boxes).reshape(-1, 4), phrases


def _average_precision(correct: NDArray[np.bool_], total: int) -> float:
    hits = correct.cumsum()
    precision = hits / np.arange(1, len(correct) + 1)
    reached = hits / total
    best = np.maximum.accumulate(precision[::-1])[::-1] if len(precision) else precision
    levels = np.linspace(0, 1, 101)
    places = np.searchsorted(reached, levels - 1e-9)
    return float(sum(best[place] for place in places if place < len(best)) / len(levels))


@dataclass(frozen=True)
class RegionReport:
    """How well a captioner describes regions.

    Attributes:
        model: the captioner's name.
        images: images that were read.
        regions: reference regions, each with one phrase or more.
        meteor: of the phrases for the given boxes, 0..1.
        dense_map: `dense_map` of the regions that the captioner finds, 0..1; None if not measured.
        failed: images that could not be read.
    """

    model: str
    images: int
    regions: int
    meteor: float
    dense_map: float | None
    failed: int

    def to_markdown(self) -> str:
        """A table."""
        found = (
            "" if self.dense_map is None else f"| dense captioning mAP | {self.dense_map:.4f} |\n"
        )
        return (
            f"|  | {self.model} |\n| --- | ---: |\n| METEOR, given boxes | {self.meteor:.4f} |\n"
            f"{found}| images | {self.images} |\n| regions | {self.regions} |\n"
        )


def evaluate_regions(
    captioner: Any, examples: Sequence[RegionExample], *, dense: bool = True
) -> RegionReport:
    """Describe the regions of a data set and score the phrases.

    Args:
        captioner: with `regions`, such as a bundle.
        examples: from `cutline.data.region_readers.read_regions`.
        dense: whether the captioner also finds regions itself, for dense-captioning mAP.

    Raises:
        DataError: no image can be read.
        MissingExtraError: METEOR needs `cutline[eval]`.
    """
    by_image: dict[Path, dict[tuple[str, Box], list[str]]] = {}
    for example in examples:
        regions = by_image.setdefault(example.image, {})
        regions.setdefault((example.region, example.box), []).append(example.phrase)
    candidates, wanted, failed = [], [], 0
    predictions, references = {}, {}
    for image, regions in by_image.items():
        boxes = [box for _, box in regions]
        try:
            given = captioner.regions(image, boxes)
            found = captioner.regions(image) if dense else None
        except (ImageError, OptionError):
            failed += 1
            continue
        candidates += [tokenize(region.phrase) for region in given.regions]
        wanted += [[tokenize(text) for text in phrases] for phrases in regions.values()]
        rows = [(box.xywh, text) for (_, box), texts in regions.items() for text in texts]
        references[str(image)] = ReferenceRegions(
            np.array([row for row, _ in rows], np.float64), [text for _, text in rows]
        )
        if found is not None:
            predictions[str(image)] = PredictedRegions(
                np.array([each.box.xywh for each in found.regions], np.float64).reshape(-1, 4),
                np.array([each.confidence for each in found.regions]),
                [each.phrase for each in found.regions],
            )
    if not candidates:
        raise DataError(f"got {len(by_image)} images, none of which can be read")
    score = float(meteor(meteor_statistics(candidates, wanted).sum(axis=0)))
    mean = dense_map(predictions, references, _meteor_of) if dense else None
    return RegionReport(captioner.name, len(references), len(candidates), score, mean, failed)


def _meteor_of(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """METEOR of each candidate."""
    words = [[tokenize(text) for text in each] for each in references]
    statistics = meteor_statistics([tokenize(text) for text in candidates], words)
    return [float(value) for value in meteor(statistics)]
