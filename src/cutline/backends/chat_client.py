"""An HTTP client for chat completions: parameters, retries, redirects, limits and costs."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageOps

from cutline.backends.chat_response import (
    ChatResponse,
    error_message,
    read_response,
    refused_parameters,
)
from cutline.backends.failures import ErrorResponse, Failure, classify
from cutline.backends.retry import Budget, Pace, RetryOptions, Usage, backoff, retry_after
from cutline.backends.servers import Server, redact
from cutline.chat import ChatRequest
from cutline.errors import (
    MissingExtraError,
    OptionError,
    RefusalError,
    ServerAccessError,
    ServerBusyError,
    ServerError,
)

log = logging.getLogger("cutline.backends")

entered: ContextVar[Callable[[], None]] = ContextVar("entered", default=lambda: None)
"""Called as the first request of an image is sent, so that images take their turns in order."""

MAX_RESPONSE_BYTES = 1_000_000
_MAX_REDIRECTS = 5
_LEAST_SIDE_PX = 32
_CONNECT_ATTEMPTS = 3
_STOP_AFTER_FAILED_IMAGES = 5
_JPEG_QUALITY = 90
_PERHAPS_PARAMETERS = (Failure.TOO_LARGE, Failure.REJECTED, Failure.TRANSIENT, Failure.BUSY)


@dataclass(frozen=True)
class ConnectionOptions:
    """How a server is asked.

    Raises:
        OptionError: an option is out of its range.
    """

    timeout_s: float = 120.0
    """Longest time for one request, from its start to the end of the response, seconds."""

    image_px: int = 768
    """Images are scaled down until neither side is longer, pixels."""

    concurrency: int | None = None
    """Requests at a time; None is 1 for a server on this machine, else 4."""

    retry: RetryOptions = field(default_factory=RetryOptions)
    """How long failed requests are repeated."""

    budget: Budget = field(default_factory=Budget)
    """What the run may use."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not 0 < self.timeout_s < 1e6:
            raise OptionError(f"got timeout {self.timeout_s}; expected seconds above 0")
        if self.image_px < _LEAST_SIDE_PX:
            raise OptionError(f"got image_px {self.image_px}; expected at least {_LEAST_SIDE_PX}")
        if self.concurrency is not None and self.concurrency < 1:
            raise OptionError(f"got threads {self.concurrency}; expected at least 1")


class _NoResponseError(Exception):
    """The connection broke, or nothing came in time."""

    def __init__(self, reason: str, *, unreachable: bool = False, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out
        self.unreachable = unreachable


class ChatClient:
    """Sends requests about one image to one model of one server.

    What a server refuses is remembered: an optional parameter, a form of structured output, the
    root of its API. Methods run on one event loop.

    Args:
        server: where it is.
        model: what it calls the model.
        options: how it is asked.
        clock, sleep, jitter: time and chance, which tests replace.

    Raises:
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        server: Server,
        model: str,
        options: ConnectionOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise MissingExtraError("a model behind a server", "server") from error
        self.server = server
        self.model = model
        self.options = options
        self.usage = Usage()
        self.refused: set[str] = set()
        """Optional parameters that the server refuses for this model."""
        self.concurrency = options.concurrency or (1 if server.is_local else 4)
        self.pace = Pace(self.concurrency, clock, sleep)
        self._jitter = jitter
        self._roots = list(server.roots)
        self._reached = False
        self._failed_images = 0
        self._completion_limit = "max_tokens"
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        if server.key:
            headers["Authorization"] = f"Bearer {server.key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            auth=server.credentials,
            timeout=httpx.Timeout(options.timeout_s),
            follow_redirects=False,
            trust_env=not server.is_local,
            verify=server.roots[0].startswith("https"),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def complete(
        self, picture: Image.Image, request: ChatRequest, parameters: Mapping[str, Any]
    ) -> ChatResponse:
        """Ask about an image, as often as it takes.

        Args:
            picture: upright RGB.
            request: what is asked.
            parameters: optional parameters of chat completions, under their usual names.

        Returns:
            A response with at least one choice.

        Raises:
            RefusalError: a filter declines the image.
            ServerStoppedError: no further request can succeed.
            ServerError: there is no answer for this image.
        """
        side_px, attempt, busy = self.options.image_px, 0, False
        jpeg = await asyncio.to_thread(to_jpeg, picture, side_px)
        shrunk = False
        guessed: frozenset[str] = frozenset()  # parameters left out on suspicion
        while True:
            body = self._body(jpeg, request, parameters, guessed)
            await self.pace.enter()
            entered.get()()
            try:
                self.usage.check(self.options.budget)
                self.usage.requests += 1
                self.usage.repeated += busy or attempt > 0
                result = await self._post(body)
            except _NoResponseError as error:
                attempt += 1
                self._after_break(error, attempt)
                continue
            finally:
                await self.pace.leave()
            if isinstance(result, ChatResponse):
                self.pace.succeeded()
                self._failed_images = 0
                self._remember(guessed)
                return result
            failure = classify(result)
            if failure is Failure.NO_PATH and len(self._roots) > 1:
                self._roots.pop(0)
            elif failure in _PERHAPS_PARAMETERS and self._drop_refused(result, body):
                continue
            elif failure is Failure.REJECTED and not guessed and (optional := _optional(body)):
                guessed = frozenset(optional)
            elif failure is Failure.TOO_LARGE and not shrunk:
                shrunk, side_px = True, max(_LEAST_SIDE_PX, min(side_px, max(picture.size)) // 2)
                jpeg = await asyncio.to_thread(to_jpeg, picture, side_px)
            elif failure is Failure.BUSY:
                self._after_busy(result)
                busy = True
            elif failure is Failure.TRANSIENT:
                attempt += 1
                self._after_failure(result, attempt)
            else:
                raise self._error(failure, result)

    def _body(
        self,
        jpeg: str,
        request: ChatRequest,
        parameters: Mapping[str, Any],
        without: frozenset[str],
    ) -> dict[str, Any]:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}}
        content = [{"type": "text", "text": request.prompt}, picture]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        for name, value in parameters.items():
            name = self._completion_limit if name == "max_tokens" else name
            if name not in self.refused | without:
                body[name] = value
        if request.schema is not None and "response_format" not in self.refused | without:
            body["response_format"] = {"type": "json_object"}
            if "json_schema" not in self.refused:
                schema = {"name": request.schema_name, "strict": True, "schema": request.schema}
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _post(self, body: Mapping[str, Any]) -> ChatResponse | ErrorResponse:
        """Send one request, follow redirects on the same origin, read the response."""
        import httpx

        content = json.dumps(body).encode()
        query = f"?{self.server.query}" if self.server.query else ""
        url = httpx.URL(f"{self._roots[0]}/chat/completions{query}")
        try:
            async with asyncio.timeout(self.options.timeout_s):
                for _ in range(_MAX_REDIRECTS + 1):
                    request = self._http.build_request("POST", url, content=content)
                    response = await self._http.send(request, stream=True)
                    try:
                        status, headers = response.status_code, response.headers
                        if status in (301, 302, 303, 307, 308):
                            url = self._redirected(url, status, headers.get("location", ""))
                            continue
                        body_bytes = await _read_limited(response)
                    finally:
                        await response.aclose()
                    self._reached = True
                    return self._read(status, headers, body_bytes)
                raise ServerAccessError(
                    f"{self._label}: more than {_MAX_REDIRECTS} redirects in a row"
                )
        except TimeoutError as error:
            seconds = f"{self.options.timeout_s:g} s"
            raise _NoResponseError(
                f"no answer within {seconds} (--timeout)", timed_out=True
            ) from error
        except httpx.TimeoutException as error:
            raise _NoResponseError(
                f"no answer within {self.options.timeout_s:g} s (--timeout)",
                unreachable=isinstance(error, httpx.ConnectTimeout),
                timed_out=True,
            ) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ServerAccessError(f"{self._label}: {error}") from error
        except (httpx.HTTPError, OSError) as error:
            words = str(error) or "the connection broke"
            if "location header" in words:  # httpx reads it although it does not follow it
                raise ServerAccessError(f"{self._label}: redirects, but: {words}") from error
            reason = redact(f"{type(error).__name__}: {words}", self.server.key)
            unreachable = isinstance(error, httpx.ConnectError)
            raise _NoResponseError(reason, unreachable=unreachable) from error

    def _redirected(self, url: Any, status: int, location: str) -> Any:
        """Where a redirect leads, if a key may go there.

        Raises:
            ServerAccessError: to another origin, nowhere, or as a GET request.
        """
        import httpx

        try:
            target = url.join(location) if location else None
        except httpx.InvalidURL as error:
            raise ServerAccessError(
                f"{self._label}: HTTP {status}: redirects to no URL ({error})", status
            ) from error
        shown = "" if target is None else f"{target.scheme}://{target.netloc.decode()}{target.path}"
        if target is None:
            raise ServerAccessError(f"{self._label}: HTTP {status} without a location", status)
        if status in (301, 302, 303):
            raise ServerAccessError(
                f"{self._label}: HTTP {status}: moved to {shown}; name that URL instead", status
            )
        if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
            raise ServerAccessError(
                f"{self._label}: HTTP {status}: redirects to another server, {shown}, to which "
                "nothing was sent; name that URL if you trust it",
                status,
            )
        return target

    def _read(
        self, status: int, headers: Mapping[str, str], content: bytes | None
    ) -> ChatResponse | ErrorResponse:
        if content is None:
            return ErrorResponse(
                status if status >= 400 else 200,
                f"got a response of more than {MAX_RESPONSE_BYTES:,} bytes; expected a sentence",
            )
        if status >= 300:
            message = redact(error_message(content) or "no message", self.server.key)
            return ErrorResponse(status, message, retry_after(headers, message), content)
        response = read_response(content, headers.get("content-type", ""))
        tokens = response.prompt_tokens, response.completion_tokens
        self.usage.prompt_tokens += tokens[0] or 0
        self.usage.completion_tokens += tokens[1] or 0
        self.usage.uncounted += tokens == (None, None) and not response.error
        if response.error:
            message = redact(response.error, self.server.key)
            return ErrorResponse(response.status, message, retry_after(headers, message))
        return response

    def _drop_refused(self, error: ErrorResponse, body: Mapping[str, Any]) -> bool:
        """Remember the optional parameters that an error response names; whether there are any."""
        if error.status not in (400, 404, 405, 422, 500, 501):
            return False
        found = refused_parameters(error.body, _optional(body))
        if "max_tokens" in found and "max_completion_tokens" in error.message:
            self._completion_limit = "max_completion_tokens"
            return True
        if "response_format" in found and "json_schema" not in self.refused:
            self.refused.add("json_schema")
            return True
        self._remember(found)
        return bool(found)

    def _remember(self, names: Iterable[str]) -> None:
        """Leave out these parameters from now on, and report those that somebody set."""
        new = [name for name in names if name not in self.refused]
        self.refused.update(new)
        chosen = [name for name in new if name in ("temperature", "top_p", "seed", "max_tokens")]
        if chosen:
            log.warning("%s does not accept %s; sent without", self._label, " and ".join(chosen))

    def _after_busy(self, error: ErrorResponse) -> None:
        """Pause all requests as long as the server asks.

        Raises:
            ServerBusyError: that is too long, or there was no success for too long.
        """
        options = self.options.retry
        without_success_s = self.pace.failed()
        wait_s = backoff(self.pace.busy_answers, options, self._jitter)
        if error.retry_after_s is not None:
            wait_s = error.retry_after_s + 0.1 * self._jitter()
        if without_success_s + wait_s > options.wait_s:
            raise ServerBusyError(
                f"{self._described(error)}; no answer for {without_success_s:.0f} s and the next "
                f"try would be in {wait_s:.0f} s",
                error.status,
                max(1.0, wait_s),
            )
        self.pace.pause(wait_s)

    def _after_failure(self, error: ErrorResponse, attempt: int) -> None:
        self.pace.failed()
        if attempt >= self.options.retry.attempts:
            self._count_failed_image(self._described(error), error.status)
            raise ServerError(self._described(error), error.status, error.retry_after_s)
        wait_s = backoff(attempt - 1, self.options.retry, self._jitter)
        self.pace.pause(max(error.retry_after_s or 0.0, wait_s))

    def _after_break(self, error: _NoResponseError, attempt: int) -> None:
        """Pause all requests after a broken connection or a timeout.

        A server that answered before and now refuses connections is waited for like a busy one: it
        may be starting again.

        Raises:
            ServerBusyError: the server cannot be reached, or stopped answering.
            ServerError: this image had its attempts.
        """
        if error.unreachable and self._reached:
            self._after_busy(ErrorResponse(0, error.reason))
            return
        self.pace.failed()
        message = f"{self._label}: {error.reason}"
        if error.unreachable and attempt >= min(_CONNECT_ATTEMPTS, self.options.retry.attempts):
            raise ServerBusyError(f"{message}; is the server running at {self._roots[0]}?")
        if attempt >= self.options.retry.attempts:
            status = 504 if error.timed_out else 502
            self._count_failed_image(message, status)
            raise ServerError(message, status)
        self.pace.pause(backoff(attempt - 1, self.options.retry, self._jitter))

    def _count_failed_image(self, message: str, status: int) -> None:
        self._failed_images += 1
        if self._failed_images >= _STOP_AFTER_FAILED_IMAGES:
            raise ServerBusyError(
                f"{message}; {self._failed_images} images in a row failed this way", status
            )

    def _error(self, failure: Failure, error: ErrorResponse) -> ServerError:
        message, status = self._described(error), error.status
        if failure is Failure.REFUSED:
            return RefusalError(message, status)
        if failure is Failure.NO_VISION:
            return ServerAccessError(
                f"{message}; this model accepts no images: name a vision model", status
            )
        if failure is Failure.ACCESS:
            hint = "; check the account"
            if status in (400, 401, 403, 407, 500):
                hint = f"; check the key in {self.server.key_variable}"
                if not self.server.key:
                    hint = f"; no key was sent: set {self.server.key_variable}"
            return ServerAccessError(message + hint, status)
        if failure is Failure.NO_MODEL:
            prefix = self.server.provider + ":" if self.server.provider else self._roots[0]
            return ServerAccessError(
                f"{message}; for its models run: cutline models --server {prefix}", status
            )
        if failure is Failure.NO_PATH:
            tried = " and ".join(f"{root}/chat/completions" for root in self.server.roots)
            return ServerAccessError(f"{message}; expected a chat API at {tried}", status)
        if failure is Failure.QUOTA:
            return ServerBusyError(message, status, error.retry_after_s)
        return ServerError(message, status, error.retry_after_s)

    def _described(self, error: ErrorResponse) -> str:
        status = "" if error.status in (0, 200) else f"HTTP {error.status}: "
        return f"{self._label}: {status}{error.message}"

    @property
    def _label(self) -> str:
        return f"{self.model}@{self.server.label}"


def _optional(body: Mapping[str, Any]) -> list[str]:
    return [name for name in body if name not in ("model", "messages")]


async def _read_limited(response: Any) -> bytes | None:
    """The response's body; None if it is longer than `MAX_RESPONSE_BYTES`."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_RESPONSE_BYTES:
            return None
    return bytes(content)


def to_jpeg(picture: Image.Image, side_px: int) -> str:
    """An image as base64 of a JPEG without metadata, neither side longer than `side_px`.

    Sides shorter than 32 pixels are filled up with white: some models refuse smaller images.
    """
    if max(picture.size) > side_px:
        picture = ImageOps.contain(picture, (side_px, side_px), Image.Resampling.LANCZOS)
    size = max(_LEAST_SIDE_PX, picture.width), max(_LEAST_SIDE_PX, picture.height)
    clean = Image.new("RGB", size, "white")  # Pillow writes a comment in `info` into the JPEG
    clean.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
