"""The store of one site: pages, image occurrences, images, captions, drafts and reviews in SQLite.

Everything is committed as it comes, so that a killed process loses at most what was in progress.
Three rules keep a person's work safe:

- An occurrence keeps its id over scans (`reconcile.py`). What a page no longer shows is marked as
  gone, not deleted, and returns with its review.
- Reviews and written alts are only added (`ledger.py`); undoing one is an addition too.
- A draft stores what it was made from (the occurrence, the image, the model, the rules), so that
  one that would come out differently now is `stale`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from cutline.errors import StoreError
from cutline.site.model import Draft, ImageOccurrence, Judgement, Page
from cutline.site.store.ledger import Ledger
from cutline.site.store.queries import (
    FROM,
    LIVE,
    SELECT_IMAGE,
    SURE,
    Only,
    count,
    select_occurrence,
    selected,
)
from cutline.site.store.reconcile import replace_occurrences
from cutline.site.store.rows import (
    Content,
    Counts,
    Stage,
    StoredImage,
    StoredOccurrence,
    cached,
    decode,
    digest,
    encode,
    encode_draft,
    now,
    plain,
    stored_image,
    stored_occurrence,
)
from cutline.site.store.settings import Settings

__all__ = [
    "Content",
    "Counts",
    "Only",
    "Stage",
    "Store",
    "StoredImage",
    "StoredOccurrence",
    "now",
]


class Store(Settings, Ledger):
    """One site's store; safe to use from several threads and processes at once.

    Args:
        path: the file; created if it does not exist. Downloaded images are in a folder beside it,
            `cache`.

    Raises:
        StoreError: it is some other file, of a newer Cutline, damaged, or cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(Path(path))
        self.cache = self.path.with_name(self.path.name + "-images")

    def __enter__(self) -> Self:
        """Nothing: the store is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file in every thread; the store cannot be used afterwards."""
        self._database.close()

    # Pages and occurrences

    def put_page(
        self, page: Page, occurrences: Sequence[ImageOccurrence], *, origin: str = ""
    ) -> None:
        """Save a page and replace its occurrences, in one transaction.

        A page that could not be read (`page.error`) keeps its occurrences. An occurrence that was
        there before keeps its id, draft and review; what did not change is not written.

        Args:
            page: the page.
            occurrences: all its occurrences.
            origin: the imported file that lists it; "" if the page itself was read.
        """
        with self._database.writing() as connection:
            page_id = self._page_id(connection, page, origin)
            if not page.error or occurrences:
                replace_occurrences(connection, page_id, [(None, each) for each in occurrences])

    def put_export(self, origin: str, rows: Iterable[tuple[int, ImageOccurrence]]) -> None:
        """Save the rows of an imported file, in place of its earlier rows, in one transaction.

        Args:
            origin: the name from `add_origin`; each file has rows of its own.
            rows: number and occurrence, from `crawler_csv.read_export`.
        """
        by_page: dict[str, list[tuple[int | None, ImageOccurrence]]] = {}
        for line, occurrence in rows:
            by_page.setdefault(occurrence.page, []).append((line, occurrence))
        with self._database.writing() as connection:
            for url, listed in by_page.items():
                first = listed[0][1]
                page = Page(url, title=first.page_title, language=first.language)
                replace_occurrences(connection, self._page_id(connection, page, origin), listed)
            self._retire(connection, origin, by_page)

    def retire_pages(self, kept: Iterable[str], *, origin: str = "") -> int:
        """Mark pages as gone, which leaves them out everywhere until they are read again.

        Args:
            kept: the URLs of the pages that still exist.
            origin: as in `put_page`.

        Returns:
            How many pages are newly gone.
        """
        with self._database.writing() as connection:
            return self._retire(connection, origin, kept)

    def pages(self) -> Iterator[Page]:
        """All pages, in the order in which they were first seen."""
        sql = "SELECT id FROM pages WHERE gone = 0 ORDER BY id"
        for row in self._database.in_chunks(
            sql, (), "SELECT id, record FROM pages WHERE id IN ({})"
        ):
            yield self._page(row)

    def occurrences(
        self, *, limit: int | None = None, offset: int = 0, **only: Unpack[Only]
    ) -> Iterator[StoredOccurrence]:
        """Occurrences in the order of pages and positions; writes in the meantime are allowed.

        Args:
            limit, offset: a part of them.
            only: a selection, see `Only`.

        Raises:
            OptionError: there is no such state, purpose, verdict or stage.
        """
        where, values = selected(only)
        sql = f"SELECT u.id {FROM} WHERE {where} ORDER BY u.page_id, u.position, u.id"
        if limit is not None or offset:
            sql += " LIMIT ? OFFSET ?"
            values += [-1 if limit is None else limit, offset]
        for row in self._database.in_chunks(sql, values, select_occurrence("u.id IN ({})")):
            yield self._occurrence(row)

    def count_occurrences(self, **only: Unpack[Only]) -> int:
        """How many occurrences a selection has."""
        where, values = selected(only)
        [(number,)] = self._database.rows(f"SELECT count(*) {FROM} WHERE {where}", values)
        return int(number)

    def index(self, **only: Unpack[Only]) -> list[tuple[int, float | None]]:
        """The ids of a selection, in the order of `occurrences`, in little memory.

        Returns:
            Each id with the confidence of the draft that waits for a review; None if none waits,
            or it has no confidence.
        """
        where, values = selected(only)
        sql = f"""SELECT u.id, CASE WHEN d.suggests AND r.id IS NULL THEN {SURE} END {FROM}
            WHERE {where} ORDER BY u.page_id, u.position, u.id"""
        return [(row[0], row[1]) for row in self._database.rows(sql, values)]

    def occurrence(self, id: int) -> StoredOccurrence:
        """One occurrence.

        Raises:
            StoreError: there is no occurrence with this id.
        """
        for row in self._database.rows(select_occurrence("u.id = ?"), (id,)):
            return self._occurrence(row)
        raise StoreError(f"{self.path}: got occurrence {id}; expected the id of one in it")

    # Images

    def images(self, status: str | None = None) -> Iterator[StoredImage]:
        """Images of the occurrences, in the order in which they were first found.

        Args:
            status: only those "new", "ok" or "failed".
        """
        sql = f"""SELECT i.id FROM images i WHERE (:status IS NULL OR i.status = :status)
            AND EXISTS (SELECT 1 FROM uses u JOIN pages p ON p.id = u.page_id
                        WHERE u.image_id = i.id AND {LIVE}) ORDER BY i.id"""
        select = f"{SELECT_IMAGE} WHERE i.id IN ({{}})"
        for row in self._database.in_chunks(sql, {"status": status}, select):
            yield self._image(row)

    def image(self, id: int) -> StoredImage:
        """One image.

        Raises:
            StoreError: there is no image with this id.
        """
        for row in self._database.rows(f"{SELECT_IMAGE} WHERE i.id = ?", (id,)):
            return self._image(row)
        raise StoreError(f"{self.path}: got image {id}; expected the id of one in it")

    def picture(self, content: int) -> Path:
        """The file with the bytes of a distinct image, see `StoredImage.content`.

        Of several files with the same bytes it is one that still exists, if any does, and that
        some page shows, if any does. For an image from the network it is the cache's file.

        Raises:
            StoreError: there is no image with this id.
        """
        sql = f"""SELECT c.sha256, c.bytes, i.path FROM contents c
            LEFT JOIN images i ON i.content_id = c.id AND i.path <> ''
            WHERE c.id = ? ORDER BY EXISTS (
                SELECT 1 FROM uses u JOIN pages p ON p.id = u.page_id
                WHERE u.image_id = i.id AND {LIVE}) DESC, i.id DESC"""
        rows = self._database.rows(sql, (content,))
        if not rows:
            raise StoreError(f"{self.path}: got image {content}; expected the id of one in it")
        cached = self.cached(rows[0]["sha256"])
        paths = [Path(row["path"]) for row in rows if row["path"]]
        files = (path for path in [*paths, cached] if _has_size(path, rows[0]["bytes"]))
        return next(files, paths[0] if paths else cached)

    def largest(self, content: int) -> int:
        """The largest image that looks the same as this one and whose file still exists.

        Args:
            content: a distinct image, see `StoredImage.content`.
        """
        sql = """SELECT c.id, c.bytes FROM contents c WHERE c.id = ?1 OR c.group_id =
                (SELECT group_id FROM contents WHERE id = ?1)
            ORDER BY c.width_px * c.height_px DESC, c.sha256"""
        for row in self._database.rows(sql, (content,)):
            if _has_size(self.picture(row["id"]), row["bytes"]):
                return int(row["id"])
        return content

    def cached(self, sha256: str) -> Path:
        """The file of the cache that has the bytes with this SHA-256."""
        return cached(self.cache, sha256)

    def put_content(
        self,
        image_id: int,
        content: Content,
        *,
        path: str = "",
        etag: str = "",
        last_modified: str = "",
    ) -> None:
        """Save the content of an image.

        Args:
            image_id: of the image.
            content: the hash and statistics of its bytes.
            path: the site's own file; "" for a file in the cache.
            etag, last_modified: the response headers.
        """
        pixels = content.pixels
        size = (pixels.width_px, pixels.height_px)
        looks = (pixels.flat, pixels.text_like, pixels.chart_like, content.signature)
        with self._database.writing() as connection:
            connection.execute(
                """INSERT INTO contents (sha256, media_type, bytes, width_px, height_px, flat,
                       text_like, chart_like, signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT (sha256) DO UPDATE SET text_like = excluded.text_like,
                       chart_like = excluded.chart_like, flat = excluded.flat""",
                (content.sha256, content.media_type, content.size_bytes, *size, *looks),
            )
            connection.execute(
                """UPDATE images SET status = 'ok', code = '', error = '', path = ?, etag = ?,
                       last_modified = ?, checked_at = ?,
                       content_id = (SELECT id FROM contents WHERE sha256 = ?) WHERE id = ?""",
                (plain(path), etag, last_modified, now(), content.sha256, image_id),
            )

    def put_source(self, occurrence_id: int, url: str) -> int:
        """Record that an occurrence shows another of its sources.

        Args:
            use_id: of the occurrence.
            url: one of its sources, absolute.

        Returns:
            The id of the image at that URL.
        """
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO images (url) VALUES (?)", (plain(url),))
            [(id,)] = connection.execute("SELECT id FROM images WHERE url = ?", (plain(url),))
            connection.execute("UPDATE uses SET image_id = ? WHERE id = ?", (id, occurrence_id))
        return int(id)

    def put_unchanged(self, image_id: int) -> None:
        """Save that an image has not changed."""
        with self._database.writing() as connection:
            connection.execute("UPDATE images SET checked_at = ? WHERE id = ?", (now(), image_id))

    def put_failure(self, image_id: int, code: str, error: str, *, etag: str = "") -> None:
        """Save why an image could not be fetched.

        Args:
            image_id: of the image.
            code: a short, stable word.
            error: a sentence for a person.
            etag: changes when the file changes.
        """
        with self._database.writing() as connection:
            connection.execute(
                """UPDATE images SET status = 'failed', code = ?, error = ?, content_id = NULL,
                       path = '', etag = ?, last_modified = '', checked_at = ? WHERE id = ?""",
                (code, plain(error), etag, now(), image_id),
            )

    def signatures(self) -> list[tuple[int, str, int, int, bytes]]:
        """The distinct images with a signature: id, sha256, width, height, signature."""
        return [
            tuple(row)
            for row in self._database.rows(
                """SELECT id, sha256, width_px, height_px, signature FROM contents
                   WHERE typeof(signature) = 'blob' AND length(signature) = 208 ORDER BY sha256"""
            )
        ]

    def put_groups(self, groups: Mapping[int, int]) -> None:
        """Save which distinct images look the same: content -> the first of its group."""
        with self._database.writing() as connection:
            connection.executemany(
                "UPDATE contents SET group_id = ?1 WHERE id = ?2 AND group_id IS NOT ?1",
                ((group, content) for content, group in groups.items()),
            )

    # Captions and drafts

    def caption(self, content: int, model: str, recipe: str) -> dict[str, Any] | None:
        """The caption of an image, or of a near-duplicate; None if there is none.

        Args:
            content: the image, see `StoredImage.content`.
            model: the captioner's name.
            recipe: equal for equal options and words near the image.
        """
        sql = """SELECT k.record FROM captions k JOIN contents c ON c.id = k.content_id
            WHERE k.model = ?2 AND k.recipe = ?3 AND (c.id = ?1 OR c.group_id =
                (SELECT group_id FROM contents WHERE id = ?1))
            ORDER BY c.id <> ?1, c.sha256 LIMIT 1"""
        for row in self._database.rows(sql, (content, model, digest(recipe))):
            try:
                found = json.loads(row["record"])
            except (ValueError, TypeError, RecursionError):
                return None  # damaged: make it again
            return found if isinstance(found, dict) else None
        return None

    def put_caption(
        self, content: int, model: str, recipe: str, caption: Mapping[str, Any]
    ) -> None:
        """Save the caption of an image, so that it is not made twice."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO captions VALUES (?, ?, ?, ?)",
                (content, model, digest(recipe), json.dumps(caption)),
            )

    def put_draft(self, occurrence_id: int, draft: Draft) -> None:
        """Save the draft of an occurrence, in place of an earlier one."""
        with self._database.writing() as connection:
            written = connection.execute(
                """INSERT OR REPLACE INTO drafts
                   SELECT u.id, ?, ?, ?, ?,
                       ifnull((SELECT value FROM settings WHERE name = 'rules'), ''),
                       u.seen, i.content_id, ?, ?
                   FROM uses u LEFT JOIN images i ON i.id = u.image_id WHERE u.id = ?""",
                (
                    draft.decision.purpose,
                    draft.alt is not None,
                    draft.abstained,
                    draft.model,
                    encode_draft(draft),
                    now(),
                    occurrence_id,
                ),
            )
            self._expect(written, occurrence_id)

    def put_judgement(self, occurrence_id: int, recipe: str, judgement: Judgement) -> None:
        """Save the judgement of an occurrence's present alt, in place of an earlier one.

        Args:
            occurrence_id: which one.
            recipe: equal for judgements that ask the same.
            judgement: the judgement.
        """
        with self._database.writing() as connection:
            written = connection.execute(
                """INSERT OR REPLACE INTO judgements
                   SELECT u.id, ifnull(json_extract(u.record, '$.alt'), ''), ?, ?, ?
                   FROM uses u WHERE u.id = ?""",
                (recipe, judgement.verdict, encode(judgement), occurrence_id),
            )
            self._expect(written, occurrence_id)

    # The whole

    def counts(self) -> Counts:
        """How many pages, images, drafts and reviews there are."""
        return count(self._database)

    # Reading rows

    def _occurrence(self, row: sqlite3.Row) -> StoredOccurrence:
        with self._reading(f"occurrence {row['id']}"):
            return stored_occurrence(row, self.cache)

    def _image(self, row: sqlite3.Row) -> StoredImage:
        with self._reading(f"image {row['id']}"):
            return stored_image(row, self.cache)

    def _page(self, row: sqlite3.Row) -> Page:
        with self._reading(f"page {row['id']}"):
            return decode(Page, row["record"])

    # Writing rows

    def _page_id(self, connection: sqlite3.Connection, page: Page, origin: str) -> int:
        record = encode(page)
        key = (plain(origin), plain(page.url))
        connection.execute(
            """INSERT INTO pages (origin, url, record, read_at) VALUES (?, ?, ?, ?)
               ON CONFLICT (origin, url) DO UPDATE
               SET record = excluded.record, read_at = excluded.read_at, gone = 0
               WHERE gone OR record <> excluded.record""",
            (*key, record, now()),
        )
        [(page_id,)] = connection.execute("SELECT id FROM pages WHERE origin = ? AND url = ?", key)
        return int(page_id)

    def _retire(self, connection: sqlite3.Connection, origin: str, kept: Iterable[str]) -> int:
        there = {plain(url) for url in kept}
        rows = connection.execute(
            "SELECT id, url FROM pages WHERE origin = ? AND gone = 0", (plain(origin),)
        ).fetchall()
        left = [(row["id"],) for row in rows if row["url"] not in there]
        connection.executemany("UPDATE pages SET gone = 1 WHERE id = ?", left)
        return len(left)


def _has_size(path: Path, size: int) -> bool:
    """Whether a file exists with this size, so that it is probably the one it was."""
    try:
        return path.is_file() and path.stat().st_size == size
    except (OSError, ValueError):
        return False
