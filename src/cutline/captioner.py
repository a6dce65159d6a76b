"""The main path: pictures in, captions out, in order.

A run is cut into batches. One thread takes a batch from end to end (read, look, search) while
others do the same with the next ones, so that reading, looking and searching overlap, no core
waits for another, and at most a few batches are in memory. Pictures are looked at one by one and
searched for by themselves, and what is drawn at random depends on their pixels, so neither the
batch, nor the number of threads, nor the other pictures of a run change a caption.
"""

from __future__ import annotations

import math
import threading
import zlib
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from cutline.bundle import find
from cutline.errors import BundleError, CutlineError, ImageError, OptionError
from cutline.image import ImageSource, Limits, describe, load_image
from cutline.runtime import Runtime
from cutline.search import Hypothesis, SearchOptions, search
from cutline.text import detokenise, normalise

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """One of the 1,000 ImageNet classes, with its probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Alternative:
    """Another caption of the same picture, with its mean log-probability per token, nats."""

    text: str
    score: float


@dataclass(frozen=True)
class Attention:
    """Where the model looked at as it chose each word.

    Attributes:
        weights: (T, N), non-negative, for T words over N regions, row by row of the grid.
        grid: rows and columns; their product is N.
        words: the T words.
    """

    weights: Floats = field(compare=False, repr=False)
    grid: tuple[int, int]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Caption:
    """What a model says about one picture, or why it says nothing.

    Attributes:
        source: the path, or a short description of what else was given.
        text: the sentence; "" if there is an error.
        score: mean log-probability per token, nats; -inf if there is an error, not a number if
            the captioner does not tell.
        model: who says so.
        alternatives: the next best captions, best first.
        labels: the likeliest ImageNet classes, likeliest first.
        attention: what was looked at; None if the model has none.
        embedding: (E,), one vector for the picture.
        error: what is wrong with the picture.
    """

    source: str
    text: str = ""
    score: float = -math.inf
    model: str = ""
    alternatives: tuple[Alternative, ...] = ()
    labels: tuple[Label, ...] = ()
    attention: Attention | None = None
    embedding: Floats | None = field(default=None, compare=False, repr=False)
    error: CutlineError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a caption."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """What a line of JSON says: all but attention and embedding, numbers to four decimals."""
        error = self.error
        return {
            "source": self.source,
            "status": "ok" if error is None else "error",
            "caption": self.text if error is None else None,
            "score": _rounded(self.score) if error is None else None,
            "alternatives": [
                {"caption": other.text, "score": _rounded(other.score)}
                for other in self.alternatives
            ],
            "labels": [
                {"name": label.name, "probability": round(label.probability, 4)}
                for label in self.labels
            ],
            "model": self.model,
            "error": error
            and {
                "type": type(error).__name__,
                "message": error.reason if isinstance(error, ImageError) else str(error),
            },
        }


@dataclass(frozen=True)
class InContext:
    """A picture with words that stand near it, which its caption may well use.

    Attributes:
        image: the picture.
        words: any text; those of its words that the model knows are favoured, function words not.
    """

    image: ImageSource
    words: str = ""


Picture: TypeAlias = "ImageSource | InContext"
_FUNCTION_WORDS = frozenset(
    """a about after all an and another any are as at be been before being between but by can
    could did do does down each for from had has have he her here him his how i if in into is it
    its just may me more most my n't no nor not of off on one only or other our out over own 's she
    so some such than that the their them then there these they this those through to too under
    until up us very was we were what when where which while who why will with would you your
    """.split()
)


@dataclass(frozen=True)
class CaptionOptions:
    """How pictures are captioned.

    Raises:
        OptionError: an option is out of its range.
    """

    search: SearchOptions | None = None
    """How captions are searched for; None is the model's own way."""

    labels: int = 5
    """How many labels each picture gets; 0 saves their cost."""

    batch_size: int = 16
    """Pictures that one thread works on together."""

    context_nats: float = 1.0
    """How much each word of an `InContext` gains wherever words are chosen; 0 is not at all."""

    limits: Limits = field(default_factory=Limits)
    """How much one picture may ask for before it is refused by its header."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.labels < 0:
            raise OptionError(f"got labels {self.labels}; expected at least 0")
        if self.batch_size < 1:
            raise OptionError(f"got batch_size {self.batch_size}; expected at least 1")
        if not 0 <= self.context_nats < math.inf:
            raise OptionError(f"got context_nats {self.context_nats}; expected 0 or a little more")


class Captioner(Protocol):
    """Whatever can caption pictures; safe to use from several threads.

    Attributes:
        name: of the model, as its captions give it.
        search: how it searches unless the options say otherwise.
    """

    name: str
    search: SearchOptions

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: Picture, options: CaptionOptions | None = None
    ) -> Caption: ...

    @overload
    def caption(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> list[Caption]: ...

    def caption(
        self, images: Picture | Iterable[Picture], options: CaptionOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption one picture, or several.

        Args:
            images: a path, the bytes of a file, a Pillow image or an array; or any number of them.
            options: how; None is the default.

        Returns:
            A caption for one picture; for several a list in their order, where one that cannot be
            read is an item with its error.

        Raises:
            ImageError: the one picture asked for cannot be read.
            EngineError: inference failed.
        """
        ...

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of pictures in little memory, in order, each as soon as it is ready.

        Pictures are asked for a few batches ahead. Closing the iterator ends its threads.

        Args:
            images: as for `caption`.
            options: how; None is the default.

        Raises:
            EngineError: inference failed.
        """
        ...


def load(
    model: str | Path | None = None, *, engine: str = "auto", threads: int | None = None
) -> BundleCaptioner:
    """Make a captioner ready.

    Args:
        model: a name among `cutline models`, or a bundle's folder; None is the embedded default.
        engine: "onnxruntime", "openvino", or "auto", which is onnxruntime.
        threads: how many pictures are worked on at once; None is one for each core.

    Raises:
        BundleNotFoundError: there is no such model; the message lists those there are.
        BundleError: it is damaged or of an unknown kind.
        MissingExtraError: the engine is not installed.
        OptionError: there is no such engine, or less than one thread.
    """
    return BundleCaptioner(Runtime(find(model), engine, threads))


@dataclass(frozen=True)
class Seen:
    """One picture after the encoder.

    Attributes:
        source: as in `Caption.source`.
        features: (1, N, D), a vector for each region.
        embedding: (E,), one vector for the picture.
        labels: the likeliest, likeliest first.
        context: ids of the words that stand near it.
        checksum: of its pixels, on which draws depend.
    """

    source: str
    features: Floats
    embedding: Floats
    labels: tuple[Label, ...]
    context: tuple[int, ...]
    checksum: int


class Streaming:
    """What captioners share that say their captions one after the other."""

    @abstractmethod
    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of pictures in order: see `Captioner.stream`."""

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        [caption] = self.stream([image], options)
        return caption

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: Picture, options: CaptionOptions | None = None
    ) -> Caption: ...

    @overload
    def caption(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> list[Caption]: ...

    def caption(
        self, images: Picture | Iterable[Picture], options: CaptionOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption one picture, or several: see `Captioner.caption`."""
        if isinstance(images, Iterable) and not isinstance(images, str | bytes | np.ndarray):
            return list(self.stream(images, options))
        caption = self._one(images, options)
        if caption.error is not None:
            raise caption.error
        return caption


class BundleCaptioner(Streaming):
    """A model bundle as a `Captioner`.

    Raises:
        BundleError: the bundle's words or search defaults do not fit.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        manifest = runtime.bundle.manifest
        self.name = manifest.name
        try:
            self.search = SearchOptions(**manifest.search)
        except (TypeError, OptionError) as error:
            raise BundleError(f"{runtime.bundle.folder}: search defaults: {error}") from error
        self._transform = manifest.preprocessing
        self._grid = manifest.grid
        self._vocabulary = runtime.bundle.vocabulary()
        self._labels = runtime.bundle.labels()
        self._bias = runtime.bundle.bias()

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        [caption] = self._caption([image], options or CaptionOptions(), threading.Event())
        return caption

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of pictures in order, in little memory: see `Captioner.stream`."""
        options = options or CaptionOptions()
        threads = self.runtime.threads
        stop = threading.Event()
        pending: deque[Future[list[Caption]]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="cutline")
        try:
            for batch in _batches(images, options.batch_size, threads):
                pending.append(pool.submit(self._caption, batch, options, stop))
                if len(pending) == 2 * threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _caption(
        self, images: list[Picture], options: CaptionOptions, stop: threading.Event
    ) -> list[Caption]:
        """Caption the pictures of one batch."""
        seen: list[Seen | ImageError] = []
        for image in images:
            if stop.is_set():
                return []
            try:
                seen.append(self.look(image, options))
            except ImageError as error:
                seen.append(error)
        captions: list[Caption] = []
        for readable, run in groupby(seen, lambda each: isinstance(each, Seen)):
            if readable:
                good = [each for each in run if isinstance(each, Seen)]
                captions += self.tell(good, options)
            else:
                bad = [each for each in run if isinstance(each, ImageError)]
                captions += [Caption(each.source, model=self.name, error=each) for each in bad]
        return captions

    def look(self, image: Picture, options: CaptionOptions) -> Seen:
        """Read and encode one picture, on the calling thread: the first half of captioning.

        Raises:
            ImageError: it cannot be read.
            EngineError: inference failed.
            BundleError: the encoder sees another grid than the manifest says.
        """
        bare = _bare(image)
        rgb = load_image(bare, around_px=self._transform.via_px, limits=options.limits)
        square = self._transform.squash(rgb)
        encoded = self.runtime.encode(self._transform.normalise(square)[None])
        if encoded.features.shape[1] != math.prod(self._grid):
            raise BundleError(
                f"{self.runtime.bundle.folder}: got {encoded.features.shape[1]} regions; expected "
                f"the manifest's grid of {self._grid[0]} x {self._grid[1]}"
            )
        labels: tuple[Label, ...] = ()
        if options.labels and self._labels:
            logits = self.runtime.logits(encoded.mid)[0].astype(np.float64)
            weights = np.exp(logits - logits.max())
            probabilities = weights / weights.sum()
            likeliest = np.argsort(-probabilities, kind="stable")[: options.labels]
            labels = tuple(Label(self._labels[i], float(probabilities[i])) for i in likeliest)
        context: tuple[int, ...] = ()
        if isinstance(image, InContext) and options.context_nats:
            near = set(normalise(image.words)) - _FUNCTION_WORDS
            context = tuple(set(self._vocabulary.encode(near)) - {self._vocabulary.unk})
        return Seen(
            describe(bare),
            encoded.features,
            encoded.embedding[0],
            labels,
            context,
            zlib.crc32(square.tobytes()),
        )

    def tell(self, seen: Sequence[Seen], options: CaptionOptions) -> list[Caption]:
        """Caption what was looked at, together, on the calling thread: the second half.

        Args:
            seen: from `look`, with the same options.
            options: how.

        Raises:
            EngineError: inference failed.
        """
        return list(map(self._say, seen, self._search(seen, options)))

    def _search(self, seen: Sequence[Seen], options: CaptionOptions) -> list[list[Hypothesis]]:
        words = self._vocabulary
        state = self.runtime.start(np.concatenate([each.features for each in seen]))
        return search(
            self.runtime,
            state,
            len(seen),
            options.search or self.search,
            bos=words.bos,
            eos=words.eos,
            bias=self._favour(seen, options.context_nats),
            banned=(words.pad, words.bos, words.unk),
            draw_keys=[each.checksum for each in seen],
        )

    def _favour(self, seen: Sequence[Seen], context_nats: float) -> Floats | None:
        """What is added to each word of each picture (B, V), nats; or of all (V,); or nothing."""
        if not any(each.context for each in seen):
            return self._bias
        bias = np.zeros((len(seen), len(self._vocabulary)), np.float32)
        if self._bias is not None:
            bias += self._bias
        for row, each in zip(bias, seen, strict=True):
            row[list(each.context)] += context_nats
        return bias

    def _say(self, seen: Seen, found: list[Hypothesis]) -> Caption:
        if not found:
            raise OptionError(
                "got search options that no caption can satisfy; expected looser ones"
            )
        best, *others = found
        words = tuple(self._vocabulary.decode(best.tokens))
        attention = None
        if best.attention is not None:
            attention = Attention(best.attention, self._grid, words)
        return Caption(
            seen.source,
            detokenise(words),
            best.score,
            self.name,
            tuple(
                Alternative(detokenise(self._vocabulary.decode(other.tokens)), other.score)
                for other in others
            ),
            seen.labels,
            attention,
            seen.embedding,
        )


def _rounded(score: float) -> float | None:
    return round(score, 4) if math.isfinite(score) else None


def _bare(image: Picture) -> ImageSource:
    return image.image if isinstance(image, InContext) else image


def _batches(images: Iterable[Picture], size: int, threads: int) -> Iterator[list[Picture]]:
    """Cut a run into batches: one picture for each thread, then two, four, up to `size`.

    So the first captions are soon there, and short runs occupy all threads.
    """
    waiting = iter(images)
    length = 1
    while True:
        for _ in range(threads):
            batch = list(islice(waiting, length))
            if not batch:
                return
            yield batch
        length = min(2 * length, size)
