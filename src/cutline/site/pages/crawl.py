"""Crawling a website: which page comes next, which are known, and where to continue after a stop.

Scrapy does the fetching in a separate process (`spider.py`). This module holds the frontier: the
URLs found and finished, in a log that survives `kill -9`. A page is finished only when the sink has
returned, so that at most the pages in flight are fetched again.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cutline.atomic import AppendFile
from cutline.errors import DataError, MissingExtraError, OptionError, OutputError
from cutline.progress import OnProgress, Progress, ignore
from cutline.site.model import ImageOccurrence, Page
from cutline.site.pages.crawl_types import Answer, CrawlOptions, CrawlSummary, Task, host, on_site
from cutline.site.urls import normalise_url

Sink = Callable[[Page, list[ImageOccurrence]], None]
_LOG_NAME = "crawl.jsonl"
_INDEX = re.compile(r"/index\.(html?|xhtml|php)\Z")


def crawl(
    start: str,
    options: CrawlOptions,
    sink: Sink,
    *,
    progress: OnProgress = ignore,
) -> CrawlSummary:
    """Read the pages of a site and pass each, with its image occurrences, to the sink.

    Ctrl-C ends it between two pages. With a job folder, the same call continues there, after a kill
    too, and repeats at most the pages then in flight; a finished job starts again.

    Args:
        start: the first page's URL; https if it has no scheme.
        options: how to crawl.
        sink: called in this process for one page after the other; pages that could not be read
            have an error and no occurrences. Called again for pages in flight when a crawl stopped.
        progress: called after every page.

    Raises:
        OptionError: the start is not an HTTP URL.
        DataError: the job folder holds another site's unfinished crawl, or the fetching process
            died.
        MissingExtraError: Scrapy is not installed.
        OutputError: the job folder cannot be written.
    """
    url = normalise_url(start if "://" in start else f"https://{start}")
    if not url.startswith(("http:", "https:")):
        raise OptionError(f"got {start!r}; expected a URL such as https://example.org/")
    if importlib.util.find_spec("scrapy") is None:
        raise MissingExtraError("crawling", "site")
    with _Frontier(url, options.job) as frontier, _Fetcher(options, frontier.hosts) as fetcher:
        return _Crawl(options, frontier, fetcher, sink, progress).run()


class _Crawl:
    """One run: sends tasks, receives answers and decides what they mean."""

    def __init__(
        self,
        options: CrawlOptions,
        frontier: _Frontier,
        fetcher: _Fetcher,
        sink: Sink,
        progress: OnProgress,
    ) -> None:
        self._options, self._frontier, self._fetcher = options, frontier, fetcher
        self._sink, self._progress = sink, progress
        self._began = time.monotonic()
        self._flying: set[Task] = set()
        self._aliases: dict[str, list[tuple[Task, str]]] = defaultdict(list)  # by canonical URL
        self._home: Page | None = None
        self._own: set[Task] = set()  # to be read in spite of their canonical URL

    def run(self) -> CrawlSummary:
        while True:
            if tasks := self._next():
                self._fetcher.ask(tasks)
            if not self._flying:
                if self._frontier.waiting or not self._aliases:
                    break
                for canonical in list(self._aliases):  # canonical URLs that point at each other
                    self._settle(canonical)
                continue
            answer = self._fetcher.answer()
            self._flying.remove(answer.task)
            self._take(answer)
            self._report()
        if not self._frontier.waiting:
            self._frontier.end()
        return self._summary()

    def _next(self) -> list[Task]:
        """The next tasks: a few more than the fetcher can request at once."""
        tasks = []
        counts = self._frontier.counts
        done = counts["read"] + counts["dead"] + len(self._flying)
        while len(self._flying) < 2 * self._options.concurrency:
            if done >= self._options.max_pages or not (task := self._frontier.next()):
                break
            self._flying.add(task)
            tasks.append(task)
            done += 1
        return tasks

    def _take(self, answer: Answer) -> None:
        task, page = answer.task, answer.page
        if task.what != "page":
            for sitemap in answer.sitemaps if self._options.sitemaps else ():
                self._frontier.find(sitemap, 1, "sitemap")
            self._find(answer.links, 1)
            self._frontier.finish(task, "seen")
            return
        if answer.outcome != "read":
            if answer.outcome == "dead" or task.first:
                self._sink(page, [])
            self._finish(task, answer.outcome)
            return
        if task.first:
            self._frontier.add_host(page.url)
            self._home = page
        depth = self._frontier.depth(task)
        self._find(answer.links, depth + 1)
        redirected = page.url != task.url and task not in self._own
        if redirected and not self._frontier.claim(page.url, depth):
            self._finish(task, "duplicates")  # redirected to a page of its own
        elif not self._is_wanted(page.url):
            self._finish(task, "skipped")
        elif not task.first and self._is_home(page):
            self._finish(task, "duplicates")
        elif self._is_alias(answer, depth):
            self._aliases[answer.canonical].append((task, page.title))
            if self._frontier.is_done(answer.canonical):
                self._settle(answer.canonical)
        else:
            self._sink(page, list(answer.occurrences))
            self._finish(task, "read", page, len(answer.occurrences))

    def _is_home(self, page: Page) -> bool:
        """Whether a page is the start page under its other name: / and /index.html."""
        home = self._home
        if home is None or page.sha256 != home.sha256:
            return False
        return _INDEX.sub("/", page.url) == _INDEX.sub("/", home.url)

    def _is_alias(self, answer: Answer, depth: int) -> bool:
        """Whether a page names another page of the site as its canonical page."""
        url = answer.canonical
        if url in ("", answer.page.url, answer.task.url) or answer.task in self._own:
            return False
        if not answer.page.title:
            return False  # without titles, a wrong canonical URL in a template cannot be told apart
        if self._frontier.is_done(url):
            return self._frontier.titles.get(url) == answer.page.title
        self._find([url], depth)
        return self._frontier.is_known(url)

    def _settle(self, canonical: str) -> None:
        """Decide the pages that waited for a canonical page: duplicates, or pages of their own."""
        for task, title in self._aliases.pop(canonical, []):
            if self._frontier.titles.get(canonical) == title:
                self._finish(task, "duplicates")
            else:
                self._own.add(task)
                self._frontier.again(task)

    def _finish(
        self, task: Task, outcome: str, page: Page | None = None, occurrences: int = 0
    ) -> None:
        self._frontier.finish(task, outcome, page, occurrences)
        self._settle(task.url)
        if page and page.url != task.url:
            self._settle(page.url)

    def _find(self, urls: Sequence[str], depth: int) -> None:
        if self._options.max_depth is not None and depth > self._options.max_depth:
            return
        for url in urls:
            ours = on_site(url, self._frontier.hosts, self._options.subdomains)
            if ours and self._is_wanted(url):
                self._frontier.find(url, depth)

    def _is_wanted(self, url: str) -> bool:
        path = "/" + url.partition("://")[2].partition("/")[2]

        def matches(patterns: Sequence[str]) -> bool:
            return any(fnmatchcase(url, one) or fnmatchcase(path, one) for one in patterns)

        included = not self._options.include or matches(self._options.include)
        return included and not matches(self._options.exclude)

    def _report(self) -> None:
        counts = self._frontier.counts
        done = counts["read"] + counts["dead"]
        waiting = self._frontier.waiting
        self._progress(Progress("crawling", done, done + waiting, counts["dead"]))

    def _summary(self) -> CrawlSummary:
        counts = self._frontier.counts
        return CrawlSummary(
            pages=counts["read"],
            occurrences=counts["uses"],
            dead=counts["dead"],
            forbidden=counts["forbidden"],
            skipped=counts["skipped"],
            duplicates=counts["duplicates"],
            waiting=self._frontier.waiting,
            seconds=time.monotonic() - self._began,
            hosts=tuple(self._frontier.hosts),
        )


class _Frontier:
    """The URLs found and finished, breadth first; with a folder, saved in a log there.

    The log has a line for each URL found and each URL finished, written before the next task. If
    it is cut off anywhere, some URLs are fetched again, and nothing else happens.

    Attributes:
        hosts: which belong to the site.
        titles: of the pages read, by URL.
        counts: of outcomes, and "uses".
    """

    def __init__(self, start: str, job: Path | None) -> None:
        self.start = start
        self.hosts = [host(start)]
        self.titles: dict[str, str] = {}
        self.counts: dict[str, int] = defaultdict(int)
        self._depths: dict[tuple[str, str], int] = {}
        self._done: set[tuple[str, str]] = set()
        self._queue: deque[tuple[str, str]] = deque()
        self._taken: set[tuple[str, str]] = set()
        self._log: AppendFile | None = None
        self._lines: list[str] = []
        if job is not None:
            self._open(job / _LOG_NAME)
        self.find(normalise_url("/robots.txt", start), 0, "robots")
        self.find(start, 0)

    def __enter__(self) -> _Frontier:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._log:
            self._log.close()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def is_known(self, url: str) -> bool:
        return ("page", url) in self._depths

    def is_done(self, url: str) -> bool:
        return ("page", url) in self._done

    def depth(self, task: Task) -> int:
        return self._depths[task.what, task.url]

    def find(self, url: str, depth: int, what: str = "page") -> None:
        """Add a URL to the queue, unless it is known."""
        key = (what, url)
        if key not in self._depths:
            self._depths[key] = depth
            self._queue.append(key)
            self._note("+", what, url, depth)

    def claim(self, url: str, depth: int) -> bool:
        """Mark the target of a redirect as finished; False if it was known."""
        if self.is_known(url):
            return False
        self._depths["page", url] = depth
        self._done.add(("page", url))
        return True

    def next(self) -> Task | None:
        """The next task; None if the queue is empty."""
        if not self._queue:
            return None
        what, url = self._queue.popleft()
        return Task(url, what, first=what == "page" and url == self.start)

    def again(self, task: Task) -> None:
        self._queue.append((task.what, task.url))

    def add_host(self, url: str) -> None:
        if host(url) not in self.hosts:
            self.hosts.append(host(url))
            self._note("host", host(url))

    def finish(
        self, task: Task, outcome: str, page: Page | None = None, occurrences: int = 0
    ) -> None:
        """Mark a task as finished, and write it to the log with everything found since."""
        url, title = (page.url, page.title) if page else ("", "")
        self._note("-", task.what, task.url, outcome, url, title, occurrences)
        self._finished(task.what, task.url, outcome, url, title, occurrences)
        self._write()

    def end(self) -> None:
        """Mark the crawl as complete: the next run starts again."""
        self._note("end")
        self._write()

    def _finished(
        self, what: str, url: str, outcome: str, final: str, title: str, occurrences: int
    ) -> None:
        self._done.add((what, url))
        self.counts[outcome] += 1
        self.counts["uses"] += occurrences
        if final:
            self.titles[final] = title
            self._depths.setdefault(("page", final), self._depths.get((what, url), 0))
            self._done.add(("page", final))

    def _note(self, *entry: str | int) -> None:
        if self._log:
            self._lines.append(json.dumps(entry) + "\n")

    def _write(self) -> None:
        if self._log and self._lines:
            try:
                self._log.write("".join(self._lines).encode())
            except OSError as error:
                raise OutputError(f"{self._log.path}: {error.strerror}") from error
            self._lines.clear()

    def _open(self, path: Path) -> None:
        head = ["cutline crawl", 1, self.start]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            entries = list(_entries(path)) if path.exists() else []
            fresh = not entries or entries[-1] == ["end"]
            if not fresh and entries[0] != head:
                raise DataError(
                    f"got {path.parent}, which holds another crawl ({entries[0][-1]}); "
                    f"expected one of {self.start}; name another folder"
                )
            self._log = AppendFile(path, keep_bytes=0 if fresh else None)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        if fresh:
            self._lines.append(json.dumps(head) + "\n")
            return
        self._log.write(b"\n")  # ends a line that was cut off
        for entry in entries[1:]:
            self._replay(entry)
        self._queue = deque(key for key in self._depths if key not in self._done)

    def _replay(self, entry: list[Any]) -> None:
        match entry:
            case ["+", str(what), str(url), int(depth)]:
                self._depths.setdefault((what, url), depth)
            case ["-", str(what), str(url), str(outcome), str(final), str(title), int(occurrences)]:
                self._finished(what, url, outcome, final, title, occurrences)
            case ["host", str(host)]:
                self.hosts.append(host)


def _entries(path: Path) -> Iterator[list[Any]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off
            if isinstance(entry, list):
                yield entry


class _Fetcher:
    """The fetching process; it ends with this process, however that ends."""

    def __init__(self, options: CrawlOptions, hosts: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, options, hosts), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        if kind is None:
            with suppress(OSError):
                self._pipe.send(None)
            self._process.join(10)
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def ask(self, tasks: list[Task]) -> None:
        with self._alive():
            self._pipe.send(tasks)

    def answer(self) -> Answer:
        with self._alive():
            answer: Answer = self._pipe.recv()
            return answer

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise DataError(
                f"the fetching process ended by itself (exit code {self._process.exitcode}); "
                "run the same command again to go on"
            ) from error


def _serve(pipe: Connection, options: CrawlOptions, hosts: Sequence[str]) -> None:
    from cutline.site.pages.spider import serve

    serve(pipe, options, hosts)
