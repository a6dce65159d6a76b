"""SQL: which occurrences are selected, and how they are counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypedDict

from cutline.errors import OptionError
from cutline.site.model import Alt, AltVerdict, Kind, Purpose, Verdict
from cutline.site.store.rows import Counts, Stage, plain
from cutline.site.store.schema import Database

STALE = """(
    d.use_id IS NOT NULL AND (
        d.seen <> u.seen
        OR ifnull(d.content_id, 0) <> ifnull(i.content_id, 0)
        OR d.rules <> ifnull((SELECT value FROM settings WHERE name = 'rules'), d.rules)
        OR d.model <> '' AND
           d.model <> ifnull((SELECT value FROM settings WHERE name = 'model'), d.model)))"""
APPLIED = "(a.id IS NOT NULL AND r.id IS NOT NULL AND a.alt = json_extract(r.record, '$.alt'))"
FROM = """
    FROM uses u JOIN pages p ON p.id = u.page_id
    LEFT JOIN images i ON i.id = u.image_id
    LEFT JOIN contents c ON c.id = i.content_id
    LEFT JOIN drafts d ON d.use_id = u.id
    LEFT JOIN reviews r ON r.id = u.review_id
    LEFT JOIN applied a ON a.id = u.applied_id
    LEFT JOIN judgements j ON j.use_id = u.id AND j.alt = json_extract(u.record, '$.alt')
    """
_IMAGE = """
    i.id AS image_id, i.url, i.status, i.code, i.error, i.path, i.etag, i.last_modified,
    i.checked_at, i.content_id, c.sha256, c.media_type, c.bytes, c.width_px, c.height_px, c.flat,
    c.text_like, c.chart_like, c.group_id"""
SELECT_IMAGE = f"""SELECT i.id, {_IMAGE} FROM images i
    LEFT JOIN contents c ON c.id = i.content_id"""
LIVE = "u.gone = 0 AND p.gone = 0"
STAGES = {
    Stage.FOUND: "d.use_id IS NULL",
    Stage.DRAFTED: "d.suggests AND r.id IS NULL",
    Stage.ASKED: "d.suggests = 0 AND d.purpose <> 'kept' AND r.id IS NULL",
    Stage.WAITING: "d.purpose <> 'kept' AND r.id IS NULL",
    Stage.REVIEWED: "r.id IS NOT NULL",
    Stage.APPLIED: APPLIED,
    Stage.FAILED: "i.status = 'failed'",
    Stage.STALE: STALE,
}
_COLUMNS: Mapping[str, tuple[str, Any]] = {
    "page": ("p.url", plain),
    "state": ("u.alt_state", Alt),
    "purpose": ("d.purpose", Purpose),
    "verdict": ("r.verdict", Verdict),
    "judged": ("j.verdict", AltVerdict),
    "image": ("u.image_id", int),
    "group": ("ifnull(c.group_id, c.id)", int),
    "origin": ("p.origin", plain),
}
SURE = "json_extract(d.record, '$.confidence')"
_SEARCHED = {
    "u": "page source alt title link link_text caption heading before after page_title",
    "d": "alt",
    "r": "alt",
}
_SEARCHED_TEXT = " || char(10) || ".join(
    f"ifnull(json_extract({table}.record, '$.{name}'), '')"
    for table, names in _SEARCHED.items()
    for name in names.split()
)


class Only(TypedDict, total=False):
    """A selection of occurrences: those that match every value given; None matches all."""

    page: str | None
    """Its URL, or its path in the folder scanned."""

    state: str | None
    """Of the alt, see `Alt`."""

    purpose: str | None
    """Of the draft, see `Purpose`."""

    verdict: str | None
    """Of the review, see `Verdict`."""

    judged: str | None
    """What the present alt was judged to be, see `AltVerdict`."""

    stage: str | None
    """Its stage, see `Stage`."""

    image: int | None
    """The id of its image."""

    group: int | None
    """Of images that look the same, see `StoredImage.group`."""

    origin: str | None
    """The export that names it; "" is of pages that were read."""

    search: str | None
    """Words that all occur in its page's URL, its source, the text around it, its alt, draft or
    review, in any order; case-insensitive for ASCII."""

    least: float | None
    """The draft's confidence is this or more."""

    most: float | None
    """The draft's confidence is less than this, or there is none."""


def select_occurrence(where: str) -> str:
    """The query for occurrences with everything that is stored about them."""
    return f"""SELECT u.id, u.line, u.record AS use_record, u.original, p.origin,
        d.record AS draft_record, r.record AS review_record,
        j.record AS judgement_record, j.recipe AS judgement_recipe, {APPLIED} AS is_applied,
        {STALE} AS is_stale, {_IMAGE}
        {FROM} WHERE {where}"""


def selected(only: Only) -> tuple[str, list[Any]]:
    """The condition of a selection, and its values.

    Raises:
        OptionError: there is no such state, purpose, verdict or stage.
    """
    conditions: list[str] = [LIVE]
    values: list[Any] = []
    for name, value in only.items():
        if name == "stage" and value is not None:
            conditions.append(STAGES[Stage(_one_of(Stage, value))])
        elif name == "search":
            for word in str(value or "").split():
                escaped = re.sub(r"([\\%_])", r"\\\1", plain(word))
                conditions.append(f"({_SEARCHED_TEXT}) LIKE ? ESCAPE '\\'")
                values.append(f"%{escaped}%")
        elif name in ("least", "most") and value is not None:
            conditions.append(f"{SURE} >= ?" if name == "least" else f"ifnull({SURE}, 0) < ?")
            values.append(value)
        elif value is not None:
            column, kind = _COLUMNS[name]
            conditions.append(f"{column} = ?")
            values.append(value if isinstance(value, int) else _one_of(kind, value))
    return " AND ".join(f"({each})" for each in conditions), values


def _one_of(kind: Any, value: object) -> str:
    try:
        return str(kind(value))
    except ValueError as error:
        names = ", ".join(kind)
        raise OptionError(f"got {kind.__name__.lower()} {value!r}; expected {names}") from error


def count(database: Database) -> Counts:
    """Count a site's pages, images, drafts and reviews."""

    def number(sql: str) -> int:
        return int(database.rows(sql)[0][0])

    def by(column: str, where: str = LIVE) -> dict[str, int]:
        sql = f"""SELECT {column} AS name, count(*) AS number {FROM}
            WHERE {where} AND {column} IS NOT NULL GROUP BY {column}"""
        return {row["name"]: row["number"] for row in database.rows(sql)}

    takes_alt = f"{LIVE} AND json_extract(u.record, '$.kind') <> '{Kind.CSS}'"
    states, purposes, verdicts = by("u.alt_state", takes_alt), by("d.purpose"), by("r.verdict")
    [stages] = database.rows(
        f"""SELECT count(*) AS uses, count(DISTINCT i.id) AS images,
            count(DISTINCT CASE WHEN c.id IS NULL THEN -i.id
                  ELSE ifnull(c.group_id, c.id) END) AS looks,
            count(DISTINCT CASE WHEN i.status = 'ok' THEN i.id END) AS fetched,
            count(DISTINCT CASE WHEN i.status = 'failed' THEN i.id END) AS failed,
            total({STAGES[Stage.FOUND]}) AS found,
            total({STAGES[Stage.DRAFTED]}) AS drafted,
            total({STAGES[Stage.ASKED]}) AS asked,
            total(d.abstained AND r.id IS NULL) AS abstained,
            total({STAGES[Stage.APPLIED]}) AS applied,
            total({STALE} AND r.id IS NULL) AS stale
        {FROM} WHERE {LIVE}"""
    )
    return Counts(
        pages=number("SELECT count(*) FROM pages WHERE gone = 0"),
        failed_pages=number(
            """SELECT count(*) FROM pages
               WHERE gone = 0 AND json_extract(record, '$.error') <> ''"""
        ),
        uses=stages["uses"],
        by_alt={alt: states.get(alt, 0) for alt in Alt},
        by_purpose={purpose: purposes[purpose] for purpose in Purpose if purpose in purposes},
        images=stages["images"],
        distinct=stages["looks"],
        fetched=stages["fetched"],
        failed=stages["failed"],
        captions=number("SELECT count(*) FROM captions"),
        found=int(stages["found"]),
        drafted=int(stages["drafted"]),
        asked=int(stages["asked"]),
        abstained=int(stages["abstained"]),
        reviewed={verdict: verdicts.get(verdict, 0) for verdict in Verdict},
        applied=int(stages["applied"]),
        stale=int(stages["stale"]),
    )
