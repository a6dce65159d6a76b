"""A client for WordPress's REST API: discovery, application passwords, retries and pages.

The password is sent with HTTPS or to this machine only, and never to another origin: redirects are
not followed once it is known where the API is. Proxies of the environment are ignored, because a
proxy would see a password that goes to this machine.
"""

from __future__ import annotations

import json
import random
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import httpx

from cutline.errors import FetchError
from cutline.http_retry import BUSY, GATEWAY, retry_after
from cutline.site.wordpress.credentials import (
    Credentials,
    check_transport,
    origin,
    site_address,
)

PAGE_SIZE = 100

_BUSY = BUSY | GATEWAY
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LINK = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?https://api\.w\.org/\"?", re.IGNORECASE)
_LINK_ELEMENT = re.compile(r"<link\b[^>]*>", re.IGNORECASE)
_API_REL = re.compile(r"rel\s*=\s*[\"']https://api\.w\.org/[\"']", re.IGNORECASE)
_HREF = re.compile(r"href\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)
_WRONG_PASSWORD = frozenset(
    "incorrect_password invalid_username invalid_email invalid_application_credentials".split()
)
_MOST_REDIRECTS = 5
_HEAD_CHARS = 500_000  # of the home page, which is searched for links


@dataclass(frozen=True)
class RetryOptions:
    """How failed requests are repeated."""

    attempts: int = 5
    """Requests for one answer while the server is busy or does not answer."""

    first_s: float = 0.5
    """The first wait where the server names none; each further wait is twice as long."""

    longest_s: float = 120.0
    """The longest wait that a server may ask for; a longer one ends the run."""

    timeout_s: float = 60.0
    """For one request."""


class Api:
    """The REST API of one site, for one user.

    Args:
        url: the site's address.
        credentials: who asks.
        options: how failed requests are repeated.
        transport: how requests are sent; None is the network.
        sleep: waits, for tests.

    Attributes:
        site: the site's address, with a slash at the end.
        index: what the API says about itself: name, namespaces, authentication, routes.

    Raises:
        OptionError: the address is neither HTTPS nor on this machine, or contains a password.
        FetchError: there is no WordPress, its API is off, or it accepts no application passwords.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        options: RetryOptions = RetryOptions(),
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.site = site_address(url)
        self._credentials = credentials
        self._options = options
        self._sleep = sleep
        self._client = httpx.Client(
            transport=transport,
            timeout=options.timeout_s,
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "cutline", "Accept": "application/json, text/html;q=0.5"},
        )
        weakref.finalize(self, self._client.close)
        self.home_page = ""
        try:
            self._root, self.index = self._discover()
            self._check_index()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        """Return the API."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def user(self) -> str:
        """The name of the user who asks."""
        return self._credentials.user

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The parts of the API that WordPress and its plugins add, such as "wp/v2"."""
        names = self.index.get("namespaces")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON answer to a GET request.

        Args:
            path: of the route, such as "/wp/v2/posts/3".
            parameters: of the query.

        Raises:
            FetchError: the request failed; `status` has the HTTP status.
        """
        return self._json(self._request("GET", path, parameters))

    def pages(
        self, path: str, *, first: int = 1, **parameters: Any
    ) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
        """The items of a collection, in pages of 100.

        Args:
            path: of the route.
            first: the number of the first page, from 1.
            parameters: of the query.

        Yields:
            The number of a page, the number of pages, and its items.

        Raises:
            FetchError: a request failed.
        """
        number, total = first, first
        while number <= total:
            wanted = {**parameters, "per_page": PAGE_SIZE, "page": number}
            try:
                response = self._request("GET", path, wanted)
            except FetchError as error:
                if error.status == 400 and "rest_post_invalid_page_number" in str(error):
                    return  # items were deleted in the meantime
                raise
            items = self._json(response)
            if not isinstance(items, list):
                raise FetchError(self._url(path), "protocol", "got no list from the API")
            try:
                total = int(response.headers.get("X-WP-TotalPages", "0"))
            except ValueError:
                total = 0
            if not total and len(items) == PAGE_SIZE:  # a proxy removed the header
                total = number + 1
            yield number, max(total, number), [each for each in items if isinstance(each, dict)]
            number += 1

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON answer to a POST request with JSON; it is not repeated if nothing came back.

        Raises:
            FetchError: the request failed; `code` is "timeout" or "connect" if it may have been
                carried out all the same.
        """
        return self._json(self._request("POST", path, {"context": "edit"}, body))

    # Discovery

    def _discover(self) -> tuple[str, dict[str, Any]]:
        """The address of the API, and its index; the home page is kept.

        The password is sent only if the API asks for it.
        """
        response, address = self._anonymous(self.site)
        if origin(address) != origin(self.site):
            if _bare_host(address) != _bare_host(self.site):
                raise FetchError(
                    self.site,
                    "redirects",
                    f"it redirects to {origin(address)}; give that address if it is the right one",
                )
            self.site = origin(address) + urlsplit(self.site).path
        self.home_page = response.text[:_HEAD_CHARS]
        roots = [*_api_links(response.headers.get("Link", ""), self.home_page)]
        roots += [urljoin(self.site, "wp-json/"), f"{self.site}?rest_route=/"]
        problem = ""
        for root in dict.fromkeys(urljoin(self.site, each) for each in roots):
            if origin(root) != origin(self.site):
                problem = f"its API is at another address ({root}); give that site's address"
                continue
            try:
                answer, there = self._anonymous(root)
                if origin(there) != origin(self.site):
                    continue
                if answer.status_code in (401, 403):  # a plugin hides the API from visitors
                    answer = self._send("GET", there, self._credentials.header, None)
                index = answer.json() if answer.status_code == 200 else None
            except (FetchError, ValueError):
                continue
            if isinstance(index, dict) and "namespaces" in index:
                return there, index
            if answer.status_code in (401, 403):
                problem = "its REST API is switched off or only for members; allow it for this user"
        raise FetchError(
            self.site, "protocol", problem or "there is no WordPress REST API; check the address"
        )

    def _anonymous(self, url: str) -> tuple[httpx.Response, str]:
        """A response without the password, and its address after redirects."""
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send("GET", url, None, None)
            if response.status_code not in _REDIRECTS:
                return response, url
            url = urljoin(url, response.headers.get("Location", ""))
            check_transport(url)
        raise FetchError(self.site, "redirects", "it redirects too often")

    def _check_index(self) -> None:
        if "wp/v2" not in self.namespaces:
            raise FetchError(self.site, "protocol", "its API lacks wp/v2; check its plugins")
        methods = self.index.get("authentication")
        if not (isinstance(methods, dict) and "application-passwords" in methods):
            raise FetchError(
                self.site,
                "credentials",
                "it accepts no application passwords; they need HTTPS (or "
                "WP_ENVIRONMENT_TYPE local), and security plugins can switch them off",
            )

    # Requests

    def _url(self, path: str, parameters: Mapping[str, Any] | None = None) -> str:
        """The address of a route, with or without pretty permalinks."""
        parts = urlsplit(self._root)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if any(name == "rest_route" for name, _ in query):
            query = [
                (name, (value.rstrip("/") + path) if name == "rest_route" else value)
                for name, value in query
            ]
            base = parts.path
        else:
            base = parts.path.rstrip("/") + path
        query += [(name, _plain(value)) for name, value in (parameters or {}).items()]
        return urlunsplit((parts.scheme, parts.netloc, base, urlencode(query), ""))

    def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        url = self._url(path, parameters)
        check_transport(url)
        response = self._send(method, url, self._credentials.header, body)
        if response.status_code in _REDIRECTS:
            target = urljoin(url, response.headers.get("Location", ""))
            raise FetchError(
                self._url(path),
                "redirects",
                f"it redirects to {origin(target)}, where the password is not sent; give that "
                "address as the site's",
                response.status_code,
            )
        if response.status_code >= 400:
            raise FetchError(
                self._url(path), "status", explain(response, self.user), response.status_code
            )
        return response

    def _send(
        self, method: str, url: str, authorization: str | None, body: Mapping[str, Any] | None
    ) -> httpx.Response:
        """The response of a request, repeated while the server is busy.

        A POST is repeated only after a response that says that nothing was done.
        """
        headers = {"Authorization": authorization} if authorization else {}
        wait = self._options.first_s
        for attempt in range(1, self._options.attempts + 1):
            last = attempt == self._options.attempts
            try:
                response = self._client.request(method, url, headers=headers, json=body)
            except httpx.HTTPError as error:
                code = "timeout" if isinstance(error, httpx.TimeoutException) else "connect"
                if last or method != "GET":
                    reason = f"no answer ({type(error).__name__})"
                    raise FetchError(_shown(url), code, reason) from error
                self._sleep(wait * random.uniform(0.8, 1.2))
                wait *= 2
                continue
            busy = response.status_code in ((429, 503) if method != "GET" else _BUSY)
            if not busy or last:
                return response
            asked = retry_after(response.headers)
            if asked is not None and asked > self._options.longest_s:
                raise FetchError(
                    _shown(url),
                    "status",
                    f"it is busy and asks to come back in {asked:.0f} s; run the command then",
                    response.status_code,
                )
            self._sleep(asked if asked is not None else wait * random.uniform(0.8, 1.2))
            wait *= 2
        raise AssertionError("unreachable")

    def _json(self, response: httpx.Response) -> Any:
        """The JSON of a response; text that a plugin prints before it is left out."""
        text = response.text.lstrip("\ufeff \r\n\t")
        try:
            return json.loads(text)
        except ValueError:
            start = min((text.find(each) for each in "[{" if each in text), default=-1)
            try:
                return json.JSONDecoder().raw_decode(text, max(start, 0))[0]
            except ValueError as error:
                raise FetchError(
                    _shown(str(response.request.url)), "protocol", "its answer is not JSON"
                ) from error


def _bare_host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower().removeprefix("www.")


def explain(response: httpx.Response, user: str) -> str:
    """Why the API refused a request, in plain words, with its own code and message."""
    code, message = "", ""
    try:
        answer = response.json()
        code, message = str(answer.get("code", "")), str(answer.get("message", ""))
    except (ValueError, AttributeError):
        pass
    status = response.status_code
    if code in _WRONG_PASSWORD:
        reason = (
            f"{user!r} or the application password is wrong; create one in WordPress under Users, "
            "Profile, Application Passwords (the login password does not work)"
        )
    elif code == "application_passwords_disabled" or code.startswith("application_passwords_"):
        reason = f"application passwords are switched off for {user!r}"
    elif status in (401, 403) and not code:
        reason = f"the server, or a firewall before WordPress, refused it (status {status})"
    elif status == 401:
        reason = (
            f"{user!r} or the application password is wrong (the login password does not work), "
            "or the server drops the Authorization header (Apache: CGIPassAuth On)"
        )
    elif status == 403:
        reason = f"{user!r} has no permission for this; use an editor or administrator"
    elif status == 400 and "status" in message:
        reason = f"{user!r} may not read posts with this status; leave out --drafts and --private"
    elif status == 404:
        reason = "it is not there (any more)"
    elif status == 429:
        reason = "it is busy (too many requests); run the command again later"
    elif status >= 500:
        reason = f"the server failed (status {status})"
    else:
        reason = f"the server refused it (status {status})"
    detail = " ".join(unescape(re.sub(r"<[^>]*>", "", message)).split())[:200]
    return f"{reason} [{code}: {detail}]" if code else reason


def _api_links(header: str, page: str) -> Iterator[str]:
    """The addresses of the API that a page's Link header and link elements give."""
    for match in _LINK.finditer(header):
        yield match[1]
    for element in _LINK_ELEMENT.findall(page):
        if _API_REL.search(element) and (href := _HREF.search(element)):
            yield unescape(href[1])


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def _shown(url: str) -> str:
    """A URL for messages, without its query."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name == "rest_route"]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(kept), ""))
