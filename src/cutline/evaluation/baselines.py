"""Classical baselines as captioners: nearest neighbour, template, most common caption.

They use the embedding and the labels of another captioner. Their score is not the log-probability
of a sentence but the logarithm of a similarity, a label's probability or a frequency.
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

NEIGHBOURS = 40  # best of 20 to 140 on Flickr8k dev with EfficientNet-Lite2 embeddings
NAMES = ("nearest-neighbour", "template", "most-common")


class Neighbours:
    """Finds the consensus caption of an image's nearest neighbours (Devlin et al., 2015).

    Args:
        embeddings: (T, D), the embeddings of the training images.
        captions: the tokenized captions of each training image.
        count: number of nearest neighbours, by cosine similarity.

    Raises:
        DataError: there are no embeddings, or their number differs from that of the captions.
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
        self._training = _unit(embeddings)
        self._captions = captions
        self._vectors = metrics.CiderVectors([list(group) for group in captions])
        self._count = min(count, len(captions))

    def consensus(self, embeddings: NDArray[Any]) -> list[list[str]]:
        """For embeddings (I, D), the caption of the neighbours most similar to all their captions.

        The similarity is CIDEr without clipping and length penalty, so that the mean over all
        captions is one product with their sum.

        Raises:
            DataError: the embeddings have another width.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._training.shape[1]:
            raise DataError(f"got {embeddings.shape}; expected (I, {self._training.shape[1]})")
        near = _unit(embeddings) @ self._training.T
        nearest = np.argpartition(-near, self._count - 1, axis=1)[:, : self._count]
        found = []
        for line in np.sort(nearest, axis=1):
            image, caption = self._vectors.consensus(line)
            found.append(list(self._captions[image][caption]))
        return found


class Baseline(BaseCaptioner):
    """A captioner that uses the embeddings and labels of another captioner."""

    name: str

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner
        self.search = replace(captioner.search, beam_size=1, n_best=1, min_tokens=1, max_tokens=1)

    @abstractmethod
    def _to_sentence(self, source: Caption) -> tuple[str, float]:
        """The sentence and its score, from a caption's embedding and labels."""

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images in order: see `Captioner.stream`."""
        options = options or CaptionOptions()
        least = replace(options, search=self.search, labels=max(options.labels, 5))
        for source in self._captioner.stream(images, least):
            if source.error is not None:
                yield replace(source, model=self.name)
                continue
            text, score = self._to_sentence(source)
            labels = source.labels[: options.labels]
            yield replace(
                source, text=text, score=score, model=self.name, labels=labels,
                alternatives=(), attention=None,
            )  # fmt: skip


class NearestNeighbour(Baseline):
    """The consensus caption of the training images nearest by embedding.

    Raises:
        DataError: there are no training captions, or the embeddings do not match them.
    """

    name = "nearest-neighbour"

    def __init__(
        self, captioner: Captioner, captions: Sequence[Sequence[str]], embeddings: NDArray[Any]
    ) -> None:
        super().__init__(captioner)
        self._neighbours = Neighbours(
            embeddings, [[normalise(text) for text in group] for group in captions]
        )
        self._training = _unit(embeddings)

    def _to_sentence(self, source: Caption) -> tuple[str, float]:
        if source.embedding is None:
            raise EngineError(f"got no embedding from {self._captioner.name}; neighbours need one")
        [words] = self._neighbours.consensus(source.embedding[None])
        nearest = float((self._training @ _unit(source.embedding[None])[0]).max())
        return detokenise(words), math.log(max(nearest, 1e-6))


class Template(Baseline):
    """A sentence template filled with the most probable labels (Li et al., 2011)."""

    name = "template"
    certain_probability, least_probability = 0.5, 0.15

    def _to_sentence(self, source: Caption) -> tuple[str, float]:
        if not source.labels:
            raise EngineError(f"got no labels from {self._captioner.name}; a template needs them")
        first, *others = source.labels
        named = [first, *(o for o in others if o.probability >= self.least_probability)][:2]
        things = " and ".join(_with_article(label.name) for label in named)
        frame = (
            "There is {}" if first.probability >= self.certain_probability else "There may be {}"
        )
        return frame.format(things) + ".", math.log(max(first.probability, 1e-6))


class MostCommon(Baseline):
    """The most frequent training caption, for every image.

    Raises:
        DataError: there are no training captions.
    """

    name = "most-common"

    def __init__(self, captioner: Captioner, captions: Sequence[Sequence[str]]) -> None:
        super().__init__(captioner)
        counts = Counter(tuple(normalise(text)) for group in captions for text in group)
        if not counts:
            raise DataError("got no training captions; expected at least one")
        [(words, count)] = counts.most_common(1)
        self._sentence = detokenise(words), math.log(count / counts.total())

    def _to_sentence(self, source: Caption) -> tuple[str, float]:
        return self._sentence


def baseline(
    name: str, captioner: Captioner, captions: Sequence[Sequence[str]], embed: Any
) -> Baseline:
    """Create a baseline by name.

    Args:
        name: one of `NAMES`.
        captioner: the captioner whose embeddings and labels it uses.
        captions: the reference captions of each training image.
        embed: returns the embeddings (T, D) of the training images; called only if needed.

    Raises:
        OptionError: there is no such baseline.
    """
    if name == NearestNeighbour.name:
        return NearestNeighbour(captioner, captions, embed())
    if name == Template.name:
        return Template(captioner)
    if name == MostCommon.name:
        return MostCommon(captioner, captions)
    raise OptionError(f"got baseline {name!r}; expected one of {', '.join(NAMES)}")


def embeddings(captioner: Captioner, images: Iterable[Picture]) -> Iterator[NDArray[np.float32]]:
    """Yield one vector (D,) for each image, in order; decodes one word, which is fast.

    Raises:
        ImageError: an image cannot be read.
        OptionError: the captioner has no embeddings.
    """
    short = SearchOptions(beam_size=1, max_tokens=1)
    for caption in captioner.stream(images, CaptionOptions(search=short, labels=0)):
        if caption.error is not None:
            raise caption.error
        if caption.embedding is None:
            raise OptionError(
                f"got {captioner.name}, which has no embeddings; expected one that has"
            )
        yield caption.embedding


def embed(
    captioner: Captioner, images: Sequence[Picture], on_progress: OnProgress = ignore
) -> NDArray[np.float32]:
    """The embeddings (B, D) of images.

    Raises:
        ImageError: an image cannot be read.
        OptionError: the captioner has no embeddings.
    """
    vectors = []
    for vector in embeddings(captioner, images):
        vectors.append(vector)
        on_progress(Progress("embedding", len(vectors), len(images)))
    return np.stack(vectors)


def _with_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    flat = vectors.astype(np.float32)
    flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), np.float32(1e-12))
    return flat
