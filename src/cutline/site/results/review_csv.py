"""Review spreadsheets, and a crawler's export with the results as added columns."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from cutline.errors import DataError, OptionError, StoreError
from cutline.site.model import Purpose, Review, Verdict, new_review
from cutline.site.pages.crawler_csv import read_export, write_export
from cutline.site.results.export import cell
from cutline.site.store.store import Store, StoredOccurrence, now
from cutline.tables import read_table, unescape_formula

COLUMNS = (
    "id page image context link alt draft confidence decision notes reviewed_at"
    " long_description verdict approved_alt approved_long_description"
).split()
"""The reviewer fills in the last three columns; the others are read-only."""

_NONE = "none"  # in approved_long_description: no long description, although the draft has one

_LONGEST_SOURCE = 200  # of a data URI; spreadsheets cut cells of more than 32,767 characters


@dataclass(frozen=True)
class Sheet:
    """The reviews read from a spreadsheet.

    Attributes:
        reviews: the occurrence's id and the review; new reviews only.
        problems: the line of the file (the header is line 1), and why the row is skipped.
    """

    reviews: list[tuple[int, Review]]
    problems: list[tuple[int, str]]


def write_sheet(store: Store, stream: TextIO) -> None:
    """Write one row per occurrence, with three columns that the reviewer fills in.

    `verdict` is approved, edited, decorative or skipped; `approved_alt` and
    `approved_long_description` are texts that replace the draft's, and "none" removes the long
    description. Cells that a spreadsheet would evaluate as formulas have an apostrophe in front.

    Args:
        store: the site's store.
        stream: the output, opened with `newline=""`, and for Excel with `encoding="utf-8-sig"`.
    """
    table = csv.writer(stream)
    table.writerow(COLUMNS)
    for stored in store.occurrences():
        table.writerow([cell(value) for value in _cells(stored, store.named)])


def read_reviews(store: Store, path: Path, who: str) -> Sheet:
    """Read a table written by `write_sheet`, as saved by any spreadsheet program.

    Only `id` and the columns for the reviewer are read; `approved_long_description` may be missing.
    A text without a verdict is an edit, or an approval if it equals the draft; "approved" without
    a text approves the draft in the row, and so does a missing one of the two texts.
    Unchanged rows are ignored. A changed row is a problem if its occurrence has a newer review.

    Args:
        store: the store that the table was written from; it is not changed.
        path: the table: UTF-8, UTF-16 or Windows-1252; comma, semicolon or tab.
        who: the reviewer.

    Raises:
        DataError: the file cannot be read, or a column is missing.
    """
    table = read_table(path, encodings=("utf-8", "cp1252"))
    names = table.header
    if missing := {"id", "verdict", "approved_alt"} - set(names):
        raise DataError(
            f"got {path} without {', '.join(sorted(missing))}; expected the columns that "
            "cutline site review --write gave"
        )
    sheet = Sheet([], [])
    when = now()
    for record in islice((one for one in table if any(one.cells)), 1, None):
        cells = dict(zip(names, map(unescape_formula, record.cells), strict=False))
        try:
            if record.problem:
                raise ValueError(record.problem)
            stored = _stored(store, cells)
            review = _review(stored, cells, who, when)
            if review is None or _same(stored.review, review):
                continue
            if not _as_written(store, stored, cells, review):
                sheet.reviews.append((stored.id, review))
        except ValueError as error:
            sheet.problems.append((record.line, str(error)))
    return sheet


def answer_export(store: Store, rows: Path, target: Path) -> None:
    """Write an imported file again, with the results as added columns.

    The columns are cutline_status, cutline_alt (what a person approved), cutline_draft,
    cutline_confidence and cutline_why; several images in a row are separated by " | ".

    Args:
        store: the store that the file was imported into.
        rows: the imported file.
        target: the output file.

    Raises:
        DataError: the file cannot be read.
        OptionError: the file was not imported into this store.
        OutputError: the target cannot be written.
    """
    export = read_export(rows)
    answers: dict[int, dict[str, str]] = {}
    for stored in store.occurrences(origin=store.origin(rows)):
        if stored.line is None:
            continue
        answer = _answer(stored)
        if (known := answers.get(stored.line)) is not None:
            answer = {name: f"{known[name]} | {answer[name]}".strip(" |") for name in answer}
        answers[stored.line] = answer
    if not answers:
        raise OptionError(
            f"got {rows}, of which no row was imported here: cutline site import {rows}"
        )
    for number, problem in export.problems:
        answers.setdefault(number, _columns("not understood", "", "", "", problem))
    write_export(export, answers, target)


def _cells(stored: StoredOccurrence, named: Callable[[str], str]) -> list[Any]:
    occurrence, draft, review = stored.occurrence, stored.draft, stored.review
    context = (
        occurrence.title_and_place,
        occurrence.heading,
        occurrence.before,
        "[picture]",
        occurrence.caption,
        occurrence.after,
    )
    notes = [*draft.notes, *(f"or: {other}" for other in draft.alternatives)] if draft else []
    failure = stored.image.error if stored.image else ""
    if failure and not any(failure in note for note in notes):
        notes.insert(0, failure)
    return [
        stored.id,
        occurrence.page,
        named(occurrence.url) or occurrence.source[:_LONGEST_SOURCE],
        " / ".join(filter(None, context)),
        named(occurrence.link),
        occurrence.alt,
        draft.alt if draft else None,
        round(draft.confidence, 2) if draft and draft.confidence is not None else None,
        f"{draft.decision.purpose}: {named(draft.decision.evidence)}" if draft else None,
        [named(note) for note in notes],
        review.when if review else None,
        draft.long_description if draft else None,
        review.verdict if review else None,
        review.alt if review else None,
        _approved_long_description(stored),
    ]


def _approved_long_description(stored: StoredOccurrence) -> str | None:
    review, text = stored.review, stored.approved_long_description
    if review is None or review.verdict not in (Verdict.APPROVED, Verdict.EDITED):
        return None
    return text or (_NONE if stored.draft and stored.draft.long_description else None)


def _stored(store: Store, cells: dict[str, str]) -> StoredOccurrence:
    try:
        stored = store.occurrence(int(cells.get("id", "")))
    except (ValueError, StoreError):
        got = cells.get("id", "")
        raise ValueError(f"got id {got!r}; expected the id of an image in this store") from None
    if cells.get("page", stored.occurrence.page) != stored.occurrence.page:
        raise ValueError(f"got page {cells['page']!r}; expected {stored.occurrence.page!r}")
    return stored


def _review(stored: StoredOccurrence, cells: dict[str, str], who: str, when: str) -> Review | None:
    verdict = cells.get("verdict", "").strip().lower()
    alt: str | None = _words(cells.get("approved_alt", ""))
    written = cells.get("approved_long_description", "").strip()
    if not (verdict or alt or written):
        return None
    if not alt and (verdict == Verdict.APPROVED or (written and not verdict)):
        alt = _words(cells.get("draft", (stored.draft.alt if stored.draft else None) or ""))
    elif not alt:
        alt = None
    long_description = "" if written.lower() == _NONE else written or cells.get("long_description")
    try:
        return new_review(
            stored.draft,
            verdict or Verdict.EDITED,
            alt,
            long_description=long_description,
            who=who,
            when=when,
        )
    except OptionError as error:
        raise ValueError(str(error)) from None


def _as_written(
    store: Store, stored: StoredOccurrence, cells: dict[str, str], review: Review
) -> bool:
    """Whether a row is unchanged since `write_sheet`.

    Raises:
        ValueError: the row was changed, and its occurrence has a newer review.
    """
    stamp, current = cells.get("reviewed_at"), stored.review
    if stamp is None:
        return False
    known = [old for old in store.history(stored.id) if old.when == stamp]
    if any(_same(old, review) for old in known):
        return True
    if current is not None and current.when != stamp:
        raise ValueError(
            f"occurrence {stored.id} was reviewed since the table was written ({current.verdict}: "
            f"{current.alt!r}); expected a row of a new table"
        )
    return False


def _words(cell: str) -> str:
    return " ".join(cell.split())


def _same(old: Review | None, new: Review) -> bool:
    return old is not None and _texts(old) == _texts(new)


def _texts(review: Review) -> tuple[Verdict, str | None, str]:
    return review.verdict, review.alt, review.long_description or ""


def _answer(stored: StoredOccurrence) -> dict[str, str]:
    draft, review, image = stored.draft, stored.review, stored.image
    status = "new"
    if review is not None:
        status = str(review.verdict)
    elif image is not None and image.status == "failed":
        status = "failed"
    elif draft is not None and draft.decision.purpose is Purpose.KEPT:
        status = "kept"
    elif draft is not None:
        status = "asks a person" if draft.alt is None else "drafted"
    why = draft.decision.evidence if draft else ""
    if image is not None and image.error:
        why = image.error
    sure = "" if draft is None or draft.confidence is None else f"{draft.confidence:.2f}"
    approved = review.alt or "" if review else ""
    return _columns(status, approved, (draft.alt or "") if draft else "", sure, why)


def _columns(status: str, alt: str, draft: str, confidence: str, why: str) -> dict[str, str]:
    cells = {"status": status, "alt": alt, "draft": draft, "confidence": confidence, "why": why}
    return {f"cutline_{name}": value for name, value in cells.items()}
