"""What the functions of `workflow` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cutline.errors import OptionError

if TYPE_CHECKING:
    from cutline.site.pipeline import Summary
    from cutline.site.store.store import StoredOccurrence
    from cutline.site.writeback.apply import Outcome, PageChange


@dataclass(frozen=True)
class CrawlResult:
    """What a crawl found.

    Attributes:
        pages: pages read, those of an interrupted crawl that was continued included.
        failed: pages that could not be read.
        forbidden: pages that robots.txt excludes.
        waiting: pages found but not requested, because `max_pages` was reached.
        retired: pages of an earlier crawl that no longer exist.
        occurrences, images: image occurrences on all pages of the store, and distinct images.
        problems: URL and error of each page that this call could not read.
        seconds: how long this call took.
        unread: how many things on the pages look like images and were not read, by what they are.
    """

    pages: int
    failed: int
    forbidden: int
    waiting: int
    retired: int
    occurrences: int
    images: int
    problems: tuple[tuple[str, str], ...]
    seconds: float
    unread: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanResult:
    """What a scan of a folder found.

    Attributes:
        pages: files read, those that failed included.
        occurrences, images: image occurrences in these files, and distinct images.
        problems: path and error of each file that could not be read.
        unread: how many things look like images and were not read, by what they are, such as
            "wiki link" or "image in a .rst file".
    """

    pages: int
    occurrences: int
    images: int
    problems: tuple[tuple[str, str], ...]
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many files could not be read."""
        return len(self.problems)


@dataclass(frozen=True)
class WordPressResult:
    """What a reading of a WordPress site found.

    Attributes:
        posts: posts, pages, synced patterns and posts of other public types.
        library: images in the media library.
        occurrences, images: image occurrences in both, and distinct images.
        retired: posts and images of an earlier reading that are gone, or are not read any more.
        continued: whether an interrupted reading was continued.
        unread: how many things show images and are not written, by what they are.
    """

    posts: int
    library: int
    occurrences: int
    images: int
    retired: int = 0
    continued: bool = False
    unread: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportResult:
    """What an import of a crawler's CSV file found.

    Attributes:
        file: the file's name.
        rows: its rows.
        occurrences, images: image occurrences in these rows, and distinct images.
        problems: number (from 0) and error of each row that was not understood.
    """

    file: str
    rows: int
    occurrences: int
    images: int
    problems: tuple[tuple[int, str], ...]

    @property
    def failed(self) -> int:
        """How many rows were not understood."""
        return len(self.problems)


@dataclass(frozen=True)
class DraftResult:
    """What a run of drafts produced.

    Attributes:
        summary: counts of this call.
        problems: URL or path, and error, of each image of the site that could not be fetched.
        blocked: whether some of these were refused because they are not on the public internet.
        waiting: occurrences that wait for a review.
    """

    summary: Summary
    problems: tuple[tuple[str, str], ...]
    blocked: bool
    waiting: int

    @property
    def failed(self) -> int:
        """How many images could not be fetched or captioned."""
        return len(self.problems) + self.summary.uncaptioned


@dataclass(frozen=True)
class ApplyResult:
    """What writing the approved alts changes, or has changed.

    Attributes:
        changes: one for each file, and one for each page without a file.
        outcome: what was written; None if nothing was to be written.
        approved: whether the store holds any approved alt.
    """

    changes: tuple[PageChange, ...]
    outcome: Outcome | None
    approved: bool

    @property
    def refused(self) -> tuple[tuple[StoredOccurrence, str], ...]:
        """The occurrences that are left as they are, and why."""
        return tuple(each for change in self.changes for each in change.refused)

    @property
    def alts(self) -> int:
        """How many alts were written, or are to be written."""
        if self.outcome is not None:
            return self.outcome.occurrences
        return sum(len(change.occurrences) for change in self.changes)

    @property
    def files(self) -> int:
        """How many files were changed, or are to be changed."""
        if self.outcome is not None:
            return len(self.outcome.files)
        return sum(bool(change.edits) for change in self.changes)

    @property
    def noun(self) -> str:
        """What a stored page is called: "file", or "page" where it is none."""
        kinds = {each.destination.kind for each in self.changes if each.destination}
        return "file" if kinds <= {"folder", "pictures"} else "page"

    @property
    def failed(self) -> int:
        """How many occurrences were refused, plus files that could not be written."""
        return len(self.refused) + (len(self.outcome.failed) if self.outcome else 0)

    def patch(self) -> bytes:
        """The changes as a patch for `git apply`.

        Raises:
            OptionError: a page is not a text file.
            OutputError: a file has changed since.
        """
        from cutline.site.writeback.apply import patch

        return patch(self.changes)

    def diff(self) -> str:
        """The changes of all pages as a unified diff to read.

        Raises:
            OutputError: a page has changed since.
        """
        return "".join(change.diff() for change in self.changes)

    def preview(self) -> bytes:
        """The patch if all pages are text files, else the diff; raises as `diff` does."""
        try:
            return self.patch()
        except OptionError:
            return self.diff().encode("utf-8", "replace")


@dataclass(frozen=True)
class UndoResult:
    """What was undone.

    Attributes:
        outcome: the files restored; None if nothing had ever been written.
        remaining: for each file that was left as it is, the line and text of each alt of ours
            that is still in it.
    """

    outcome: Outcome | None
    remaining: Mapping[str, tuple[tuple[int, str], ...]]

    @property
    def failed(self) -> int:
        """How many files were left as they are."""
        return len(self.outcome.failed) if self.outcome else 0


StepResult: TypeAlias = "CrawlResult | ScanResult | ImportResult | DraftResult"


@dataclass(frozen=True)
class RunResult:
    """What `run` did: the images found, the drafts made, and where the report is."""

    found: CrawlResult | ScanResult | ImportResult
    drafted: DraftResult
    report: Path

    @property
    def failed(self) -> int:
        """How many pages, files, rows or images failed."""
        return self.found.failed + self.drafted.failed


class ExportFormat(StrEnum):
    """The formats of `export`."""

    CSV = "csv"
    JSON = "json"
    WP_CLI = "wp-cli"
