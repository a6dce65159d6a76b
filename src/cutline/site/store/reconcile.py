"""Matching the occurrences of a page that is read again with those in the store.

An occurrence that was there before keeps its id. Among the occurrences of a page with the same
source and kind of element, those with unchanged surroundings are matched first, the others in
order. Where the page now has an alt that Cutline wrote, the occurrence without it is kept as its
original.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cutline.site.model import ImageOccurrence, Kind
from cutline.site.pages.alt_markup import has_alt
from cutline.site.store.rows import decode, digest, encode, non_defaults, plain

_SURROUNDINGS = (
    "link link_text caption heading before after width_px height_px hidden noscript".split()
)

_WITHOUT_EFFECT = "page position markup offset part place long_description".split()  # on a draft


def replace_occurrences(
    connection: sqlite3.Connection,
    page_id: int,
    occurrences: Sequence[tuple[int | None, ImageOccurrence]],
) -> None:
    """Replace the occurrences of a page, within a transaction.

    Args:
        connection: to the store.
        page_id: the page.
        occurrences: all its occurrences, each with the number of its row if an export lists it.
    """
    known = connection.execute(
        """SELECT u.id, key, place, seen, position, line, gone, record, original, a.alt AS written
           FROM uses u LEFT JOIN applied a ON a.id = u.applied_id
           WHERE page_id = ? ORDER BY gone, position, u.id""",
        (page_id,),
    ).fetchall()
    marks = [_identify(line, occurrence) for line, occurrence in occurrences]
    same = _match(marks, known)
    rows = {row["id"]: row for row in known}
    for (line, occurrence), (key, place, seen), id in zip(occurrences, marks, same, strict=True):
        record = encode(occurrence)
        values = (line, key, place, seen, occurrence.position, occurrence.alt_state, record)
        if id is None:
            image = _image_id(connection, occurrence)
            connection.execute(
                """INSERT INTO uses (line, key, place, seen, position, alt_state, record,
                       page_id, image_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (*values, page_id, image),
            )
        elif rows[id]["gone"] or rows[id]["record"] != record or rows[id]["line"] != line:
            image = _image_id(connection, occurrence)
            ours = rows[id]["written"] is not None and has_alt(occurrence, rows[id]["written"])
            original = (rows[id]["original"] or rows[id]["record"]) if ours else None
            connection.execute(
                """UPDATE uses SET line = ?, key = ?, place = ?, seen = ?, position = ?,
                       alt_state = ?, record = ?, image_id = ?, original = ?, gone = 0
                   WHERE id = ?""",
                (*values, image, original, id),
            )
    left = set(rows) - set(same)
    connection.executemany(
        "UPDATE uses SET gone = 1 WHERE id = ? AND gone = 0", ((id,) for id in left)
    )


def restore_occurrence(connection: sqlite3.Connection, occurrence_id: int) -> None:
    """Restore an occurrence without the alt that Cutline wrote, after that was undone."""
    row = connection.execute(
        """SELECT line, position, original FROM uses
           WHERE id = ? AND original IS NOT NULL AND applied_id IS NULL""",
        (occurrence_id,),
    ).fetchone()
    if row is None:
        return
    occurrence = replace(decode(ImageOccurrence, row["original"]), position=row["position"])
    connection.execute(
        """UPDATE uses SET key = ?, place = ?, seen = ?, alt_state = ?, record = ?, original = NULL
           WHERE id = ?""",
        (
            *_identify(row["line"], occurrence),
            occurrence.alt_state,
            encode(occurrence),
            occurrence_id,
        ),
    )


def _image_id(connection: sqlite3.Connection, occurrence: ImageOccurrence) -> int | None:
    """The id of an occurrence's image, created if it is new; None if there is none to fetch."""
    url = occurrence.url
    if not url and occurrence.source[:5].lower() == "data:":
        url = f"data:{digest(occurrence.source)}"
    if not url or occurrence.kind is Kind.CSS:
        return None
    url = plain(url)
    connection.execute("INSERT OR IGNORE INTO images (url) VALUES (?)", (url,))
    [(image_id,)] = connection.execute("SELECT id FROM images WHERE url = ?", (url,))
    return int(image_id)


def _identify(line: int | None, occurrence: ImageOccurrence) -> tuple[str, str, str]:
    """Hashes of an occurrence: its identity, its surroundings, all that a draft depends on."""
    surroundings = [getattr(occurrence, name) for name in _SURROUNDINGS]
    seen = {
        name: value
        for name, value in non_defaults(occurrence).items()
        if name not in _WITHOUT_EFFECT
    }
    return (
        digest(json.dumps([occurrence.kind, occurrence.source, line])),
        digest(json.dumps(surroundings)),
        digest(json.dumps(seen)),
    )


def _match(marks: Sequence[tuple[str, str, str]], known: Sequence[sqlite3.Row]) -> list[int | None]:
    """The id that each occurrence had before: by everything, then by surroundings, then by order.

    Where equal surroundings have as many occurrences as before, they are the same in the same
    order, whatever was written into one of them since.
    """
    free = {row["id"]: row for row in known}
    found: list[int | None] = [None] * len(marks)
    before = Counter((row["key"], row["place"]) for row in known if not row["gone"])
    now = Counter(mark[:2] for mark in marks)
    for depends in (("key", "place", "seen"), ("key", "place"), ("key",)):
        waiting: dict[tuple[str, ...], list[int]] = {}
        for row in known:
            if row["id"] in free:
                waiting.setdefault(tuple(row[name] for name in depends), []).append(row["id"])
        for number, mark in enumerate(marks):
            if depends[-1] == "seen" and now[mark[:2]] == before[mark[:2]]:
                continue
            equals = waiting.get(mark[: len(depends)])
            if found[number] is None and equals:
                found[number] = equals.pop(0)
                del free[found[number]]
    return found
