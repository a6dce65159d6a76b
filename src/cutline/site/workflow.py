"""Alt text for a whole website: every step of `cutline site` as a function.

Each function takes a site's store (an open `Store`, or the path of its file), does one step and
returns what came of it. Nothing is printed. Long steps report their progress to a callback, and
everything they produce is saved as it is made, so that a stopped step continues when it is called
again.

The usual order: `crawl`, `scan` or `import_export`, then `draft`, `review`, `apply`. `run` does
everything up to the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.errors import DataError, OptionError
from cutline.progress import OnProgress, Progress, ignore
from cutline.site.destinations import remember_destination, stored_destination
from cutline.site.model import ImageOccurrence, Page
from cutline.site.opening import (
    DEFAULT_STORE,
    TABLE_SUFFIXES,
    CrawlScope,
    StoreOrPath,
    check_hosts,
    check_site,
    claim,
    is_page,
    open_store,
    remember_host,
    trusted_host,
    url_of,
)
from cutline.site.outcomes import (
    CrawlResult,
    DraftResult,
    ImportResult,
    RunResult,
    ScanResult,
    StepResult,
)
from cutline.site.review_workflow import report_path, write_report
from cutline.site.store.store import Store, now

if TYPE_CHECKING:
    from cutline import caption
    from cutline.chat import ChatModel
    from cutline.fetch import FetchOptions
    from cutline.prompts import Prompt
    from cutline.site.alt_judge import JudgeSummary
    from cutline.site.destination import Destination
    from cutline.site.pages.crawl_types import CrawlOptions
    from cutline.site.pipeline import DraftOptions

# Finding images


def crawl(
    store: StoreOrPath,
    url: str,
    options: CrawlOptions | None = None,
    *,
    progress: OnProgress = ignore,
) -> CrawlResult:
    """Read the pages of a website into its store.

    A stopped crawl continues when it is called again with the same URL. Pages of an earlier crawl
    that a complete crawl no longer finds are left out of drafts, reviews and reports until they
    are found again; a crawl that is limited to a part of the site leaves out nothing.

    Args:
        store: the site's store, created if it does not exist.
        url: where to start; https if it has no scheme.
        options: how to crawl; None is the default. `job` is set to a folder beside the store.
        progress: called after every page.

    Raises:
        OptionError: the store belongs to another site, or this is not a URL.
        DataError: no page could be read.
        MissingExtraError: Scrapy is not installed.
    """
    from cutline.site.pages.crawl import crawl as crawl_pages
    from cutline.site.pages.crawl_types import CrawlOptions

    url = url if "://" in url else f"https://{url}"
    options = options or CrawlOptions()
    seen: set[str] = set()
    problems: list[tuple[str, str]] = []
    unread: Counter[str] = Counter()
    with open_store(store) as opened:
        check_site(opened, url)
        scope = CrawlScope(opened, options)
        remember_host(opened, url)
        opened.put_setting("robots", "yes" if options.robots else "no")
        job = opened.path.with_name(f"{opened.path.name}-crawl")

        def sink(page: Page, occurrences: list[ImageOccurrence]) -> None:
            opened.put_page(page, occurrences)
            seen.add(page.url)
            unread.update(dict(page.unread))
            if page.error:
                problems.append((page.url, page.error))
                scope.failed(page)
            else:
                claim(opened, url)

        summary = crawl_pages(url, replace(options, job=job), sink, progress=progress)
        if problems and not summary.pages:
            if opened.setting("start") is None:
                opened.retire_pages(())
            raise DataError("no page could be read: {}: {}".format(*problems[0]))
        opened.put_setting("crawled_at", now())
        retired = 0
        if scope.is_complete(summary, seen):
            retired = opened.retire_pages(seen | scope.outside(summary.hosts))
        counts = opened.counts()
    return CrawlResult(
        summary.pages,
        summary.dead,
        summary.forbidden,
        summary.waiting,
        retired,
        counts.uses,
        counts.images,
        tuple(problems),
        summary.seconds,
        dict(unread.most_common()),
    )


def scan(
    store: StoreOrPath,
    folder: Path | str | Destination,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: OnProgress = ignore,
) -> ScanResult:
    """Read a folder of pages, a single file, or another destination into its store.

    Args:
        store: the site's store, created if it does not exist.
        folder: a folder of HTML and Markdown files and documents, one such file, or a destination.
        include: patterns of the paths to read, such as `"blog/*"`; none means all.
        exclude: patterns of the paths not to read; they take precedence.
        progress: called after every file.

    Raises:
        OptionError: the store belongs to another site, or a destination is given with patterns.
        DataError: there is no such folder, or no page in it.
    """
    from glob import escape

    from cutline.site.pages.scan import scan_unread
    from cutline.site.writeback.folder import FolderDestination

    if not isinstance(folder, str | Path):
        if include or exclude:
            raise OptionError("got include or exclude for a destination; expected neither")
        return _read_destination(
            store, folder, True, f"{folder.address}; expected at least one page in it", progress
        )
    folder = Path(folder)
    if folder.is_file() and is_page(folder):
        include = (escape(folder.name),)
        folder = folder.resolve().parent
    if not folder.is_dir():
        raise DataError(f"got {folder}; expected a folder with pages or documents")
    where = "that --include and --exclude let through" if include or exclude else "in it"
    what = f"{folder}; expected HTML or Markdown files or documents {where}, or a folder of"
    what += " pictures and --pictures"
    destination = FolderDestination(folder, include=include, exclude=exclude)
    found = _read_destination(store, destination, not (include or exclude), what, progress)
    unread = Counter(found.unread)
    files = scan_unread(folder, include=include, exclude=exclude)
    with open_store(store) as opened:
        opened.put_unread_files(files)
    unread.update(files)
    return replace(found, unread=dict(unread.most_common()))


def _read_destination(
    store: StoreOrPath,
    destination: Destination,
    whole: bool,
    expected: str,
    progress: OnProgress,
) -> ScanResult:
    """Read a destination into a store.

    Args:
        store: created if it does not exist.
        destination: what to read.
        whole: whether it reads every page, so that pages that are not read are gone.
        expected: for the error if there is no page.
        progress: called after every page.
    """
    seen: set[str] = set()
    images: set[str] = set()
    problems: list[tuple[str, str]] = []
    unread: Counter[str] = Counter()
    total = 0
    with open_store(store) as opened:
        check_site(opened, destination.address)
        for page, occurrences in destination.read():
            if not seen:
                claim(opened, destination.address)
                remember_destination(opened, destination)
                if Path(destination.address).is_dir():
                    opened.put_setting("root", destination.address)
            opened.put_page(page, occurrences)
            seen.add(page.url)
            total += len(occurrences)
            unread.update(dict(page.unread))
            images.update(each.url or each.source or each.markup for each in occurrences)
            if page.error:
                problems.append((page.url, page.error))
            progress(Progress("scanning", len(seen), None, len(problems)))
        if not seen:
            raise DataError(f"got {expected}")
        if whole:
            opened.retire_pages(seen)
    return ScanResult(len(seen), total, len(images), tuple(problems), dict(unread.most_common()))


def import_export(store: StoreOrPath, file: Path | str) -> ImportResult:
    """Read the images that a crawler's CSV export lists into the store.

    Importing the same file again replaces its rows. Files of the same name from different folders
    are kept apart.

    Args:
        store: the site's store, created if it does not exist.
        file: the export, as CSV or TSV: Screaming Frog, Lumar, or any column of URLs.

    Raises:
        OptionError: the file is not a table, or it lists another site's pages.
        DataError: it cannot be read, or has no column of images.
    """
    from cutline.site.pages.crawler_csv import read_export

    file = Path(file)
    if file.suffix.lower() not in TABLE_SUFFIXES:
        raise OptionError(
            f"got {file}; expected a crawler's export as .csv, .tsv or .txt, a folder of pages, "
            "or one .html or .md file"
        )
    export = read_export(file)
    path = str(file.resolve())
    with open_store(store) as opened:
        check_hosts(opened, file, [occurrence.page for _, occurrence in export.occurrences])
        if opened.setting("start") is None:
            opened.put_setting("start", path)
        opened.put_export(opened.add_origin(file), export.occurrences)
    images = {occurrence.url or occurrence.source for _, occurrence in export.occurrences}
    problems = tuple(export.problems)
    return ImportResult(file.name, len(export.rows), len(export.occurrences), len(images), problems)


# Drafts


def draft(
    store: StoreOrPath,
    captioner: caption.Captioner,
    options: DraftOptions | None = None,
    *,
    glossary: Path | str | None = None,
    private: bool | None = None,
    network: FetchOptions | None = None,
    progress: OnProgress = ignore,
    before_captions: Callable[[caption.Captioner, int], None] | None = None,
    destination: Destination | None = None,
) -> DraftResult:
    """Fetch each image once, decide what it is for, and draft an alt text where one is missing.

    A second call drafts only what is missing and what would come out differently now. What a
    person reviewed does not change.

    Args:
        store: the site's store.
        captioner: captions the images; see `cutline.load`.
        options: how to draft; None is the default.
        glossary: a file with the site's own words, one "word = replacement" a line; remembered in
            the store. None uses the one remembered.
        private: whether to fetch images from private addresses. None allows only the crawl's start
            host, at the addresses that it had when the crawl started.
        network: how to fetch images; `public_only`, `private_host` and `robots` are set here.
        progress: called after every image.
        before_captions: called with the captioner and the number of requests to it, before the
            first one; may raise to send none.
        destination: opens the images that need it, such as those behind a login. None is the one
            that was scanned, if its kind is known.

    Raises:
        OptionError: there is no such store, or the glossary cannot be read.
        StoreError, OutputError: the disk is full, or the store is in use.
        EngineError: inference failed.
    """
    from cutline.fetch import Fetcher
    from cutline.site.images import BLOCKED
    from cutline.site.pipeline import DraftOptions, draft_site

    options = options or DraftOptions()
    with open_store(store, must_exist=True) as opened:
        destination = destination or stored_destination(opened)
        words = _glossary(opened, glossary)
        options = replace(options, wording=replace(options.wording, glossary=words))
        with Fetcher(_fetch_options(opened, network, private)) as fetcher:
            summary = draft_site(
                opened,
                captioner,
                options,
                fetcher=fetcher,
                progress=progress,
                before_captions=before_captions,
                open_image=destination.open_image if destination else None,
            )
        failed = list(opened.images("failed"))
        return DraftResult(
            summary,
            tuple((opened.named(image.url), image.error) for image in failed),
            any(image.code in BLOCKED for image in failed),
            opened.count_occurrences(stage="waiting"),
        )


def judge(
    store: StoreOrPath,
    model: ChatModel,
    *,
    language: str = "",
    prompt: Prompt | None = None,
    sample: int | None = None,
    private: bool | None = None,
    network: FetchOptions | None = None,
    progress: OnProgress = ignore,
    before_requests: Callable[[ChatModel, int], None] | None = None,
    destination: Destination | None = None,
) -> JudgeSummary:
    """Judge every alt that the pages have: by rule where a rule decides, else by a chat model.

    A second call judges only what is missing, and what changed since.

    Args:
        store: the site's store.
        model: a chat model; see `cutline.load`.
        language: of better alts, a language tag; "" is each page's own.
        prompt: how the model is asked; None is the package's prompt "judge".
        sample: ask the model about so many alts at most, spread over the site; None is all.
        private, network: as for `draft`.
        progress: called after every image and every judgement.
        before_requests: called with the model and the number of requests, before the first one;
            may raise to send none.
        destination: as for `draft`.

    Raises:
        OptionError: there is no such store, or the model is no chat model.
        ServerStoppedError: no further request can succeed; what was judged is kept.
    """
    from cutline.fetch import Fetcher
    from cutline.prompts import packaged
    from cutline.site.alt_judge import JudgeOptions, judge_site

    with open_store(store, must_exist=True) as opened:
        destination = destination or stored_destination(opened)
        options = JudgeOptions(
            language=language,
            glossary=_glossary(opened, None),
            prompt=prompt or packaged("judge"),
        )
        with Fetcher(_fetch_options(opened, network, private)) as fetcher:
            return judge_site(
                opened,
                model,
                options,
                sample=sample,
                fetcher=fetcher,
                progress=progress,
                before_requests=before_requests,
                open_image=destination.open_image if destination else None,
            )


# All at once


def run(
    source: str | Path | Destination,
    captioner: caption.Captioner,
    store: StoreOrPath = DEFAULT_STORE,
    *,
    report: Path | None = None,
    crawling: CrawlOptions | None = None,
    drafting: DraftOptions | None = None,
    glossary: Path | str | None = None,
    private: bool | None = None,
    network: FetchOptions | None = None,
    progress: OnProgress = ignore,
    on_step: Callable[[StepResult], None] | None = None,
    before_captions: Callable[[caption.Captioner, int], None] | None = None,
) -> RunResult:
    """Find the images of a site, draft alt texts and write the report.

    Args:
        source: a website's URL or host name, a folder, an HTML or Markdown file, a crawler's CSV
            export, or another destination.
        captioner: captions the images; see `cutline.load`.
        store: the site's store, created if it does not exist.
        report: the report's file; None is beside the store.
        crawling: how to crawl; its `include` and `exclude` apply to folders too.
        drafting, glossary, private, network: see `draft`.
        progress: called after every page and image.
        on_step: called with the result of each step as soon as it is complete.
        before_captions: as for `draft`.

    Raises:
        OptionError: there is no such source, or the store belongs to another site.
        DataError: no page could be read.
    """
    path = store.path if isinstance(store, Store) else Path(store)
    report = report or report_path(path)
    found: CrawlResult | ScanResult | ImportResult
    with open_store(store) as opened:
        only = crawling.include if crawling else ()
        never = crawling.exclude if crawling else ()
        if not isinstance(source, str | Path):
            found = scan(opened, source, include=only, exclude=never, progress=progress)
        elif url := url_of(source):
            found = crawl(opened, url, crawling, progress=progress)
        elif Path(source).is_dir() or is_page(Path(source)):
            found = scan(opened, Path(source), include=only, exclude=never, progress=progress)
        else:
            found = import_export(opened, Path(source))
        if on_step:
            on_step(found)
        drafted = draft(
            opened,
            captioner,
            drafting,
            glossary=glossary,
            private=private,
            network=network,
            progress=progress,
            before_captions=before_captions,
            destination=None if isinstance(source, str | Path) else source,
        )
        if on_step:
            on_step(drafted)
        write_report(opened, report, progress=progress)
    return RunResult(found, drafted, report)


# Helpers of the steps


def _glossary(store: Store, path: Path | str | None) -> dict[str, str]:
    """The site's own words; a file that is given is remembered in the store."""
    from cutline.site.decide.glossary import parse

    if path is None:
        return parse(store.setting("glossary") or "")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"got glossary {path}: {error}; expected a text file") from error
    words = parse(text)
    store.put_setting("glossary", text)
    return words


def _fetch_options(
    store: Store, network: FetchOptions | None, private: bool | None
) -> FetchOptions:
    """How images of a site are fetched: see `draft` for the arguments."""
    from cutline.fetch import FetchOptions

    return replace(
        network or FetchOptions(),
        public_only=not private,
        private_host=trusted_host(store) if private is None else None,
        robots=store.setting("robots") == "yes",
    )
