"""What the `cutline site` commands do, step by step, and what is seen of it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

import typer

from cutline.errors import DataError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from cutline.site.pipeline import Progress, Summary
    from cutline.site.records import Finding, ImageUse, Page
    from cutline.site.store import Store, StoredUse


class Steps:
    """What a person sees of a run: a bar for each step on a terminal, its outcome in a line.

    Args:
        quiet: only problems.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._step = ""

    def __enter__(self) -> Self:
        """Make a bar ready, if there is a terminal."""
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: str, done: int, total: int | None, failed: int = 0) -> None:
        """A step has come so far."""
        if self._bar is None:
            return
        if step != self._step:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._step = step
            self._task = self._bar.add_task(step, total=total, failed="")
        note = f"{failed} failed" if failed else ""
        self._bar.update(self._task, completed=done, total=total, failed=note)

    def say(self, line: str) -> None:
        """A plain sentence on how a step ended."""
        if not self._quiet:
            self._print(line)

    def problem(self, line: str) -> None:
        """Something that a person should know in any case."""
        self._print(line)

    def _print(self, line: str) -> None:
        from cutline.output import printable

        text = printable(line).encode("utf-8", "replace").decode()
        if self._bar is not None:
            self._bar.console.print(text, soft_wrap=True, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """End a stopped command with a word on how to go on; all up to there is kept."""
    from cutline.delivery import Interrupted, Interrupts

    try:
        with Interrupts():
            yield
    except (Interrupted, KeyboardInterrupt) as stopped:
        print("Stopped; all up to here is kept. To go on: the same command.", file=sys.stderr)
        raise typer.Exit(getattr(stopped, "exit_code", 130)) from stopped


@contextmanager
def opened(path: Path, *, there: bool = False) -> Iterator[Store]:
    """A site's record.

    Raises:
        OptionError: it shall be `there` and is not.
    """
    from cutline.site.store import Store

    if there and not path.is_file():
        raise OptionError(
            f"got no {path}; expected a site's record: begin with cutline site crawl, scan or "
            "import, or name it with --store"
        )
    with needing_site("cutline site"), Store(path) as store:
        yield store


@contextmanager
def needing_site(what: str) -> Iterator[None]:
    """Say which extra is missing where a library is."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "cutline").partition(".")[0] == "cutline":
            raise
        raise MissingExtraError(what, "site") from error


def crawl_site(store: Store, url: str, steps: Steps, **options: Any) -> int:
    """Read a website's pages into its record; returns how many failed.

    Raises:
        OptionError: the record stands for another site.
        DataError: not one page could be read.
    """
    from cutline.site.crawl import CrawlOptions, CrawlSummary, crawl
    from cutline.site.store import now

    url = url if "://" in url else f"https://{url}"
    refuse_other(store, url)
    store.setting("robots", "yes" if options.get("robots", True) else "no")
    job = store.path.with_name(store.path.name + "-crawl")
    seen: set[str] = set()
    unread: list[str] = []

    def sink(page: Page, uses: list[ImageUse]) -> None:
        store.put_page(page, uses)
        seen.add(page.url)
        if page.error:
            unread.append(f"{page.url}: {page.error}")
        else:
            claim(store, url)

    def told(summary: CrawlSummary) -> None:
        done = summary.pages + summary.dead
        steps.show("crawling", done, done + summary.waiting, summary.dead)

    summary = crawl(url, CrawlOptions(job=job, **options), sink, progress=told)
    if unread and not summary.pages:
        if store.setting("start") is None:
            store.retire_pages(())
        raise DataError(f"no page could be read: {unread[0]}")
    store.setting("crawled_at", now())
    for problem in unread[:20]:
        steps.problem(problem)
    if len(unread) > 20:
        steps.problem(f"and {several(len(unread) - 20, 'page')} more; the report names all")
    narrowed = options.get("include") or options.get("exclude")
    if not (summary.waiting or narrowed) and len(seen) >= summary.pages + summary.dead:
        gone = store.retire_pages(seen)
        if gone:
            steps.say(f"No longer there: {several(gone, 'page')}.")
    left = {"unread": summary.dead, "kept out by robots.txt": summary.forbidden}
    left |= {"not asked for yet": summary.waiting}
    notes = "".join(f"; {number} {what}" for what, number in left.items() if number)
    steps.say(
        f"Found {several(store.counts().uses, 'image use')} on {several(summary.pages, 'page')}"
        f"{notes}; {summary.pages / max(summary.seconds, 1e-9):.1f} pages a second."
    )
    return summary.dead


def scan_site(store: Store, folder: Path, steps: Steps, **only: Any) -> int:
    """Read a folder's pages, or a single one, into the record; returns how many failed."""
    from glob import escape

    from cutline.site.find import scan

    if folder.is_file() and is_page(folder):
        only = {"include": (escape(folder.name),)}
        folder = folder.resolve().parent
    if not folder.is_dir():
        raise DataError(f"got {folder}; expected a folder with HTML or Markdown files")
    claim(store, str(folder.resolve()))
    store.setting("root", str(folder.resolve()))
    seen: set[str] = set()
    failed = 0
    for page, uses in scan(folder, **only):
        store.put_page(page, uses)
        seen.add(page.url)
        if page.error:
            failed += 1
            steps.problem(f"{page.url}: {page.error}")
        steps.show("scanning", len(seen), None, failed)
    if not any(only.values()):
        store.retire_pages(seen)
    found = store.count_uses(origin="")
    steps.say(f"Found {several(found, 'image use')} in {several(len(seen), 'file')}.")
    return failed


def is_page(file: Path) -> bool:
    """Whether a file's name says that it is HTML or Markdown."""
    from cutline.site.find import HTML_SUFFIXES, MARKDOWN_SUFFIXES

    return file.suffix.lower() in HTML_SUFFIXES | MARKDOWN_SUFFIXES


def import_rows(store: Store, file: Path, steps: Steps) -> int:
    """Take an export's rows into the record; returns how many were not understood.

    Raises:
        OptionError: its name says that it is no table of text.
    """
    from cutline.site.tables import read_export

    if file.suffix.lower() not in ("", ".csv", ".tsv", ".txt"):
        raise OptionError(
            f"got {file}; expected a crawler's export as .csv, .tsv or .txt, a folder of pages, "
            "or one .html or .md file"
        )
    export = read_export(file)
    store.setting("start", store.setting("start") or str(file.resolve()))
    store.put_export(file.name, export.uses)
    for number, problem in export.problems[:20]:
        steps.problem(f"{file.name}, row {number + 1}: {problem}")
    if len(export.problems) > 20:
        steps.problem(f"{file.name}: and {len(export.problems) - 20} rows more")
    images = len({use.url or use.source for _, use in export.uses})
    steps.say(
        f"Found {several(len(export.uses), 'image use')} of {several(images, 'image')} in "
        f"{several(len(export.rows), 'row')}."
    )
    return len(export.problems)


def draft_alts(
    store: Store,
    steps: Steps,
    *,
    words: dict[str, Any],
    network: dict[str, Any],
    load: Callable[[], Any],
    glossary: Path | None = None,
    fill_empty: bool | None = None,
    redo: bool = False,
    refresh: bool = False,
) -> int:
    """Draft what has no draft; returns how many pictures of the site failed."""
    from cutline.fetch import Fetcher, FetchOptions
    from cutline.site.gather import GUARDED, GatherOptions
    from cutline.site.pipeline import PipelineOptions, draft_site
    from cutline.site.wording import WordingOptions

    private = network.pop("private", None)
    public = not (_starts_in_private(store) if private is None else private)
    fetch = FetchOptions(public_only=public, robots=store.setting("robots") == "yes", **network)
    options = PipelineOptions(
        WordingOptions(glossary=_glossary(store, glossary), **words),
        fill_empty=fill_empty,
        redo=redo,
    )
    if refresh:
        options = replace(options, gather=GatherOptions(max_age_s=0.0))

    def told(progress: Progress) -> None:
        steps.show(progress.step, progress.done, progress.total, progress.failed)

    with needing_site("cutline site draft"), Fetcher(fetch) as fetcher:
        summary = draft_site(store, load(), options, fetcher=fetcher, progress=told)
    guarded = False
    for image in store.images("failed"):
        steps.problem(f"{image.url[:200]}: {image.error}")
        guarded |= image.code in GUARDED
    if guarded:
        steps.problem(
            "Only public addresses and the usual ports were asked; if you trust where these "
            "pictures are, add --private"
        )
    for reason in summary.refusals[:20]:
        steps.problem(f"not captioned: {reason}")
    steps.say(_told(summary))
    return store.counts().failed + summary.uncaptioned


def lint_site(store: Store, *, drafts: bool = False) -> Iterator[tuple[str, Finding]]:
    """What lint finds, and where: a scanned file as it is now, other pages as they were read.

    Args:
        drafts: also in what we suggest.

    Returns:
        A place and a finding at a time: `page:line` in a file, else the page and the number of
        the image on it.
    """
    from itertools import groupby

    from cutline.site.lint import lint, lint_alt

    root = Path(store.setting("root") or "/nowhere")
    bare = dict.fromkeys(page.url for page in store.pages() if (root / page.url).is_file())
    for url, group in groupby(store.uses(), key=lambda each: each.use.page):
        known = list(group)
        if url in bare:
            del bare[url]
            yield from _lint_file(root, url)
        else:
            for finding in lint([each.use for each in known]):
                number = f", image {finding.use.position + 1}" if finding.use else ""
                yield f"{url}{number}", finding
        for each in known if drafts else ():
            if each.draft is not None and each.draft.alt:
                for finding in lint_alt(each.draft.alt, each.use):
                    yield url, replace(finding, use=each.use)
    for url in bare:
        yield from _lint_file(root, url)


def report_beside(store: Path) -> Path:
    """Where a record's report goes unless told otherwise: an earlier one of ours is replaced.

    Raises:
        OptionError: some other file stands there.
    """
    from cutline.output import refuse_existing
    from cutline.site.report import TITLE

    path = store.with_name(f"{store.stem}-report.html")
    if not (path.is_file() and TITLE.encode() in path.read_bytes()[:1000]):
        refuse_existing(path)
    return path


def write_report(store: Store, steps: Steps, output: Path | None, *, as_json: bool = False) -> None:
    """Write the report, as one HTML file or as JSON."""
    from cutline.output import write_whole
    from cutline.site.report import report

    def told(done: int, total: int) -> None:
        steps.show("reporting", done, total)

    found = report(store, progress=told)
    text = found.to_json() if as_json else found.to_html(progress=told)
    if output is None:
        print(text)
    else:
        write_whole(output, text)
        steps.say(f"Report: {output}")


def write_out(
    output: Path | None, force: bool, write: Callable[[TextIO], Any], encoding: str = "utf-8"
) -> None:
    """Write to a file, whole, or to standard output."""
    from cutline.output import refuse_existing, write_whole

    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="")  # type: ignore[union-attr]
        write(sys.stdout)
        return
    if not force:
        refuse_existing(output)
    text = io.StringIO(newline="")
    write(text)
    mark = "\ufeff" if encoding == "utf-8-sig" else ""
    write_whole(output, mark + text.getvalue())


def refusals(refused: Sequence[tuple[StoredUse, str]]) -> Iterator[str]:
    """What was not written and why: each by itself, or of many the first for each reason."""
    groups: dict[str, list[str]] = {}
    for each, why in refused:
        line = f"{each.use.page}: {(each.use.source or 'svg')[:80]}: {why}"
        groups.setdefault(why.partition(": ")[0], []).append(line)
    for lines in groups.values():
        shown = lines if len(refused) <= 20 else lines[:1]
        yield from shown
        if len(lines) > len(shown):
            yield f"and {several(len(lines) - len(shown), 'use')} more for the same reason"


def print_diff(diff: str) -> None:
    """A unified diff, in colours on a terminal."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        sys.stdout.buffer.write(diff.encode("utf-8", "replace"))
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.text import Text

    styles = {"+++": "bold", "---": "bold", "@@": "cyan", "+": "green", "-": "red"}
    console = Console(highlight=False)
    for line in diff.splitlines():
        style = next((styles[mark] for mark in styles if line.startswith(mark)), "")
        console.print(Text(line.encode("utf-8", "replace").decode(), style=style), soft_wrap=True)


def claim(store: Store, source: str) -> None:
    """Let a record stand for one site.

    Raises:
        OptionError: it stands for another already.
    """
    refuse_other(store, source)
    if store.setting("start") is None:
        store.setting("start", source)


def refuse_other(store: Store, source: str) -> None:
    """See that a record stands for this site or for none yet.

    Raises:
        OptionError: it stands for another.
    """
    from urllib.parse import urlsplit

    def site_of(name: str) -> str:
        return urlsplit(name).netloc if _is_url(name) else name

    held = store.setting("start")
    if held is not None and site_of(held) != site_of(source):
        raise OptionError(
            f"got {source}; {store.path} is the record of {held}: name another with --store"
        )


def several(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _lint_file(root: Path, page: str) -> Iterator[tuple[str, Finding]]:
    from cutline.site.find import read_file
    from cutline.site.lint import lint

    _, uses, text = read_file(root / page, root)
    for finding in lint(uses):
        offset = finding.use.offset if finding.use else -1
        line = f":{text.count(chr(10), 0, offset) + 1}" if offset >= 0 else ""
        yield f"{page}{line}", finding


def _told(summary: Summary) -> str:
    if not (summary.drafts or summary.fetched or summary.failed):
        return "Nothing left to draft."
    seconds = max(summary.elapsed_s, 1e-9)
    parts = [f"{several(summary.drafts, 'draft')}"]
    if summary.asked:
        unsure = f" ({summary.abstained} for want of a sure caption)" if summary.abstained else ""
        parts.append(f"{summary.asked} need a person's words{unsure}")
    parts.append(f"{several(summary.fetched, 'picture')} fetched")
    if summary.failed:
        parts.append(f"{summary.failed} failed")
    parts.append(f"{summary.captioned} captioned in {seconds:.1f} s")
    return ", ".join(parts) + "."


def _glossary(store: Store, path: Path | None) -> dict[str, str]:
    """The site's own words; once given, they are remembered."""
    from cutline.site.glossary import parse

    if path is not None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"got glossary {path}: {error}; expected a text file") from error
        found = parse(text)
        store.setting("glossary", text)
        return found
    return parse(store.setting("glossary") or "")


def _starts_in_private(store: Store) -> bool:
    """Whether the crawl began on this machine or in a private network."""
    import socket
    from urllib.parse import urlsplit

    from cutline.fetch import is_public

    source = store.setting("start") or ""
    host = urlsplit(source).hostname if _is_url(source) else None
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(not is_public(str(entry[4][0])) for entry in found)


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))
