"""The application logic of the service, without HTTP: images and URLs to captions or problems."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field, replace
from typing import Any

from cutline.backends import load
from cutline.backends.servers import is_server
from cutline.caption import Caption, Captioner, CaptionOptions, InContext, Picture
from cutline.chat import is_chat_model
from cutline.errors import CutlineError, FetchError
from cutline.fetch import Fetcher, FetchOptions, Resolve
from cutline.image import Limits, load_image
from cutline.runtime import cores
from cutline.service.batching import Batcher, BatchLimits, QueueFullError
from cutline.service.middleware import MemoryBudget
from cutline.service.problems import KINDS, ProblemError, problem_of
from cutline.service.prometheus import Metrics
from cutline.service.result_cache import ResultCache
from cutline.service.settings import Settings
from cutline.site.decide.alt_text import WordingOptions, draft
from cutline.site.decide.alt_text import context as context_of
from cutline.site.decide.chat_alt import (
    ChatAlt,
    ChatAltOptions,
    alt_dialogue,
    chat_draft,
    needs_chat,
)
from cutline.site.decide.decision_tree import decide
from cutline.site.decide.image_stats import measure
from cutline.site.model import Decision, Draft, ImageOccurrence, Kind, Pixels, Purpose

log = logging.getLogger("cutline.serve")

_FETCHES = 32  # concurrent; each mostly waits for a server
_FETCH_CODES = {
    "url": "url-invalid",
    "scheme": "url-refused",
    "credentials": "url-refused",
    "port": "url-refused",
    "address": "url-refused",
    "timeout": "fetch-timeout",
    "too-large": "image-too-large",
    "not-an-image": "image-format",
}
_SERVER_TIMEOUT_S = 60.0
_NO_PAGE = ImageOccurrence("", 0, Kind.IMG, "")


@dataclass(frozen=True)
class ImageInput:
    """One image of a request.

    Attributes:
        source: the name in the response: a file name or a URL.
        content: the file's bytes; None if the image is fetched from `url`.
        url: the URL to fetch it from; "" if `content` is set.
        context: text near the image.
    """

    source: str
    content: bytes | None = None
    url: str = ""
    context: str = ""


@dataclass(frozen=True)
class ImageResult:
    """The result for one image: a caption, an alt draft, or both."""

    caption: Caption | None
    draft: Draft | None = None


@dataclass(frozen=True)
class _Group:
    """Images that are captioned together: with one model and one set of options."""

    captioner: Captioner = field(hash=False)
    options: CaptionOptions

    def encode(self, item: Picture) -> Any:
        return self.captioner.encode(item, self.options)

    def decode(self, encoded: Sequence[Any]) -> list[Caption]:
        return self.captioner.decode(encoded, self.options)


@dataclass(frozen=True)
class _Measure:
    """Measures an image for the decision tree."""

    limits: Limits

    def encode(self, item: bytes) -> Pixels:
        return measure(load_image(item, limits=self.limits))

    def decode(self, encoded: Sequence[Pixels]) -> Sequence[Pixels]:
        return encoded


class Service:
    """One model that serves many clients; created and used on one event loop.

    Args:
        settings: the settings of the service.
        captioner: the captioner; None loads the model from the settings, in `load`.
        resolve: resolves host names in URLs; None uses the system's resolver.
    """

    def __init__(
        self, settings: Settings, captioner: Any = None, resolve: Resolve | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.held = MemoryBudget(settings.max_pending_mb * 1e6)
        self.limits = Limits(
            max_pixels=int(settings.max_megapixels * 1e6),
            max_jpeg_pixels=int(settings.max_megapixels * 1e6),
            max_bytes=int(settings.max_image_mb * 1e6),
        )
        self.region_slots = asyncio.Semaphore(settings.threads or 2)
        self.video_slots = asyncio.Semaphore(settings.max_videos)
        self._captioner: Captioner | None = None
        self._preloaded = captioner
        self._loading = asyncio.Lock()
        self._threads = settings.threads or max(1, cores() // settings.workers)
        self._batcher = Batcher(
            BatchLimits(
                threads=self._threads,
                batch_size=settings.batch_size,
                max_batch_wait_s=settings.max_batch_wait_ms / 1e3,
                places=settings.queue,
            ),
            self.metrics.batch,
        )
        self._results: ResultCache[Caption] = ResultCache(
            settings.cache, lambda result: self.metrics.cache.labels(result).inc()
        )
        self._fetching = ThreadPoolExecutor(_FETCHES, thread_name_prefix="cutline-fetch")
        self._fetcher = Fetcher(
            FetchOptions(
                max_bytes=self.limits.max_bytes,
                timeout_s=settings.fetch_timeout_s,
                public_only=True,
                retries=0,
            ),
            resolve=resolve,
        )

    @property
    def ready(self) -> bool:
        """Whether a model is loaded."""
        return self._captioner is not None

    @property
    def captioner(self) -> Captioner:
        """The current model.

        Raises:
            ProblemError: no model is loaded.
        """
        if self._captioner is None:
            raise ProblemError("not-ready", "No model is loaded yet; try again in a moment.")
        return self._captioner

    async def load(self) -> None:
        """Load or reload the model; requests in progress finish with the old one.

        Raises:
            CutlineError: the model cannot be loaded; the old one stays in use.
        """
        async with self._loading:  # two reloads must not finish in reverse order
            captioner = self._preloaded or await asyncio.to_thread(self._load)
            self._captioner = captioner
            self._results.clear()
            log.info("model loaded", extra={"model": captioner.name})
            if not getattr(captioner, "is_local", True):
                log.warning(
                    "images are sent to another machine",
                    extra={"host": getattr(captioner, "host", "")},
                )

    def _load(self) -> Captioner:
        """Load the captioner from the settings, with a short timeout for a model on a server."""
        connection = None
        if is_server(self.settings.model):
            from cutline.backends.chat_client import ConnectionOptions
            from cutline.backends.retry import RetryOptions

            connection = ConnectionOptions(
                timeout_s=_SERVER_TIMEOUT_S, retry=RetryOptions(wait_s=2.0, attempts=2)
            )
        return load(
            self.settings.model,
            engine=self.settings.engine,
            threads=self._threads,
            connection=connection,
        )

    async def reload(self) -> None:
        """Reload the model; a failure is only logged."""
        try:
            await self.load()
        except Exception as error:
            unexpected = not isinstance(error, CutlineError)
            log.error("model not reloaded", extra={"reason": str(error)}, exc_info=unexpected)

    async def close(self) -> None:
        """End the threads."""
        self._fetcher.close()
        self._fetching.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._batcher.close)

    def incoming(self) -> AbstractContextManager[None]:
        """Signal, while a request is being read, that images are about to arrive."""
        return self._batcher.incoming()

    async def caption(
        self,
        captioner: Captioner,
        images: Sequence[ImageInput],
        options: CaptionOptions,
        *,
        drafts: bool = False,
    ) -> list[ImageResult | ProblemError]:
        """Caption images; one that fails has a problem instead.

        Args:
            captioner: the model that the options are for.
            images: the images.
            options: the caption options.
            drafts: also draft an alt for each image, as if on an empty page.

        Raises:
            ProblemError: the queue is full.
        """
        options = replace(options, limits=self.limits)
        with self._places(len(images)):
            return await asyncio.gather(
                *(self._one(captioner, each, options, drafts=drafts) for each in images)
            )

    async def alt(
        self, image: ImageInput | None, occurrence: ImageOccurrence, wording: WordingOptions
    ) -> ImageResult:
        """Decide the purpose of an image and draft its alt; caption it only if needed.

        Args:
            image: the image; None decides from the page alone.
            occurrence: the context of the image on its page.
            wording: the wording options of drafts.

        Raises:
            ProblemError: the image cannot be read, no model is loaded, or the queue is full.
        """
        if image is None:
            return ImageResult(None, draft(occurrence, decide(occurrence, None), None, wording))
        caption: Caption | None = None
        with self._places(1):
            async with self._content(image) as content:
                decision = decide(occurrence, await self._measure(content))
                if is_chat_model(self.captioner) and needs_chat(decision):
                    return ImageResult(
                        None, await self._chat_draft(content, occurrence, decision, wording)
                    )
                if decision.alt is None and decision.purpose is not Purpose.KEPT:
                    captioner = self.captioner
                    best = replace(captioner.search, n_best=min(3, captioner.search.beam_size))
                    near = context_of(occurrence) if wording.context_nats else ""
                    found = await self._one(
                        captioner,
                        ImageInput(image.source, content, context=near),
                        CaptionOptions(best, limits=self.limits, context_nats=wording.context_nats),
                    )
                    if isinstance(found, ProblemError):
                        raise found
                    caption = found.caption
        return ImageResult(caption, draft(occurrence, decision, caption, wording))

    async def _chat_draft(
        self,
        content: bytes,
        occurrence: ImageOccurrence,
        decision: Decision,
        wording: WordingOptions,
    ) -> Draft:
        """The draft by a chat model, which gets the page context.

        Raises:
            ProblemError: the image cannot be read, or the model's server fails or declines.
        """
        captioner: Any = self.captioner
        options = ChatAltOptions(wording.max_chars, glossary=wording.glossary)

        def ask() -> ChatAlt:
            dialogue = alt_dialogue(occurrence, decision, options)
            [found] = captioner.converse([(content, dialogue)], self.limits)
            if isinstance(found, CutlineError):
                raise found
            answer: ChatAlt = found
            return answer

        try:
            answer = await asyncio.to_thread(ask)
        except CutlineError as error:
            self.metrics.images.labels("error").inc()
            raise problem_of(error) from error
        self.metrics.images.labels("ok").inc()
        return chat_draft(occurrence, decision, answer, captioner.name, wording)

    async def _measure(self, content: bytes) -> Pixels:
        try:
            pixels: Pixels = await self._batcher.submit(_Measure(self.limits), content)
        except CutlineError as error:
            raise problem_of(error) from error
        return pixels

    def reserve(self, count: int) -> AbstractContextManager[None]:
        """Reserve places in the queue while the block runs.

        Raises:
            ProblemError: the queue is full.
        """
        return self._places(count)

    def content(self, image: ImageInput) -> AbstractAsyncContextManager[bytes]:
        """The bytes of an image; fetched bytes count against the memory budget in the block."""
        return self._content(image)

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        try:
            with self._batcher.places(count):
                self.metrics.queue.inc(count)
                try:
                    yield
                finally:
                    self.metrics.queue.dec(count)
        except QueueFullError as error:
            raise ProblemError(
                "busy",
                f"The queue is full; try again in {error.retry_s} s.",
                headers={"Retry-After": str(error.retry_s)},
            ) from error

    async def _one(
        self,
        captioner: Captioner,
        image: ImageInput,
        options: CaptionOptions,
        *,
        drafts: bool = False,
    ) -> ImageResult | ProblemError:
        found: ImageResult | ProblemError
        try:
            async with self._content(image) as content:
                caption = await self._cached(_Group(captioner, options), content, image.context)
                found = ImageResult(caption)
                if drafts:
                    occurrence = replace(_NO_PAGE, before=image.context)
                    decision = decide(occurrence, await self._measure(content))
                    found = ImageResult(caption, draft(_NO_PAGE, decision, caption))
        except ProblemError as problem:
            found = problem
        except Exception as error:
            found = ProblemError("internal", "Captioning this image failed.")
            if isinstance(error, CutlineError):
                found = problem_of(error)
            if found.code == "internal":
                log.exception("captioning failed")
        self.metrics.images.labels("ok" if isinstance(found, ImageResult) else "error").inc()
        return found

    async def _cached(self, group: _Group, content: bytes, context: str) -> Caption:
        """Return the cached caption, or caption the image."""
        if not self.settings.cache:
            return await self._decode(group, content, context)
        key = (await _sha256(content), context, group)
        return await self._results.get(key, lambda: self._decode(group, content, context))

    async def _decode(self, group: _Group, content: bytes, context: str) -> Caption:
        caption: Caption = await self._batcher.submit(group, InContext(content, context))
        if caption.error is not None:
            raise caption.error
        return replace(caption, embedding=None)  # large and not part of a response

    @asynccontextmanager
    async def _content(self, image: ImageInput) -> AsyncIterator[bytes]:
        """The image's bytes; fetched ones count against the memory budget while the block runs."""
        if image.content is not None:  # counted with the request body
            yield image.content
            return
        content = await self._fetch(image.url)
        with self.held.more(len(content)):
            yield content

    async def _fetch(self, url: str) -> bytes:
        if not self.settings.fetch:
            raise ProblemError("url-refused", "Images by URL are disabled; send the file.")
        loop = asyncio.get_running_loop()
        try:
            # The timeout includes the wait for a free thread.
            async with asyncio.timeout(self.settings.fetch_timeout_s + 1):
                fetched = await loop.run_in_executor(self._fetching, self._fetcher.fetch, url)
        except TimeoutError as error:
            raise ProblemError("fetch-timeout", KINDS["fetch-timeout"].meaning) from error
        except FetchError as error:
            raise _fetch_problem(error) from error
        return fetched.content


def _fetch_problem(error: FetchError) -> ProblemError:
    code = _FETCH_CODES.get(error.code, "fetch-failed")
    public = code != "url-refused" or error.code != "address"  # do not reveal resolved addresses
    return ProblemError(code, error.reason if public else KINDS[code].meaning)


async def _sha256(content: bytes) -> bytes:
    if len(content) < 1_000_000:
        return hashlib.sha256(content).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(content).digest())
