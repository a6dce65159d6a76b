"""What the service does, without HTTP: pictures and URLs in, captions or problems out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cutline.captioner import Caption, CaptionOptions, InContext, Picture, load
from cutline.errors import CutlineError
from cutline.image import Limits
from cutline.runtime import cores
from cutline.search import SearchOptions
from cutline.web.batching import Batcher, BatchLimits, QueueFullError
from cutline.web.metrics import Metrics
from cutline.web.problems import ProblemError, problem_of
from cutline.web.settings import Settings

log = logging.getLogger("cutline.serve")


class BatchCaptioner(Protocol):
    """A captioner that works on the thread that calls it: see `BundleCaptioner.batch`."""

    name: str
    search: SearchOptions

    def batch(
        self, images: Sequence[Picture], options: CaptionOptions | None = None, *, first: int = 0
    ) -> list[Caption]:
        """Caption a few pictures together."""
        ...


@dataclass(frozen=True)
class Given:
    """One picture as a client gave it.

    Attributes:
        source: what the answer calls it: a file's name, a URL.
        content: the file's bytes; None if it is to be fetched.
        url: where it is, if it is to be fetched.
        context: words that stand near it.
    """

    source: str
    content: bytes | None = None
    url: str = ""
    context: str = ""


@dataclass(frozen=True)
class _Group:
    """What is captioned together: one model, one set of options, and, when drawing, one number."""

    captioner: BatchCaptioner
    options: CaptionOptions
    number: int

    def __hash__(self) -> int:
        return hash((id(self.captioner), self.options, self.number))


class Service:
    """One model at work for many clients; made and used on one event loop.

    Args:
        settings: how it runs.
        captioner: what to caption with; None loads what the settings name, in `start`.
    """

    def __init__(self, settings: Settings, captioner: BatchCaptioner | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.limits = Limits(
            max_pixels=int(settings.max_megapixels * 1e6),
            max_jpeg_pixels=int(settings.max_megapixels * 1e6),
            max_bytes=int(settings.max_image_mb * 1e6),
        )
        self._captioner = captioner
        self._given = captioner
        self._threads = settings.threads or cores()
        self._batcher = Batcher(
            _work,
            BatchLimits(
                self._threads, settings.batch_size, settings.window_ms / 1e3, settings.queue
            ),
            self.metrics.batch,
        )
        self.metrics.queue.set_function(lambda: self._batcher.taken)
        self._answers: OrderedDict[Hashable, Caption] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether a model is there."""
        return self._captioner is not None

    @property
    def captioner(self) -> BatchCaptioner:
        """The present model.

        Raises:
            ProblemError: none is loaded.
        """
        if self._captioner is None:
            raise ProblemError("not-ready", "No model is loaded yet; try again in a moment.")
        return self._captioner

    async def load(self) -> None:
        """Load the model, or load it anew; what is under way goes on with the old one."""
        if self._given is not None:
            return
        settings = self.settings
        self._captioner = await asyncio.to_thread(
            load, settings.model, engine=settings.engine, threads=self._threads
        )
        self._answers.clear()
        log.info("model loaded", extra={"model": self._captioner.name})

    def close(self) -> None:
        """End the threads."""
        self._batcher.close()

    async def caption(
        self, given: Sequence[Given], options: CaptionOptions
    ) -> list[Caption | ProblemError]:
        """Caption pictures; one that cannot be has its problem instead.

        Raises:
            ProblemError: no model is loaded, or the queue is full.
        """
        captioner = self.captioner
        options = replace(options, limits=self.limits)
        try:
            with self._batcher.places(len(given)):
                return await asyncio.gather(
                    *(
                        self._one(captioner, number, each, options)
                        for number, each in enumerate(given)
                    )
                )
        except QueueFullError as error:
            raise ProblemError(
                "busy",
                f"As much is waiting as is accepted; try again in {error.retry_s} s.",
                headers={"Retry-After": str(error.retry_s)},
            ) from error

    async def _one(
        self, captioner: BatchCaptioner, number: int, given: Given, options: CaptionOptions
    ) -> Caption | ProblemError:
        try:
            content = given.content
            if content is None:
                content = await self._fetch(given.url)
            caption = await self._known(captioner, number, content, given.context, options)
        except ProblemError as problem:
            return problem
        except CutlineError as error:
            told = problem_of(error)
            if told.code == "internal":
                log.exception("captioning failed")
            return told
        if caption.error is not None:
            return problem_of(caption.error)
        return replace(caption, source=given.source)

    async def _known(
        self,
        captioner: BatchCaptioner,
        number: int,
        content: bytes,
        context: str,
        options: CaptionOptions,
    ) -> Caption:
        """The caption from the answers kept, or a new one."""
        search = options.search
        group = _Group(captioner, options, number if search and search.temperature else 0)
        if not self.settings.cache:
            return await self._batcher.submit(group, InContext(content, context))
        key = (await _sha256(content), context, group)
        if (kept := self._answers.get(key)) is not None:
            self._answers.move_to_end(key)
            self.metrics.cache.labels("hit").inc()
            return kept
        self.metrics.cache.labels("miss").inc()
        caption = await self._batcher.submit(group, InContext(content, context))
        if captioner is self._captioner:
            self._answers[key] = replace(caption, embedding=None)
            while len(self._answers) > self.settings.cache:
                self._answers.popitem(last=False)
        return caption

    async def _fetch(self, url: str) -> bytes:
        raise ProblemError("url-refused", "Images by URL are switched off here.")


def _work(group: Any, pictures: Sequence[Picture]) -> list[Caption]:
    captions: list[Caption] = group.captioner.batch(pictures, group.options, first=group.number)
    return captions


async def _sha256(content: bytes) -> bytes:
    if len(content) < 1_000_000:
        return hashlib.sha256(content).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(content).digest())


def rounded(caption: Caption) -> dict[str, Any]:
    """What looking at each word gave, as JSON has it: weights to four decimals."""
    attention = caption.attention
    if attention is None:
        return {"grid": None, "words": [], "weights": []}
    return {
        "grid": list(attention.grid),
        "words": list(attention.words),
        "weights": [[round(weight, 4) for weight in row] for row in attention.weights.tolist()],
    }
