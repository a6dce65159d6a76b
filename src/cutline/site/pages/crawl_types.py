"""What the crawler and its fetching process exchange: options, tasks and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cutline.errors import OptionError
from cutline.site.model import ImageOccurrence, Page

PAGE, ROBOTS, SITEMAP = "page", "robots", "sitemap"
READ, DEAD, FORBIDDEN, SKIPPED = "read", "dead", "forbidden", "skipped"


@dataclass(frozen=True)
class CrawlOptions:
    """How to crawl.

    Attributes:
        max_pages: maximum number of pages, those that fail included.
        max_depth: maximum number of links between the start and a page; None for no limit.
        include: patterns of the URLs or paths to read, such as `"/blog/*"`; none means all. The
            start is always read for its links.
        exclude: patterns of the URLs or paths not to read; they take precedence.
        subdomains: whether subdomains of the start's host belong to the site; "www." always does.
        robots: whether to obey robots.txt, Crawl-delay included.
        sitemaps: whether to read the sitemaps that robots.txt names, or /sitemap.xml.
        throttle: whether to adapt to the server's response time (Scrapy's AutoThrottle).
        delay_s: minimum delay between two requests to a host.
        concurrency, per_host: concurrent requests, in total and for each host.
        timeout_s: timeout of a request.
        retries: how often to retry a request after a temporary failure.
        max_bytes: size limit of a page.
        user_agent: the User-Agent header, and the name to look for in robots.txt.
        job: folder for the state of the crawl, so that it can be stopped and continued.
        log: whether to show Scrapy's log.
    """

    max_pages: int = 10_000
    max_depth: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    subdomains: bool = False
    robots: bool = True
    sitemaps: bool = True
    throttle: bool = True
    delay_s: float = 0.0
    concurrency: int = 16
    per_host: int = 8
    timeout_s: float = 30.0
    retries: int = 2
    max_bytes: int = 16 << 20
    user_agent: str = "Cutline"
    job: Path | None = None
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("max_pages", "concurrency", "per_host", "timeout_s", "max_bytes"):
            if getattr(self, name) <= 0:
                raise OptionError(f"got {name}={getattr(self, name)}; expected more than 0")
        if self.delay_s < 0 or self.retries < 0 or (self.max_depth or 0) < 0:
            raise OptionError("got a negative delay, retries or depth; expected 0 or more")


@dataclass(frozen=True)
class CrawlSummary:
    """How far a crawl has come, earlier runs of the same job included.

    Attributes:
        pages: pages read, with `occurrences` image occurrences.
        dead: pages that gave an error or no response.
        forbidden: pages that robots.txt excludes.
        skipped: not HTML, or not on the site.
        duplicates: pages that are another page: by a redirect, by their canonical URL, or as / and
            /index.html.
        waiting: found and not requested yet; 0 when the crawl is complete.
        seconds: duration of this run.
        hosts: which belong to the site: the start's, and the one that the start redirects to.
    """

    pages: int = 0
    occurrences: int = 0
    dead: int = 0
    forbidden: int = 0
    skipped: int = 0
    duplicates: int = 0
    waiting: int = 0
    seconds: float = 0.0
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A URL to fetch.

    Attributes:
        what: "page", "robots" or "sitemap".
        first: whether it is the start of the crawl, which may redirect to another host.
    """

    url: str
    what: str = PAGE
    first: bool = False


@dataclass(frozen=True)
class Answer:
    """The result of a task.

    Attributes:
        outcome: "read", "dead" (an error or no response), "forbidden" (by robots.txt) or "skipped"
            (not HTML, or not on the site).
        page: the page; its URL is the last one of a chain of redirects.
        links: the pages of the site that a page or sitemap links to, absolute and normalised.
        sitemaps: the sitemaps that a sitemap index or robots.txt names.
        canonical: the page's canonical URL; "" if it names none.
        occurrences: the page's image occurrences.
    """

    task: Task
    outcome: str
    page: Page
    links: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()
    canonical: str = ""
    occurrences: tuple[ImageOccurrence, ...] = ()


def host(url: str) -> str:
    """The host and port of a normalised URL, without "www."."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].removeprefix("www.")


def on_site(url: str, hosts: Sequence[str], subdomains: bool) -> bool:
    """Whether a normalised URL is on one of the hosts, or on a subdomain of one."""
    own = host(url)
    return url.startswith(("http:", "https:")) and any(
        own == one or (subdomains and own.endswith(f".{one}")) for one in hosts
    )
