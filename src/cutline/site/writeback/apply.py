"""Writes approved alts into a destination, and changes nothing else in it.

`plan` reads and decides, `apply` writes, `undo` restores: the same for a folder of files and for
every other destination. Only approved alts are written. If the alt in a page changed since the
review, the occurrence is refused with a reason, and the others are written. Each page is written
as a whole, after its journal entry is on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from cutline.errors import CutlineError, OptionError, OutputError, StoreError
from cutline.site.destination import (
    AltChange,
    ChangedByStoreError,
    Destination,
    Edit,
    OpenPage,
    inverted,
)
from cutline.site.model import ImageOccurrence, Page, Review
from cutline.site.pages.alt_markup import clean, has_alt
from cutline.site.pages.write_rules import WriteOptions, may_write, may_write_long_description
from cutline.site.store.store import Store, StoredOccurrence, now
from cutline.site.writeback.folder import FolderDestination, TextPage
from cutline.site.writeback.journal import Journal, JournalEntry, JournalError
from cutline.site.writeback.locate import is_url

Progress = Callable[[int, int], None]

_ADDRESSES = "applied_to"  # the setting with the addresses that `apply` wrote to


@dataclass(frozen=True)
class PageChange:
    """The planned change of one page; without edits if all occurrences are refused or up to date.

    Attributes:
        path: its short name, such as a path relative to the folder; the page's URL if it is not
            in the destination.
        destination: where it is stored.
        location: as in `Destination.location`; "" if it is not in the destination.
        sha256: of the current page.
        edits: ordered by part and position.
        refused: the occurrences that are not written, and why.
        up_to_date: ids of the occurrences that already have their approved alt.
        notes: what the user should know about the edits; see `PageBase.notes`.
    """

    path: str
    destination: Destination | None = None
    location: str = ""
    sha256: str = ""
    edits: tuple[Edit, ...] = ()
    refused: tuple[tuple[StoredOccurrence, str], ...] = ()
    up_to_date: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def occurrences(self) -> tuple[int, ...]:
        """The ids of the occurrences that are written."""
        return tuple(dict.fromkeys(edit.occurrence for edit in self.edits))

    def open(self) -> OpenPage:
        """The page as it was when the change was planned.

        Raises:
            OutputError: it is missing, unreadable, or has changed since the plan.
        """
        if self.destination is None:
            raise OutputError(f"there is no {self.path}")
        page = self.destination.open(self.location)
        if page.sha256 != self.sha256:
            raise OutputError(f"{self.path} changed a moment ago; run the same command again")
        return page

    def diff(self) -> str:
        """The change as a unified diff to read; raises as `open` does.

        `patch` returns a patch for programs.
        """
        return self.open().diff(self.edits) if self.edits else ""


@dataclass(frozen=True)
class Outcome:
    """What `apply` or `undo` did.

    Attributes:
        files: the short names of the pages written, such as paths relative to the folder.
        occurrences: the number of occurrences written.
        failed: the pages that were not changed, and why. A page is in both lists if the store keeps
            another text than the one it was given.
    """

    files: tuple[str, ...]
    occurrences: int
    failed: tuple[tuple[str, str], ...] = ()


def plan(
    store: Store,
    destination: Destination | Path,
    *,
    overwrite: bool = False,
    fill_empty: bool = False,
    only: Callable[[str], bool] | None = None,
    reviews: Mapping[int, Review] = MappingProxyType({}),
    progress: Progress | None = None,
) -> list[PageChange]:
    """Plan the changes that write the approved alts into a destination; writes nothing.

    `write_rules.may_write` decides what may be replaced. A crawled page is written only into a file
    with the crawled content.

    Args:
        store: the site's store.
        destination: where the pages are stored; a path is the scanned folder, or a local copy of
            the crawled site.
        overwrite: also replace text that a person wrote.
        fill_empty: also replace an empty alt.
        only: whether a page, by its URL, may be written; None means all.
        reviews: of occurrences that have none in the store, by their ids.
        progress: called with the number of pages done and the total.

    Returns:
        One change per stored page, sorted by name, and one per page that is not stored there.

    Raises:
        OptionError: the path is not a folder.
    """
    if isinstance(destination, Path):
        if not destination.is_dir():
            raise OptionError(
                f"got {destination}, which is not a folder; expected the folder with the pages"
            )
        destination = FolderDestination(destination, store)
    planner = _Planner(store, destination, WriteOptions(overwrite, fill_empty), reviews)
    changes: list[PageChange] = []
    by_location: dict[str, list[StoredOccurrence]] = {}
    for url, occurrences in planner.approved.items():
        if only is not None and not only(url):
            continue
        try:
            location = destination.location(planner.page(url))
            by_location.setdefault(location, []).extend(occurrences)
        except (CutlineError, UnicodeError) as error:
            changes.append(_refusal(url, occurrences, error))
    for number, (location, occurrences) in enumerate(by_location.items()):
        if progress:
            progress(number, len(by_location))
        changes.append(planner.change(location, occurrences))
    if progress:
        progress(len(by_location), len(by_location))
    return sorted(changes, key=lambda change: change.path)


def apply(
    store: Store,
    changes: Sequence[PageChange],
    *,
    journal: Path,
    progress: Progress | None = None,
) -> Outcome:
    """Write the pages of a plan, one after the other.

    What a killed `apply` left behind, such as temporary files, is deleted first.

    Args:
        store: records what was applied.
        changes: the result of `plan`.
        journal: the file that `undo` reads; appended to if it exists.
        progress: called with the number of pages done and the total.

    Returns:
        What was written. A page that cannot be written, or that changed since the plan, is not
        changed, and the others are written.

    Raises:
        OptionError: the journal path is another kind of file.
        OutputError: the journal cannot be written; no further page is written then.
    """
    when = now()
    written: list[str] = []
    failed: list[tuple[str, str]] = []
    occurrences = 0
    with Journal(journal) as lines:
        destinations = {
            change.destination.address: change.destination
            for change in changes
            if change.destination and change.edits
        }
        _remember_addresses(store, destinations)
        for destination in destinations.values():
            destination.clean_up()
        for number, change in enumerate(changes):
            if progress:
                progress(number, len(changes))
            if change.edits:
                try:
                    edits, problem = _write(change, lines, when)
                except JournalError:
                    raise
                except (CutlineError, OSError) as error:
                    failed.append((change.path, _reason(error)))
                    continue
                if problem:
                    failed.append((change.path, problem))
                written.append(change.path)
                occurrences += len(change.occurrences)
                for id, alt in {edit.occurrence: edit.alt for edit in edits}.items():
                    store.put_applied(id, alt, when)
            for id in change.up_to_date:
                stored = store.occurrence(id)
                if not stored.applied and stored.review and stored.review.alt is not None:
                    store.put_applied(id, stored.review.alt, when)
    if progress:
        progress(len(changes), len(changes))
    return Outcome(tuple(written), occurrences, tuple(failed))


def undo(
    store: Store,
    journal: Path,
    *,
    root: Path | None = None,
    destinations: Sequence[Destination] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Restore the pages in a journal, the newest entry first.

    The journal is not trusted: only alts, in pages of the destinations passed to `apply`, are
    changed.

    Args:
        store: records what was restored, and has the folders passed to `apply`.
        journal: the file written by `apply`.
        root: the folder passed to `apply`, for a store of an earlier version of Cutline, which did
            not record it.
        destinations: where pages outside of folders are stored.
        progress: called with the number of entries done and the total.

    Returns:
        The restored pages. A page that changed since it was written is not restored.

    Raises:
        OptionError: the journal does not exist, or is another kind of file.
        OutputError: the journal cannot be written.
    """
    if not journal.is_file():
        raise OptionError(f"got {journal}, which is not there; expected what apply wrote")
    folders = [root.resolve()] if root else known_folders(store)
    places = [*destinations, *(FolderDestination(folder, store) for folder in folders)]
    when = now()
    restored: list[str] = []
    failed: list[tuple[str, str]] = []
    occurrences = 0
    with Journal(journal) as lines:
        for place in places:
            place.clean_up()
        entries = list(lines.entries())
        for done, entry in enumerate(reversed(entries)):
            if progress:
                progress(done, len(entries))
            ids = {edit.occurrence for edit in entry.edits}
            try:
                if _restore(entry, places):
                    restored.append(entry.path)
                    occurrences += len(ids)
            except (CutlineError, OSError, ValueError) as error:
                failed.append((entry.path or journal.name, _reason(error)))
                continue
            for id in ids:
                with suppress(StoreError, OverflowError):  # another store than apply's
                    store.undo_applied(id, when)
            lines.add_undone(entry, when)
        if progress:
            progress(len(entries), len(entries))
    return Outcome(tuple(restored), occurrences, tuple(failed))


def patch(changes: Iterable[PageChange]) -> bytes:
    """All changes as one patch for `git apply` or `patch -p1`, run in the root.

    Args:
        changes: the result of `plan`.

    Returns:
        Bytes, because each file keeps its encoding; b"" if nothing changes.

    Raises:
        OptionError: a page is not a text file.
        OutputError: a file has changed since the plan.
    """
    found: list[bytes] = []
    for change in changes:
        if not change.edits:
            continue
        page = change.open()
        if not isinstance(page, TextPage):
            raise OptionError(
                f"got {change.path}; expected only HTML and Markdown files in a patch: write the "
                "changes instead"
            )
        found.append(page.patch(change.edits))
    return b"".join(found)


# Planning


class _Planner:
    """Plans the changes of the pages of one destination.

    Attributes:
        approved: the occurrences with an approved alt, by page.
    """

    def __init__(
        self,
        store: Store,
        destination: Destination,
        options: WriteOptions,
        reviews: Mapping[int, Review],
    ) -> None:
        self._store, self._destination, self._options = store, destination, options
        self._pages: dict[str, Page] = {}
        for page in store.pages():
            if page.sha256 or page.url not in self._pages:
                self._pages[page.url] = page
        self.approved: dict[str, list[StoredOccurrence]] = {}
        for stored in store.occurrences(stage="reviewed"):
            if stored.review is not None and stored.review.alt is not None:
                self.approved.setdefault(stored.occurrence.page, []).append(stored)
        for id, review in reviews.items():
            stored = replace(store.occurrence(id), review=review)
            self.approved.setdefault(stored.occurrence.page, []).append(stored)

    def page(self, url: str) -> Page:
        """A page as it was read; without a digest if it was not, as in a crawler's export."""
        return self._pages.get(url, Page(url))

    def change(self, location: str, occurrences: Sequence[StoredOccurrence]) -> PageChange:
        """The change of one stored page."""
        path = occurrences[0].occurrence.page
        try:
            page = self._destination.open(location)
            path = page.path
            changes: dict[int, AltChange] = {}  # by the position in the current page
            refused: list[tuple[StoredOccurrence, str]] = []
            up_to_date: list[int] = []
            for stored in occurrences:
                try:
                    found, kept = self._wanted(page, stored)
                    if kept:
                        refused.append((stored, kept))
                    if found is None:
                        up_to_date.append(stored.id)
                        continue
                    same = changes.setdefault(found.occurrence.position, found)
                    if same.alt != found.alt:
                        raise OutputError(
                            "another page has this file, and another alt approved for it"
                        )
                    if same is not found:
                        up_to_date.append(stored.id)
                except OutputError as error:
                    refused.append((stored, str(error)))
            edits = _edits(page, list(changes.values()), occurrences, refused)
        except (CutlineError, UnicodeError) as error:
            return _refusal(path, occurrences, error)
        return PageChange(
            path,
            self._destination,
            location,
            page.sha256,
            edits,
            tuple(refused),
            tuple(up_to_date),
            tuple(getattr(page, "notes", ())),
        )

    def _wanted(self, page: OpenPage, stored: StoredOccurrence) -> tuple[AltChange | None, str]:
        """The change of an occurrence; None if it already has its texts.

        Returns:
            The change, and why it leaves out the approved long description; "" if it does not.

        Raises:
            OutputError: it may not or cannot be written.
        """
        occurrence, review = stored.occurrence, stored.review
        if review is None or review.alt is None:
            return None, ""

        def known() -> list[ImageOccurrence]:
            return [each.occurrence for each in self._store.occurrences(page=occurrence.page)]

        there = page.locate(occurrence, self.page(occurrence.page), known)
        long_description, kept = self._long_description(there, stored)
        if has_alt(there, review.alt) and long_description is None:
            if kept:
                raise OutputError(kept)
            return None, ""
        change = AltChange(stored.id, there, clean(review.alt), long_description)
        if not page.check(change):
            return None, kept
        decision = may_write(there, [*self._store.history(stored.id), review], self._options)
        if not decision.allowed:
            raise OutputError(decision.reason)
        return change, kept

    def _long_description(
        self, there: ImageOccurrence, stored: StoredOccurrence
    ) -> tuple[str | None, str]:
        """The long description to write, None for none, and why the approved one is not written."""
        present = there.long_description
        wanted = " ".join(clean(stored.approved_long_description).split())
        if present is None or not wanted or wanted == present:
            return None, ""
        decision = may_write_long_description(
            present, self._store.history(stored.id), self._options
        )
        return (wanted, "") if decision.allowed else (None, decision.reason)


def _edits(
    page: OpenPage,
    changes: list[AltChange],
    occurrences: Sequence[StoredOccurrence],
    refused: list[tuple[StoredOccurrence, str]],
) -> tuple[Edit, ...]:
    """The edits of a page; changes that it does not allow are moved to `refused`."""
    if not changes:
        return ()
    try:
        return page.edits(changes)
    except OutputError:  # find out which
        by_id = {stored.id: stored for stored in occurrences}
    allowed: list[AltChange] = []
    for change in changes:
        try:
            page.edits([change])
            allowed.append(change)
        except OutputError as error:
            refused.append((by_id[change.id], str(error)))
    return page.edits(allowed) if allowed else ()


def _refusal(
    path: str, occurrences: Sequence[StoredOccurrence], error: CutlineError | UnicodeError
) -> PageChange:
    return PageChange(path, refused=tuple((each, str(error)) for each in occurrences))


# Writing and restoring


def _write(change: PageChange, lines: Journal, when: str) -> tuple[tuple[Edit, ...], str]:
    """Write one page; returns what was changed in effect, and what differs from the plan.

    Raises:
        JournalError: the journal cannot be written; the page is unchanged.
        CutlineError, OSError: the page cannot be written; it is unchanged.
    """
    page = change.open()
    number = 0

    def commit(after: str) -> None:
        nonlocal number
        entry = JournalEntry(0, change.path, change.location, change.sha256, after, change.edits)
        number = lines.add_entry(entry, when)

    try:
        page.write(change.edits, commit)
    except ChangedByStoreError as error:
        lines.add_correction(number, error.sha256, error.edits, when)
        return error.edits, str(error)
    return change.edits, ""


def _restore(entry: JournalEntry, destinations: Sequence[Destination]) -> bool:
    """Restore the page of a journal entry; False if it already has the earlier content.

    Raises:
        OutputError: the page changed since, or `apply` cannot have written the entry.
        OSError: it cannot be read or written.
    """
    if entry.problem:
        raise OutputError(entry.problem)
    page = _reopen(entry, destinations)
    if page.sha256 == entry.before:
        return False
    if page.sha256 != entry.after:
        raise OutputError("it changed since it was written; restore it by hand")
    edits = inverted(entry.edits)
    if not page.only_alts(edits):
        raise OutputError("the journal asks to change more than alts; restore it by hand")

    def check(after: str) -> None:
        if after != entry.before:
            raise OutputError("the journal does not fit the file; restore it by hand")

    page.write(edits, check)
    return True


def _reopen(entry: JournalEntry, destinations: Sequence[Destination]) -> OpenPage:
    """The current page of a journal entry.

    Raises:
        OutputError: it is not in a destination that `apply` was given.
    """
    for destination in destinations:
        if destination.owns(entry.file):
            return destination.open(entry.file)
    if is_url(entry.file):
        raise OutputError("it is not in a folder; name the destination that apply wrote to")
    if not destinations:
        raise OutputError("the record does not say which folder apply was given; name the folder")
    raise OutputError("it is not in the folder that apply was given; restore it by hand")


def _remember_addresses(store: Store, addresses: Iterable[str]) -> None:
    known = _known_addresses(store) if store.setting(_ADDRESSES) else []
    new = [each for each in sorted(addresses) if each not in known]
    if new:
        store.put_setting(_ADDRESSES, json.dumps([*known, *new]))


def known_folders(store: Store) -> list[Path]:
    """The folders that `apply` wrote to."""
    return [Path(each) for each in _known_addresses(store) if not is_url(each)]


def _known_addresses(store: Store) -> list[str]:
    """The addresses passed to `apply`; a store of version 0.1 only has the scanned folder."""
    recorded = store.setting(_ADDRESSES)
    if recorded is None:
        scanned = store.setting("root")
        return [scanned] if scanned else []
    try:
        known = json.loads(recorded)
    except (ValueError, RecursionError):
        return []
    return [each for each in known if isinstance(each, str)] if isinstance(known, list) else []


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
