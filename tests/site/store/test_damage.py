"""A store whose JSON is odd: every command ends with one line, or goes on without that part."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cutline import site
from cutline.errors import CutlineError, StoreError
from cutline.site.store.store import Store

STORE = Path(__file__).parents[1] / "data" / "site-0.1.cutline"
RECORDS = ("pages", "uses", "drafts", "reviews", "captions")
ODD: dict[str, str] = {
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "a text": '"x"',
    "an empty object": "{}",
    "cut off": '{"kind": "img", "sou',
    "deep": "[" * 100_000,
    "not JSON": "\x00\xff",
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "site.cutline"
    shutil.copy(STORE, path)
    return path


def damage(path: Path, table: str, value: Any, column: str = "record") -> None:
    with sqlite3.connect(path) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
    connection.close()


def everything(path: Path) -> list[CutlineError]:
    """Every step that reads a store; the errors of those that refused."""
    errors: list[CutlineError] = []
    steps = (
        lambda: site.status(path),
        lambda: list(site.lint(path, drafts=True)),
        lambda: site.report(path).to_html(),
        lambda: site.export(path, io.StringIO()),
        lambda: site.export(path, io.StringIO(), "json"),
        lambda: site.write_reviews(path, io.StringIO()),
        lambda: site.apply(path, path.parent),
    )
    for step in steps:
        try:
            step()
        except CutlineError as error:
            errors.append(error)
    return errors


@pytest.mark.parametrize("table", RECORDS)
@pytest.mark.parametrize("name", ODD)
def test_a_record_that_is_odd_ends_a_command_with_one_line(
    store: Path, table: str, name: str
) -> None:
    damage(store, table, ODD[name])
    for error in everything(store):
        assert str(store) in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("uses", "alt", 5),
        ("uses", "kind", "nonsense"),
        ("uses", "position", "one"),
        ("uses", "link_text", None),
        ("uses", "hidden", "yes"),
        ("uses", "candidates", "abc"),
        ("pages", "url", ["x"]),
        ("pages", "error", 7),
        ("drafts", "words", [["one"]]),
        ("drafts", "words", {"a": "b"}),
        ("drafts", "confidence", "high"),
        ("drafts", "decision", "kept"),
        ("drafts", "notes", "text"),
        ("reviews", "alt", 3),
        ("reviews", "verdict", "perhaps"),
        ("reviews", "who", {}),
    ],
)
def test_a_field_of_another_type_is_named(
    store: Path, table: str, field: str, value: object
) -> None:
    with sqlite3.connect(store) as connection:
        [(text,)] = connection.execute(f"SELECT record FROM {table} LIMIT 1")
    connection.close()
    damage(store, table, json.dumps(json.loads(text) | {field: value}))
    errors = everything(store)
    assert errors
    assert all(isinstance(error, StoreError) for error in errors)
    assert any("is damaged (got " in str(error) for error in errors)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("contents", "width_px", "wide"),
        ("contents", "bytes", "many"),
        ("contents", "flat", "x"),
        ("contents", "text_like", "x"),
        ("contents", "signature", "text"),
        ("contents", "signature", b"short"),
        ("images", "checked_at", "yesterday"),
        ("images", "path", "a\x00b"),
        ("images", "url", "\x00"),
        ("uses", "original", "[]"),
        ("settings", "value", "\x00"),
    ],
)
def test_a_column_that_is_odd_ends_no_command_with_a_traceback(
    store: Path, table: str, column: str, value: object
) -> None:
    with suppress(sqlite3.IntegrityError):
        damage(store, table, value, column)
    everything(store)


def test_fields_of_a_newer_version_are_ignored(store: Path) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE uses SET record = json_set(record, '$.later', 1)")
    connection.close()
    with Store(store) as opened:
        assert len(list(opened.occurrences())) == 8
