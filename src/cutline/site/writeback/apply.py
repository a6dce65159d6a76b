"""Approved alts into the files they belong to, and nothing else in those files touched.

`plan` reads and decides, `apply` writes, `undo` takes back. Only what a person approved is written,
and where the page says something else than it did when that person looked, the use is refused with
a reason and the others go on. A file is replaced as a whole, under its name or not at all; the
journal, a line of JSON a file, is on the disk before its file is, so after a kill the files' own
digests tell which of its lines came true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutline.errors import CutlineError, OptionError, OutputError, StoreError
from cutline.site.model import Page
from cutline.site.pages.alt_markup import clean
from cutline.site.store.store import Store, StoredUse, now
from cutline.site.writeback.journal import Journal, JournalError, replacing
from cutline.site.writeback.locate import PageFiles, PageText, Wish
from cutline.site.writeback.patch import Edit, edited, header, hunks, shown

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileChange:
    """What is to become of one file; nothing, where all of its uses were refused or stand.

    Attributes:
        path: relative to the root, with slashes; the page's URL if there is no file for it.
        file: where it is; None if nowhere.
        sha256: of the file as it is.
        encoding: of its text.
        edits: in the order of the file.
        refused: the uses left alone, and why.
        standing: ids of the uses whose approved alt is there already.
    """

    path: str
    file: Path | None = None
    sha256: str = ""
    encoding: str = "utf-8"
    edits: tuple[Edit, ...] = ()
    refused: tuple[tuple[StoredUse, str], ...] = ()
    standing: tuple[int, ...] = ()

    @property
    def before(self) -> bytes:
        """The file as it is.

        Raises:
            OutputError: it is gone, unreadable, or has changed since the plan.
        """
        if self.file is None:
            return b""
        content = _read(self.file)
        if _sha256(content) != self.sha256:
            raise OutputError(f"{self.path} changed a moment ago; run the same command again")
        return content

    @property
    def after(self) -> bytes:
        """The file as it is to be; raises as `before` does."""
        return edited(self.before, self.edits)

    def diff(self) -> str:
        """What changes, as a unified diff for people, long lines cut; raises as `before` does.

        `patch` gives one for programs.
        """
        if not self.edits:
            return ""
        name = header(self.path).decode("utf-8", "replace")
        return name + shown(self.before, self.edits, self.encoding)


@dataclass(frozen=True)
class Outcome:
    """What `apply` or `undo` did.

    Attributes:
        files: those written, relative to the root.
        uses: how many uses' markup was written.
        failed: the files left as they were, and why.
    """

    files: tuple[str, ...]
    uses: int
    failed: tuple[tuple[str, str], ...] = ()


def plan(
    store: Store,
    root: Path,
    *,
    overwrite: bool = False,
    fill_empty: bool = False,
    progress: Progress | None = None,
) -> list[FileChange]:
    """What writing the approved alts into a folder would change; nothing is written.

    A missing or blank alt is a gap and is filled. `alt=""` is somebody's decision, and any words
    are somebody's words: both stay unless told otherwise, unless they are an earlier review's, or
    unless a person was shown them and put others in their place.

    Args:
        store: the site's record.
        root: the folder that was scanned, or a local copy of the site that was crawled.
        overwrite: replace also words that stand there.
        fill_empty: replace also an empty alt.
        progress: called with the pages done and all pages.

    Returns:
        A change for each file, in the order of their names, and one for each page without a file.

    Raises:
        OptionError: the root is no folder.
    """
    if not root.is_dir():
        raise OptionError(f"got {root}, which is no folder; expected the folder with the pages")
    root = root.resolve()
    pages: dict[str, Page] = {}
    for page in store.pages():
        if page.sha256 or page.url not in pages:
            pages[page.url] = page
    approved: dict[str, list[StoredUse]] = {}
    for stored in store.uses(stage="reviewed"):
        if stored.review is not None and stored.review.alt is not None:
            approved.setdefault(stored.use.page, []).append(stored)

    changes: list[FileChange] = []
    by_file: dict[Path, list[StoredUse]] = {}
    finder = PageFiles(root, list(approved))
    for url, uses in approved.items():
        try:
            by_file.setdefault(finder.file(url), []).extend(uses)
        except OutputError as error:
            changes.append(FileChange(url, refused=tuple((each, str(error)) for each in uses)))
    for number, (file, uses) in enumerate(by_file.items()):
        if progress:
            progress(number, len(by_file))
        path = file.relative_to(root).as_posix()
        try:
            change = _plan_file(store, path, file, uses, pages, overwrite, fill_empty)
        except CutlineError as error:
            change = FileChange(path, refused=tuple((each, str(error)) for each in uses))
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
    """Write the files of a plan, one whole file after the other.

    Args:
        store: takes down what was applied.
        changes: as `plan` gives them.
        journal: the file that `undo` reads; added to if it is there.
        progress: called with the files done and all files.

    Returns:
        What was written. A file that cannot be written, or that changed since the plan, is left
        as it was and does not keep the others from being written.

    Raises:
        OptionError: the journal is some other file.
        OutputError: the journal cannot be written; then no further file is.
    """
    when = now()
    written: list[str] = []
    failed: list[tuple[str, str]] = []
    uses = 0
    with Journal(journal) as lines:
        for number, change in enumerate(changes):
            if progress:
                progress(number, len(changes))
            if change.file is not None and change.edits:
                try:
                    after = change.after
                    with replacing(change.file, after) as put_in_place:
                        lines.add(_entry(change, after, when))
                        put_in_place()
                except JournalError:
                    raise
                except OSError as error:
                    failed.append((change.path, _reason(error)))
                    continue
                written.append(change.path)
                uses += len(change.edits)
                for edit in change.edits:
                    store.put_applied(edit.use, edit.alt, when)
            for id in change.standing:
                stored = store.use(id)
                if not stored.applied and stored.review and stored.review.alt is not None:
                    store.put_applied(id, stored.review.alt, when)
    if progress:
        progress(len(changes), len(changes))
    return Outcome(tuple(written), uses, tuple(failed))


def undo(store: Store, journal: Path, *, progress: Progress | None = None) -> Outcome:
    """Take back what a journal says was written, the newest first.

    Args:
        store: takes down that it was taken back.
        journal: as `apply` wrote it.
        progress: called with the entries done and all entries.

    Returns:
        The files that are as they were before. One that changed since is left as it is.

    Raises:
        OptionError: there is no such journal, or it is some other file.
        OutputError: the journal cannot be added to.
    """
    if not journal.is_file():
        raise OptionError(f"got {journal}, which is not there; expected what apply wrote")
    when = now()
    restored: list[str] = []
    failed: list[tuple[str, str]] = []
    uses = 0
    with Journal(journal) as lines:
        undone = {line["undone"] for line in lines.lines if "undone" in line}
        entries = [
            (number, line)
            for number, line in enumerate(lines.lines)
            if "edits" in line and number not in undone
        ]
        for done, (number, entry) in enumerate(reversed(entries)):
            if progress:
                progress(done, len(entries))
            path, file = entry["path"], Path(entry["file"])
            edits = _reversed(entry)
            try:
                content = _read(file)
                if _sha256(content) == entry["after"]:
                    with replacing(file, edited(content, edits)) as put_in_place:
                        put_in_place()
                    restored.append(path)
                    uses += len(edits)
                elif _sha256(content) != entry["before"]:
                    raise OutputError("it changed since it was written; put it right by hand")
            except OSError as error:
                failed.append((path, _reason(error)))
                continue
            for edit in edits:
                with suppress(StoreError):  # the record may have been begun anew meanwhile
                    store.undo_applied(edit.use, when)
            lines.add({"undone": number, "path": path, "when": when})
        if progress:
            progress(len(entries), len(entries))
    return Outcome(tuple(restored), uses, tuple(failed))


def patch(changes: Iterable[FileChange]) -> bytes:
    """All changes as one patch for `git apply` or `patch -p1`, to be run in the root.

    Args:
        changes: as `plan` gives them.

    Returns:
        Bytes, since each file's lines are in its own encoding; b"" if nothing changes.

    Raises:
        OutputError: a file has changed since the plan.
    """
    return b"".join(
        header(change.path) + hunks(change.before, change.edits)
        for change in changes
        if change.edits
    )


# Planning


def _plan_file(
    store: Store,
    path: str,
    file: Path,
    uses: Sequence[StoredUse],
    pages: dict[str, Page],
    overwrite: bool,
    fill_empty: bool,
) -> FileChange:
    content = _read(file)
    source = PageText(content, file)
    wishes: dict[int, Wish] = {}
    refused: list[tuple[StoredUse, str]] = []
    standing: list[int] = []
    for stored in uses:
        use, approved = stored.use, stored.review.alt if stored.review else None
        if approved is None:
            continue
        same = use.page in pages and pages[use.page].sha256 in source.digests
        alt = clean(approved)
        ours: set[str | None] = {
            clean(each.alt) for each in store.history(stored.id) if each.alt is not None
        }
        try:
            there = source.locate(store, use, same)
            present = source.alt(there)
            after = source.with_alt(there.markup, use.kind, alt)
            if after == there.markup or present == alt:
                standing.append(stored.id)
                continue
            ours.add(stored.review.replaces if stored.review else None)
            if present is not None and present not in ours and not overwrite:
                if present.strip():
                    raise OutputError(
                        f"somebody's words stand there (--overwrite replaces them): {present!r}"
                    )
                if not present and not fill_empty:
                    raise OutputError(
                        'alt="" stands there (--fill-empty fills it): somebody decided it is '
                        "decorative"
                    )
            wish = Wish(stored.id, approved, there.markup, after)
            if wishes.setdefault(there.offset, wish).after != after:
                raise OutputError("another page leads to this file and wants another alt there")
            if wishes[there.offset] is not wish:
                standing.append(stored.id)
        except OutputError as error:
            refused.append((stored, str(error)))
    try:
        edits = source.edits(wishes)
    except OutputError:  # some of them cannot be written: find out which
        by_id = {stored.id: stored for stored in uses}
        for offset, wish in list(wishes.items()):
            try:
                source.edits({offset: wish})
            except OutputError as error:
                refused.append((by_id[wish.use], str(error)))
                del wishes[offset]
        edits = source.edits(wishes)
    return FileChange(
        path,
        file,
        source.digests[0],
        source.encoding,
        edits,
        tuple(refused),
        tuple(standing),
    )


# The journal's lines


def _reversed(entry: dict[str, Any]) -> list[Edit]:
    """The edits that take a journal's entry back; they begin where the written ones ended up."""
    edits: list[Edit] = []
    grown = 0
    for each in entry["edits"]:
        before, after = (each[name].encode("utf-8", "surrogateescape") for name in ("was", "is"))
        edits.append(Edit(each["use"], each["at"] + grown, after, before, each["alt"]))
        grown += len(after) - len(before)
    return edits


def _entry(change: FileChange, after: bytes, when: str) -> dict[str, Any]:
    edits = [
        {
            "use": edit.use,
            "at": edit.start,
            "alt": edit.alt,
            "was": edit.before.decode("utf-8", "surrogateescape"),
            "is": edit.after.decode("utf-8", "surrogateescape"),
        }
        for edit in change.edits
    ]
    digests = {"before": change.sha256, "after": _sha256(after)}
    return {"file": str(change.file), "path": change.path, "when": when, **digests, "edits": edits}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise OutputError(f"it cannot be read: {error.strerror}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
