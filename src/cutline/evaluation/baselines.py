"""Baselines as captioners: nearest neighbour, template, most common caption.

They see pictures through another captioner: its embedding and its labels, from the one pass that
it makes anyway. What they say is no model's own words, so their score is what each can honestly
give: a similarity or a label's probability as a logarithm.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutline.caption import BaseCaptioner, Caption, Captioner, CaptionOptions, Picture
from cutline.errors import DataError, EngineError, OptionError
from cutline.evaluation import metrics
from cutline.options import SearchOptions
from cutline.progress import OnProgress, Progress, ignore
from cutline.text import detokenise, normalise

NEIGHBOURS = 40  # of 20 to 140 the best on Flickr8k dev, EfficientNet-Lite2 embeddings
NAMES = ("nearest-neighbour", "template", "most-common")


class Neighbours:
    """Finds the consensus caption of an image's nearest neighbours (Devlin et al., 2015).

    Args:
        embeddings: (T, D), of the images whose captions are known.
        captions: of each of these, its captions as tokens.
        count: how many of the nearest, by cosine, have a say.

    Raises:
        DataError: not as many embeddings as captioned images, or none.
    """

    def __init__(
        self,
        embeddings: NDArray[Any],
        captions: Sequence[Sequence[Sequence[str]]],
        count: int = NEIGHBOURS,
    ) -> None:
        if embeddings.ndim != 2 or len(embeddings) != len(captions) or not len(captions):
            raise DataError(
                f"got embeddings {embeddings.shape} of {len(captions)} captioned images; "
                "expected (T, D), one each"
            )
        self._known = _unit(embeddings)
        self._captions = captions
        self._vectors = metrics.CiderVectors([list(group) for group in captions])
        self._count = min(count, len(captions))

    def consensus(self, embeddings: NDArray[Any]) -> list[list[str]]:
        """Embeddings (I, D) -> of each image the neighbours' caption that is most like them all.

        The mean similarity to all of them is CIDEr without clipping and length penalty, so that
        the mean over all others is one product with their sum.

        Raises:
            DataError: the embeddings are of another width.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._known.shape[1]:
            raise DataError(f"got {embeddings.shape}; expected (I, {self._known.shape[1]})")
        near = _unit(embeddings) @ self._known.T
        nearest = np.argpartition(-near, self._count - 1, axis=1)[:, : self._count]
        found = []
        for line in np.sort(nearest, axis=1):
            image, caption = self._vectors.consensus(line)
            found.append(list(self._captions[image][caption]))
        return found


class Baseline(BaseCaptioner):
    """Whatever a baseline says, it says of what another captioner saw."""

    name: str

    def __init__(self, eyes: Captioner) -> None:
        self._eyes = eyes
        self.search = replace(eyes.search, beam_size=1, n_best=1, min_tokens=1, max_tokens=1)

    @abstractmethod
    def _say(self, seen: Caption) -> tuple[str, float]:
        """The sentence and its score, from a caption's embedding and labels."""

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of pictures in order: see `Captioner.stream`."""
        options = options or CaptionOptions()
        least = replace(options, search=self.search, labels=max(options.labels, 5))
        for seen in self._eyes.stream(images, least):
            if seen.error is not None:
                yield replace(seen, model=self.name)
                continue
            text, score = self._say(seen)
            labels = seen.labels[: options.labels]
            yield replace(
                seen, text=text, score=score, model=self.name, labels=labels,
                alternatives=(), attention=None,
            )  # fmt: skip


class NearestNeighbour(Baseline):
    """The consensus caption of the training images nearest by embedding.

    Raises:
        DataError: no training captions, or embeddings that do not fit them.
    """

    name = "nearest-neighbour"

    def __init__(
        self, eyes: Captioner, captions: Sequence[Sequence[str]], embeddings: NDArray[Any]
    ) -> None:
        super().__init__(eyes)
        self._neighbours = Neighbours(
            embeddings, [[normalise(text) for text in group] for group in captions]
        )
        self._known = _unit(embeddings)

    def _say(self, seen: Caption) -> tuple[str, float]:
        if seen.embedding is None:
            raise EngineError(f"got no embedding from {self._eyes.name}; neighbours need one")
        [words] = self._neighbours.consensus(seen.embedding[None])
        nearest = float((self._known @ _unit(seen.embedding[None])[0]).max())
        return detokenise(words), math.log(max(nearest, 1e-6))


class Template(Baseline):
    """A sentence frame filled with the likeliest labels, as captioning began (Li et al., 2011)."""

    name = "template"
    sure, likely = 0.5, 0.15

    def _say(self, seen: Caption) -> tuple[str, float]:
        if not seen.labels:
            raise EngineError(f"got no labels from {self._eyes.name}; a template needs them")
        first, *others = seen.labels
        named = [first, *(o for o in others if o.probability >= self.likely)][:2]
        things = " and ".join(_with_article(label.name) for label in named)
        frame = "There is {}" if first.probability >= self.sure else "There may be {}"
        return frame.format(things) + ".", math.log(max(first.probability, 1e-6))


class MostCommon(Baseline):
    """The one training caption that occurs most often, whatever the picture.

    Raises:
        DataError: no training captions.
    """

    name = "most-common"

    def __init__(self, eyes: Captioner, captions: Sequence[Sequence[str]]) -> None:
        super().__init__(eyes)
        counts = Counter(tuple(normalise(text)) for group in captions for text in group)
        if not counts:
            raise DataError("got no training captions; expected some to choose from")
        [(words, count)] = counts.most_common(1)
        self._said = detokenise(words), math.log(count / counts.total())

    def _say(self, seen: Caption) -> tuple[str, float]:
        return self._said


def baseline(name: str, eyes: Captioner, captions: Sequence[Sequence[str]], embed: Any) -> Baseline:
    """The baseline of that name.

    Args:
        name: one of `NAMES`.
        eyes: the captioner whose embeddings and labels it uses.
        captions: of each training image, what people said of it.
        embed: called without arguments for the training images' embeddings (T, D) if needed.

    Raises:
        OptionError: there is none of that name.
    """
    if name == NearestNeighbour.name:
        return NearestNeighbour(eyes, captions, embed())
    if name == Template.name:
        return Template(eyes)
    if name == MostCommon.name:
        return MostCommon(eyes, captions)
    raise OptionError(f"got baseline {name!r}; expected one of {', '.join(NAMES)}")


def embeddings(eyes: Captioner, images: Iterable[Picture]) -> Iterator[NDArray[np.float32]]:
    """One vector (D,) an image, in order; a one-word search costs next to nothing.

    Raises:
        ImageError: one of them cannot be read.
        OptionError: this captioner has no embeddings.
    """
    short = SearchOptions(beam_size=1, max_tokens=1)
    for caption in eyes.stream(images, CaptionOptions(search=short, labels=0)):
        if caption.error is not None:
            raise caption.error
        if caption.embedding is None:
            raise OptionError(f"got {eyes.name}, which has no embeddings; expected one that has")
        yield caption.embedding


def embed(
    eyes: Captioner, images: Sequence[Picture], on_progress: OnProgress = ignore
) -> NDArray[np.float32]:
    """The embeddings (B, D) of images.

    Raises:
        ImageError: one of them cannot be read.
        OptionError: this captioner has no embeddings.
    """
    vectors = []
    for vector in embeddings(eyes, images):
        vectors.append(vector)
        on_progress(Progress("embedding", len(vectors), len(images)))
    return np.stack(vectors)


def _with_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    flat = vectors.astype(np.float32)
    flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), np.float32(1e-12))
    return flat
