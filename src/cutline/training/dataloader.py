"""Batches: images in one of their views, or as pixels, with sampled and padded captions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutline.text import Vocabulary
from cutline.training.augmentation import draw_parameters
from cutline.training.recipe import Recipe

Batch = dict[str, Tensor]
Captions = Sequence[Sequence[Sequence[int]]]
"""Token ids by image and caption."""
Words = Sequence[Sequence[Sequence[str]]]
"""Captions as words, by image."""


@dataclass
class Split:
    """The images of a split as the trained part of the model takes them.

    Attributes:
        views: for each view (I,C,H,W) or (I,N,D) float16; or one (I,S,S,3) uint8.
        words: captions as words, by image.
        caption_weights: their weights in the loss, by image; () is 1 each.
        image_weights: how often each image is drawn in an epoch, on average; () is 1 each.
        teacher: (I,1000) ImageNet logits to keep, if there is distillation.
    """

    views: Sequence[NDArray[Any]]
    words: Words
    caption_weights: Sequence[Sequence[float]] = ()
    image_weights: Sequence[float] = ()
    teacher: NDArray[np.float16] | None = None
    names: Sequence[str] = field(default_factory=tuple)

    @property
    def pixels(self) -> bool:
        """Whether the views are images, for training from pixels."""
        return self.views[0].dtype == np.uint8

    def __deepcopy__(self, memo: object) -> Split:
        """The same object: averaging weights copies the module, but must not copy its data."""
        return self


class TrainingBatches:
    """One epoch of training batches.

    The order, the views, the augmentation and the captions drawn depend on seed and epoch alone,
    so that a resumed epoch equals an undisturbed one. Each process takes its part of every batch.

    Args:
        split: the training images.
        captions: their token ids.
        recipe: for batch sizes, augmentation and the seed.
        epoch: from 0.
        rank: the number of this process.
        world: how many processes there are.
    """

    def __init__(
        self,
        split: Split,
        captions: Captions,
        recipe: Recipe,
        epoch: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.split, self.captions, self.recipe = split, captions, recipe
        self.rank, self.world = rank, world
        self.rng = np.random.default_rng([recipe.fit.seed, epoch])
        self.order = self.rng.permutation(self._drawn())

    def _drawn(self) -> NDArray[np.int64]:
        """The images of this epoch, each about as often as its weight says."""
        everyone = np.arange(len(self.captions))
        if not self.split.image_weights or set(self.split.image_weights) == {1.0}:
            return everyone
        weights = np.array(self.split.image_weights)
        counts = np.floor(weights) + (self.rng.random(len(weights)) < weights % 1)
        drawn = everyone.repeat(counts.astype(np.int64))
        return drawn if len(drawn) else everyone[:1]

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.recipe.fit.batch_images)

    def __iter__(self) -> Iterator[Batch]:
        """Yield `images` (B,), `inputs` (B,...), `tokens` (B,K,T), `weights` (B,K), `share` (), ...

        `share` scales the mean over this process's tokens so that the mean over processes is the
        mean over all their tokens; `whole` is the number of images of all processes. With pixels
        there is `augmentation`, see `augment`; with distillation `teacher` (B,1000).
        """
        size, per_image = self.recipe.fit.batch_images, self.recipe.fit.captions_per_image
        encoder = self.recipe.encoder
        for start in range(0, len(self.order), size):
            images = self.order[start : start + size]
            views = self.rng.integers(len(self.split.views), size=len(images))
            chosen = [self._draw(len(self.captions[i]), per_image) for i in images]
            tokens = pad(
                [
                    [self.captions[i][j] for j in each]
                    for i, each in zip(images, chosen, strict=True)
                ],
                self.recipe.data.max_tokens,
            )
            weights = self._weights(images, chosen)
            counted = ((tokens[:, :, 1:] != Vocabulary.pad) * weights.unsqueeze(-1)).sum((1, 2))
            mine = np.arange(self.rank, len(images), self.world)
            share = self.world * counted[mine].sum() / counted.sum()
            mine = mine if len(mine) else np.array([0])  # with a share of 0
            rows = [self.split.views[v][i] for v, i in zip(views[mine], images[mine], strict=True)]
            batch = {
                "images": torch.from_numpy(images[mine]),
                "inputs": torch.from_numpy(np.stack(rows)),
                "tokens": tokens[mine],
                "weights": weights[mine],
                "share": share,
                "whole": torch.tensor(len(images)),
            }
            if self.split.pixels:
                parameters = draw_parameters(
                    self.rng, len(images), min_area=encoder.min_area, colour=encoder.colour
                )
                batch["augmentation"] = torch.from_numpy(parameters[mine])
            if self.split.teacher is not None:
                batch["teacher"] = torch.from_numpy(self.split.teacher[images[mine]])
            yield batch

    def _draw(self, available: int, wanted: int) -> NDArray[np.int64]:
        """Which captions of an image: without repetition as far as there are enough."""
        rounds = [self.rng.permutation(available) for _ in range(math.ceil(wanted / available))]
        return np.concatenate(rounds)[:wanted]

    def _weights(self, images: NDArray[np.int64], chosen: Sequence[NDArray[np.int64]]) -> Tensor:
        """The weights (B,K) of the captions drawn."""
        if not self.split.caption_weights:
            return torch.ones(len(images), self.recipe.fit.captions_per_image)
        return torch.tensor(
            [
                [self.split.caption_weights[i][j] for j in each]
                for i, each in zip(images, chosen, strict=True)
            ]
        )


def dev_batches(
    split: Split, captions: Captions, max_tokens: int, rank: int = 0, world: int = 1
) -> list[Batch]:
    """All images in order with all their captions, in batches distributed over processes.

    Each has `first`, the number of its first image, `inputs` (B,...) and `tokens` (B,K,T), where an
    image with fewer captions than others has rows of padding. A process without any image gets
    the first one without captions, because each must have a batch.
    """
    view = split.views[0]
    batches = []
    size = min(50, math.ceil(len(view) / world))
    for start in range(size * rank, len(view), size * world):
        part = captions[start : start + size]
        most = max(map(len, part))
        tokens = pad([[*image, *[()] * (most - len(image))] for image in part], max_tokens)
        for rows, image in zip(tokens, part, strict=True):
            rows[len(image) :] = Vocabulary.pad
        inputs = torch.from_numpy(np.array(view[start : start + size]))
        batches.append({"first": torch.tensor(start), "inputs": inputs, "tokens": tokens})
    if not batches:
        nothing = torch.full((1, 1, 2), Vocabulary.pad)
        inputs = torch.from_numpy(np.array(view[:1]))
        batches.append({"first": torch.tensor(0), "inputs": inputs, "tokens": nothing})
    return batches


def pad(captions: Captions, max_tokens: int) -> Tensor:
    """Token ids by image and caption -> (B,K,T): bos first, eos last unless cut, pad behind."""
    length = min(max_tokens + 1, max(len(c) for image in captions for c in image) + 2)
    out = torch.full((len(captions), len(captions[0]), length), Vocabulary.pad)
    for b, image in enumerate(captions):
        for k, caption in enumerate(image):
            ids = [Vocabulary.bos, *caption, Vocabulary.eos][:length]
            out[b, k, : len(ids)] = torch.tensor(ids)
    return out
