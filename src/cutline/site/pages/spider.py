"""The crawler's fetching process: requests pages with Scrapy and parses the responses.

Scrapy's reactor can run only once per process, so it has a process of its own. This one keeps no
state and decides nothing: tasks come through a pipe, answers go back through it, and when the pipe
breaks because the parent was killed, the process ends.

Connections are direct: HTTP_PROXY and its relatives are ignored, as for images (`cutline.fetch`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from multiprocessing.connection import Connection
from typing import Any

import ada_url
import scrapy
from lxml import etree  # type: ignore[import-untyped]
from protego import Protego
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest, StopDownload
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import HtmlResponse, Response
from scrapy.linkextractors import IGNORED_EXTENSIONS
from scrapy.utils.gz import gunzip, gzip_magic_number
from scrapy.utils.url import url_has_any_extension
from twisted.python.failure import Failure
from w3lib.encoding import http_content_type_encoding
from w3lib.url import safe_url_string

from cutline.site.model import Page
from cutline.site.pages.crawl_types import (
    DEAD,
    FORBIDDEN,
    PAGE,
    READ,
    ROBOTS,
    SITEMAP,
    SKIPPED,
    Answer,
    CrawlOptions,
    Task,
    host,
    on_site,
)
from cutline.site.pages.scan import decode, occurrences_in_html
from cutline.site.urls import normalise_url

_LINKS = "//a/@href | //area/@href | //iframe/@src | //frame/@src"
_NO_PAGES = frozenset(f".{suffix}" for suffix in IGNORED_EXTENSIONS)


def serve(pipe: Connection, options: CrawlOptions, hosts: Sequence[str]) -> None:
    """Fetch what comes through the pipe, lists of `Task`, until None comes; send `Answer`s back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    process = CrawlerProcess(_settings(options))
    process.crawl(_Spider, pipe=pipe, hosts=list(hosts), options=options)
    process.start(install_signal_handlers=False)
    pipe.close()


def _settings(options: CrawlOptions) -> dict[str, Any]:
    return {
        "AUTOTHROTTLE_ENABLED": options.throttle,
        "AUTOTHROTTLE_MAX_DELAY": 60.0,
        "AUTOTHROTTLE_START_DELAY": max(options.delay_s, 0.05),
        "AUTOTHROTTLE_TARGET_CONCURRENCY": float(options.per_host),
        "CONCURRENT_REQUESTS": options.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": options.per_host,
        "DOWNLOADER_MIDDLEWARES": {_StaysOnSite: 50},
        "DOWNLOAD_DELAY": options.delay_s,
        "DOWNLOAD_MAXSIZE": options.max_bytes,
        "DOWNLOAD_TIMEOUT": options.timeout_s,
        "DOWNLOAD_WARNSIZE": 0,
        "HTTPERROR_ALLOW_ALL": True,
        "HTTPPROXY_ENABLED": False,
        "LOG_ENABLED": options.log,
        "LOG_LEVEL": "INFO",
        "MEMUSAGE_ENABLED": False,
        "REDIRECT_MAX_TIMES": 10,
        "REMOTE_CONTROL_ENABLED": False,
        "RETRY_TIMES": options.retries,
        "ROBOTSTXT_OBEY": options.robots,
        "TELNETCONSOLE_ENABLED": False,
        "USER_AGENT": options.user_agent,
    }


class _StaysOnSite:
    """Refuses redirects that leave the site."""

    def __init__(self, crawler: Any) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Any) -> _StaysOnSite:
        return cls(crawler)

    def process_request(self, request: scrapy.Request) -> None:
        task: Task | None = request.meta.get("task")
        if task and not task.first and not self._crawler.spider.on_site(request.url):
            raise IgnoreRequest("leads off the site")


class _Spider(scrapy.Spider):
    name = "cutline"

    def __init__(self, pipe: Connection, hosts: list[str], options: CrawlOptions) -> None:
        super().__init__()
        self._pipe, self._hosts, self._options = pipe, hosts, options

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> _Spider:
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.stop_download, signals.headers_received)
        return spider

    def on_site(self, url: str) -> bool:
        return on_site(normalise_url(url), self._hosts, self._options.subdomains)

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Each task that the parent sends, as it comes."""
        tasks: asyncio.Queue[list[Task] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def listen() -> None:
            try:
                while (batch := self._pipe.recv()) is not None:
                    loop.call_soon_threadsafe(tasks.put_nowait, batch)
                loop.call_soon_threadsafe(tasks.put_nowait, None)
            except (EOFError, OSError):
                os._exit(1)  # the parent is gone

        threading.Thread(target=listen, daemon=True).start()
        while (batch := await tasks.get()) is not None:
            for task in batch:
                yield scrapy.Request(
                    task.url,
                    self.parse,
                    errback=self.failed,
                    dont_filter=True,
                    meta={"task": task, "dont_obey_robotstxt": task.what != PAGE},
                )

    def stop_download(
        self, headers: Any, body_length: int, request: scrapy.Request, spider: scrapy.Spider
    ) -> None:
        """Spare the body of what is no HTML."""
        task: Task | None = request.meta.get("task")
        media = (headers.get("Content-Type") or b"").lower()
        if task and task.what == PAGE and media and b"html" not in media and b"xml" not in media:
            raise StopDownload(fail=False)

    def parse(self, response: Response) -> None:
        task: Task = response.meta["task"]
        try:
            answer = _READERS[task.what](self, task, response)
        except Exception as error:  # one page must not end a crawl
            reason = f"cannot be read: {type(error).__name__}: {error}"
            answer = Answer(task, DEAD, Page(task.url, status=response.status, error=reason))
        self._answer(answer)

    def failed(self, failure: Failure) -> None:
        task: Task = failure.request.meta["task"]  # type: ignore[attr-defined]
        reason = " ".join(str(failure.value).split()) or type(failure.value).__name__
        outcome = DEAD
        if isinstance(failure.value, IgnoreRequest):
            if "robots.txt" in reason:
                outcome, reason = FORBIDDEN, "forbidden by robots.txt"
            elif "off the site" in reason:
                outcome = SKIPPED
        else:
            reason = f"{type(failure.value).__name__}: {reason}"
        self._answer(Answer(task, outcome, Page(task.url, error=reason)))

    def _answer(self, answer: Answer) -> None:
        try:
            self._pipe.send(answer)
        except OSError:
            os._exit(1)  # the parent is gone

    def _read_page(self, task: Task, response: Response) -> Answer:
        url = normalise_url(response.url)
        if task.first and host(url) not in self._hosts:
            self._hosts.append(host(url))
        if response.status >= 400:
            reason = f"HTTP {response.status} {_phrase(response.status)}".strip()
            return Answer(task, DEAD, Page(url, status=response.status, error=reason))
        if not isinstance(response, HtmlResponse):
            return Answer(task, SKIPPED, Page(url, status=response.status, error="no HTML"))
        media = (response.headers.get("Content-Type") or b"").decode("latin-1")
        text, _ = decode(response.body, http_content_type_encoding(media) or "")
        page, occurrences = occurrences_in_html(text, page=url, xhtml="xhtml" in media.lower())
        checksum = hashlib.sha256(response.body).hexdigest()
        base = _base_of(response, url)
        canonical = response.xpath("//link[@rel='canonical']/@href").get("")
        return Answer(
            task,
            READ,
            replace(page, sha256=checksum, status=response.status),
            tuple(dict.fromkeys(self._links_of(response, base))),
            canonical=normalise_url(canonical, base) if canonical else "",
            occurrences=tuple(occurrences),
        )

    def _links_of(self, response: HtmlResponse, base: str) -> Iterator[str]:
        """The pages of the site that a page links to."""
        for href in response.xpath(_LINKS).getall():
            url = ""
            with suppress(ValueError):
                url = normalise_url(safe_url_string(href.strip(), response.encoding), base)
            if url and self.on_site(url) and not url_has_any_extension(url, _NO_PAGES):
                yield url

    def _read_robots(self, task: Task, response: Response) -> Answer:
        text = response.body.decode("utf-8", "replace") if response.status == 200 else ""
        rules = Protego.parse(text)
        delay = rules.crawl_delay(self._options.user_agent)
        if delay and self._options.robots:
            self._slow_down(min(float(delay), 60.0))
        sitemaps = [normalise_url(one, task.url) for one in rules.sitemaps]
        found = tuple(one for one in sitemaps if one) or (normalise_url("/sitemap.xml", task.url),)
        return Answer(task, READ, Page(task.url, status=response.status), sitemaps=found)

    def _slow_down(self, delay_s: float) -> None:
        """Keep the pause that robots.txt asks for."""
        throttle = self.crawler.get_extension(AutoThrottle)
        if throttle is not None:
            throttle.mindelay = max(throttle.mindelay, delay_s)
        for slot in self.crawler.engine.downloader.slots.values():
            slot.delay = max(slot.delay, delay_s)

    def _read_sitemap(self, task: Task, response: Response) -> Answer:
        page = Page(task.url, status=response.status)
        body = response.body
        if response.status != 200 or not body:
            return Answer(task, SKIPPED, page)
        if gzip_magic_number(response):
            body = gunzip(body, max_size=self._options.max_bytes)
        pages, sitemaps = read_sitemap(body, task.url)
        return Answer(
            task,
            READ,
            page,
            tuple(filter(self.on_site, pages)),
            tuple(filter(self.on_site, sitemaps)),
        )


_READERS = {
    PAGE: _Spider._read_page,
    ROBOTS: _Spider._read_robots,
    SITEMAP: _Spider._read_sitemap,
}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def read_sitemap(body: bytes, url: str) -> tuple[list[str], list[str]]:
    """The pages that a sitemap lists, and the sitemaps that a sitemap index lists.

    Understands the formats of sitemaps.org and of search engines: XML, an index of sitemaps, RSS
    2.0, Atom, and text with one URL a line. Images and videos that an entry names are not pages.

    Args:
        body: the sitemap, decompressed.
        url: its own URL.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = text.decode("utf-16", "replace").lstrip().encode("utf-8", "replace")
        text = re.sub(rb"\A<\?xml[^>]*\?>", b"", text)  # which names the encoding it had
    if not text.startswith(b"<"):
        return _absolute(text.decode("utf-8", "replace").splitlines(), ""), []
    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError):
        root = None
    if root is None:
        return [], []

    def found(path: str) -> list[str]:
        """Texts or attributes at a path of local names, whatever the namespace."""
        steps = [
            step
            if step.startswith("@") or step == "text()"
            else re.sub(r"\A[\w-]+", lambda name: f"*[local-name()='{name[0]}']", step)
            for step in path.split("/")
        ]
        return _absolute(map(str, root.xpath("//" + "/".join(steps))), url)

    entries = found("entry/link[not(@rel) or @rel='alternate']/@href")
    pages = found("url/loc/text()") + found("item/link/text()") + entries
    return pages, found("sitemap/loc/text()")


def _absolute(urls: Iterable[str], base: str) -> list[str]:
    return [found for url in urls if (found := normalise_url(url.strip(), base))]


def _base_of(response: HtmlResponse, url: str) -> str:
    """What a page's relative URLs are relative to: its first `<base href>`, wherever it is."""
    base: str = response.xpath("//base[@href][1]/@href").get("")
    with suppress(ValueError):
        return str(ada_url.join_url(url, base.strip()))
    return url
