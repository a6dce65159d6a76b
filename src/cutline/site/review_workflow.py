"""The steps after the drafts, as functions: lint, review, apply, undo, report, export.

See `workflow` for the steps before, and for what all of them have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cutline.atomic import refuse_existing, write_whole
from cutline.errors import OptionError, OutputError
from cutline.progress import OnProgress, ignore, of_step
from cutline.site.destinations import has_files, stored_destination
from cutline.site.model import Finding, Review, Verdict, new_review
from cutline.site.opening import StoreOrPath, open_store
from cutline.site.outcomes import ApplyResult, ExportFormat, UndoResult
from cutline.site.store.store import Counts, Store, now

if TYPE_CHECKING:
    from cutline.site.destination import Destination
    from cutline.site.results.report_page import Report
    from cutline.site.results.review_csv import Sheet

_NOWHERE = "/nonexistent"


def lint(store: StoreOrPath, *, drafts: bool = False) -> Iterator[tuple[str, Finding]]:
    """Check the alt texts in the pages against WCAG.

    Files of a scanned folder are read as they are now; other pages are checked as they were
    crawled.

    Args:
        store: the site's store.
        drafts: check the drafts too.

    Yields:
        A place and a finding. The place is `page:line` in a file; elsewhere the page and the
        number of the image on it.

    Raises:
        OptionError: there is no such store.
    """
    from cutline.site.decide.lint import lint as lint_page
    from cutline.site.decide.lint import lint_alt
    from cutline.site.lint_workflow import lint_file

    with open_store(store, must_exist=True) as opened:
        root = Path((has_files(opened) and opened.setting("root")) or _NOWHERE)
        without_images = dict.fromkeys(
            page.url for page in opened.pages() if (root / page.url).is_file()
        )
        for url, group in groupby(opened.occurrences(), key=lambda each: each.occurrence.page):
            stored = list(group)
            if url in without_images:
                del without_images[url]
                yield from lint_file(root, url)
            else:
                for finding in lint_page([each.occurrence for each in stored]):
                    number = (
                        f", image {finding.occurrence.position + 1}" if finding.occurrence else ""
                    )
                    yield f"{url}{number}", finding
            for each in stored if drafts else ():
                if each.draft is not None and each.draft.alt:
                    for finding in lint_alt(each.draft.alt, each.occurrence):
                        message = f"our suggestion: {finding.message}"
                        yield url, replace(finding, message=message, occurrence=each.occurrence)
        for url in without_images:
            yield from lint_file(root, url)


def review(
    store: StoreOrPath,
    occurrence: int,
    verdict: Verdict | str,
    alt: str | None = None,
    *,
    long_description: str | None = None,
    who: str = "",
) -> Review:
    """Record a person's decision about one image occurrence.

    Args:
        store: the site's store.
        occurrence: its id, see `StoredOccurrence.id`.
        verdict: "approved" (the draft, or `alt` if it is given), "edited" (with `alt`),
            "decorative" or "skipped".
        alt: the alt text.
        long_description: the long description of a chart, map or diagram, "" for none; None takes
            the draft's.
        who: the person's name.

    Returns:
        The review as it was recorded: approved if both texts are the draft's, else edited.

    Raises:
        OptionError: there is no such store or verdict, or the verdict needs an alt text.
        StoreError: the store has no such occurrence.
    """
    with open_store(store, must_exist=True) as opened:
        stored = opened.occurrence(occurrence)
        made = new_review(
            stored.draft, verdict, alt, long_description=long_description, who=who, when=now()
        )
        opened.put_review(occurrence, made)
        return made


def write_reviews(store: StoreOrPath, stream: TextIO) -> None:
    """Write a CSV file in which a person can review every draft in a spreadsheet.

    Args:
        store: the site's store.
        stream: opened with `newline=""`, and with `encoding="utf-8-sig"` for Excel.
    """
    from cutline.site.results.review_csv import write_sheet

    with open_store(store, must_exist=True) as opened:
        write_sheet(opened, stream)


def read_reviews(store: StoreOrPath, file: Path | str, *, who: str = "") -> Sheet:
    """Record the reviews of a CSV file that `write_reviews` wrote and a person filled in.

    Args:
        store: the site's store.
        file: the CSV file.
        who: the person's name.

    Returns:
        The reviews recorded, and the rows that were not understood.

    Raises:
        OptionError: there is no such store.
        DataError: the file cannot be read, or has other columns.
    """
    from cutline.site.results.review_csv import read_reviews as read_sheet

    with open_store(store, must_exist=True) as opened:
        sheet = read_sheet(opened, Path(file), who)
        opened.put_reviews(sheet.reviews)
        return sheet


# Writing into pages


def apply(
    store: StoreOrPath,
    root: Path | str | Destination | None = None,
    *,
    write: bool = False,
    overwrite: bool = False,
    fill_empty: bool = False,
    to: str | None = None,
    progress: OnProgress = ignore,
) -> ApplyResult:
    """Write the approved alts into the pages; without `write`, only say what would change.

    Args:
        store: the site's store.
        root: the folder that was scanned, a local copy of the site that was crawled, or another
            destination. None is the one that was scanned.
        write: change the pages. `undo` restores them.
        overwrite: also replace existing alt text.
        fill_empty: replace an empty alt; always on in a WordPress site, whose editor writes one
            for an image without an alt.
        to: of a WordPress site: "library", "content" or "both", which is the default. An image of
            the library without a review takes the alt approved for the content that shows it.
        progress: called after every file.

    Raises:
        OptionError: there is no such store, folder or target, or credentials are missing.
        FetchError: a WordPress site cannot be reached, or refuses the user.
        OutputError: the journal cannot be written, so that nothing more is written.
    """
    from cutline.site.writeback.apply import apply as write_changes
    from cutline.site.writeback.apply import plan

    with open_store(store, must_exist=True) as opened:
        destination = _destination(opened, root)
        only, reviews = _wordpress_target(opened, destination, to)
        changes = plan(
            opened,
            destination,
            overwrite=overwrite,
            fill_empty=fill_empty or opened.empty_is_missing,
            only=only,
            reviews=reviews,
            progress=of_step("comparing", progress),
        )
        outcome = None
        if write:
            written = {id for change in changes for id in change.occurrences}
            opened.put_reviews((id, made) for id, made in reviews.items() if id in written)
            outcome = write_changes(
                opened,
                changes,
                journal=journal_path(opened.path),
                progress=of_step("writing", progress),
            )
            _read_again(opened, destination, outcome.files)
        return ApplyResult(tuple(changes), outcome, opened.count_occurrences(stage="reviewed") > 0)


def undo(
    store: StoreOrPath,
    *,
    root: Path | str | None = None,
    destinations: Sequence[Destination] = (),
    progress: OnProgress = ignore,
) -> UndoResult:
    """Restore every file that `apply` wrote, unless it has changed since.

    Args:
        store: the site's store.
        root: the folder that `apply` was given; None for what the store recorded. Only files in it
            are changed.
        destinations: those that `apply` was given and that are not folders. Without it, the one
            that was scanned is opened, if it is not a folder.
        progress: called after every file.

    Raises:
        OptionError: there is no such store, or its journal is some other file.
        FetchError: a WordPress site cannot be reached, or refuses the user.
        OutputError: the journal cannot be written.
    """
    from cutline.site.writeback.apply import known_folders
    from cutline.site.writeback.apply import undo as restore
    from cutline.site.writeback.journal import remaining_alts

    with open_store(store, must_exist=True) as opened:
        journal = journal_path(opened.path)
        if not journal.is_file():
            return UndoResult(None, {})
        stored = None if destinations else stored_destination(opened)
        places = [*destinations, *([stored] if stored else [])]
        for each in places:
            _connect(each)
        outcome = restore(
            opened,
            journal,
            root=None if root is None else Path(root),
            destinations=places,
            progress=of_step("undoing", progress),
        )
        for each in places:
            _read_again(opened, each, outcome.files)
        folders = [*known_folders(opened), *([] if root is None else [Path(root)])]
        remaining = {
            path: tuple(remaining_alts(journal, path, folders)) for path, _ in outcome.failed
        }
        return UndoResult(outcome, remaining)


def _destination(store: Store, root: Path | str | Destination | None) -> Path | Destination:
    """Where the pages are stored: the one given, else the one that was scanned.

    Raises:
        OptionError: none is given, and the pages were crawled or imported.
    """
    if root is not None and not isinstance(root, str | Path):
        return root
    destination = stored_destination(store)
    if destination is not None:
        if root is not None and str(Path(root).resolve()) != destination.address:
            raise OptionError(f"got {root}; expected {destination.address}, or no folder")
        return destination
    if root is not None:
        return Path(root)
    scanned = store.setting("root")
    if scanned is None:
        raise OptionError("got no folder; expected the folder with the pages of the site")
    return Path(scanned)


def _wordpress_target(
    store: Store, destination: Path | Destination, to: str | None
) -> tuple[Callable[[str], bool] | None, dict[int, Review]]:
    """Which pages of a WordPress site are written, and reviews for its library.

    Raises:
        OptionError: there is no such target, or it is another destination.
    """
    if isinstance(destination, Path) or destination.kind != "wordpress":
        if to is not None:
            raise OptionError(f"got --to {to}; expected it for a WordPress site only")
        return None, {}
    from cutline.site.wordpress.destination import Target, WordPress
    from cutline.site.wordpress.shared_alts import reviews_for_library

    try:
        target = Target(to or Target.BOTH)
    except ValueError as error:
        raise OptionError(f"got --to {to}; expected {', '.join(Target)}") from error
    assert isinstance(destination, WordPress)
    destination.connect()
    reviews = {} if target is Target.CONTENT else reviews_for_library(store)
    return lambda url: destination.is_target(url, target), reviews


def _connect(destination: Destination) -> None:
    """Fail early, and once, if a WordPress site cannot be reached."""
    if destination.kind == "wordpress":
        from cutline.site.wordpress.destination import WordPress

        assert isinstance(destination, WordPress)
        destination.connect()


def _read_again(store: Store, destination: Path | Destination, pages: Sequence[str]) -> None:
    """Read the pages of a WordPress site that were written, so that they can be written again."""
    if isinstance(destination, Path) or destination.kind != "wordpress":
        return
    from cutline.site.wordpress.destination import WordPress

    assert isinstance(destination, WordPress)
    for url in dict.fromkeys(pages):
        with suppress(OutputError):
            store.put_page(*destination.read_page(url))


def journal_path(store: Path) -> Path:
    """The file in which `apply` notes what it wrote, for `undo`."""
    return store.with_name(f"{store.name}-applied.jsonl")


# Results


def report(store: StoreOrPath, *, progress: OnProgress = ignore) -> Report:
    """Coverage before and after, purposes, problems and a gallery; see `Report.to_html`.

    Args:
        store: the site's store.
        progress: called after every page.

    Raises:
        OptionError: there is no such store.
    """
    from cutline.site.results.report import report as make_report

    with open_store(store, must_exist=True) as opened:
        return make_report(opened, progress=of_step("reporting", progress))


def write_report(store: StoreOrPath, output: Path, *, progress: OnProgress = ignore) -> None:
    """Write the report as one HTML file.

    Args:
        store: the site's store.
        output: the file; it is replaced if it exists.
        progress: called after every page and thumbnail.

    Raises:
        OptionError: there is no such store.
        OutputError: the file cannot be written.
    """
    made = report(store, progress=progress)
    write_whole(output, made.to_html(progress=of_step("reporting", progress)))


def report_path(store: Path) -> Path:
    """Where a store's report is written by default; an earlier report there may be replaced.

    Raises:
        OptionError: some other file exists there.
    """
    from cutline.site.results.report_page import TITLE

    path = store.with_name(f"{store.stem}-report.html")
    if not (path.is_file() and TITLE.encode() in path.read_bytes()[:1000]):
        refuse_existing(path)
    return path


def export(
    store: StoreOrPath, stream: TextIO, format: ExportFormat | str = ExportFormat.CSV
) -> None:
    """Write every occurrence with its draft and review: as CSV, JSON or WP-CLI commands.

    Args:
        store: the site's store.
        stream: opened with `newline=""`.
        format: see `ExportFormat`.

    Raises:
        OptionError: there is no such store or format, or no image has a URL by which WordPress
            could find it.
    """
    from cutline.site.results import export as results

    try:
        chosen = ExportFormat(format)
    except ValueError as error:
        raise OptionError(f"got format {format!r}; expected {', '.join(ExportFormat)}") from error
    with open_store(store, must_exist=True) as opened:
        if chosen is ExportFormat.CSV:
            results.write_csv(opened, stream)
        elif chosen is ExportFormat.JSON:
            results.write_json(opened, stream)
        elif any(each.url.startswith(("http://", "https://")) for each in opened.images()):
            stream.write(results.wp_cli(opened))
        else:
            raise OptionError(
                "got a store without images on the web; expected one of a crawl or an import, "
                "because WordPress finds images by their URLs"
            )


def export_rows(store: StoreOrPath, rows: Path | str, output: Path | str) -> None:
    """Write an imported CSV file again with the results in new columns.

    Args:
        store: the site's store.
        rows: the file that was imported.
        output: the file to write; it is replaced if it exists.

    Raises:
        OptionError: there is no such store, or the file was not imported into it.
        DataError: the file cannot be read.
        OutputError: the output cannot be written.
    """
    from cutline.site.results.review_csv import answer_export

    with open_store(store, must_exist=True) as opened:
        answer_export(opened, Path(rows), Path(output))


def status(store: StoreOrPath) -> Counts:
    """How many pages, images, drafts and reviews a store holds.

    Raises:
        OptionError: there is no such store.
    """
    with open_store(store, must_exist=True) as opened:
        return opened.counts()
