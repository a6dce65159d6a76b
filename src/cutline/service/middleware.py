"""Middleware for every request: authentication, rate and size limits, security headers, logging.

Only headers are checked before a request is accepted. Its body is counted as it arrives, whatever
Content-Length says.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import math
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cutline.service.problems import ProblemError
from cutline.service.settings import Settings, parse_rate

log = logging.getLogger("cutline.serve")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response that does not set them itself."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_HEADER_BYTES = 65_536
_UNGUARDED = ("/v1/openapi.json", "/v1/problems")
_PROBES = ("/healthz", "/readyz")  # load balancers and containers use addresses, not host names
HEAD_TOO = ("/", *_PROBES)
"""Paths that answer HEAD as GET, without a body."""


class RequestMiddleware:
    """Check host, key, rate and body of a request; add headers, metrics and a log entry.

    Only CORS middleware runs outside of it. The service is in the lifespan state. The middleware
    sets `request_id`, `client` and `charge` in the request state; routes set `code` and `images`
    for the log.

    Args:
        app: the wrapped application.
        settings: the limits and keys.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._keys = [_digest(key) for key in settings.keys]
        hosts = settings.hosts or (_LOOPBACK if settings.loopback else ("*",))
        self._hosts = frozenset() if "*" in hosts else frozenset(map(str.lower, hosts))
        self._rate = None if settings.rate is None else TokenBuckets(*parse_rate(settings.rate))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        headers = Headers(scope=scope)
        client_id = headers.get("x-request-id", "")
        request_id = client_id if _REQUEST_ID.fullmatch(client_id) else secrets.token_hex(8)
        state: dict[str, Any] = scope["state"]
        state["request_id"] = request_id
        body = _Body(receive, self._settings, state["service"].held)
        status = 0

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    response_headers.setdefault(name, value)
                response_headers["X-Request-ID"] = request_id
                if state.get("closing"):
                    response_headers["Connection"] = "close"
            await send(message)

        try:
            state["client"] = client = self._admit(scope, headers)
            state["charge"] = lambda images: self._charge(client, images)
            await self._app(scope, body.receive, send_response)
        except ClientDisconnect:
            status = 499  # nginx's code for a client that disconnected; only logged
        except Exception as error:
            problem = error if isinstance(error, ProblemError) else None
            if problem is None:
                log.exception("request failed", extra={"id": request_id})
                problem = ProblemError("internal", f"See the log entry of request {request_id}.")
            state["code"] = problem.code
            if not status:
                await problem.response()(scope, receive, send_response)
        finally:
            body.release()
            self._count(scope, status, time.monotonic() - began_s, body.received)

    def _admit(self, scope: Scope, headers: Headers) -> str:
        """Identify the client for rate limits and logs.

        Raises:
            ProblemError: the client is not allowed, or exceeds its rate.
        """
        path: str = scope["path"]
        host = _host(headers.get("host", ""))
        if self._hosts and host not in self._hosts and path not in _PROBES:
            raise ProblemError(
                "host-refused",
                f"got host {host[:100]!r}; expected an accepted host name (--hosts)",
            )
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            raise ProblemError("headers-too-large", "got headers of more than 64 KiB")
        client = _address(scope)
        if (path.startswith("/v1/") and path not in _UNGUARDED) or path in ("/wowme", "/metrics"):
            if self._keys:
                client = self._known(headers)
            if path != "/metrics":
                self._charge(client, 0)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._settings.max_body_mb * 1e6:
            raise _too_large(self._settings)
        return client

    def _known(self, headers: Headers) -> str:
        """A short digest of the request's API key."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(key)
        # Compare with every key, so that the time does not depend on which one matches.
        if not sum(hmac.compare_digest(digest, known) for known in self._keys):
            raise ProblemError(
                "unauthorized",
                "got no valid API key; expected Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return f"key-{digest.hex()[:8]}"

    def _charge(self, client: str, images: int) -> None:
        """Count images against the client's rate limit; 0 only checks that some are left."""
        if self._rate is None or (wait_s := self._rate.take(client, images)) == 0:
            return
        raise ProblemError(
            "rate-limited",
            f"got more images than {self._settings.rate}; "
            + (f"try again in {wait_s} s" if wait_s else "send fewer in one request"),
            headers={"Retry-After": str(wait_s)} if wait_s else None,
        )

    def _count(self, scope: Scope, status: int, seconds: float, received: int) -> None:
        route = getattr(scope.get("route"), "path", "other")
        state = scope["state"]
        metrics = state["service"].metrics
        metrics.requests.labels(scope["method"] if route != "other" else "", route, status).inc()
        metrics.latency.labels(route).observe(seconds)
        if code := state.get("code"):
            metrics.errors.labels(code).inc()
        quiet = route in (*_PROBES, "/metrics") and status == 200
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra={
                "id": state["request_id"],
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(seconds * 1e3, 1),
                "client": state.get("client", ""),
                "received_bytes": received,
                "images": state.get("images", 0),
                **({"code": code} if code else {}),
            },
        )


@dataclass
class MemoryBudget:
    """A limit on the memory for uploaded and fetched images.

    Attributes:
        limit_bytes: the maximum.
        bytes: bytes in use now.
    """

    limit_bytes: float
    bytes: int = 0

    def take(self, size: int) -> None:
        """Add bytes; the caller must call `release` even after an error.

        Raises:
            ProblemError: the limit is exceeded.
        """
        self.bytes += size
        if self.bytes > self.limit_bytes:
            raise ProblemError(
                "busy",
                "The memory limit for images in progress is reached; try again in 1 s.",
                headers={"Retry-After": "1"},
            )

    def release(self, size: int) -> None:
        """Release bytes."""
        self.bytes -= size

    @contextmanager
    def more(self, size: int) -> Iterator[None]:
        """Count bytes while the block runs; raises the errors of `take`."""
        try:
            self.take(size)
            yield
        finally:
            self.release(size)


class _Body:
    """A request body as it arrives, with a size limit and a timeout."""

    def __init__(self, receive: Receive, settings: Settings, held: MemoryBudget) -> None:
        self._receive = receive
        self._settings = settings
        self._held = held
        self._due_s = time.monotonic() + settings.upload_timeout_s
        self._whole = False
        self.received = 0

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # only a disconnect can follow
        try:
            async with asyncio.timeout(self._due_s - time.monotonic()):
                message = await self._receive()
        except TimeoutError as error:
            limit_s = self._settings.upload_timeout_s
            raise ProblemError(
                "upload-too-slow", f"the body took longer than {limit_s:g} s"
            ) from error
        if message["type"] != "http.request":
            return message
        self._whole = not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.received += size
        self._held.take(size)
        if self.received > self._settings.max_body_mb * 1e6:
            raise _too_large(self._settings)
        return message

    def release(self) -> None:
        self._held.release(self.received)


@dataclass
class TokenBuckets:
    """A token bucket for each client, refilled at a steady rate.

    Attributes:
        size: tokens in a full bucket.
        per_s: seconds to fill an empty bucket.
        clients: maximum number of buckets; a dropped client starts again with a full one.
    """

    size: int
    per_s: float
    clients: int = 10_000

    def __post_init__(self) -> None:
        """Start without clients."""
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, tokens: int) -> int | None:
        """Take tokens; 0 only checks that one is left.

        Returns:
            0 on success, else the seconds until enough tokens are there; None if never.
        """
        now_s = time.monotonic()
        left, since_s = self._left.pop(client, (float(self.size), now_s))
        left = min(self.size, left + (now_s - since_s) * self.size / self.per_s)
        wanted = max(1, tokens)
        enough = left >= wanted
        self._left[client] = (left - tokens if enough else left, now_s)
        if len(self._left) > self.clients:
            self._left.popitem(last=False)
        if enough:
            return 0
        return None if wanted > self.size else math.ceil((wanted - left) * self.per_s / self.size)


def _too_large(settings: Settings) -> ProblemError:
    limit = f"{settings.max_body_mb:g} MB"
    return ProblemError("body-too-large", f"got a larger body; expected at most {limit}")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _address(scope: Scope) -> str:
    """The client's address; for IPv6 its /64 network, which one client usually owns."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
