"""A captioner for a chat model behind a server that speaks OpenAI's chat completions.

Ollama, LM Studio, llama.cpp, vLLM and most hosted models are such servers. An image is sent to the
server, so nothing uses this unless a person names one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from PIL import Image

from cutline.backends import event_loop
from cutline.backends.chat_client import ChatClient, ConnectionOptions, entered
from cutline.backends.chat_response import Choice
from cutline.backends.model_list import find_model
from cutline.backends.retry import Usage
from cutline.backends.servers import Server
from cutline.caption import Alternative, Caption, CaptionOptions, InContext, Picture
from cutline.chat import ChatAnswer, ChatRequest, Dialogue
from cutline.chat.answer_text import repeated_phrase, to_sentence, whole_sentences
from cutline.chat.language import english_name, mismatch
from cutline.chat.refusals import refusal_in
from cutline.errors import CutlineError, RefusalError, ServerError, ServerStoppedError
from cutline.image import DecodedImage, ImageSource, Limits, decode_image, describe
from cutline.options import SearchOptions
from cutline.prompts import Prompt, packaged
from cutline.regions.describe import RegionCaptioner

log = logging.getLogger("cutline.backends")
T = TypeVar("T")

SAMPLING_TEMPERATURE = 0.7
"""The temperature for several captions of one image, unless one is set."""

_TOKENS_PER_WORD = 4
_MORE_ROOM_TOKENS = 4096
_CONTEXT_CHARS = 500
_PATCH_PX = 28
_PROMPT_TOKENS = 120
_ANSWER_TOKENS = 40


class RemoteCaptioner(RegionCaptioner):
    """A chat model that is shown one image at a time.

    Of the search options it uses `n_best`, `max_tokens` (as words), `temperature`, `top_p` and
    `seed`; each is sent only if it differs from the default in `search`. It has no labels,
    attention or embedding. Its score is the mean log-probability per token if the server gives
    it, else not a number.

    Args:
        server: where it is.
        model: what the server calls the model.
        options: how it is asked; None is the default.
        prompt: how it is asked for a caption; None is the package's "caption" prompt.
        language: of the captions, a language tag such as "en".
        client: sends the requests; None makes one.

    Attributes:
        usage: requests and tokens so far.
        is_local: whether the server runs on this machine.
        host: the server's host and port.

    Raises:
        MissingExtraError: httpx is not installed.
    """

    samples_alternatives = True
    """Several captions of one image are sampled, not searched for."""

    sampling_temperature = SAMPLING_TEMPERATURE

    def __init__(
        self,
        server: Server,
        model: str,
        options: ConnectionOptions | None = None,
        *,
        prompt: Prompt | None = None,
        language: str = "en",
        client: ChatClient | None = None,
    ) -> None:
        self._client = client or ChatClient(server, model, options or ConnectionOptions())
        self.name = f"{model}@{server.label}"
        self.search = SearchOptions(beam_size=1, max_tokens=25)
        self.prompt = prompt or packaged("caption")
        self._language = language
        self.is_local, self.host = server.is_local, server.host
        weakref.finalize(self, _close, self._client)

    @classmethod
    def from_name(
        cls,
        name: str,
        options: ConnectionOptions | None = None,
        *,
        prompt: Prompt | None = None,
        key: str | None = None,
    ) -> RemoteCaptioner:
        """The captioner that "PROVIDER:NAME" or "URL#NAME" stands for.

        Raises:
            OptionError: no model is named, or the URL or key cannot be used.
            ServerError: no model is named and the server cannot be asked for one.
        """
        server, model = find_model(name, key=key)
        return cls(server, model, options, prompt=prompt)

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""
        return self._client.usage

    @property
    def computation(self) -> dict[str, Any]:
        """How captions are computed: "engine" and "threads", which are requests at a time."""
        return {"engine": "server", "threads": self._client.concurrency}

    @property
    def refused_parameters(self) -> frozenset[str]:
        """Optional parameters that the server refused so far."""
        return frozenset(self._client.refused)

    def estimated_tokens(self, images: int) -> int:
        """About how many tokens so many captions take: one for 28 x 28 pixels, prompt, answer.

        Qwen2.5-VL's patches; other models count an image in other ways, between 85 and 3,000.
        """
        side = math.ceil(self._client.options.image_px / _PATCH_PX)
        return images * (math.ceil(0.75 * side * side) + _PROMPT_TOKENS + _ANSWER_TOKENS)

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        return event_loop.wait(self._caption(image, options or CaptionOptions()))

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images in order, a few at a time: see `Captioner.stream`.

        Raises:
            ServerStoppedError: no further request can succeed.
        """
        chosen = options or CaptionOptions()
        return self._in_order(images, lambda image: self._caption(image, chosen))

    def decode(self, encoded: Sequence[Picture], options: CaptionOptions) -> list[Caption]:
        """Caption the images together; an error that would end a run becomes each image's own."""

        async def all_of_them() -> list[Caption]:
            captions = (self._caption(image, options, stops=False) for image in encoded)
            return list(await asyncio.gather(*captions))

        return event_loop.wait(all_of_them())

    def converse(
        self,
        dialogues: Iterable[tuple[ImageSource, Dialogue[T]]],
        limits: Limits | None = None,
    ) -> Iterator[T | CutlineError]:
        """Run dialogues, a few at a time, in order: see `ChatModel.converse`."""
        chosen = limits or Limits()
        return self._in_order(dialogues, lambda each: self._converse(each[0], each[1], chosen))

    def _in_order(
        self, items: Iterable[Any], start: Callable[[Any], Coroutine[Any, Any, T]]
    ) -> Iterator[T]:
        """Results in the order of the items; closing the iterator cancels what is under way."""
        waiting, pending = iter(items), deque[Future[T]]()
        ahead, turns = 2 * self._client.concurrency, asyncio.Lock()
        try:
            while True:
                for item in islice(waiting, ahead - len(pending)):
                    pending.append(event_loop.submit(_in_turn(turns, start(item))))
                if not pending:
                    return
                yield pending[0].result()
                pending.popleft()
        finally:
            for future in pending:
                future.cancel()

    async def _converse(
        self, image: ImageSource, dialogue: Dialogue[T], limits: Limits
    ) -> T | CutlineError:
        try:
            picture = (await self._load(image, limits)).image
            request = next(dialogue)
            while True:
                choice = await self._choice(picture, request, {})
                request = dialogue.send(ChatAnswer(choice.text, choice.cut))
        except StopIteration as stop:
            result: T = stop.value
            return result
        except ServerStoppedError:
            raise
        except CutlineError as error:
            return error
        finally:
            dialogue.close()

    async def _caption(
        self, image: Picture, options: CaptionOptions, *, stops: bool = True
    ) -> Caption:
        bare, near = (image.image, image.words) if isinstance(image, InContext) else (image, "")
        source = describe(bare)
        search = options.search or self.search
        try:
            request = self._request(search, near if options.context_nats else "")
            decoded = await self._load(bare, options.limits)
            answers = await self._answers(decoded.image, request, search, options)
        except ServerStoppedError as error:
            if stops:
                raise
            return Caption(source, model=self.name, error=error)
        except CutlineError as error:
            return Caption(source, model=self.name, error=error)
        best, *others = answers
        notes = [decoded.note, mismatch(best.text, self._language)]
        if len(answers) < search.n_best:
            notes.append(f"got {len(answers)} different captions instead of {search.n_best}")
        note = "; ".join(filter(None, notes))
        return Caption(source, best.text, best.score, self.name, tuple(others), note=note)

    def _request(self, search: SearchOptions, near: str) -> ChatRequest:
        system, user = self.prompt.render(
            words=search.max_tokens,
            language=english_name(self._language),
            context=" ".join(near.split())[:_CONTEXT_CHARS],
        )
        return ChatRequest(user, system)

    async def _load(self, image: ImageSource, limits: Limits) -> DecodedImage:
        side_px = self._client.options.image_px
        return await asyncio.to_thread(decode_image, image, around_px=side_px, limits=limits)

    def _parameters(self, search: SearchOptions, options: CaptionOptions) -> dict[str, Any]:
        """The optional parameters that were set."""
        default, parameters = self.search, dict[str, Any]()
        if search.temperature is not None:
            parameters["temperature"] = search.temperature
        if search.top_p != default.top_p:
            parameters["top_p"] = search.top_p
        if search.seed is not None:
            parameters["seed"] = search.seed
        if search.max_tokens != default.max_tokens:
            parameters["max_tokens"] = _TOKENS_PER_WORD * search.max_tokens
        if options.scores:
            parameters["logprobs"] = True
        if search.n_best > 1:
            parameters.setdefault("temperature", SAMPLING_TEMPERATURE)
        return parameters

    async def _answers(
        self,
        picture: Image.Image,
        request: ChatRequest,
        search: SearchOptions,
        options: CaptionOptions,
    ) -> list[Alternative]:
        """One caption, or several different ones: at once, else by asking again."""
        parameters = self._parameters(search, options)
        found: dict[str, Alternative] = {}
        failed: ServerError | None = None
        for turn in range(search.n_best):
            missing = search.n_best - len(found)
            if missing > 1 and turn == 0:
                parameters["n"] = missing
            if turn and search.seed is not None:
                parameters["seed"] = search.seed + turn
            try:
                for choice in await self._choices(picture, request, parameters):
                    text = self._sentence(choice)
                    found.setdefault(_key(text), Alternative(text, choice.score))
            except ServerStoppedError:
                if not found:
                    raise
                break
            except ServerError as error:
                failed = failed or error
            parameters.pop("n", None)
            if len(found) >= search.n_best or (failed and not found):
                break
        if not found:
            raise failed or ServerError(f"{self.name}: got no answer; expected a sentence")
        answers = list(found.values())[: search.n_best]
        if all(math.isfinite(answer.score) for answer in answers):
            answers.sort(key=lambda answer: -answer.score)
        return answers

    async def _choices(
        self, picture: Image.Image, request: ChatRequest, parameters: dict[str, Any]
    ) -> Sequence[Choice]:
        """The usable choices of one response, with more room if the answer was cut too early.

        Raises:
            RefusalError: the model declines.
            ServerError: there is no usable answer.
        """
        response = await self._client.complete(picture, request, parameters)
        usable = [choice for choice in response.choices if _is_usable(choice)]
        if usable:
            return usable
        first = response.choices[0]
        if first.refusal:
            raise RefusalError(f"{self.name}: declined: {first.refusal}")
        if first.problem:
            raise ServerError(f"{self.name}: {first.problem}")
        if first.cut and parameters.get("max_tokens", 0) < _MORE_ROOM_TOKENS:
            return await self._choices(
                picture, request, {**parameters, "max_tokens": _MORE_ROOM_TOKENS}
            )
        if first.cut and not first.text.strip():
            raise ServerError(f"{self.name}: used all its tokens on reasoning; expected an answer")
        if first.cut:
            raise ServerError(f"{self.name}: the answer was cut within its first sentence")
        if first.reasoned:
            raise ServerError(f"{self.name}: got reasoning alone; expected an answer after it")
        raise ServerError(f"{self.name}: got an empty answer; expected a sentence")

    async def _choice(
        self, picture: Image.Image, request: ChatRequest, parameters: dict[str, Any]
    ) -> Choice:
        [choice, *_] = await self._choices(picture, request, parameters)
        return choice

    def _sentence(self, choice: Choice) -> str:
        """The caption in a choice.

        Raises:
            RefusalError: the model declines in words.
            ServerError: it sees no image, or nothing is left of its answer.
        """
        text = to_sentence(choice.text)
        kind = refusal_in(text)
        if kind == "refusal":
            raise RefusalError(f"{self.name}: declined: {text[:300]}")
        if kind == "blind":
            raise ServerError(f"{self.name}: did not see the image: {text[:300]}")
        if choice.cut:
            text = whole_sentences(text)
        if not text:
            raise ServerError(f"{self.name}: got an empty answer; expected a sentence")
        if phrase := repeated_phrase(text):
            raise ServerError(f"{self.name}: the answer repeats itself: {phrase} …")
        return text


async def _in_turn(turns: asyncio.Lock, job: Coroutine[Any, Any, T]) -> T:
    """Run a job; the next one starts as this one sends its first request, or ends without any."""
    try:
        await turns.acquire()
    except BaseException:
        job.close()
        raise
    held = True

    def release() -> None:
        nonlocal held
        if held:
            held = False
            turns.release()

    token = entered.set(release)
    try:
        return await job
    finally:
        entered.reset(token)
        release()


def _is_usable(choice: Choice) -> bool:
    if choice.refusal or choice.problem:
        return False
    return bool(whole_sentences(to_sentence(choice.text)) if choice.cut else choice.text.strip())


def _key(text: str) -> str:
    """The same for captions that differ in case and punctuation alone."""
    return "".join(letter for letter in text.casefold() if letter.isalnum()) or text


def _close(client: ChatClient) -> None:
    with suppress(RuntimeError):  # the interpreter is ending
        event_loop.submit(client.close())
