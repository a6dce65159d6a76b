"""HTTP client for URLs that others choose: rate-limited, bounded and safe against SSRF.

With `public_only`, what keeps a request out of one's own network (OWASP, Server-Side Request
Forgery Prevention) is decided where the connection is made, not where the URL is read: each name is
resolved once, every address it gives must be a public one, and the socket is opened to that very
address, so neither a redirect nor a name that changes its mind in between leads elsewhere. TLS
and the Host header keep the name. Connections are direct: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are
ignored, because a proxy would choose the address. There is no cookie, no credential.
"""

from __future__ import annotations

import random
import re
import ssl
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

from cutline.errors import FetchError, MissingExtraError, OptionError
from cutline.fetch.rate_limit import HostLimiter
from cutline.fetch.ssrf import (
    Backend,
    Clock,
    PrivateHost,
    Refusal,
    Resolve,
    is_address,
    is_public,
    private_host,
    system_resolver,
)
from cutline.http_retry import BUSY, GATEWAY, retry_after
from cutline.media_type import HEAD_BYTES, identify, may_be_svg, sniff

__all__ = [
    "PUBLIC_PORTS",
    "FetchOptions",
    "Fetched",
    "Fetcher",
    "PrivateHost",
    "Resolve",
    "is_address",
    "is_public",
    "private_host",
    "sniff",
]

PUBLIC_PORTS = frozenset({80, 443, 8080, 8443})
MAX_URL_CHARS = 8000
_ROBOTS_BYTES = 500_000
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class FetchOptions:
    """Limits and behavior of a `Fetcher`.

    Raises:
        OptionError: a number is out of its range.
    """

    max_bytes: int = 20_000_000
    """The most a body may hold, decoded."""

    timeout_s: float = 20.0
    """For one attempt, from the name to the last byte, redirects included."""

    max_redirects: int = 5
    """How many redirects are followed; each is checked as the first URL was."""

    public_only: bool = False
    """Refuse addresses that are not public, and ports other than 80, 443, 8080, 8443."""

    private_host: PrivateHost | None = None
    """The one host that `public_only` allows on a private network, see `fetch.private_host`."""

    images_only: bool = True
    """Refuse content whose first bytes are not those of an image, whatever its declared type."""

    user_agent: str = ""
    """The User-Agent header; "" is Cutline and its version."""

    host_delay_s: float = 0.0
    """Seconds between the starts of two requests to one host."""

    host_concurrency: int = 2
    """Requests to one host at a time."""

    retries: int = 2
    """After a failure that may pass: no connection, a broken one, status 408, 425, 429, 502, 503,
    504 or 529."""

    max_wait_s: float = 30.0
    """The most we wait before a retry, even if Retry-After asks for more; then it is a failure."""

    robots: bool = False
    """Obey each host's robots.txt (RFC 9309)."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("max_bytes", "timeout_s", "host_concurrency"):
            if not getattr(self, name) > 0:
                raise OptionError(f"got {name} {getattr(self, name)}; expected more than 0")
        for name in ("max_redirects", "host_delay_s", "retries", "max_wait_s"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"got {name} {getattr(self, name)}; expected at least 0")


@dataclass(frozen=True)
class Fetched:
    """The response of a URL.

    Attributes:
        url, final_url: what was asked for, and what answered after redirects.
        status: 200, or 304 if it is `not_modified`.
        media_type: by the first bytes, or, where these tell nothing, as declared.
        declared: the media type by the server's word; "" if it gave none.
        etag, last_modified: to ask with the next time; "" if it gave none.
    """

    url: str
    final_url: str
    status: int
    media_type: str = ""
    declared: str = ""
    content: bytes = field(default=b"", repr=False)
    etag: str = ""
    last_modified: str = ""
    not_modified: bool = False


class Fetcher:
    """Fetches URLs from any number of threads.

    Args:
        options: how; None is the default.
        resolve: for names, instead of the system's resolver.

    Raises:
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self, options: FetchOptions | None = None, *, resolve: Resolve | None = None
    ) -> None:
        try:
            import httpcore
            import httpx  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("fetching", "site") from error
        self.options = options or FetchOptions()
        self._closing = threading.Event()
        self._turns = HostLimiter(
            self.options.host_concurrency,
            self.options.host_delay_s,
            self.options.public_only,
            self._closing,
        )
        self._clock = Clock()
        self._robots: dict[str, Any] = {}
        backend: Any = Backend(
            resolve or system_resolver,
            self._clock,
            self.options.public_only,
            self.options.private_host,
        )
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(),
            max_connections=None,
            max_keepalive_connections=0 if self.options.public_only else 20,
            keepalive_expiry=5.0,
            network_backend=backend,
        )

    def __enter__(self) -> Self:
        """Return the fetcher."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the fetcher."""
        self.close()

    def close(self) -> None:
        """Close all connections; waiting calls give up."""
        self._closing.set()
        self._turns.wake()
        self._pool.close()

    def fetch(self, url: str, *, etag: str = "", last_modified: str = "") -> Fetched:
        """Fetch one URL, unless it has not changed.

        Args:
            url: absolute, http or https.
            etag, last_modified: as it gave them before; "" asks for it in any case.

        Raises:
            FetchError: the URL cannot be fetched, or must not be; `code` says why.
        """
        asked = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        attempt = 0
        while True:
            self._clock.ends_s = time.monotonic() + self.options.timeout_s
            try:
                return self._follow(url, {name: value for name, value in asked.items() if value})
            except Refusal as refusal:
                wait_s = refusal.wait_s
                if wait_s is None:
                    wait_s = min(self.options.max_wait_s, 0.5 * 2**attempt) * random.uniform(0.5, 1)
                last = attempt == self.options.retries or wait_s > self.options.max_wait_s
                if last or not refusal.transient or self._closing.wait(wait_s):
                    shown = _without_credentials(url) if refusal.code == "credentials" else url
                    raise FetchError(
                        shown, refusal.code, refusal.reason, refusal.status
                    ) from refusal.__cause__
                attempt += 1

    def _follow(self, url: str, asked: Mapping[str, str]) -> Fetched:
        target = self._checked(url)
        for _ in range(self.options.max_redirects + 1):
            if self.options.robots:
                self._ask_robots(target)
            with self._exchange(target, asked) as (status, headers, body):
                if status not in _REDIRECTS or "location" not in headers:
                    return self._fetched(url, str(target), status, headers, body, bool(asked))
            target = self._redirected(target, headers["location"])
        raise Refusal(
            "redirects", f"got more than {self.options.max_redirects} redirects; expected fewer"
        )

    def _redirected(self, target: Any, location: str) -> Any:
        import httpx

        where = f"redirects to {location[:200]!r}"
        try:
            return self._checked(str(target.join(location)))
        except httpx.InvalidURL as error:
            raise Refusal("redirects", f"{where}, which is no URL") from error
        except Refusal as refusal:
            code = "redirects" if refusal.code == "url" else refusal.code
            raise Refusal(code, f"{where}: {refusal.reason}") from refusal

    def _checked(self, url: str) -> Any:
        """The URL, parsed, if it may be asked for at all; addresses are checked on connecting."""
        import httpx

        if len(url) > MAX_URL_CHARS:
            raise Refusal("url", f"got {len(url)} characters; expected at most {MAX_URL_CHARS}")
        try:
            parsed = httpx.URL(url.strip())
        except httpx.InvalidURL as error:
            raise Refusal("url", f"is no URL ({error}); expected http:// or https://") from error
        if parsed.scheme not in ("http", "https"):
            raise Refusal(
                "scheme", f"got {parsed.scheme or 'no scheme'}; expected http:// or https://"
            )
        if parsed.userinfo:
            raise Refusal("credentials", "got a user or password in it; expected none")
        host = parsed.raw_host.decode("ascii", "replace")
        bare = ":" not in host and (len(host) > 253 or not re.fullmatch(r"[\w.-]+", host, re.A))
        if not host or bare or "%" in host or not 0 < (parsed.port or 80) < 65536:
            raise Refusal("url", "got no valid host and port; expected http://host/ or the like")
        if self.options.public_only:
            port = parsed.port or (443 if parsed.scheme == "https" else 80)
            trusted = self.options.private_host
            own = trusted is not None and (trusted.name, trusted.port) == (host.lower(), port)
            if port not in PUBLIC_PORTS and not own:
                ports = ", ".join(map(str, sorted(PUBLIC_PORTS)))
                raise Refusal("port", f"got port {port}; expected one of {ports}")
            last = host.rstrip(".").rpartition(".")[2]
            if re.fullmatch(r"\d+|0x[0-9a-f]*", last, re.I) and not is_address(host):
                raise Refusal("address", "got an odd spelling of an address; expected a name")
        return parsed

    @contextmanager
    def _exchange(
        self, target: Any, asked: Mapping[str, str]
    ) -> Iterator[tuple[int, dict[str, str], Iterator[bytes]]]:
        """One request: status, headers by lower-case name, body as it comes."""
        import httpcore

        headers = {
            "Host": target.netloc.decode("ascii"),
            "User-Agent": self.options.user_agent or _introduction(),
            "Accept": "image/*,*/*;q=0.5" if self.options.images_only else "*/*",
            "Accept-Encoding": "identity",
            **asked,
        }
        url = httpcore.URL(
            scheme=target.raw_scheme,
            host=target.raw_host,
            port=target.port,
            target=target.raw_path,
        )
        raw = [(name, value.encode("latin-1", "replace")) for name, value in headers.items()]
        with (
            self._turns.turn(target.host, self._clock),
            _typed(),
            self._pool.stream("GET", url, headers=raw) as response,
        ):
            found = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            }
            yield response.status, found, response.iter_stream()

    def _fetched(
        self,
        url: str,
        final_url: str,
        status: int,
        headers: Mapping[str, str],
        body: Iterator[bytes],
        asked: bool,
    ) -> Fetched:
        etag, last_modified = headers.get("etag", ""), headers.get("last-modified", "")
        if status == 304 and asked:
            return Fetched(url, final_url, 304, "", "", b"", etag, last_modified, True)
        if status not in (200, 203):
            wait_s = retry_after(headers) if status in BUSY | GATEWAY else None
            if wait_s:
                self._turns.pause(final_url, min(wait_s, self.options.max_wait_s))
            raise Refusal("status", f"the server answers {_status(status)}", status, wait_s)
        declared = headers.get("content-type", "").partition(";")[0].strip().lower()
        content = self._read(headers, body, declared)
        media_type = sniff(content) or declared
        return Fetched(url, final_url, status, media_type, declared, content, etag, last_modified)

    def _read(self, headers: Mapping[str, str], body: Iterator[bytes], declared: str) -> bytes:
        most = self.options.max_bytes
        too_large = Refusal("too-large", f"got more than {most:,} bytes; expected at most that")
        if (length := headers.get("content-length", "")).isdigit() and int(length) > most:
            raise too_large
        content = bytearray()
        sniffed = not self.options.images_only
        for chunk in _decoded(body, headers.get("content-encoding", ""), most + 1):
            content += chunk
            if len(content) > most:
                raise too_large
            if not sniffed and len(content) >= HEAD_BYTES and not may_be_svg(content):
                _expect_image(content, declared)
                sniffed = True
        if not sniffed:
            _expect_image(content, declared)
        return bytes(content)

    def _ask_robots(self, target: Any) -> None:
        origin = f"{target.scheme}://{target.netloc.decode('ascii')}"
        if origin not in self._robots:
            self._robots[origin] = self._read_robots(target.copy_with(raw_path=b"/robots.txt"))
        rules = self._robots[origin]
        if rules is None:
            raise Refusal("robots", "its robots.txt cannot be read now, which forbids everything")
        if not rules.can_fetch(str(target), self.options.user_agent or _introduction()):
            raise Refusal("robots", "its robots.txt forbids it")

    def _read_robots(self, target: Any) -> Any:
        """The rules of a host; None if it fails to say, which RFC 9309, 2.3.1.4, reads as no."""
        try:
            from protego import Protego
        except ImportError as error:
            raise MissingExtraError("reading robots.txt", "site") from error
        for _ in range(self.options.max_redirects + 1):
            with self._exchange(target, {}) as (status, headers, body):
                if status in _REDIRECTS and "location" in headers:
                    target = self._redirected(target, headers["location"])
                    continue
                text = bytearray()
                if status == 200:
                    for chunk in _decoded(body, headers.get("content-encoding", ""), _ROBOTS_BYTES):
                        text += chunk
                        if len(text) >= _ROBOTS_BYTES:
                            break
                return None if status >= 500 else Protego.parse(text.decode("utf-8", "replace"))
        return Protego.parse("")


@contextmanager
def _typed() -> Iterator[None]:
    """Turn what a connection raises into a refusal."""
    import httpcore

    try:
        yield
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise Refusal("timeout", "got no whole answer in time") from error
    except httpcore.ConnectError as error:
        if isinstance(error.__context__, ssl.SSLError):
            raise Refusal("tls", f"its certificate or TLS is not accepted ({error})") from error
        raise Refusal("connect", f"no connection ({error})") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise Refusal("protocol", f"the connection broke ({error})") from error


def _decoded(body: Iterable[bytes], encoding: str, most: int) -> Iterator[bytes]:
    """A body without its Content-Encoding, at most `most` bytes at a time.

    We ask for none, so only the old ones, which some servers send all the same, are undone.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        yield from body
        return
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Refusal("protocol", f"got Content-Encoding {name[:50]!r}; expected none")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for chunk in body:
            yield inflate.decompress(chunk, most)
            while inflate.unconsumed_tail:
                yield inflate.decompress(inflate.unconsumed_tail, most)
    except zlib.error as error:
        raise Refusal("protocol", f"its {name} is damaged ({error})") from error


def _expect_image(content: bytes | bytearray, declared: str) -> None:
    kind = identify(content)
    if kind is None or not kind.media_type.startswith("image/"):
        what = "bytes of no known image format" if content else "nothing"
        if kind is not None:
            what = kind.what
        called = f", declared as {declared[:80]}" if declared else ""
        raise Refusal("not-an-image", f"got {what}{called}; expected an image")


def _status(status: int) -> str:
    from http import HTTPStatus

    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _without_credentials(url: str) -> str:
    return re.sub(r"(//)[^/?#]*@", r"\1", url)


@cache
def _tls() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(trust_env=False)


@cache
def _introduction() -> str:
    from importlib.metadata import version

    return f"Cutline/{version('cutline')}"
