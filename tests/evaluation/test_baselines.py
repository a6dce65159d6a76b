from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cutline.caption import Caption, CaptionOptions, Label
from cutline.errors import DataError, EngineError, ImageFormatError, OptionError
from cutline.evaluation.baselines import MostCommon, Neighbours, Template, baseline, embeddings
from cutline.options import SearchOptions

CAPTIONS = [
    ["a dog runs on grass", "a brown dog runs", "the dog"],
    ["a dog runs", "a dog is running on the grass", "one dog"],
    ["two men climb a rock", "men climbing", "a rock wall"],
    ["two men climb a wall", "men on a rock", "the climbers"],
]
KNOWN = np.array([[1, 0.1], [0.9, 0], [0, 1], [0.1, 0.9]])


class Eyes:
    """Sees a number n as the unit vector at n degrees, and labels that depend on it."""

    name = "eyes"
    search = SearchOptions()

    def stream(self, images: Iterable[Any], options: CaptionOptions) -> Iterator[Caption]:
        for image in images:
            if image == "bad":
                yield Caption("bad", model="eyes", error=ImageFormatError("bad", "no picture"))
                continue
            turn = math.radians(float(image))
            sure = math.cos(turn) ** 2
            labels = (Label("owl", sure), Label("tripod", 1 - sure), Label("x", 0.0))
            vector = np.array([math.cos(turn), math.sin(turn)], np.float32)
            yield Caption(
                str(image), "what eyes say", -1.0, "eyes",
                labels=labels[: options.labels], embedding=vector,
            )  # fmt: skip


def test_the_consensus_of_the_nearest_is_said() -> None:
    model = baseline("nearest-neighbour", Eyes(), CAPTIONS, lambda: KNOWN)
    model._neighbours._count = 2
    dog, men = model.caption(["5", "85"])
    assert dog.text == "A dog runs."
    assert men.text == "Two men climb a rock."
    assert dog.model == "nearest-neighbour"
    assert -0.01 < dog.score <= 0
    assert model.caption("5") == dog


def test_neighbours_that_do_not_fit_are_refused() -> None:
    tokens = [[text.split() for text in group] for group in CAPTIONS]
    with pytest.raises(DataError, match=r"got embeddings \(3, 2\) of 4"):
        Neighbours(KNOWN[:3], tokens)
    with pytest.raises(DataError, match="expected \\(I, 2\\)"):
        Neighbours(KNOWN, tokens).consensus(np.ones((1, 3)))
    with pytest.raises(DataError):
        Neighbours(np.zeros((0, 2)), [])


def test_a_template_is_filled_with_what_is_likely_and_hedges_when_unsure() -> None:
    model = Template(Eyes())
    sure, unsure, both = model.caption(["0", "50", "40"], CaptionOptions(labels=1))
    assert sure.text == "There is an owl."
    assert sure.score == 0
    assert both.text == "There is an owl and a tripod."
    assert unsure.text == "There may be an owl and a tripod."
    assert [label.name for label in sure.labels] == ["owl"]
    nothing = Eyes()
    nothing.stream = lambda images, options: iter([Caption("it", "x", labels=())])
    with pytest.raises(EngineError, match="needs them"):
        Template(nothing).caption("it")


def test_the_most_common_caption_is_said_of_everything() -> None:
    model = MostCommon(Eyes(), [["A dog runs.", "a cat"], ["a dog, runs"], ["A man"]])
    assert [c.text for c in model.caption(["0", "90"])] == ["A dog runs."] * 2
    assert model.caption("3").score == pytest.approx(math.log(2 / 4))
    with pytest.raises(DataError, match="no training captions"):
        MostCommon(Eyes(), [])


def test_a_bad_picture_stays_an_item_and_alone_an_error() -> None:
    model = Template(Eyes())
    good, bad = model.caption(["0", "bad"])
    assert good.ok
    assert isinstance(bad.error, ImageFormatError)
    assert bad.model == "template"
    with pytest.raises(ImageFormatError):
        model.caption("bad")


def test_an_unknown_baseline_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(OptionError, match="nearest-neighbour, template, most-common"):
        baseline("best", Eyes(), CAPTIONS, lambda: KNOWN)


def test_embeddings_come_in_order_and_need_a_captioner_that_has_them() -> None:
    found = np.stack(list(embeddings(Eyes(), ["0", "90"])))
    assert found == pytest.approx(np.eye(2), abs=1e-6)
    with pytest.raises(ImageFormatError):
        list(embeddings(Eyes(), ["0", "bad"]))
    blind = Eyes()
    blind.stream = lambda images, options: (
        replace(each, embedding=None) for each in Eyes().stream(images, options)
    )
    with pytest.raises(OptionError, match="no embeddings"):
        list(embeddings(blind, ["0"]))
