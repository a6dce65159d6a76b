"""Prepares a run's data: captions as words, and images as the trained part takes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cutline.data import Collection, Example
from cutline.errors import DataError, ImageError
from cutline.preprocess import Transform
from cutline.text import AUTO, SPECIALS, CleanUp, Vocabulary, choose_clean_up
from cutline.training.bpe import Subwords
from cutline.training.dataloader import Split, Words
from cutline.training.detectors import detector_name
from cutline.training.encoders import SIDE_PX, Backbone
from cutline.training.features import (
    View,
    extract_features,
    extract_labels,
    extract_trunk_output,
    load_pixels,
    readable,
)
from cutline.training.recipe import Recipe
from cutline.training.region_inputs import box_features
from cutline.training.regions import detect, regions
from cutline.training.warm_start import Start

_KEPT_SHARE = 0.99
_CUT_SHARE_TO_SAY = 0.01

Inputs = NDArray[Any]
Count = Callable[[int], None]


@dataclass(frozen=True)
class Texts:
    """The examples of a run with their captions as words.

    Attributes:
        train, dev: examples with at least one caption that has words.
        train_words, dev_words: captions as words, by image.
        weights: of the training captions, by image.
    """

    train: list[Example]
    dev: list[Example]
    train_words: list[list[list[str]]]
    dev_words: list[list[list[str]]]
    weights: list[list[float]]

    def select(self, train: Sequence[int], dev: Sequence[int]) -> Texts:
        """Only the examples at these positions."""
        return Texts(
            [self.train[i] for i in train],
            [self.dev[i] for i in dev],
            [self.train_words[i] for i in train],
            [self.dev_words[i] for i in dev],
            [self.weights[i] for i in train],
        )


def resolve(recipe: Recipe, collection: Collection, start: Start | None) -> Recipe:
    """Replace what the recipe leaves to the data: the clean-up and the longest caption.

    Raises:
        DataError: the collection lacks a split of the recipe.
    """
    data = recipe.data
    examples = data.examples(collection)
    if data.clean_up == AUTO:
        chosen = choose_clean_up(text for each in examples for text in each.captions)
        if start is not None and start.recipe.data.clean_up != AUTO:
            chosen = start.recipe.data.clean_up
        data = replace(data, clean_up=chosen)
    if not data.max_tokens:
        clean_up = CleanUp.named(data.clean_up)
        captions = [clean_up.words(text) for each in examples for text in each.captions]
        captions = [words for words in captions if words]
        if data.subwords and captions:
            pieces = build_vocabulary(replace(recipe, data=data), [captions], known=True)
            lengths = [len(pieces.encode(words)) + 1 for words in captions]
        else:
            lengths = [len(words) + 1 for words in captions]
        limit = int(np.quantile(lengths, _KEPT_SHARE, method="higher")) if lengths else 2
        data = replace(data, max_tokens=max(2, limit))
    return replace(recipe, data=data)


def texts(recipe: Recipe, collection: Collection) -> Texts:
    """The captions of a run as words.

    Raises:
        DataError: the collection lacks a split, or has no caption with words in one.
    """
    clean_up = CleanUp.named(recipe.data.clean_up)
    train, train_words, weights = [], [], []
    for example in recipe.data.examples(collection):
        pairs = [
            (words, weight)
            for text, weight in zip(
                example.captions, recipe.data.caption_weights(example), strict=True
            )
            if weight and (words := clean_up.words(text))
        ]
        if pairs and example.weight:
            train.append(example)
            train_words.append([words for words, _ in pairs])
            weights.append([weight for _, weight in pairs])
    dev, dev_words = [], []
    for example in collection.split(recipe.data.dev):
        words_of = [words for text in example.captions if (words := clean_up.words(text))]
        if words_of:
            dev.append(example)
            dev_words.append(words_of)
    for name, found in ((" and ".join(recipe.data.train), train), (recipe.data.dev, dev)):
        if not found:
            sizes = ", ".join(f"{len(some)} {split}" for split, some in collection.splits.items())
            raise DataError(
                f"got no image with words in {name} of {collection.name} ({sizes} images); "
                "expected some to learn from and some to evaluate on: add images, or a split column"
            )
    return Texts(train, dev, train_words, dev_words, weights)


def build_vocabulary(recipe: Recipe, words: Words, *, known: bool = False) -> Vocabulary:
    """The words or subwords to learn.

    Args:
        recipe: for the least count, the limit and the kind.
        words: captions as words, by image.
        known: whether there is a vocabulary already, so that none of these is needed.

    Raises:
        DataError: no word is frequent enough.
    """
    captions = [caption for image in words for caption in image]
    kind = Subwords if recipe.data.subwords else Vocabulary
    vocabulary = kind.build(captions, recipe.data.min_count, recipe.data.top_k or None)
    if len(vocabulary) == len(SPECIALS) and not known:
        raise DataError(
            f"got {len(captions)} captions without a word that occurs {recipe.data.min_count} "
            "times; expected more captions, or a smaller data.min_count"
        )
    return vocabulary


def describe_texts(recipe: Recipe, found: Texts, vocabulary: Vocabulary) -> list[str]:
    """What to tell the user about the captions: the clean-up, and how many are cut."""
    captions = [caption for image in found.train_words for caption in image]
    cut = sum(len(vocabulary.encode(c)) + 1 > recipe.data.max_tokens for c in captions)
    lines = []
    if recipe.data.clean_up != "cutline":
        lines.append(f"clean-up of captions: {recipe.data.clean_up}")
    if cut > _CUT_SHARE_TO_SAY * len(captions):
        lines.append(
            f"{cut:,} of {len(captions):,} captions ({cut / len(captions):.1%}) are longer than "
            f"data.max_tokens = {recipe.data.max_tokens} and are cut, so their ends are not learnt"
        )
    return lines


@dataclass(frozen=True)
class Prepared:
    """All inputs of a `Learner`.

    Attributes:
        texts: the examples whose images are readable.
        train, dev: their inputs.
        trunk, tail: the parts of a Lite backbone as training begins; None if not needed.
        labels: the classifier as distillation begins.
        transform: the preprocessing of pixels.
    """

    texts: Texts
    train: Split
    dev: Split
    trunk: nn.Module | None
    tail: nn.Module | None
    labels: nn.Linear | None
    transform: Transform


def prepare(
    recipe: Recipe, found: Texts, folder: Path, start: Start | None, count: Count, *, loud: bool
) -> Prepared:
    """Compute the inputs of all images, or read them from the cache.

    Unreadable images are left out.

    Args:
        recipe: resolved.
        found: the examples.
        folder: the cache of features.
        start: where training starts from.
        count: called with the number of images done since the last call.
        loud: whether to print how many images are left out.

    Raises:
        DataError: no image of a split is readable.
    """
    encoder = recipe.encoder
    backbone = _backbone(recipe, start) if encoder.tunable else None
    transform = Transform(side_px=SIDE_PX[encoder.backbone]) if backbone else Transform()
    unreadable: list[set[int]] = [set(), set()]

    def load(number: int, view: int) -> Inputs:
        examples = (found.train, found.dev)[number]
        rows = _inputs(recipe, backbone, transform, examples, View(view), folder, count,
                       lambda i, error: unreadable[number].add(i), start)  # fmt: skip
        if rows.dtype != np.uint8:
            unreadable[number] |= set(np.flatnonzero(~readable(rows)).tolist())
        return rows

    views = 1 if encoder.input == "pixels" else encoder.views
    dev_view, train_views = load(1, 0), [load(0, view) for view in range(views)]
    teacher: NDArray[np.float16] | None = None
    if recipe.fit.distillation_weight and backbone is not None:
        teacher = np.array(
            extract_labels(
                Backbone(encoder.backbone), transform, found.train, folder, count,
                lambda i, error: unreadable[0].add(i),
            )
        )  # fmt: skip
    good = _usable(found.train, unreadable[0], "train", loud)
    good_dev = _usable(found.dev, unreadable[1], recipe.data.dev, loud)
    kept = found.select(good, good_dev)
    image_weights = [each.weight for each in kept.train]
    train = Split(
        [_rows(view, good) for view in train_views],
        kept.train_words,
        kept.weights if any(w != 1 for image in kept.weights for w in image) else (),
        image_weights if any(weight != 1 for weight in image_weights) else (),
        None if teacher is None else teacher[good],
    )
    dev = Split([_rows(dev_view, good_dev)], kept.dev_words)
    if backbone is None:
        return Prepared(kept, train, dev, None, None, None, transform)
    whole = encoder.input == "pixels" or (start is not None and start.changes_trunk)
    return Prepared(
        kept, train, dev, backbone.trunk if whole else None, backbone.tail,
        _labels(recipe, backbone, start), transform,
    )  # fmt: skip


def _labels(recipe: Recipe, backbone: Backbone, start: Start | None) -> nn.Linear | None:
    """The classifier to distil into, or to keep while the encoder is frozen."""
    kept = start is not None and start.has_labels and not recipe.fit.encoder_learning_rate
    return backbone.classifier if recipe.fit.distillation_weight or kept else None


def _rows(view: Inputs, chosen: list[int]) -> Inputs:
    """The chosen rows, in memory."""
    return np.array(view) if len(chosen) == len(view) else np.array(view[chosen])


def _usable(examples: Sequence[Example], bad: set[int], split: str, loud: bool) -> list[int]:
    """The positions of readable images."""
    kept = [i for i in range(len(examples)) if i not in bad]
    if not kept:
        raise DataError(
            f"got {len(examples)} images of {split} of which none can be read; expected some; "
            "`cutline data check` lists the reasons"
        )
    if bad and loud:
        print(
            f"left out {len(bad)} of {len(examples)} images of {split} that cannot be read; "
            "`cutline data check` lists them",
            file=sys.stderr,
        )
    return kept


def _backbone(recipe: Recipe, start: Start | None) -> Backbone:
    """The Lite backbone as training begins."""
    drop_path = recipe.encoder.drop_path if recipe.fit.encoder_learning_rate else 0.0
    backbone = Backbone(recipe.encoder.backbone, recipe.encoder.cut, drop_path)
    if start is not None:
        start.load_backbone(backbone)
    return backbone


def _inputs(
    recipe: Recipe, backbone: Backbone | None, transform: Transform, examples: Sequence[Example],
    view: View, folder: Path, count: Count, ignore: Callable[[int, ImageError], object],
    start: Start | None,
) -> Inputs:  # fmt: skip
    """What the trained part takes of each image: pixels, the trunk's output, or features."""
    encoder = recipe.encoder
    tuned = encoder.tunable and recipe.fit.encoder_learning_rate > 0
    if encoder.features == "box":
        return box_features(encoder, examples, folder, progress=count, unreadable=ignore)
    if encoder.features == "regions":
        if encoder.regions:
            return regions(Path(encoder.regions), examples, folder, progress=count).features
        return detect(
            examples, folder, name=detector_name(encoder.backbone),
            weights=Path(encoder.weights) if encoder.weights else None,
            side_px=encoder.side_px, progress=count, unreadable=ignore,
        ).features  # fmt: skip
    if encoder.input == "pixels":
        return load_pixels(transform, examples, folder, count, ignore)
    if backbone is not None and (tuned or start is not None):
        trunk_output = extract_trunk_output(
            backbone, transform, examples, view, folder, count, ignore
        )
        return trunk_output if tuned else _finish(backbone.tail, trunk_output, encoder.pooled)
    return extract_features(
        encoder, examples, folder, view=view.number, progress=count, unreadable=ignore
    )


@torch.inference_mode()
def _finish(tail: nn.Module, trunk_output: Inputs, pooled: bool) -> Inputs:
    """The trunk's output (I,C,H,W) -> features (I,N,D)."""
    parts = []
    for first in range(0, len(trunk_output), 32):
        grid = tail(torch.from_numpy(np.array(trunk_output[first : first + 32])).float())
        features = grid.flatten(2).transpose(1, 2)  # (B,N,D)
        features = features.mean(1, keepdim=True) if pooled else features
        parts.append(features.half().numpy())
    return np.concatenate(parts)
