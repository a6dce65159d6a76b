"""Reviews and written alts: append-only tables in which an entry can undo another."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from cutline.errors import StoreError
from cutline.site.model import Review
from cutline.site.store.reconcile import restore_occurrence
from cutline.site.store.rows import decode, encode, now, plain
from cutline.site.store.tables import Tables


class _Ledger(NamedTuple):
    """A table that is only added to, in which an entry can undo another."""

    table: str
    standing: str  # the column of `occurrences` with the current entry
    copied: str  # the columns that an entry copies from the one that it undoes


_REVIEWS = _Ledger("reviews", "review_id", "verdict, record")
_WRITTEN = _Ledger("applied", "applied_id", "alt")


class Ledger(Tables):
    """The part of a store that records what people decided and what was written into pages."""

    def put_review(self, occurrence_id: int, review: Review) -> None:
        """Add a review of an occurrence; the newest counts."""
        with self._database.writing() as connection:
            self._add_review(connection, occurrence_id, review)

    def put_reviews(self, reviews: Iterable[tuple[int, Review]]) -> None:
        """Add reviews of several occurrences, all or none."""
        with self._database.writing() as connection:
            for occurrence_id, review in reviews:
                self._add_review(connection, occurrence_id, review)

    def undo_newest(self) -> list[int]:
        """Undo the newest review, and all reviews with the same time.

        Returns:
            The ids of the occurrences; none if there was nothing to undo.
        """
        standing = """FROM reviews t WHERE undoes IS NULL
            AND NOT EXISTS (SELECT 1 FROM reviews u WHERE u.undoes = t.id)"""
        with self._database.writing() as connection:
            newest = connection.execute(f"SELECT at {standing} ORDER BY id DESC").fetchone()
            if newest is None:
                return []
            sql = f"SELECT DISTINCT use_id {standing} AND at = ? ORDER BY use_id"
            found = [int(row[0]) for row in connection.execute(sql, (newest["at"],)).fetchall()]
            for occurrence_id in found:
                self._undo(connection, _REVIEWS, occurrence_id, now())
            return found

    def history(self, occurrence_id: int) -> list[Review]:
        """Every review of an occurrence, oldest first, undone reviews included."""
        sql = "SELECT verdict, record FROM reviews WHERE use_id = ? AND undoes IS NULL ORDER BY id"
        rows = self._database.rows(sql, (occurrence_id,))
        with self._reading(f"a review of occurrence {occurrence_id}"):
            return [decode(Review, row["record"]) for row in rows]

    def put_applied(self, occurrence_id: int, alt: str, when: str) -> None:
        """Add that an alt was written into a page.

        Args:
            occurrence_id: of the occurrence.
            alt: the text that was written.
            when: ISO 8601 in UTC.
        """
        with self._database.writing() as connection:
            added = connection.execute(
                "INSERT INTO applied (use_id, alt, at) SELECT id, ?, ? FROM uses WHERE id = ?",
                (plain(alt), when, occurrence_id),
            )
            self._expect(added, occurrence_id)
            connection.execute(
                "UPDATE uses SET applied_id = ? WHERE id = ?", (added.lastrowid, occurrence_id)
            )

    def undo_applied(self, occurrence_id: int, when: str) -> None:
        """Add that the newest alt written for an occurrence was undone, if there is one."""
        with self._database.writing() as connection:
            self._undo(connection, _WRITTEN, occurrence_id, when)
            restore_occurrence(connection, occurrence_id)

    def _add_review(
        self, connection: sqlite3.Connection, occurrence_id: int, review: Review
    ) -> None:
        added = connection.execute(
            """INSERT INTO reviews (use_id, verdict, record, at)
               SELECT id, ?, ?, ? FROM uses WHERE id = ?""",
            (review.verdict, encode(review), review.when or now(), occurrence_id),
        )
        self._expect(added, occurrence_id)
        connection.execute(
            "UPDATE uses SET review_id = ? WHERE id = ?", (added.lastrowid, occurrence_id)
        )

    def _undo(
        self, connection: sqlite3.Connection, ledger: _Ledger, occurrence_id: int, when: str
    ) -> None:
        table, pointer, copied = ledger
        standing = f"""FROM {table} t WHERE undoes IS NULL
            AND NOT EXISTS (SELECT 1 FROM {table} u WHERE u.undoes = t.id)"""
        newest = connection.execute(
            f"SELECT id {standing} AND use_id = ? ORDER BY id DESC", (occurrence_id,)
        ).fetchone()
        if newest is None:
            return
        connection.execute(
            f"""INSERT INTO {table} (use_id, undoes, {copied}, at)
                SELECT use_id, id, {copied}, ? FROM {table} WHERE id = ?""",
            (when, newest["id"]),
        )
        connection.execute(
            f"""UPDATE uses SET {pointer} = (SELECT max(id) {standing} AND use_id = ?1)
                WHERE id = ?1""",
            (occurrence_id,),
        )

    def _expect(self, written: sqlite3.Cursor, occurrence_id: int) -> None:
        if written.rowcount != 1:
            raise StoreError(
                f"{self.path}: got occurrence {occurrence_id}; expected the id of one in it"
            )
