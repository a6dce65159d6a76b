from __future__ import annotations

import errno
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cutline.errors import OptionError, StoreError
from cutline.site.model import (
    Alt,
    Decision,
    Draft,
    ImageOccurrence,
    Kind,
    Origin,
    Page,
    Pixels,
    Purpose,
    Review,
    Verdict,
)
from cutline.site.store import schema as database
from cutline.site.store.store import Content, Stage, Store

PAGE = "https://example.org/"
APPROVED = Review(Verdict.APPROVED, "A dog.", "Ann", "2026-01-02T03:04:05+00:00")
EDITED = Review(Verdict.EDITED, "Our dog Rex.", "Ann", "2026-01-02T03:05:05+00:00")
SUGGESTION = Draft(
    Decision(Purpose.INFORMATIVE, "informative", "nothing says otherwise"),
    "A dog at Fort Point.",
    (("A", Origin.PICTURE), ("dog", Origin.GLOSSARY), ("Point.", Origin.PAGE)),
    confidence=0.5,
    alternatives=("a cat",),
    labels=("dog",),
    model="m-v1",
    notes=("look twice",),
)


def shown(source: str, position: int = 0, **more: Any) -> ImageOccurrence:
    url = more.pop("url", f"https://example.org/{source}" if source else "")
    return ImageOccurrence(more.pop("page", PAGE), position, Kind.IMG, source, url=url, **more)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "site.cutline") as store:
        yield store


def put(store: Store, *occurrences: ImageOccurrence, page: str = PAGE, **more: Any) -> list[int]:
    store.put_page(
        Page(page, **more),
        [replace(occurrence, position=n) for n, occurrence in enumerate(occurrences)],
    )
    return [each.id for each in store.occurrences(page=page)]


def test_everything_comes_back_as_it_was(store: Store) -> None:
    occurrence = ImageOccurrence(
        page=PAGE,
        position=3,
        kind=Kind.INPUT,
        source="a b.jpg",
        url="https://example.org/a%20b.jpg",
        candidates=("x", "y"),
        alt=" ",
        hidden=True,
        width_px=0,
        before="\x00\udcff \U0001f600",
        markup='<input type=image src="a b.jpg">',
        offset=0,
        noscript=True,
    )
    page = Page(PAGE, "ab", "Title \udcff", "de", 200)
    store.put_page(page, [occurrence])
    [each] = store.occurrences()
    assert each.occurrence == occurrence
    assert list(store.pages()) == [page]
    store.put_draft(each.id, SUGGESTION)
    store.put_review(each.id, EDITED)
    again = store.occurrence(each.id)
    assert (again.draft, again.review) == (SUGGESTION, EDITED)
    assert not again.applied
    assert not again.stale


def test_a_second_scan_changes_nothing(store: Store) -> None:
    occurrences = [shown("a.jpg"), shown("b.jpg", alt="")]
    put(store, *occurrences, title="Home")
    before = dump(store.path)
    put(store, *occurrences, title="Home")
    assert dump(store.path) == before


def test_occurrences_keep_their_reviews_when_the_page_changes_around_them(store: Store) -> None:
    dog, cat, spacer = shown("dog.jpg", before="Rex"), shown("cat.jpg"), shown("dot.gif")
    first, second, _ = put(store, dog, cat, spacer)
    store.put_review(first, APPROVED)
    moved = put(store, shown("new.jpg"), replace(cat, before="other words"), dog)
    assert moved[1:] == [second, first]
    assert store.occurrence(first).review == APPROVED
    assert store.counts().uses == 3


def test_equal_sources_are_told_apart_by_their_place(store: Store) -> None:
    one, two, three = (shown("dot.gif", before=word) for word in ("one", "two", "three"))
    ids = put(store, one, two, three)
    store.put_review(ids[1], APPROVED)
    put(store, shown("dot.gif", before="zero"), one, replace(two, alt="A dog."), three)
    [reviewed] = store.occurrences(stage="reviewed")
    assert (reviewed.id, reviewed.occurrence.before, reviewed.occurrence.alt) == (
        ids[1],
        "two",
        "A dog.",
    )


def test_twins_keep_their_ids_when_an_alt_is_written_into_one(store: Store) -> None:
    twin = shown("dog.jpg", before="here")
    ids = put(store, twin, twin)
    assert put(store, replace(twin, alt="A dog."), twin) == ids
    assert [each.occurrence.alt for each in store.occurrences()] == ["A dog.", twin.alt]


def test_what_is_gone_comes_back_with_its_review(store: Store) -> None:
    [id] = put(store, shown("dog.jpg"))
    store.put_review(id, APPROVED)
    put(store)
    assert list(store.occurrences()) == []
    assert list(store.images()) == []
    assert put(store, shown("dog.jpg")) == [id]
    assert store.occurrence(id).review == APPROVED


def test_a_failed_page_keeps_its_occurrences_and_a_retired_page_returns(store: Store) -> None:
    ids = put(store, shown("dog.jpg"))
    store.put_page(Page(PAGE, status=503, error="503"), [])
    assert [each.id for each in store.occurrences()] == ids
    assert store.counts().failed_pages == 1
    assert store.retire_pages([]) == 1
    assert store.retire_pages([]) == 0
    assert store.counts().pages == 0
    assert put(store, shown("dog.jpg")) == ids


def test_rows_of_an_export_keep_their_number_and_leave_pages_alone(store: Store) -> None:
    [read] = put(store, shown("dog.jpg"))
    rows = [
        (n, replace(occurrence, kind=Kind.ROW))
        for n, occurrence in [(0, shown("dog.jpg")), (4, shown("x"))]
    ]
    store.put_export("images.csv", rows)
    before = dump(store.path)
    store.put_export("images.csv", rows)
    assert dump(store.path) == before
    listed = list(store.occurrences(origin="images.csv"))
    assert [(each.line, each.occurrence.source) for each in listed] == [(0, "dog.jpg"), (4, "x")]
    store.put_export("images.csv", rows[:1])
    assert [each.id for each in store.occurrences()] == [read, listed[0].id]
    assert len(list(store.images())) == 1
    store.put_export("images.csv", [(0, replace(rows[0][1], page="https://example.org/other"))])
    assert store.counts().pages == 2


def test_a_data_uri_is_an_image_and_a_css_background_is_none(store: Store) -> None:
    uri = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    put(store, shown(uri, url=""), shown(uri, url=""), shown("", url=""))
    css = ImageOccurrence(PAGE, 0, Kind.CSS, "a.png", url="https://example.org/a.png")
    store.put_page(Page("b"), [replace(css, page="b")])
    assert [image.url[:5] for image in store.images()] == ["data:"]


def content(sha256: str = "aa", **more: Any) -> Content:
    return Content(sha256, "image/png", 9, Pixels(80, 60, **more), bytes(208))


def test_images_share_their_content_and_drafts_notice_new_content(store: Store) -> None:
    ids = put(store, shown("a.jpg"), shown("b.jpg"), shown("a.jpg"))
    one, two = store.images()
    assert (one.status, one.path, one.pixels) == ("new", None, None)
    for image in (one, two):
        store.put_content(image.id, content(text_like=0.5), etag='"x"')
    found = store.image(one.id)
    assert found.content == store.image(two.id).content
    assert found.pixels == Pixels(80, 60, text_like=0.5)
    assert found.path == store.cache / "aa" / "aa" == store.picture(found.content or 0)
    for id in ids:
        store.put_draft(id, SUGGESTION)
    assert store.count_occurrences(stage="stale") == 0
    store.put_content(one.id, content("bb"), path="/site/a.jpg")
    assert [each.occurrence.source for each in store.occurrences(stage="stale")] == [
        "a.jpg",
        "a.jpg",
    ]
    assert store.image(one.id).path == Path("/site/a.jpg")
    store.put_failure(two.id, "status", "the server answers 404 Not Found")
    assert [image.code for image in store.images("failed")] == ["status"]
    assert store.counts().failed == 1


def test_a_group_is_one_distinct_picture_and_shares_its_caption(store: Store) -> None:
    put(store, shown("a.jpg"), shown("b.jpg"), shown("c.jpg"))
    for image, sha256 in zip(store.images(), ("aa", "bb", "cc"), strict=True):
        store.put_content(image.id, content(sha256))
    one, two, three = (image.content or 0 for image in store.images())
    store.put_groups({one: one, two: one})
    store.put_caption(one, "m-v1", "plain", {"text": "a dog"})
    assert store.caption(two, "m-v1", "plain") == {"text": "a dog"}
    assert store.caption(three, "m-v1", "plain") is None
    assert store.caption(one, "m-v2", "plain") is store.caption(one, "m-v1", "other") is None
    assert store.counts().distinct == 2
    assert store.counts().captions == 1
    assert store.count_occurrences(group=one) == 2
    put(store, shown("a.jpg"), shown("b.jpg"), shown("c.jpg"), shown("never fetched.jpg"))
    assert store.counts().distinct == 3


def test_drafts_are_stale_when_occurrence_model_or_rules_change(store: Store) -> None:
    store.put_setting("model", "m-v1")
    store.put_setting("rules", "1")
    ids = put(store, shown("a.jpg"), shown("b.jpg", before="x"))
    store.put_draft(ids[0], SUGGESTION)
    store.put_draft(ids[1], replace(SUGGESTION, model=""))

    def stale() -> list[int]:
        return [each.id for each in store.occurrences(stage=Stage.STALE)]

    assert stale() == []
    store.put_setting("model", "m-v2")
    assert stale() == [ids[0]]
    assert store.occurrence(ids[0]).stale
    store.put_setting("rules", "2")
    assert stale() == ids
    for id in ids:
        store.put_draft(id, replace(SUGGESTION, model="m-v2"))
    assert stale() == []
    put(store, shown("b.jpg", before="x", offset=99, markup="<img >"), shown("a.jpg", alt="!"))
    assert stale() == [ids[0]]


def test_reviews_are_added_and_undone_but_never_lost(store: Store) -> None:
    one, two = put(store, shown("a.jpg"), shown("b.jpg"))
    store.put_reviews([(one, APPROVED), (two, APPROVED)])
    store.put_review(one, EDITED)
    assert store.occurrence(one).review == EDITED
    assert store.undo_newest() == [one]
    assert store.occurrence(one).review == APPROVED
    assert store.undo_newest() == [one, two]
    assert store.undo_newest() == []
    assert store.occurrence(one).review is None
    assert store.history(one) == [APPROVED, EDITED]
    store.put_review(one, EDITED)
    assert store.occurrence(one).review == EDITED
    with sqlite3.connect(store.path) as other:
        for sql in ("DELETE FROM reviews", "UPDATE reviews SET verdict = 'skipped'"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                other.execute(sql)
    other.close()


def test_applied_is_what_the_review_says_now(store: Store) -> None:
    [id] = put(store, shown("a.jpg"))
    store.put_applied(id, "A dog.", "2026-01-02")
    assert not store.occurrence(id).applied
    store.put_review(id, APPROVED)
    assert store.occurrence(id).applied
    store.put_review(id, EDITED)
    assert not store.occurrence(id).applied
    store.put_applied(id, "Our dog Rex.", "2026-01-03")
    assert store.count_occurrences(stage="applied") == 1
    store.undo_applied(id, "2026-01-04")
    assert not store.occurrence(id).applied
    store.undo_applied(id, "2026-01-04")
    store.undo_applied(id, "2026-01-04")


def test_occurrences_are_selected_and_counted(store: Store) -> None:
    ids = put(
        store, shown("a.jpg"), shown("b.jpg", alt=""), shown("c.jpg", alt=" "), shown("d", alt="D")
    )
    put(store, shown("a.jpg", page="other"), page="other")
    kept = Draft(Decision(Purpose.KEPT, "has-alt", "it has one"), None)
    unsure = replace(SUGGESTION, alt=None, abstained=True)
    for id, draft in zip(ids, (SUGGESTION, unsure, SUGGESTION, kept), strict=True):
        store.put_draft(id, draft)
    store.put_review(ids[2], Review(Verdict.SKIPPED, None))

    def chosen(**only: Any) -> list[int]:
        found = [each.id for each in store.occurrences(**only)]
        assert len(found) == store.count_occurrences(**only)
        return found

    assert chosen(page=PAGE) == ids
    assert chosen(state="empty") == [ids[1]]
    assert chosen(purpose="kept") == [ids[3]]
    assert chosen(verdict="skipped") == chosen(stage="reviewed") == [ids[2]]
    assert chosen(stage="drafted") == [ids[0]]
    assert chosen(stage="asked") == [ids[1]]
    assert len(chosen(stage="found")) == 1
    assert len(chosen(image=1)) == 2
    assert chosen(page=PAGE, state="missing", verdict=None) == [ids[0]]
    assert [each.id for each in store.occurrences(limit=2, offset=1)] == ids[1:3]
    with pytest.raises(OptionError, match="got verdict 'maybe'; expected approved, edited"):
        list(store.occurrences(verdict="maybe"))
    counts = store.counts()
    assert counts.by_alt[Alt.MISSING] == 2
    assert (counts.pages, counts.uses, counts.images) == (2, 5, 4)
    assert (counts.found, counts.drafted, counts.asked, counts.abstained) == (1, 1, 1, 1)
    assert counts.reviewed[Verdict.SKIPPED] == 1


def test_occurrences_are_read_while_others_are_written(store: Store) -> None:
    put(store, *(shown(f"{number}.jpg") for number in range(350)))
    for each in store.occurrences():
        store.put_draft(each.id, SUGGESTION)
    assert store.count_occurrences(stage="drafted") == 350


def test_what_is_not_there_is_refused(store: Store) -> None:
    for call in (
        lambda: store.occurrence(9),
        lambda: store.image(9),
        lambda: store.picture(9),
        lambda: store.put_draft(9, SUGGESTION),
        lambda: store.put_review(9, APPROVED),
        lambda: store.put_applied(9, "", ""),
    ):
        with pytest.raises(StoreError, match=r"got [a-z]+ 9; expected the id of one"):
            call()


def test_several_reviews_are_all_or_none(store: Store) -> None:
    [id] = put(store, shown("a.jpg"))
    with pytest.raises(StoreError):
        store.put_reviews([(id, APPROVED), (99, APPROVED)])
    assert store.occurrence(id).review is None


def test_threads_and_a_second_store_write_at_once(store: Store) -> None:
    def work(number: int) -> None:
        with Store(store.path) as other:
            for each in range(20):
                page = f"p{number}-{each}"
                (store if each % 2 else other).put_page(Page(page), [shown("a.jpg", page=page)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts().uses == 120


def test_many_may_create_the_file_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        try:
            Store(tmp_path / "new.cutline").close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_other_files_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, however long it may be" * 100)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    newer = tmp_path / "newer.cutline"
    Store(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path, reason in {
        text: "not a site's store",
        foreign: "a database of another program",
        newer: "written by a newer Cutline",
        tmp_path: "cannot be opened",
        tmp_path / "none" / "site": "cannot be opened",
    }.items():
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(StoreError, match=reason):
            Store(path)
        assert not path.is_file() or path.read_bytes() == before
    store = Store(tmp_path / "site")
    store.close()
    with pytest.raises(StoreError, match="got a closed store"):
        store.counts()


def test_an_older_file_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.cutline"
    with Store(path) as store:
        put(store, shown("a.jpg"))
    sql = "ALTER TABLE pages ADD COLUMN colour TEXT;\nCREATE TABLE extra (x);\n"
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, sql))
    with Store(path) as store:
        assert store.counts().uses == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(database.MIGRATIONS),)
        assert connection.execute("SELECT colour FROM pages").fetchall() == [(None,)]
    connection.close()


def test_a_full_disk_is_told_and_costs_nothing_else(store: Store) -> None:
    put(store, shown("a.jpg"))
    connection = store._database._connect()
    [(pages,)] = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full") as caught:
        put(store, shown("b.jpg", before="word " * 9000), page="big")
    assert caught.value.errno == errno.ENOSPC
    connection.execute("PRAGMA max_page_count = 1000000")
    assert [each.occurrence.source for each in store.occurrences()] == ["a.jpg"]


def test_a_writer_that_holds_on_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store(store.path) as third, pytest.raises(StoreError, match="another program"):
        third.put_setting("a", "b")
    other.close()


KILLED = """
import sys
from dataclasses import replace
sys.path[:0] = [{tests!r}]
import test_store as t
store = t.Store({path!r})
for number in range(100_000):
    t.put(store, t.shown(f"{{number}}.jpg"), page=f"p{{number}}")
    store.put_draft(number + 1, t.SUGGESTION)
    print(number, flush=True)
"""


@pytest.mark.racy
def test_kill_loses_at_most_what_was_in_hand(tmp_path: Path) -> None:
    path = tmp_path / "site.cutline"
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(random.randrange(5, 60)):
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout.read().split(b"\n")[:-1]:
            last = int(line)
    with Store(path) as store:
        drafted = store.count_occurrences(stage="drafted")
        assert last + 1 <= drafted <= store.counts().uses <= last + 2
        [(verdict,)] = store._database.rows("PRAGMA integrity_check")
        assert verdict == "ok"


def dump(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        found = "\n".join(connection.iterdump())
    connection.close()
    return found


def test_records_are_readable_json(store: Store) -> None:
    put(store, shown("a.jpg"))
    [(record,)] = store._database.rows("SELECT record FROM uses")
    assert json.loads(record)["source"] == "a.jpg"


def test_the_index_has_ids_and_how_sure_the_waiting_suggestions_are(store: Store) -> None:
    first, second, third, kept = put(store, *(shown(f"{n}.jpg") for n in range(4)))
    store.put_draft(first, SUGGESTION)
    store.put_draft(second, SUGGESTION)
    store.put_review(second, APPROVED)
    store.put_draft(third, replace(SUGGESTION, alt=None))
    store.put_draft(kept, Draft(Decision(Purpose.KEPT, "alt-present", "it has one"), None))
    assert store.index() == [(first, 0.5), (second, None), (third, None), (kept, None)]
    assert [id for id, _ in store.index(stage=Stage.WAITING)] == [first, third]
    assert [id for id, _ in store.index(least=0.5)] == [first, second, third]
    assert [id for id, _ in store.index(most=0.5)] == [kept]


def test_text_search_covers_the_visible_text_of_an_occurrence(store: Store) -> None:
    cow, per_cent = put(
        store,
        shown("cow.jpg", heading="Überall Gras", before='Say "moo"'),
        shown("b.jpg", after="5%_"),
    )
    store.put_draft(cow, SUGGESTION)

    def found(words: str) -> list[int]:
        return [id for id, _ in store.index(search=words)]

    assert found("gras  COW") == [cow]
    assert found("Überall") == [cow]
    assert found('"moo"') == [cow]
    assert found("fort point") == [cow]  # in the draft
    assert found("5%_") == [per_cent]
    assert found("%") == [per_cent]
    assert found("heading") == []
    assert found(" ") == [cow, per_cent]


def test_what_was_done_at_once_is_undone_at_once(store: Store) -> None:
    occurrences = put(store, *(shown(f"{n}.jpg") for n in range(3)))
    store.put_review(occurrences[0], APPROVED)
    later = replace(EDITED, when="2026-01-03T00:00:00+00:00")
    store.put_reviews((occurrence, later) for occurrence in occurrences)
    assert store.undo_newest() == occurrences
    assert [store.occurrence(occurrence).review for occurrence in occurrences] == [
        APPROVED,
        None,
        None,
    ]
    assert store.undo_newest() == occurrences[:1]
    assert store.undo_newest() == []


def test_an_older_file_tells_what_we_wrote_from_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.cutline"
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", database.MIGRATIONS[:1])
        Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.executescript(
            """INSERT INTO pages (id, origin, url, record, read_at) VALUES (1, '', 'x', '{}', '');
            INSERT INTO applied (id, use_id, alt, at) VALUES
                (1, 1, 'A dog', ''), (2, 2, 'A', '');"""
        )
        for id, alt in ((1, "A dog"), (2, "A wolf")):
            record = f'{{"page":"x","position":{id},"kind":"img","source":"a","alt":"{alt}"}}'
            connection.execute(
                """INSERT INTO uses (id, page_id, key, place, seen, position, alt_state, applied_id,
                       record) VALUES (?1, 1, '', '', '', ?1, 'present', ?1, ?2)""",
                (id, record),
            )
    connection.close()
    with Store(path) as store:
        assert [each.as_found.alt for each in store.occurrences()] == [None, "A wolf"]
