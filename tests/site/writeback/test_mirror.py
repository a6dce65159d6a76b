"""Crawled pages and the files of a copy of their site."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from cutline.site.model import ImageOccurrence, Kind, Review, Verdict
from cutline.site.pages.scan import occurrences_in_html
from cutline.site.pages.write_rules import WriteOptions, may_write
from cutline.site.results.report import report
from cutline.site.store.store import Store
from cutline.site.writeback import apply as writeback

FIRST = "<!doctype html><title>List</title><h1>Paris</h1><p><img src=/thumb.jpg></p>"
SECOND = FIRST.replace("Paris", "Berlin")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mirror"
    root.mkdir()
    return root


def crawled(store: Store, url: str, html: str, alt: str) -> None:
    page, occurrences = occurrences_in_html(html, page=url)
    store.put_page(page, occurrences)
    for stored in store.occurrences(page=url):
        store.put_review(stored.id, Review(Verdict.EDITED, alt, "ann", ""))


def apply(store: Store, root: Path) -> tuple[list[str], list[str]]:
    changes = writeback.plan(store, root)
    outcome = writeback.apply(store, changes, journal=root.parent / "journal")
    return list(outcome.files), [why for change in changes for _, why in change.refused]


QUERY = hashlib.md5(b"page=2").hexdigest()[:4]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("list?page=2", "list?page=2.html"),
        ("list?page=2", "list?page=2"),
        ("list?page=2", "list@page=2.html"),
        ("list?page=2", "list%3Fpage=2.html"),
        ("list?page=2", f"list{QUERY}.html"),
        ("list.html?page=2", "list.html?page=2.html"),
        ("list.html?page=2", f"list{QUERY}.html"),
        ("list.php?page=2", f"list{QUERY}.html"),
        ("list/?page=2", "list/index.html?page=2.html"),
        ("list/?page=2", "list/index.html@page=2.html"),
        ("?page=2", "index.html?page=2.html"),
        ("list?q=a%20b/c", "list?q=a b%2Fc.html"),
        ("list?q=1:2|3", "list@q=1%3A2%7C3.html"),  # wget on Windows
        ("caf%C3%A9?q=%C3%BC", "caf%C3%A9?q=%C3%BC.html"),  # wget with --restrict-file-names=ascii
        ("caf%C3%A9?q=%C3%BC", "café?q=ü.html"),
    ],
)
def test_a_page_with_a_query_has_its_own_file(root: Path, url: str, name: str) -> None:
    for page, html in (("list", FIRST), ("list.html", FIRST), (name, SECOND)):
        (root / page).parent.mkdir(parents=True, exist_ok=True)
        (root / page).write_text(html) if not (root / page).is_dir() else None
        if page == "list" and "/" in name:
            (root / page).unlink()
    with Store(root.parent / "site.cutline") as store:
        crawled(store, f"https://a.example/{url}", SECOND, "Berlin at night")
        assert apply(store, root) == ([name], [])
        assert "Berlin at night" in (root / name).read_text()
        assert apply(store, root) == ([], []), "with our own alt in it, it is still that page"
        crawled(store, f"https://a.example/{url}", SECOND, "Berlin by day")
        assert apply(store, root) == ([name], [])
        writeback.undo(store, root.parent / "journal")
    assert (root / name).read_text() == SECOND


@pytest.mark.parametrize("url", ["list?page=2", "list", "list.html"])
def test_another_content_is_refused(root: Path, url: str) -> None:
    (root / "list.html").write_text(FIRST)
    with Store(root.parent / "site.cutline") as store:
        crawled(store, f"https://a.example/{url}", SECOND, "Berlin at night")
        files, reasons = apply(store, root)
    assert files == []
    assert reasons[0].startswith("list.html does not have the content that was crawled")
    assert (root / "list.html").read_text() == FIRST


def test_a_change_by_hand_is_another_content(root: Path) -> None:
    page = root / "index.html"
    page.write_text(FIRST)
    with Store(root.parent / "site.cutline") as store:
        crawled(store, "https://a.example/", FIRST, "Paris at night")
        assert apply(store, root)[0] == ["index.html"]
        page.write_text(page.read_text().replace("at night", "by day"))
        crawled(store, "https://a.example/", FIRST, "Paris in spring")
        assert len(apply(store, root)[1]) == 1
        assert "by day" in page.read_text()


USE = ImageOccurrence("a", 0, Kind.IMG, "a.png", markup="<img>")


@pytest.mark.parametrize(
    ("there", "alts", "replaces", "options", "allowed"),
    [
        (None, ["x"], None, {}, True),
        ("  ", ["x"], None, {}, True),
        ("cat", ["x"], None, {}, False),
        ("cat", ["x"], None, {"overwrite": True}, True),
        ("cat", ["x"], None, {"fill_empty": True}, False),
        ("cat", ["x"], "cat", {}, True),
        ("cat", ["cat", "x"], None, {}, True),
        ("", ["x"], None, {}, False),
        ("", ["x"], None, {"fill_empty": True}, True),
        ("", ["", "x"], None, {}, True),
        ("x", ["x"], None, {}, True),
        (None, [], None, {}, False),
        (None, [None], None, {}, False),
    ],
)
def test_what_may_be_written(
    there: str | None,
    alts: list[str | None],
    replaces: str | None,
    options: dict[str, bool],
    allowed: bool,
) -> None:
    reviews = [Review(Verdict.EDITED, alt) for alt in alts]
    if reviews:
        reviews[-1] = replace(reviews[-1], replaces=replaces)
    decision = may_write(replace(USE, alt=there), reviews, WriteOptions(**options))
    assert decision.allowed is allowed
    assert bool(decision.reason) is not allowed


def test_the_report_and_apply_agree_on_an_earlier_review(root: Path) -> None:
    (root / "index.html").write_text("<img src=a alt='First words'>")
    with Store(root.parent / "site.cutline") as store:
        crawled(store, "https://a.example/", "<img src=a alt='First words'>", "First words")
        store.put_review(1, Review(Verdict.EDITED, "Second words, which are others", "ann", ""))
        assert report(store).after.words == 1
        [stored] = store.occurrences()
        assert not stored.is_refused(store.history(1))
        assert apply(store, root) == (["index.html"], [])
