"""What a training step is fed: pictures in one of their views, with captions drawn and padded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutline.text import Vocabulary
from cutline.training.recipe import Recipe

Batch = dict[str, Tensor]
Captions = Sequence[Sequence[Sequence[int]]]
"""Token ids by image and caption."""


class Batches:
    """One epoch of training batches: every image once, in one of its views, with its captions.

    The order, the views and the captions drawn depend on seed and epoch alone, so a resumed
    epoch is the epoch it would have been. Of several processes each takes its part of every batch.

    Args:
        views: for every view (I,...), what is seen of I images.
        captions: theirs.
        recipe: for batch sizes and the seed.
        epoch: which.
        rank: which process this is, of how many in the `world`.
    """

    def __init__(
        self,
        views: Sequence[NDArray[np.float16]],
        captions: Captions,
        recipe: Recipe,
        epoch: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.views, self.captions, self.recipe = views, captions, recipe
        self.rank, self.world = rank, world
        self.rng = np.random.default_rng([recipe.fit.seed, epoch])
        self.order = self.rng.permutation(len(captions))

    def __len__(self) -> int:
        return math.ceil(len(self.captions) / self.recipe.fit.batch_images)

    def __iter__(self) -> Iterator[Batch]:
        """Each with `images` (B,), `seen` (B,...), `tokens` (B,K,T), `share` () and `whole` ().

        `share` weighs the mean over this process's tokens so that the mean over processes is the
        mean over all their tokens; `whole` is the number of images of all processes.
        """
        size, per_image = self.recipe.fit.batch_images, self.recipe.fit.captions_per_image
        for start in range(0, len(self.order), size):
            images = self.order[start : start + size]
            views = self.rng.integers(len(self.views), size=len(images))
            chosen = [
                [self.captions[i][j] for j in self._draw(len(self.captions[i]), per_image)]
                for i in images
            ]
            tokens = pad(chosen, self.recipe.data.max_tokens)
            told = (tokens[:, :, 1:] != Vocabulary.pad).sum((1, 2))  # (B,)
            mine = np.arange(self.rank, len(images), self.world)
            share = self.world * told[mine].sum() / told.sum()
            mine = mine if len(mine) else np.array([0])  # with a share of 0
            seen = [self.views[v][i] for v, i in zip(views[mine], images[mine], strict=True)]
            yield {
                "images": torch.from_numpy(images[mine]),
                "seen": torch.from_numpy(np.stack(seen)),
                "tokens": tokens[mine],
                "share": share,
                "whole": torch.tensor(len(images)),
            }

    def _draw(self, available: int, wanted: int) -> NDArray[np.int64]:
        """Which captions of an image: without repetition as far as there are enough."""
        rounds = [self.rng.permutation(available) for _ in range(math.ceil(wanted / available))]
        return np.concatenate(rounds)[:wanted]


def dev_batches(
    view: NDArray[np.float16], captions: Captions, max_tokens: int, rank: int = 0, world: int = 1
) -> list[Batch]:
    """All images in order with all their captions, in batches dealt out to processes.

    Each has `first`, the number of its first image, `seen` (B,...) and `tokens` (B,K,T), where an
    image with fewer captions than others has lines of padding. A process without any image gets
    the first one without captions, because each must have a batch.
    """
    batches = []
    size = min(50, math.ceil(len(view) / world))
    for start in range(size * rank, len(view), size * world):
        part = captions[start : start + size]
        most = max(map(len, part))
        tokens = pad([[*image, *[()] * (most - len(image))] for image in part], max_tokens)
        for line, image in zip(tokens, part, strict=True):
            line[len(image) :] = Vocabulary.pad
        seen = torch.from_numpy(np.asarray(view[start : start + size]))
        batches.append({"first": torch.tensor(start), "seen": seen, "tokens": tokens})
    if not batches:
        nothing = torch.full((1, 1, 2), Vocabulary.pad)
        seen = torch.from_numpy(np.asarray(view[:1]))
        batches.append({"first": torch.tensor(0), "seen": seen, "tokens": nothing})
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
