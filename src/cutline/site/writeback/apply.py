"""Writes approved alts into the files of pages, and changes nothing else in them.

`plan` reads and decides, `apply` writes, `undo` restores. Only approved alts are written. If the
alt in a page changed since the review, the occurrence is refused with a reason, and the others are
written. Each file is replaced atomically, after its journal entry is on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cutline.atomic import read_regular, remove_leftovers, replacing
from cutline.errors import CutlineError, OptionError, OutputError, StoreError
from cutline.site.model import Page
from cutline.site.pages.alt_markup import clean, differs_in_alt_only, has_alt
from cutline.site.pages.write_rules import WriteOptions, may_write
from cutline.site.store.store import Store, StoredOccurrence, now
from cutline.site.writeback.journal import Journal, JournalEdit, JournalEntry, JournalError
from cutline.site.writeback.locate import Change, PageFiles, PageText, is_url
from cutline.site.writeback.patch import Edit, edited, header, hunks, shown

Progress = Callable[[int, int], None]

_FOLDERS = "applied_to"  # the setting with the folders that `apply` wrote into


@dataclass(frozen=True)
class FileChange:
    """The planned change of one file; without edits if every occurrence is refused or up to date.

    Attributes:
        path: relative to the root, with slashes; the page's URL if it has no file.
        file: its path; None if there is none.
        sha256: of the current file.
        encoding: of its text.
        edits: in file order.
        refused: the occurrences that are not written, and why.
        up_to_date: ids of the occurrences that already have their approved alt.
    """

    path: str
    file: Path | None = None
    sha256: str = ""
    encoding: str = "utf-8"
    edits: tuple[Edit, ...] = ()
    refused: tuple[tuple[StoredOccurrence, str], ...] = ()
    up_to_date: tuple[int, ...] = ()

    @property
    def before(self) -> bytes:
        """The current content of the file.

        Raises:
            OutputError: it is missing, unreadable, or has changed since the plan.
        """
        if self.file is None:
            return b""
        content = _read(self.file)
        if _sha256(content) != self.sha256:
            raise OutputError(f"{self.path} changed a moment ago; run the same command again")
        return content

    @property
    def after(self) -> bytes:
        """The content after the change; raises as `before` does."""
        return edited(self.before, self.edits)

    @property
    def root(self) -> Path | None:
        """The folder that `path` is relative to; None if there is no file."""
        return self.file and self.file.parents[len(PurePosixPath(self.path).parts) - 1]

    def diff(self) -> str:
        """The change as a unified diff to read, with long lines cut; raises as `before` does.

        `patch` returns a patch for programs.
        """
        if not self.edits:
            return ""
        name = header(self.path).decode("utf-8", "replace")
        return name + shown(self.before, self.edits, self.encoding)


@dataclass(frozen=True)
class Outcome:
    """What `apply` or `undo` did.

    Attributes:
        files: the files written, relative to the root.
        occurrences: the number of occurrences written.
        failed: the files not changed, and why.
    """

    files: tuple[str, ...]
    occurrences: int
    failed: tuple[tuple[str, str], ...] = ()


def plan(
    store: Store,
    root: Path,
    *,
    overwrite: bool = False,
    fill_empty: bool = False,
    progress: Progress | None = None,
) -> list[FileChange]:
    """Plan the changes that write the approved alts into a folder's files; writes nothing.

    `write_rules.may_write` decides what may be replaced. A crawled page is written only into a file
    with the crawled content.

    Args:
        store: the site's store.
        root: the scanned folder, or a local copy of the crawled site.
        overwrite: also replace text that a person wrote.
        fill_empty: also replace an empty alt.
        progress: called with the number of pages done and the total.

    Returns:
        One change per file, sorted by name, and one per page without a file.

    Raises:
        OptionError: the root is not a folder.
    """
    if not root.is_dir():
        raise OptionError(f"got {root}, which is not a folder; expected the folder with the pages")
    root = root.resolve()
    planner = _Planner(store, root, WriteOptions(overwrite, fill_empty))
    changes: list[FileChange] = []
    by_file: dict[Path, list[StoredOccurrence]] = {}
    for url, occurrences in planner.approved.items():
        try:
            by_file.setdefault(planner.file(url), []).extend(occurrences)
        except (CutlineError, UnicodeError) as error:
            changes.append(
                FileChange(url, refused=tuple((each, str(error)) for each in occurrences))
            )
    for number, (file, occurrences) in enumerate(by_file.items()):
        if progress:
            progress(number, len(by_file))
        path = file.relative_to(root).as_posix()
        try:
            change = planner.change(path, file, occurrences)
        except (CutlineError, UnicodeError) as error:
            change = FileChange(path, refused=tuple((each, str(error)) for each in occurrences))
        changes.append(change)
    if progress:
        progress(len(by_file), len(by_file))
    return sorted(changes, key=lambda change: change.path)


def apply(
    store: Store,
    changes: Sequence[FileChange],
    *,
    journal: Path,
    progress: Progress | None = None,
) -> Outcome:
    """Write the files of a plan, one after the other.

    Temporary files that a killed `apply` left in the folder are deleted first.

    Args:
        store: records what was applied.
        changes: the result of `plan`.
        journal: the file that `undo` reads; appended to if it exists.
        progress: called with the number of files done and the total.

    Returns:
        What was written. A file that cannot be written, or that changed since the plan, is not
        changed, and the others are written.

    Raises:
        OptionError: the journal path is another kind of file.
        OutputError: the journal cannot be written; no further file is written then.
    """
    when = now()
    written: list[str] = []
    failed: list[tuple[str, str]] = []
    occurrences = 0
    with Journal(journal) as lines:
        folders = {change.root for change in changes if change.root and change.edits}
        _remember_folders(store, folders)
        for folder in folders:
            remove_leftovers(folder)
        for number, change in enumerate(changes):
            if progress:
                progress(number, len(changes))
            if change.file is not None and change.edits:
                try:
                    after = change.after
                    with replacing(change.file, keep_owner=True) as file:
                        file.write(after)
                        lines.add_entry(_entry(change, after), when)
                except JournalError:
                    raise
                except OSError as error:
                    failed.append((change.path, _reason(error)))
                    continue
                written.append(change.path)
                occurrences += len(change.edits)
                for edit in change.edits:
                    store.put_applied(edit.occurrence, edit.alt, when)
            for id in change.up_to_date:
                stored = store.occurrence(id)
                if not stored.applied and stored.review and stored.review.alt is not None:
                    store.put_applied(id, stored.review.alt, when)
    if progress:
        progress(len(changes), len(changes))
    return Outcome(tuple(written), occurrences, tuple(failed))


def undo(
    store: Store, journal: Path, *, root: Path | None = None, progress: Progress | None = None
) -> Outcome:
    """Restore the files in a journal, the newest entry first.

    The journal is not trusted: only alts, in regular files within `apply`'s folder, are changed.

    Args:
        store: records what was restored, and has the folders passed to `apply`.
        journal: the file written by `apply`.
        root: the folder passed to `apply`, for a store of an earlier version of Cutline, which did
            not record it.
        progress: called with the number of entries done and the total.

    Returns:
        The restored files. A file that changed since it was written is not restored.

    Raises:
        OptionError: the journal does not exist, or is another kind of file.
        OutputError: the journal cannot be written.
    """
    if not journal.is_file():
        raise OptionError(f"got {journal}, which is not there; expected what apply wrote")
    folders = [root.resolve()] if root else _known_folders(store)
    when = now()
    restored: list[str] = []
    failed: list[tuple[str, str]] = []
    occurrences = 0
    with Journal(journal) as lines:
        for folder in folders:
            remove_leftovers(folder)
        entries = list(lines.entries())
        for done, entry in enumerate(reversed(entries)):
            if progress:
                progress(done, len(entries))
            try:
                if _restore(entry, folders):
                    restored.append(entry.path)
                    occurrences += len(entry.edits)
            except (OSError, ValueError) as error:
                failed.append((entry.path or journal.name, _reason(error)))
                continue
            for edit in entry.edits:
                with suppress(StoreError, OverflowError):  # another store than apply's
                    store.undo_applied(edit.occurrence, when)
            lines.add_undone(entry, when)
        if progress:
            progress(len(entries), len(entries))
    return Outcome(tuple(restored), occurrences, tuple(failed))


def patch(changes: Iterable[FileChange]) -> bytes:
    """All changes as one patch for `git apply` or `patch -p1`, run in the root.

    Args:
        changes: the result of `plan`.

    Returns:
        Bytes, because each file keeps its encoding; b"" if nothing changes.

    Raises:
        OutputError: a file has changed since the plan.
    """
    return b"".join(
        header(change.path) + hunks(change.before, change.edits)
        for change in changes
        if change.edits
    )


# Planning


class _Planner:
    """Plans the changes of one folder's files.

    Attributes:
        approved: the occurrences with an approved alt, by page.
    """

    def __init__(self, store: Store, root: Path, options: WriteOptions) -> None:
        self._store, self._options = store, options
        self._pages: dict[str, Page] = {}
        for page in store.pages():
            if page.sha256 or page.url not in self._pages:
                self._pages[page.url] = page
        self.approved: dict[str, list[StoredOccurrence]] = {}
        for stored in store.occurrences(stage="reviewed"):
            if stored.review is not None and stored.review.alt is not None:
                self.approved.setdefault(stored.occurrence.page, []).append(stored)
        self._finder = PageFiles(root, list(self.approved))

    def file(self, url: str) -> Path:
        """The file of a page.

        Raises:
            OutputError: there is none, or none with the content of a crawled page.
        """
        files = self._finder.files(url)
        if not is_url(url):
            return files[0]
        page = self._pages.get(url, Page(url))
        if not page.sha256:
            return files[0]  # the page comes from an export: its occurrences are refused
        for file in files:
            if PageText(_read(file), file).is_page(page, self._store):
                return file
        raise OutputError(
            f"{files[0].name} does not have the content that was crawled; copy the site again "
            "without converting its links, or scan the folder instead"
        )

    def change(self, path: str, file: Path, occurrences: Sequence[StoredOccurrence]) -> FileChange:
        """The change of one file."""
        content = _read(file)
        source = PageText(content, file)
        changes: dict[int, Change] = {}
        refused: list[tuple[StoredOccurrence, str]] = []
        up_to_date: list[int] = []
        for stored in occurrences:
            try:
                found = self._wanted(source, stored)
                if found is None:
                    up_to_date.append(stored.id)
                    continue
                offset, change = found
                if changes.setdefault(offset, change).after != change.after:
                    raise OutputError("another page has this file, and another alt approved for it")
                if changes[offset] is not change:
                    up_to_date.append(stored.id)
            except OutputError as error:
                refused.append((stored, str(error)))
        edits = self._edits(source, changes, occurrences, refused)
        return FileChange(
            path,
            file,
            source.digests[0],
            source.encoding,
            edits,
            tuple(refused),
            tuple(up_to_date),
        )

    def _wanted(self, source: PageText, stored: StoredOccurrence) -> tuple[int, Change] | None:
        """The offset and the change of an occurrence; None if it already has its alt.

        Raises:
            OutputError: it may not or cannot be written.
        """
        occurrence, review = stored.occurrence, stored.review
        if review is None or review.alt is None:
            return None
        same = (
            occurrence.page in self._pages and self._pages[occurrence.page].sha256 in source.digests
        )
        there = source.locate(self._store, occurrence, same)
        if has_alt(there, review.alt):
            return None
        after = source.with_alt(there.markup, occurrence.kind, clean(review.alt))
        if after == there.markup:
            return None
        reviews = [*self._store.history(stored.id), review]
        decision = may_write(there, reviews, self._options)
        if not decision.allowed:
            raise OutputError(decision.reason)
        return there.offset, Change(stored.id, review.alt, there.markup, after)

    def _edits(
        self,
        source: PageText,
        changes: dict[int, Change],
        occurrences: Sequence[StoredOccurrence],
        refused: list[tuple[StoredOccurrence, str]],
    ) -> tuple[Edit, ...]:
        """The edits of a file; changes that the file does not allow are moved to `refused`."""
        try:
            return source.edits(changes)
        except OutputError:  # find out which
            by_id = {stored.id: stored for stored in occurrences}
        for offset, change in list(changes.items()):
            try:
                source.edits({offset: change})
            except OutputError as error:
                refused.append((by_id[change.occurrence], str(error)))
                del changes[offset]
        return source.edits(changes)


# Restoring


def _restore(entry: JournalEntry, folders: Sequence[Path]) -> bool:
    """Restore the file of a journal entry; False if it already has the earlier content.

    Raises:
        OutputError: the file changed since, or `apply` cannot have written the entry.
        OSError: it cannot be read or written.
    """
    if entry.problem:
        raise OutputError(entry.problem)
    file = _file_of(entry, folders)
    content = read_regular(file)
    if _sha256(content) == entry.before:
        return False
    if _sha256(content) != entry.after:
        raise OutputError("it changed since it was written; restore it by hand")
    source = PageText(content, file)
    edits: list[Edit] = []
    grown = 0
    for each in entry.edits:
        texts = [
            part.decode(source.encoding, "surrogateescape") for part in (each.before, each.after)
        ]
        if not differs_in_alt_only(*texts):
            raise OutputError("the journal asks to change more than alts; restore it by hand")
        edits.append(Edit(each.occurrence, each.start + grown, each.after, each.before, each.alt))
        grown += len(each.after) - len(each.before)
    restored = edited(content, edits)
    if _sha256(restored) != entry.before:
        raise OutputError("the journal does not fit the file; restore it by hand")
    with replacing(file, keep_owner=True) as new:
        new.write(restored)
    return True


def _file_of(entry: JournalEntry, folders: Sequence[Path]) -> Path:
    """The file of a journal's entry.

    Raises:
        OutputError: it is not within a folder that `apply` was given.
    """
    file = Path(entry.file)
    if not folders:
        raise OutputError("the record does not say which folder apply was given; name the folder")
    if ".." in file.parts or not file.is_absolute():
        raise OutputError("its path in the journal is not absolute; restore it by hand")
    resolved = file.resolve()
    if not any(resolved.is_relative_to(folder) for folder in folders):
        raise OutputError("it is not in the folder that apply was given; restore it by hand")
    return resolved


def _remember_folders(store: Store, folders: Iterable[Path]) -> None:
    known = _known_folders(store) if store.setting(_FOLDERS) else []
    new = [each for each in sorted(folders) if each not in known]
    if new:
        store.put_setting(_FOLDERS, json.dumps([str(each) for each in (*known, *new)]))


def _known_folders(store: Store) -> list[Path]:
    """The folders passed to `apply`; a store of version 0.1 only has the scanned folder."""
    recorded = store.setting(_FOLDERS)
    if recorded is None:
        scanned = store.setting("root")
        return [Path(scanned)] if scanned else []
    try:
        known = json.loads(recorded)
    except (ValueError, RecursionError):
        return []
    known = known if isinstance(known, list) else []
    return [Path(each) for each in known if isinstance(each, str)]


def _entry(change: FileChange, after: bytes) -> JournalEntry:
    return JournalEntry(
        0,
        path=change.path,
        file=str(change.file),
        before=change.sha256,
        after=_sha256(after),
        edits=tuple(
            JournalEdit(edit.occurrence, edit.start, edit.before, edit.after, edit.alt)
            for edit in change.edits
        ),
    )


def _read(file: Path) -> bytes:
    try:
        return read_regular(file)
    except OSError as error:
        raise OutputError(f"it cannot be read: {error.strerror}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
