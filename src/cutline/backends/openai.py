"""A model behind a server that speaks OpenAI's chat completions, as a captioner.

Many servers do: vLLM, Ollama, llama.cpp, LM Studio and the big providers. Pictures leave the
machine, so nothing uses this unless a person names the server.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from PIL import Image, ImageOps

from cutline.caption import Alternative, Caption, CaptionOptions, InContext, Picture
from cutline.errors import EngineError, ImageError, MissingExtraError, OptionError
from cutline.image import ImageSource, describe, load_image
from cutline.regions.describe import RegionCaptioner
from cutline.search import SearchOptions

KEY = "CUTLINE_API_KEY"
_ASK = (
    "Write alt text for this picture: one plain sentence in English, at most {words} words, that "
    "says what is to be seen. Do not begin with 'image of' or 'picture of'. Answer with the "
    "sentence alone."
)
_NEAR = " Words that stand near it on its page, which may or may not fit: {words}"


class RemoteCaptioner(RegionCaptioner):
    """A chat model that is shown one picture at a time.

    Of the search options it heeds `n_best`, `max_tokens` as words, `temperature`, `top_p` and
    `seed`, as far as the server does. It has no labels, attention or embedding. Its score is the
    mean log-probability per token where the server tells it, else not a number.

    Args:
        url: the API's root, as in "http://localhost:8000/v1".
        model: what the server calls the model.
        key: sent as a bearer token; None is what CUTLINE_API_KEY holds, if anything.
        side_px: pictures are scaled down until neither side is longer.
        timeout_s: for one picture.
        threads: requests at a time; None is four.

    Raises:
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        side_px: int = 768,
        timeout_s: float = 120.0,
        threads: int | None = None,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise MissingExtraError("a remote model", "site") from error
        self.name = f"{model}@{re.sub(r'^https?://', '', url).rstrip('/')}"
        self.search = SearchOptions(beam_size=1, max_tokens=25)
        self._model, self._side_px, self._threads = model, side_px, threads or 4
        key = os.environ.get(KEY, "") if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/", headers=headers, timeout=timeout_s
        )

    @classmethod
    def from_url(cls, url: str, *, threads: int | None = None) -> RemoteCaptioner:
        """The captioner that "URL#NAME" stands for.

        Raises:
            OptionError: no model is named.
        """
        root, _, model = url.partition("#")
        if not model:
            raise OptionError(f"got model {url}; expected the server's URL, then # and a name")
        return cls(root, model, threads=threads)

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        return self._caption(image, options or CaptionOptions(), threading.Event())

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of pictures in order, a few at a time: see `Captioner.stream`."""
        options = options or CaptionOptions()
        stop = threading.Event()
        waiting = iter(images)
        pending: deque[Future[Caption]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="cutline")
        try:
            while True:
                for image in islice(waiting, 2 * self._threads - len(pending)):
                    pending.append(pool.submit(self._caption, image, options, stop))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _caption(self, image: Picture, options: CaptionOptions, stop: threading.Event) -> Caption:
        bare, near = (image.image, image.words) if isinstance(image, InContext) else (image, "")
        source = describe(bare)
        if stop.is_set():
            return Caption(source, model=self.name)
        search = options.search or self.search
        question = ask(search, near if options.context_nats else "")
        try:
            answer = self._ask(question, self._jpeg(bare), search)
            said = [_choice(choice) for choice in answer["choices"]]
        except (ImageError, EngineError) as error:
            return Caption(source, model=self.name, error=error)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            wrong = EngineError(f"{self.name}: got an answer of another form; lacks {error}")
            return Caption(source, model=self.name, error=wrong)
        if not said or not said[0][0]:
            empty = EngineError(f"{self.name}: got an empty answer; expected a sentence")
            return Caption(source, model=self.name, error=empty)
        (text, score), *others = said
        return Caption(source, text, score, self.name, tuple(Alternative(*o) for o in others))

    def _ask(self, text: str, jpeg: str, search: SearchOptions) -> dict[str, Any]:
        import httpx

        picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}}
        content = [{"type": "text", "text": text}, picture]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 4 * search.max_tokens,
            "temperature": search.temperature or 0,
            "top_p": search.top_p,
            "seed": search.seed,
            "n": search.n_best,
            "logprobs": True,
        }
        try:
            response = self._client.post("chat/completions", json=body)
            response.raise_for_status()
            answer: dict[str, Any] = response.json()
        except httpx.HTTPStatusError as error:
            detail = " ".join(error.response.text.split())[:200]
            raise EngineError(
                f"{self.name}: HTTP {error.response.status_code}: {detail}"
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(f"{self.name}: {type(error).__name__}: {error}") from error
        return answer

    def _jpeg(self, image: ImageSource) -> str:
        picture = load_image(image, around_px=self._side_px)
        if max(picture.size) > self._side_px:
            side = (self._side_px, self._side_px)
            picture = ImageOps.contain(picture, side, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def ask(search: SearchOptions, near: str) -> str:
    """What a chat model is asked about a picture, beside which these words stand."""
    question = _ASK.format(words=search.max_tokens)
    return question + _NEAR.format(words=" ".join(near.split())[:500]) if near else question


def one_line(text: str) -> str:
    """An answer without line breaks and quotes around it."""
    return " ".join(text.split()).strip("\"'“”")


def _choice(choice: dict[str, Any]) -> tuple[str, float]:
    """One line of text and its mean log-probability per token."""
    text = one_line(choice["message"]["content"] or "")
    tokens = (choice.get("logprobs") or {}).get("content") or []
    score = math.fsum(token["logprob"] for token in tokens) / len(tokens) if tokens else math.nan
    return text, score
