"""A journal is data: what undo refuses, and what a damaged journal still gives back."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cutline.atomic import remove_leftovers
from cutline.errors import OptionError
from cutline.site.model import Review, Verdict
from cutline.site.pages.alt_markup import differs_in_alt_only
from cutline.site.pages.scan import scan
from cutline.site.store.store import Store
from cutline.site.writeback import apply as writeback
from cutline.site.writeback.journal import remaining_alts

PAGE = "<p>x<img src=a></p>\n"
WRITTEN = '<p>x<img src=a alt="A dog"></p>\n'


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Applied:
    """A folder into which an alt was written, and the journal of it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "site"
        self.root.mkdir()
        self.page = self.root / "a.html"
        self.page.write_text(PAGE)
        self.journal = folder / "journal"
        self.store = Store(folder / "site.cutline")
        for found, occurrences in scan(self.root):
            self.store.put_page(found, occurrences)
        self.store.put_review(1, Review(Verdict.EDITED, "A dog", "ann", ""))
        writeback.apply(self.store, writeback.plan(self.store, self.root), journal=self.journal)
        assert self.page.read_text() == WRITTEN

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads(self.journal.read_text().splitlines()[1])
        return entry

    def rewrite(self, *lines: object) -> None:
        header = self.journal.read_text().splitlines()[0]
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.journal.write_text("\n".join([header, *texts]) + "\n")

    def undo(self, **options: Path) -> writeback.Outcome:
        return writeback.undo(self.store, self.journal, **options)


@pytest.fixture
def applied(tmp_path: Path) -> Iterator[Applied]:
    applied = Applied(tmp_path)
    yield applied
    applied.store.close()


@pytest.mark.parametrize(
    "name",
    ["{outside}", "{root}/../outside.html", "outside.html", "{root}/link.html", "/etc/passwd"],
)
def test_files_outside_of_the_folder_are_left(applied: Applied, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.html"
    outside.write_text(WRITTEN)
    (applied.root / "link.html").symlink_to(outside)
    file = name.format(outside=outside, root=applied.root)
    applied.rewrite(applied.entry() | {"file": file})
    outcome = applied.undo()
    assert outcome.files == ()
    assert len(outcome.failed) == 1
    assert outside.read_text() == WRITTEN
    path = outcome.failed[0][0]
    assert remaining_alts(applied.journal, path, [applied.root]) == [], "it is not even read"


def test_only_alts_are_changed(applied: Applied) -> None:
    evil = "<p>x<script>x()</script></p>\n"
    entry = applied.entry() | {"before": sha256(evil), "after": sha256(WRITTEN)}
    was, now = "<script>x()</script>", '<img src=a alt="A dog">'
    entry["edits"] = [{"use": 1, "at": 4, "alt": "A dog", "was": was, "is": now}]
    applied.rewrite(entry)
    outcome = applied.undo()
    assert "more than alts" in outcome.failed[0][1]
    assert applied.page.read_text() == WRITTEN


def test_a_digest_that_does_not_fit_is_refused(applied: Applied) -> None:
    applied.rewrite(applied.entry() | {"before": sha256("something else")})
    assert "does not fit" in applied.undo().failed[0][1]
    assert applied.page.read_text() == WRITTEN


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("<img src=a>", '<img src=a alt="x">', True),
        ("<img src=a alt>", "<IMG src=a alt='y'>", True),
        ("<svg>", '<svg role="img" aria-label="x">', True),
        ("<svg>", '<svg aria-hidden="true">', True),
        ("<img src=a>", "<img src=b>", False),
        ("<img src=a>", "<img src=a onerror=x()>", False),
        ("<img src=a>", "<svg src=a>", False),
        ("<svg role=img>", "<svg role=button>", False),
        ("<img src=a>", "<img src=a><script>", False),
        ("![](a.png)", "![x](a.png)", True),
        ("![x]", "![y][x]", True),
        ("![](a.png)", '![](a.png){fig-alt="x"}', True),
        ('![c](a.png){.y alt="x"}', '![c](a.png){.y alt="z"}', True),
        ("![](a.png)", "![](b.png)", False),
        ("![](a.png){.x}", "![](a.png){.y}", False),
        ("![](a.png)", "![](a.png)<b>", False),
        ("![x][a]", "![x][b]", False),
        ("text", "text", False),
    ],
)
def test_what_differs_in_its_alt_only(one: str, other: str, same: bool) -> None:
    assert differs_in_alt_only(one, other) is same
    assert differs_in_alt_only(other, one) is same


def test_a_pipe_in_the_folder_does_not_stop_undo(applied: Applied) -> None:
    applied.page.unlink()
    os.mkfifo(applied.page)
    assert applied.undo().failed == (("a.html", "it cannot be read: not a regular file"),)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_journal_that_is_no_regular_file_is_refused(
    applied: Applied, make: Callable[[Path], None]
) -> None:
    applied.journal.unlink()
    make(applied.journal)
    changes = writeback.plan(applied.store, applied.root)
    with pytest.raises(OptionError):
        applied.undo()
    with pytest.raises(OptionError):
        writeback.apply(applied.store, changes, journal=applied.journal)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "1",
        "null",
        "not JSON",
        "[" * 100_000,
        "{}",
        '{"edits": 1, "path": "a", "file": "a", "before": "", "after": ""}',
        '{"undone": []}',
        '{"undone": {}, "edits": []}',
        '{"path": "a\\u0000", "file": "/a\\u0000", "before": "", "after": "", "edits": []}',
        '{"path": "a", "file": "/\\ud800", "before": "", "after": "", "edits": []}',
        '{"path": 1, "file": 2, "before": 3, "after": 4, "edits": []}',
        '{"path": "a", "file": "a", "before": "", "after": "", "edits": [{"use": 1}]}',
        '{"path": "a", "file": "a", "before": "", "after": "", "edits": '
        '[{"use": 1, "at": -1, "alt": "", "was": "", "is": ""}]}',
        '{"path": "a", "file": "a", "before": "", "after": "", "edits": '
        '[{"use": 1e400, "at": 1, "alt": null, "was": 5, "is": ""}]}',
    ],
)
def test_a_damaged_line_does_not_lose_the_others(applied: Applied, line: str) -> None:
    applied.rewrite(line, applied.entry())
    outcome = applied.undo()
    assert outcome.files == ("a.html",)
    assert applied.page.read_text() == PAGE
    for _, why in outcome.failed:
        assert why == "line 2 of the journal is damaged; it was left out"


def test_a_huge_offset_is_refused(applied: Applied) -> None:
    entry = applied.entry()
    entry["edits"][0] |= {"at": 10**30, "use": 10**30}
    applied.rewrite(entry)
    assert len(applied.undo().failed) == 1
    assert applied.page.read_text() == WRITTEN


def test_without_a_known_folder_nothing_is_written(applied: Applied, tmp_path: Path) -> None:
    with Store(tmp_path / "new.cutline") as store:
        outcome = writeback.undo(store, applied.journal)
        assert "name the folder" in outcome.failed[0][1]
        assert writeback.undo(store, applied.journal, root=applied.root).files == ("a.html",)


def test_leftovers_of_a_killed_apply_are_deleted_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    for page in ("a.html", "sub/b.html"):
        (root / page).write_text(PAGE)
    with Store(tmp_path / "site.cutline") as store:
        for found, occurrences in scan(root):
            store.put_page(found, occurrences)
        for stored in store.occurrences():
            store.put_review(stored.id, Review(Verdict.EDITED, "A dog", "ann", ""))
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from cutline.site.store.store import Store
        from cutline.site.writeback import apply as writeback
        store, root, journal = map(Path, sys.argv[1:])
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        store = Store(store)
        writeback.apply(store, writeback.plan(store, root), journal=journal)
    """)
    arguments = map(str, (tmp_path / "site.cutline", root, tmp_path / "journal"))
    subprocess.run([sys.executable, "-c", program, *arguments], check=False)
    left = list(root.rglob(".cutline-*"))
    assert len(left) == 1
    (root / f".cutline-{os.getpid()}-00.tmp").write_text("of a process that runs")
    (root / ".cutline-fresh.tmp").write_text("without a process")
    with Store(tmp_path / "site.cutline") as store:
        assert writeback.undo(store, tmp_path / "journal").failed == ()
        assert not left[0].exists()
        assert len(list(root.rglob(".cutline-*"))) == 2
        left[0].write_text("again")
        writeback.apply(store, writeback.plan(store, root), journal=tmp_path / "journal")
        assert not left[0].exists()
    os.utime(root / ".cutline-fresh.tmp", (0, 0))
    assert remove_leftovers(root) == 1
