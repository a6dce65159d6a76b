"""The SQLite file of a store: its schema, one connection per thread, and typed errors."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from cutline.errors import StoreError

APPLICATION_ID = 0x43544C4E  # "CTLN"
BUSY_S = 30.0
_CHUNK = 100

Values: TypeAlias = "Sequence[Any] | Mapping[str, Any]"

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE pages (
        id INTEGER PRIMARY KEY,
        origin TEXT NOT NULL,          -- the export that names it; '' for a page that was read
        url TEXT NOT NULL,
        record TEXT NOT NULL,
        gone INTEGER NOT NULL DEFAULT 0,
        read_at TEXT NOT NULL,
        UNIQUE (origin, url)
    );
    CREATE TABLE contents (            -- distinct pictures, however many URLs they have
        id INTEGER PRIMARY KEY,
        sha256 TEXT NOT NULL UNIQUE,
        media_type TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        width_px INTEGER NOT NULL,
        height_px INTEGER NOT NULL,
        flat INTEGER NOT NULL,
        text_like REAL NOT NULL,
        chart_like REAL NOT NULL,
        signature BLOB,
        group_id INTEGER REFERENCES contents (id)
    );
    CREATE TABLE images (
        id INTEGER PRIMARY KEY,
        url TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'ok', 'failed')),
        code TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        content_id INTEGER REFERENCES contents (id),
        path TEXT NOT NULL DEFAULT '',
        etag TEXT NOT NULL DEFAULT '',
        last_modified TEXT NOT NULL DEFAULT '',
        checked_at TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX images_content ON images (content_id);
    CREATE TABLE uses (
        id INTEGER PRIMARY KEY,
        page_id INTEGER NOT NULL REFERENCES pages (id),
        line INTEGER,                  -- of an export
        key TEXT NOT NULL,             -- digest of kind and source (and line)
        place TEXT NOT NULL,           -- digest of the surroundings
        seen TEXT NOT NULL,            -- digest of all that a draft depends on
        position INTEGER NOT NULL,
        alt_state TEXT NOT NULL,
        gone INTEGER NOT NULL DEFAULT 0,
        image_id INTEGER REFERENCES images (id),
        review_id INTEGER REFERENCES reviews (id),    -- the one that counts
        applied_id INTEGER REFERENCES applied (id),
        record TEXT NOT NULL
    );
    CREATE INDEX uses_page ON uses (page_id, position);
    CREATE INDEX uses_image ON uses (image_id);
    CREATE TABLE captions (
        content_id INTEGER NOT NULL REFERENCES contents (id),
        model TEXT NOT NULL,
        recipe TEXT NOT NULL,          -- digest of the options and the words nearby
        record TEXT NOT NULL,
        PRIMARY KEY (content_id, model, recipe)
    ) WITHOUT ROWID;
    CREATE TABLE drafts (
        use_id INTEGER PRIMARY KEY REFERENCES uses (id),
        purpose TEXT NOT NULL,
        suggests INTEGER NOT NULL,
        abstained INTEGER NOT NULL,
        model TEXT NOT NULL,
        rules TEXT NOT NULL,
        seen TEXT NOT NULL,
        content_id INTEGER,
        record TEXT NOT NULL,
        made_at TEXT NOT NULL
    );
    CREATE TABLE reviews (
        id INTEGER PRIMARY KEY,
        use_id INTEGER NOT NULL REFERENCES uses (id),
        undoes INTEGER REFERENCES reviews (id),
        verdict TEXT NOT NULL,
        record TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE INDEX reviews_use ON reviews (use_id);
    CREATE INDEX reviews_undoes ON reviews (undoes);
    CREATE TABLE applied (
        id INTEGER PRIMARY KEY,
        use_id INTEGER NOT NULL REFERENCES uses (id),
        undoes INTEGER REFERENCES applied (id),
        alt TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE INDEX applied_use ON applied (use_id);
    CREATE INDEX applied_undoes ON applied (undoes);
    CREATE TRIGGER reviews_stay BEFORE UPDATE ON reviews
        BEGIN SELECT RAISE (ABORT, 'reviews are only added'); END;
    CREATE TRIGGER reviews_remain BEFORE DELETE ON reviews
        BEGIN SELECT RAISE (ABORT, 'reviews are only added'); END;
    CREATE TRIGGER applied_stays BEFORE UPDATE ON applied
        BEGIN SELECT RAISE (ABORT, 'applications are only added'); END;
    CREATE TRIGGER applied_remains BEFORE DELETE ON applied
        BEGIN SELECT RAISE (ABORT, 'applications are only added'); END;
    """,
    """
    ALTER TABLE uses ADD COLUMN original TEXT;  -- the record before our own alt stood in the page
    UPDATE uses SET original = json_remove(record, '$.alt')
        WHERE json_extract(record, '$.alt') = (SELECT alt FROM applied WHERE id = applied_id);
    """,
    """
    CREATE TABLE judgements (          -- of alts in the pages, by rule or by a chat model
        use_id INTEGER PRIMARY KEY REFERENCES uses (id),
        alt TEXT NOT NULL,             -- the alt that was judged
        recipe TEXT NOT NULL,          -- equal for judgements that ask the same
        verdict TEXT NOT NULL,
        record TEXT NOT NULL
    );
    """,
)
"""What each schema version adds to the previous one; a released one never changes."""

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; everything so far is saved: free some space, then run "
    "the same command again",
    sqlite3.SQLITE_BUSY: f"another program has been writing to it for {BUSY_S:.0f} s; let it "
    "finish, or stop it, then run the same command again",
    sqlite3.SQLITE_NOTADB: "this is not a site's store; expected one created by cutline site, or a "
    "new name",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; take it from a backup, or start a new one",
    sqlite3.SQLITE_READONLY: "it is read-only; expected a writable file",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; expected a file in an existing folder",
    sqlite3.SQLITE_IOERR: "the disk failed; everything so far is saved",
}


class Database:
    """The file in write-ahead mode, at the newest schema; for any number of threads.

    Args:
        path: the file; created if it does not exist.

    Raises:
        StoreError: it is some other file, of a newer Cutline, damaged, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        try:
            with self._typed():
                self._migrate(self._connect())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file in every thread."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: everything that is written in it, or nothing.

        Raises:
            StoreError: the disk is full, or another program keeps writing.
        """
        with self._typed():
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Values = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._typed():
            return self._connect().execute(sql, values).fetchall()

    def in_chunks(self, sql: str, values: Values, select: str) -> Iterator[sqlite3.Row]:
        """Any number of rows in little memory; writes in the meantime are allowed.

        Args:
            sql: selects ids, in order.
            values: its parameters.
            select: selects rows with an `id`, with {} for a list of ids.
        """
        ids = [row[0] for row in self.rows(sql, values)]
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            marks = ", ".join("?" * len(chunk))
            rows = {row["id"]: row for row in self.rows(select.format(marks), chunk)}
            yield from (rows[id] for id in chunk if id in rows)

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if self._closed:
            raise StoreError(f"{self.path}: got a closed store; expected an open one")
        if connection is None:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            with self._lock:
                self._connections.append(connection)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # so that one moment is looked at, while others may create it
        try:
            version = self._version(connection)
        finally:
            connection.execute("COMMIT")
        if version == len(MIGRATIONS):
            return
        self._write_ahead(connection)
        with self.writing():
            for sql in MIGRATIONS[self._version(connection) :]:
                for statement in _statements(sql):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Set write-ahead mode; here, unlike elsewhere, SQLite does not wait for other writers."""
        deadline_s = time.monotonic() + BUSY_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.01)

    def _version(self, connection: sqlite3.Connection) -> int:
        [(owner,)] = connection.execute("PRAGMA application_id")
        [(version,)] = connection.execute("PRAGMA user_version")
        [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master")
        if owner != APPLICATION_ID and (owner or version or tables):
            raise StoreError(
                f"got {self.path}, a database of another program; expected a site's store created "
                "by cutline site, or a new name"
            )
        if version > len(MIGRATIONS):
            raise StoreError(
                f"got {self.path}, written by a newer Cutline (schema {version}); expected at "
                f"most schema {len(MIGRATIONS)}: upgrade Cutline"
            )
        return int(version)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            typed = StoreError(f"{self.path}: {_REASONS.get(code, error)}")
            if code == sqlite3.SQLITE_FULL:
                typed.errno = errno.ENOSPC
            raise typed from error


def _statements(sql: str) -> Iterator[str]:
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
