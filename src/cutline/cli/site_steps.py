"""What the `cutline site` commands do, step by step."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cutline.cli.app import needing
from cutline.cli.site_messages import Steps, drafted, found, print_diff, refusals, several
from cutline.errors import CutlineError, DataError, OptionError

if TYPE_CHECKING:
    from cutline.site.model import Finding, ImageUse, Page
    from cutline.site.pipeline import Progress
    from cutline.site.store.store import Store


class Format(StrEnum):
    """How the record leaves."""

    CSV = "csv"
    JSON = "json"
    WP_CLI = "wp-cli"


RECORD = Path("site.cutline")
"""Where a site's record is unless told otherwise."""


def command(store: Path, name: str) -> str:
    """A command on a record, as a person would type it."""
    named = "" if store == RECORD else f" --store {shlex.quote(str(store))}"
    return f"cutline site {name}{named}"


@contextmanager
def opened(path: Path, *, there: bool = False) -> Iterator[Store]:
    """A site's record; a new one is removed again if an error ends it before anything was read.

    Raises:
        OptionError: it shall be `there` and is not.
    """
    from cutline.site.store.store import Store

    is_new = not path.exists()
    if there and not path.is_file():
        raise OptionError(
            f"got no {path}; expected a site's record: begin with cutline site run, or with "
            "crawl, scan or import, or name it with --store"
        )
    unused = False
    try:
        with needing("site", "cutline site"), Store(path) as store:
            try:
                yield store
            except CutlineError:
                unused = is_new and store.setting("start") is None
                raise
    finally:
        if unused:
            path.unlink(missing_ok=True)


def crawl_site(store: Store, url: str, steps: Steps, **options: Any) -> int:
    """Read a website's pages into its record; returns how many failed.

    Raises:
        OptionError: the record stands for another site.
        DataError: not one page could be read.
    """
    from cutline.site.pages.crawl import CrawlOptions, CrawlSummary, crawl
    from cutline.site.store.store import now

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
    left = {"could not be read": summary.dead, "kept out by robots.txt": summary.forbidden}
    left |= {"not asked for, since --max-pages is reached": summary.waiting}
    notes = "".join(f"; {number:,} {what}" for what, number in left.items() if number)
    counts = store.counts()
    said = found(counts.uses, counts.images, f"on {several(summary.pages, 'page')}")
    pace = summary.pages / max(summary.seconds, 1e-9)
    steps.say(f"{said}{notes}; {pace:.1f} pages a second.")
    return summary.dead


def scan_site(store: Store, folder: Path, steps: Steps, **only: Any) -> int:
    """Read a folder's pages, or a single one, into the record; returns how many failed."""
    from glob import escape

    from cutline.site.pages.scan import scan

    if folder.is_file() and is_page(folder):
        only = {"include": (escape(folder.name),)}
        folder = folder.resolve().parent
    if not folder.is_dir():
        raise DataError(f"got {folder}; expected a folder with HTML or Markdown files")
    refuse_other(store, str(folder.resolve()))
    seen: set[str] = set()
    sources: set[str] = set()
    images = failed = 0
    for page, uses in scan(folder, **only):
        if not seen:
            claim(store, str(folder.resolve()))
            store.setting("root", str(folder.resolve()))
        store.put_page(page, uses)
        seen.add(page.url)
        images += len(uses)
        sources.update(use.url or use.source or use.markup for use in uses)
        if page.error:
            failed += 1
            steps.problem(f"{page.url}: {page.error}")
        steps.show("scanning", len(seen), None, failed)
    if not seen:
        fits = "that --include and --exclude let through" if any(only.values()) else "in it"
        raise DataError(f"got {folder}; expected HTML or Markdown files {fits}")
    if not any(only.values()):
        store.retire_pages(seen)
    where = f"in {several(len(seen), 'file')}"
    steps.say(f"{found(images, len(sources), where)}.")
    return failed


def is_page(file: Path) -> bool:
    """Whether a file's name says that it is HTML or Markdown."""
    from cutline.site.pages.scan import HTML_SUFFIXES, MARKDOWN_SUFFIXES

    return file.suffix.lower() in HTML_SUFFIXES | MARKDOWN_SUFFIXES


def import_rows(store: Store, file: Path, steps: Steps) -> int:
    """Take an export's rows into the record; returns how many were not understood.

    Raises:
        OptionError: its name says that it is no table of text.
    """
    from cutline.site.pages.crawler_csv import read_export

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
    different = len({use.url or use.source for _, use in export.uses})
    where = f"in {several(len(export.rows), 'row')}"
    steps.say(f"{found(len(export.uses), different, where)}.")
    return len(export.problems)


def draft_alts(
    store: Store,
    steps: Steps,
    *,
    words: dict[str, Any],
    network: dict[str, Any],
    load: Callable[[], Any],
    private: bool | None = None,
    glossary: Path | None = None,
    fill_empty: bool | None = None,
    redo: bool = False,
    refresh: bool = False,
) -> int:
    """Draft what has no draft; returns how many pictures of the site failed."""
    from cutline.fetch import Fetcher, FetchOptions
    from cutline.site.decide.alt_text import WordingOptions
    from cutline.site.images import GUARDED, GatherOptions
    from cutline.site.pipeline import PipelineOptions, draft_site

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

    with needing("site", "cutline site draft"), Fetcher(fetch) as fetcher:
        summary = draft_site(store, load(), options, fetcher=fetcher, progress=told)
    guarded = False
    for image in store.images("failed"):
        steps.problem(f"{store.named(image.url)[:200]}: {image.error}")
        guarded |= image.code in GUARDED
    if guarded:
        steps.problem(
            "Only public addresses and the usual ports were asked; if you trust where these "
            "pictures are, add --private"
        )
    for reason in summary.refusals[:20]:
        steps.problem(f"not captioned: {reason}")
    steps.say(drafted(summary))
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

    from cutline.site.decide.lint import lint, lint_alt

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
                    message = f"our suggestion: {finding.message}"
                    yield url, replace(finding, message=message, use=each.use)
    for url in bare:
        yield from _lint_file(root, url)


def apply_alts(
    store: Store,
    root: Path,
    steps: Steps,
    *,
    write: bool = False,
    patch: Path | None = None,
    force: bool = False,
    overwrite: bool = False,
    fill_empty: bool = False,
) -> int:
    """Write approved alts into pages, or only show them; returns how many could not be.

    Args:
        root: the folder with the pages.
        write: into the files.
        patch: into this patch instead; `force` replaces one that is there.
        overwrite, fill_empty: as for `writeback.plan`.

    Raises:
        OptionError: both `write` and `patch`, or a patch is there already.
    """
    from cutline.atomic import refuse_existing, write_whole
    from cutline.site.writeback import apply as writeback

    if patch is not None:
        if write:
            raise OptionError("got --write and --patch; expected one of them")
        if not force:
            refuse_existing(patch)
    changes = writeback.plan(
        store,
        root,
        overwrite=overwrite,
        fill_empty=fill_empty,
        progress=partial(steps.show, "comparing"),
    )
    refused = [each for change in changes for each in change.refused]
    failed = 0
    alts = sum(len(change.edits) for change in changes)
    files = sum(bool(change.edits) for change in changes)
    done, hint = "To be written", " Add --write to write them."
    if patch is not None:
        write_whole(patch, writeback.patch(changes))
        done, hint = "To be written", f" The patch: {patch}"
    elif write:
        told = partial(steps.show, "writing")
        outcome = writeback.apply(store, changes, journal=journal_of(store.path), progress=told)
        for path, why in outcome.failed:
            steps.problem(f"{path}: {why}")
        failed, alts, files = len(outcome.failed), outcome.uses, len(outcome.files)
        done, hint = "Written", f" To take them back: {command(store.path, 'undo')}"
    elif sys.stdout.isatty():
        for change in changes:
            print_diff(change.diff())
    else:
        sys.stdout.buffer.write(writeback.patch(changes))
        sys.stdout.flush()
    for line in refusals(refused):
        steps.problem(line)
    left = f" Left as they are: {several(len(refused), 'image')}, see above." if refused else ""
    if alts:
        steps.say(f"{done}: {several(alts, 'alt')} in {several(files, 'file')}.{left}{hint}")
    elif not store.count_uses(stage="reviewed"):
        steps.say(f"Nothing is approved yet: {command(store.path, 'review')}")
    elif not failed:
        standing = "" if refused else " All that was approved stands in the pages."
        steps.say(f"Nothing to write.{standing}{left}")
    return len(refused) + failed


def journal_of(store: Path) -> Path:
    """Where it is kept what was written into pages, for taking it back."""
    return store.with_name(f"{store.name}-applied.jsonl")


def export_record(store: Store, format: Format, output: Path | None, force: bool) -> None:
    """Write the record for other programs, to a file or to standard output.

    Raises:
        OptionError: WordPress could know none of its pictures.
    """
    from cutline.site.results import export

    if format is Format.WP_CLI:
        if not any(each.url.startswith(("http://", "https://")) for each in store.images()):
            raise OptionError(
                "got a record without pictures on the web; expected one of a crawl or an "
                "import, by whose URLs WordPress knows them"
            )
        script = export.wp_cli(store)
        write_out(output, force, lambda stream: stream.write(script))
        if "\ngive " not in script:
            print("It gives no alt, for none is approved yet.", file=sys.stderr)
    elif format is Format.JSON:
        write_out(output, force, partial(export.write_json, store))
    else:
        write_out(output, force, partial(export.write_csv, store))


def answer_rows(store: Store, rows: Path, output: Path, force: bool) -> None:
    """Write an imported file's rows again, with the answers beside them."""
    from cutline.atomic import refuse_existing

    if not force:
        refuse_existing(output)
    with needing("site", "cutline site export"):
        from cutline.site.results.review_csv import answer_export
    answer_export(store, rows, output)


def report_beside(store: Path) -> Path:
    """Where a record's report goes unless told otherwise: an earlier one of ours is replaced.

    Raises:
        OptionError: some other file stands there.
    """
    from cutline.atomic import refuse_existing
    from cutline.site.results.report import TITLE

    path = store.with_name(f"{store.stem}-report.html")
    if not (path.is_file() and TITLE.encode() in path.read_bytes()[:1000]):
        refuse_existing(path)
    return path


def write_report(store: Store, steps: Steps, output: Path | None, *, as_json: bool = False) -> None:
    """Write the report, as one HTML file or as JSON."""
    from cutline.atomic import write_whole
    from cutline.site.results.report import report

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
    from cutline.atomic import refuse_existing, write_whole

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


def _lint_file(root: Path, page: str) -> Iterator[tuple[str, Finding]]:
    from cutline.site.decide.lint import lint
    from cutline.site.model import Finding, Severity
    from cutline.site.pages.scan import read_file

    read, uses, text = read_file(root / page, root)
    if read.error:
        yield page, Finding("unreadable", Severity.ERROR, f"it cannot be read: {read.error}")
    for finding in lint(uses):
        offset = finding.use.offset if finding.use else -1
        line = f":{text.count(chr(10), 0, offset) + 1}" if offset >= 0 else ""
        yield f"{page}{line}", finding


def _glossary(store: Store, path: Path | None) -> dict[str, str]:
    """The site's own words; once given, they are remembered."""
    from cutline.site.decide.glossary import parse

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
