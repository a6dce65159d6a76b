from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import made_documents
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from justhtml import JustHTML

from cutline.errors import OptionError, OutputError
from cutline.site.destination import edited
from cutline.site.model import ImageOccurrence, Kind, Page, Review, Verdict
from cutline.site.pages.alt_markup import clean
from cutline.site.pages.scan import decode, occurrences_in_html, occurrences_in_markdown, scan
from cutline.site.store.store import Store, StoredOccurrence
from cutline.site.writeback import apply as writeback
from cutline.site.writeback import journal as journals
from cutline.site.writeback import locate as pagefile

WHEN = "2030-01-01T00:00:00+00:00"


class Site:
    """A folder of pages with its record; `approve` is a person's word."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "site"
        self.root.mkdir(parents=True)
        self.journal = folder / "journal.jsonl"
        self.store = Store(folder / "site.cutline")

    def write(self, page: str, content: str | bytes) -> Path:
        path = self.root / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def scan(self) -> None:
        for page, occurrences in scan(self.root):
            self.store.put_page(page, occurrences)

    def approve(self, page: str, *alts: str | None) -> None:
        """An alt for each of the page's first occurrences; None skips one."""
        for stored, alt in zip(list(self.store.occurrences(page=page)), alts, strict=False):
            if alt is not None:
                verdict = Verdict.APPROVED if alt else Verdict.DECORATIVE
                self.store.put_review(stored.id, Review(verdict, alt, "ann", WHEN))

    def plan(self, **options: bool) -> list[writeback.PageChange]:
        return writeback.plan(self.store, self.root, **options)

    def apply(self, **options: bool) -> writeback.Outcome:
        return writeback.apply(self.store, self.plan(**options), journal=self.journal)

    def undo(self) -> writeback.Outcome:
        return writeback.undo(self.store, self.journal)

    def reasons(self, **options: bool) -> list[str]:
        return [why for change in self.plan(**options) for _, why in change.refused]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def one(site: Site, content: str | bytes, *alts: str | None, page: str = "a.html") -> Path:
    path = site.write(page, content)
    site.scan()
    site.approve(page, *alts)
    return path


def test_only_the_approved_alts_change_and_undo_gives_the_same_bytes(site: Site) -> None:
    content = (
        b'\xef\xbb\xbf<!DOCTYPE html>\r\n<IMG SRC=a.png>\r\n<p><img\tsrc="b.png" /><img src=c>\r\n'
    )
    path = one(site, content, "A dog", None, "")
    planned = site.plan()
    assert path.read_bytes() == content, "a plan writes nothing"
    assert [edit.alt for change in planned for edit in change.edits] == ["A dog", ""]
    assert site.apply() == writeback.Outcome(("a.html",), 2)
    assert path.read_bytes() == (
        b'\xef\xbb\xbf<!DOCTYPE html>\r\n<IMG SRC=a.png ALT="A dog">\r\n'
        b'<p><img\tsrc="b.png" /><img src=c alt="">\r\n'
    )
    assert [occurrence.applied for occurrence in site.store.occurrences()] == [True, False, True]
    assert site.undo() == writeback.Outcome(("a.html",), 2)
    assert path.read_bytes() == content
    assert not any(occurrence.applied for occurrence in site.store.occurrences())
    assert site.undo() == writeback.Outcome((), 0), "a second time there is nothing to do"


def test_applying_twice_changes_nothing_more(site: Site) -> None:
    path = one(
        site, '<meta charset=utf-8><img src="i.png"><img src="i.png"><img src="i.png">', "Dög"
    )
    site.apply()
    written = path.read_bytes()
    assert [change.edits for change in site.plan()] == [()]
    assert site.apply() == writeback.Outcome((), 0)
    assert path.read_bytes() == written


def test_what_was_applied_stands_when_scanned_again(site: Site) -> None:
    one(site, '<img src="a.png"><img src="b.png">', "A dog")
    site.apply()
    site.scan()
    assert [(change.edits, change.up_to_date) for change in site.plan()] == [((), (1,))]


def test_a_later_review_replaces_what_an_earlier_one_wrote(site: Site) -> None:
    path = one(site, '<img src="i.png"><img src="i.png">', "A dog", "A cat")
    site.apply()
    site.approve("a.html", "A wolf")
    site.apply()
    assert path.read_text() == '<img src="i.png" alt="A wolf"><img src="i.png" alt="A cat">'
    site.scan()
    site.approve("a.html", None, "")
    assert site.apply().occurrences == 1
    site.undo()
    assert path.read_text() == '<img src="i.png"><img src="i.png">'


def test_what_was_taken_back_can_be_written_again_after_a_scan_in_between(site: Site) -> None:
    page = "<img src=a><svg role=img></svg><img src=a>"
    path = one(site, page, "A dog", "Logo", "A cat")
    site.apply()
    written = path.read_text()
    site.scan()
    site.undo()
    assert path.read_text() == page
    assert site.apply().occurrences == 3
    assert path.read_text() == written


@pytest.mark.parametrize(
    ("tag", "approved"),
    [
        ("<img src=a>", "A dog"),
        ("<img src=a>", ""),
        ("<img src=a alt=' '>", "A & B  dog"),
        ("<svg role=img></svg>", "Logo"),
        ("<svg></svg>", ""),
    ],
)
def test_what_we_wrote_does_not_count_as_found(site: Site, tag: str, approved: str) -> None:
    one(site, tag, approved)
    [found] = [each.as_found for each in site.store.occurrences()]
    site.apply()
    site.scan()
    [stored] = site.store.occurrences()
    assert stored.occurrence != found, "the page says something else now"
    assert stored.as_found == found
    site.undo()
    assert [each.occurrence for each in site.store.occurrences()] == [found]
    site.scan()
    assert [each.occurrence for each in site.store.occurrences()] == [found]


def test_what_somebody_wrote_over_ours_counts_as_found(site: Site) -> None:
    path = one(site, "<img src=a>", "A dog")
    site.apply()
    site.scan()
    path.write_text('<img src=a alt="A wolf">')
    site.scan()
    assert [each.as_found.alt for each in site.store.occurrences()] == ["A wolf"]


@pytest.mark.parametrize("there", ["flock-2023.jpg", "", "A &amp; B", " A  ewe"])
def test_an_alt_that_was_shown_and_replaced_is_replaced(site: Site, there: str) -> None:
    path = one(site, f'<img src=a alt="{there}">', "A dog")
    [stored] = site.store.occurrences()
    assert stored.is_refused(())
    assert len(site.reasons()) == 1
    review = Review(
        Verdict.EDITED, "A ewe and her lamb", "ann", WHEN, replaces=stored.occurrence.alt
    )
    site.store.put_review(1, review)
    assert not site.store.occurrence(1).is_refused(())
    assert site.reasons() == []
    path.write_text('<img src=a alt="A wolf">')
    assert len(site.reasons()) == 1, "nobody was shown these"
    path.write_text(f'<img src=a alt="{there}">')
    assert site.apply().occurrences == 1
    assert path.read_text() == '<img src=a alt="A ewe and her lamb">'


def test_words_that_somebody_wrote_meanwhile_stay(site: Site) -> None:
    path = one(site, "<img src=a>", "A dog")
    path.write_text('<p>New</p><img src=a alt="A wolf">')
    assert site.reasons() == ["the page has other words (--overwrite replaces them): 'A wolf'"]
    assert site.apply(overwrite=True).occurrences == 1
    assert path.read_text() == '<p>New</p><img src=a alt="A dog">'


def test_a_crash_between_file_and_record_is_made_good(site: Site) -> None:
    path = one(site, '<img src="a.png">', "A dog")
    [change] = site.plan()
    path.write_bytes(edited(path.read_bytes(), change.edits))
    assert site.apply().occurrences == 0
    assert [occurrence.applied for occurrence in site.store.occurrences()] == [True]


@pytest.mark.parametrize(
    ("tag", "options", "written"),
    [
        ('<img alt="cat" src=a>', {}, False),
        ('<img alt="cat" src=a>', {"fill_empty": True}, False),
        ('<img alt="cat" src=a>', {"overwrite": True}, True),
        ('<img alt="" src=a>', {}, False),
        ('<img alt="" src=a>', {"fill_empty": True}, True),
        ('<img alt="" src=a>', {"overwrite": True}, True),
        ('<img alt=" " src=a>', {}, True),
        ("<svg><title>cat</title></svg>", {}, False),
        ("<svg><title>cat</title></svg>", {"overwrite": True}, True),
    ],
)
def test_what_a_person_wrote_stays_unless_told(
    site: Site, tag: str, options: Mapping[str, bool], written: bool
) -> None:
    path = one(site, tag, "A dog")
    assert site.apply(**options).occurrences == written
    assert (path.read_text() != tag) == written
    assert ("A dog" in path.read_text()) == written


def test_a_tag_that_moved_is_found_again_and_one_that_changed_is_not(site: Site) -> None:
    path = one(site, '<h1>Zoo</h1><img src="a.png"><img src="b.png">', "A dog", "A cat")
    path.write_text('<p>New</p><h1>Zoo</h1><img src="a.png"><img src="b.png" width=3>')
    assert site.reasons() == ["it changed since the scan, or is gone; scan the page again"]
    assert site.apply().occurrences == 1
    assert path.read_text() == (
        '<p>New</p><h1>Zoo</h1><img src="a.png" alt="A dog"><img src="b.png" width=3>'
    )


def test_twins_are_told_apart_by_their_surroundings_or_refused(site: Site) -> None:
    icon = '<img src="i.png">'
    one_two = f"<p>The first of them all has an icon {icon}<p>so has the second of them {icon}."
    path = one(site, one_two, "First", "Second")
    path.write_text(f"<p>A third one came before the two. {icon}</p>{one_two}")
    assert site.reasons() == []
    assert [edit.start for change in site.plan() for edit in change.edits] == [94, 140]
    path.write_text(f"<p>Uno {icon}<p>Zwei {icon}<p>Drei {icon}")
    assert len(site.reasons()) == 2
    path.write_text(f"<p>Uno {icon}")
    assert len(site.reasons()) == 2


def test_a_bad_file_does_not_stop_the_others(site: Site) -> None:
    for page in ("gone.html", "good.html", "locked.html"):
        site.write(page, "<img src=a>")
    site.scan()
    for page in ("gone.html", "good.html", "locked.html"):
        site.approve(page, "A dog")
    changes = site.plan()
    (site.root / "gone.html").unlink()
    (site.root / "locked.html").write_text("<p>meanwhile</p>")
    outcome = writeback.apply(site.store, changes, journal=site.journal)
    assert outcome.files == ("good.html",)
    assert [path for path, _ in outcome.failed] == ["gone.html", "locked.html"]
    assert (site.root / "locked.html").read_text() == "<p>meanwhile</p>"
    assert site.reasons() == [
        f"there is no gone.html in {site.root}",
        "it changed since the scan, or is gone; scan the page again",
    ]


def test_nothing_outside_the_root_is_touched(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside.html"
    outside.write_text("<img src=a>")
    (site.root / "link.html").symlink_to(outside)
    for page in (
        "../outside.html",
        "link.html",
        str(outside),
        "https://a.example/%2e%2e/outside.html",
    ):
        site.store.put_page(Page(page), occurrences_in_html("<img src=a>", page=page)[1])
        site.approve(page, "A dog")
    assert all("leads out of" in why for why in site.reasons())
    assert len(site.reasons()) == 4
    assert outside.read_text() == "<img src=a>"


def test_a_link_within_the_root_is_followed_and_stays_a_link(site: Site) -> None:
    path = one(site, "<img src=a>", "A dog")
    path.rename(site.root / "b.html")
    path.symlink_to("b.html")
    assert site.apply().occurrences == 1
    assert path.is_symlink()
    assert "A dog" in (site.root / "b.html").read_text()


def test_mode_stays_and_nothing_is_left_lying_about(site: Site) -> None:
    path = one(site, "<img src=a>", "A dog")
    path.chmod(0o640)
    site.apply()
    assert path.stat().st_mode & 0o7777 == 0o640
    assert [each.name for each in site.root.iterdir()] == ["a.html"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(site: Site) -> None:
    path = one(site, "<img src=a>", "A dog")
    os.chown(path, 1234, 4321)
    site.apply()
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@pytest.mark.parametrize(
    ("page", "content"),
    [
        ("a.html", b'<img src="x.png">'),
        ("a.md", b"![](x.png)"),
        ("a.rst", b".. image:: x.png\n"),
        ("a.docx", made_documents.word(made_documents.paragraph(made_documents.drawing("rId1")))),
    ],
)
@pytest.mark.parametrize(
    ("protect", "reason"),
    [
        (lambda file: file.chmod(0o444), "it is read-only"),
        (
            lambda file: os.link(file, file.with_suffix(".bak")),
            "it has 2 hard links, which a write would separate",
        ),
    ],
    ids=["read-only", "linked"],
)
def test_a_protected_file_is_refused_before_anything_is_written(
    site: Site, page: str, content: bytes, protect: Callable[[Path], None], reason: str
) -> None:
    file, _ = site.write(page, content), site.write("b.html", content)
    one(site, '<img src="y.png">', "Lamb", page="b.html")
    site.approve(page, "Ewe")
    protect(file)
    [first, second] = site.plan()
    assert (first.edits, first.diff()) == ((), "")
    assert [why for _, why in first.refused] == [reason]
    assert second.occurrences
    assert site.apply().files == ("b.html",)
    assert file.read_bytes() == content

    protect(site.root / "b.html")  # after it was written
    undone = site.undo()
    assert (undone.files, undone.failed) == ((), (("b.html", reason),))


def test_undo_refuses_a_file_that_changed_since(site: Site) -> None:
    for page in ("a.html", "b.html"):
        one(site, "<img src=x>", "A dog", page=page)
    site.apply()
    (site.root / "a.html").write_text("<p>other</p>")
    outcome = site.undo()
    assert outcome.files == ("b.html",)
    assert outcome.failed[0][0] == "a.html"
    assert "changed since" in outcome.failed[0][1]
    assert (site.root / "b.html").read_text() == "<img src=x>"


@pytest.mark.parametrize("content", ["not a journal\n", "no line", '{"a": 1}\n'])
def test_some_other_file_is_no_journal(site: Site, content: str) -> None:
    one(site, "<img src=a>", "A dog")
    site.journal.write_text(content)
    for command in (site.apply, site.undo):
        with pytest.raises(OptionError, match="no journal"):
            command()
    assert site.journal.read_text() == content
    with pytest.raises(OptionError, match="not there"):
        writeback.undo(site.store, site.journal.with_name("other"))


def test_a_journal_that_cannot_be_written_stops_before_the_file(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one(site, "<img src=a>", "A dog")
    changes = site.plan()

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == site.journal:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        writeback.apply(site.store, changes, journal=site.journal)
    assert path.read_text() == "<img src=a>"
    assert [each.name for each in site.root.iterdir()] == ["a.html"]


def test_a_line_that_a_crash_cut_short_does_not_count(site: Site) -> None:
    path = one(site, "<img src=a>", "A dog")
    site.apply()
    with site.journal.open("ab") as file:
        file.write(b'{"file": "/x", "edi')
    assert site.undo().files == ("a.html",)
    assert path.read_text() == "<img src=a>"
    assert all(json.loads(line) for line in site.journal.read_text().splitlines())


@pytest.mark.racy
def test_kill_in_the_middle_leaves_whole_files_and_a_journal_that_tells(
    site: Site, tmp_path: Path
) -> None:
    pages = [f"{number:03}.html" for number in range(30)]
    for page in pages:
        site.write(page, "<img src=a>" * 9)
    site.scan()
    for page in pages:
        site.approve(page, *["A dog"] * 9)
    before, after = b"<img src=a>" * 9, b'<img src=a alt="A dog">' * 9
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from cutline.site.store.store import Store
        from cutline.site.writeback import apply as writeback
        store, root, journal = map(Path, sys.argv[1:])
        store = Store(store)
        changes = writeback.plan(store, root)
        show = lambda done, all: print(done, flush=True)
        writeback.apply(store, changes, journal=journal, progress=show)
    """)
    command = [sys.executable, "-c", program]
    command += map(str, (site.store.path, site.root, site.journal))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 9:
                process.send_signal(signal.SIGKILL)
                break
    contents = [(site.root / page).read_bytes() for page in pages]
    assert set(contents) == {before, after}
    site.undo()
    assert {(site.root / page).read_bytes() for page in pages} == {before}
    assert not any(occurrence.applied for occurrence in site.store.occurrences())
    site.apply()
    assert {(site.root / page).read_bytes() for page in pages} == {after}


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (
            '<meta charset="latin1"><p>é<img src=a>'.encode("cp1252"),
            b'alt="caf&#233; &#8364; &#24859;"',
        ),
        ('<meta charset="utf-8"><p>é<img src=a>'.encode(), 'alt="café € 愛"'.encode()),
        ("<img src=a>".encode("utf-16"), 'alt="café € 愛"'.encode("utf-16-le")),
        (b"<img src=a>", b'alt="caf&#233; &#8364; &#24859;"'),
        (b'<meta charset="utf-8">\xff<img src=a>', b'alt="caf&#233; &#8364; &#24859;"'),
    ],
)
def test_words_are_written_so_that_a_browser_reads_them(
    site: Site, content: bytes, written: bytes
) -> None:
    path = one(site, content, "café € 愛")
    site.apply()
    assert written in path.read_bytes()
    text, _ = decode(path.read_bytes())
    assert occurrences_in_html(text, page="a")[1][0].alt == "café € 愛"
    site.undo()
    assert path.read_bytes() == content


def test_markdown(site: Site) -> None:
    content = (
        "# Zoo\r\n\r\n![](a.png) ![cat][] <img src=b.png>\r\n\r\n"
        "| x |\r\n|---|\r\n| <img src=c.png> |\r\n\r\n[cat]: cat.png\r\n"
    )
    alts = ("A [dog] | *bark*", "A c&amp;t", "<b>", "p | q")
    path = one(site, content, *alts, page="zoo.md")
    assert site.apply(overwrite=True).occurrences == 4
    written = path.read_bytes().decode()
    assert [occurrence.alt for occurrence in occurrences_in_markdown(written, page="x")[1]] == list(
        alts
    )
    assert '| <img src=c.png alt="p &#124; q"> |\r\n\r\n[cat]: cat.png\r\n' in written
    site.scan()
    assert [len(change.up_to_date) for change in site.plan()] == [4]
    site.undo()
    assert path.read_bytes().decode() == content


def test_markdown_that_would_read_otherwise_is_refused_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one(site, "![](a.png) ![](b.png)", "fine", "trouble", page="zoo.md")
    read = pagefile.occurrences_in_markdown

    def misread(text: str, **names: str) -> tuple[Page, list[ImageOccurrence]]:
        return read(text.replace("trouble", "something else"), **names)

    monkeypatch.setattr(pagefile, "occurrences_in_markdown", misread)
    assert site.reasons() == ["its Markdown would not read as approved; change it by hand"]
    assert site.apply().occurrences == 1
    assert path.read_text() == "![fine](a.png) ![](b.png)"


def test_what_has_no_place_in_a_file_is_refused(site: Site) -> None:
    site.write("a.html", "<img src=a>")
    occurrences = [
        ImageOccurrence("a.html", 0, Kind.ROW, "a"),
        ImageOccurrence("a.html", 1, Kind.IMG, "b"),
    ]
    site.store.put_page(Page("a.html"), occurrences)
    site.approve("a.html", "A dog", "A cat")
    assert site.reasons() == [
        "only an export names it; write it back as a table",
        "its place in the file is not known; change it by hand",
    ]


def test_within_template_code_nothing_is_touched(site: Site) -> None:
    one(site, """<?php if ($a > 1) echo '<img src="x">'; ?><img src="y">""", *["Tom's"] * 2)
    outcome = site.apply()
    assert outcome.occurrences == 1
    assert (site.root / "a.html").read_text().endswith("""; ?><img src="y" alt="Tom's">""")


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("https://a.example/", "index.html"),
        ("https://a.example/docs/", "docs/index.htm"),
        ("https://a.example/docs", "docs/index.html"),
        ("https://a.example/caf%C3%A9%20au.html", "café au.html"),
        ("https://a.example/clean", "clean.html"),
        ("https://a.example/page.html?x=1", "page.html"),
        ("https://a.example/page.html?x=1", "page.html?x=1"),
        ("https://a.example:8000/x.html", "a.example:8000/x.html"),
        ("https://a.example:8000/x.html", "a.example_8000/x.html"),
        ("https://a.example/docs/manual/x.html", "x.html"),
        ("https://a.example/docs/manual/x.html", "manual/x.html"),
    ],
)
def test_a_crawled_page_has_its_file_in_a_copy_of_the_site(site: Site, url: str, file: str) -> None:
    path = site.write(file, "<img src=a>")
    page, occurrences = occurrences_in_html("<img src=a>", page=url)
    site.store.put_page(page, occurrences)
    site.approve(url, "A dog")
    assert site.apply() == writeback.Outcome((file,), 1)
    assert "A dog" in path.read_text()


def test_two_urls_of_one_file_agree_or_are_refused(site: Site) -> None:
    path = site.write("index.html", "<img src=a><img src=b>")
    for url in ("https://a.example/", "https://a.example/index.html"):
        page, occurrences = occurrences_in_html(path.read_text(), page=url)
        site.store.put_page(page, occurrences)
    site.approve("https://a.example/", "A dog", "A cat")
    site.approve("https://a.example/index.html", "A dog", "A lion")
    assert site.reasons() == ["another page has this file, and another alt approved for it"]
    assert site.apply().occurrences == 2
    assert path.read_text() == '<img src=a alt="A dog"><img src=b alt="A cat">'
    assert [occurrence.applied for occurrence in site.store.occurrences()] == [
        True,
        True,
        True,
        False,
    ]


NAMES = ("a.html", "with space.html", "café.html", 'quo"te\\.html', "tab\there.html", "no/end.html")


@pytest.mark.parametrize("command", [["git", "apply"], ["patch", "-p1", "--quiet"]])
def test_a_patch_does_what_applying_does(site: Site, tmp_path: Path, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    filler = "".join(f"<p>line {number}\r\n" for number in range(20))
    for number, name in enumerate(NAMES):
        head = "<meta charset=latin1>é" if number % 2 else "<meta charset=utf-8>é"
        tag = '<img\n src="b.png"\n alt="old\nwords">'
        page = f"{head}<img src=a>\n{filler}<img src=c>{tag}<img src=d>\n{filler}\n<img src=e>"
        site.write(name, page.encode("latin-1" if number % 2 else "utf-8"))
    site.scan()
    for name in NAMES:
        site.approve(name, "Ünë", "A dog", "New", "", "last")
    copy = tmp_path / "copy"
    shutil.copytree(site.root, copy)
    changes = site.plan(overwrite=True)
    assert sum(len(change.edits) for change in changes) == 5 * len(NAMES)
    patch = writeback.patch(changes)
    done = subprocess.run(command, input=patch, cwd=copy, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    writeback.apply(site.store, changes, journal=site.journal)
    for name in NAMES:
        assert (copy / name).read_bytes() == (site.root / name).read_bytes(), name
    back = [*command, "-R"]
    done = subprocess.run(back, input=patch, cwd=copy, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    site.undo()
    for name in NAMES:
        assert (copy / name).read_bytes() == (site.root / name).read_bytes(), name


def test_the_diff_shows_the_lines_around(site: Site) -> None:
    one(site, "1\n2\n3\n4\n<img src=a>\n6\n7\n8\n9\n<img src=b>", "A dog", "A cat")
    [change] = site.plan()
    assert change.diff() == (
        "--- a/a.html\n+++ b/a.html\n@@ -2,9 +2,9 @@\n 2\n 3\n 4\n"
        '-<img src=a>\n+<img src=a alt="A dog">\n 6\n 7\n 8\n 9\n'
        "-<img src=b>\n\\ No newline at end of file\n"
        '+<img src=b alt="A cat">\n\\ No newline at end of file\n'
    )
    (site.root / "a.html").write_text("other")
    with pytest.raises(OutputError, match="changed"):
        change.diff()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_the_diff_cuts_long_lines_and_the_patch_does_not(site: Site, encoding: str) -> None:
    filler = "é" * 500
    page = f"<meta charset={encoding}>\n{filler}\n{filler}<img src=a>{filler}<img src=b>{filler}\n"
    one(site, page.encode(encoding), "A dog", "A cat")
    [change] = site.plan()
    near = "é" * 60
    mark = chr(0xFEFF) if encoding == "utf-16" else ""
    assert change.diff().partition("@@\n")[2] == (
        f" {mark}<meta charset={encoding}>\n {near * 2}…\n"
        f"-…{near}<img src=a>{near}…{near}<img src=b>{near}…\n"
        f'+…{near}<img src=a alt="A dog">{near}…{near}<img src=b alt="A cat">{near}…\n'
    )
    assert filler.encode(encoding.replace("16", "16-le")) in writeback.patch([change])


def test_progress_reaches_its_end(site: Site) -> None:
    one(site, "<img src=a>", "A dog")
    seen: list[tuple[int, int]] = []
    show: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    changes = writeback.plan(site.store, site.root, progress=show)
    writeback.apply(site.store, changes, journal=site.journal, progress=show)
    writeback.undo(site.store, site.journal, progress=show)
    assert seen == [(0, 1), (1, 1)] * 3


def test_a_root_that_is_no_folder(site: Site) -> None:
    with pytest.raises(OptionError, match="not a folder"):
        writeback.plan(site.store, site.root / "nowhere")


class FakeStore:
    """A store with one page whose occurrences are all reviewed."""

    def __init__(self, page: Page, occurrences: list[ImageOccurrence], alts: list[str]) -> None:
        self.page = page
        self.settings: dict[str, str] = {}
        self.stored = [
            StoredOccurrence(number, occurrence, review=Review(Verdict.EDITED, alt))
            for number, (occurrence, alt) in enumerate(zip(occurrences, alts, strict=False))
        ]

    def pages(self) -> list[Page]:
        return [self.page]

    def occurrences(self, **_: object) -> list[StoredOccurrence]:
        return self.stored

    def occurrence(self, id: int) -> StoredOccurrence:
        return self.stored[id]

    def history(self, id: int) -> list[Review]:
        return [review] if (review := self.stored[id].review) else []

    def put_applied(self, *_: object) -> None: ...

    def undo_applied(self, *_: object) -> None: ...

    def setting(self, name: str) -> str | None:
        return self.settings.get(name)

    def put_setting(self, name: str, value: str) -> None:
        self.settings[name] = value


PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        """<img>|<img src=a>|<IMG SRC='b' ALT=''>|<img alt=x src="c"/>|<img src=a alt>|<svg>|</svg>
        |<title>t</title>|<svg role=img />|<area href=x>|<input type=image alt= >|<object data=y>
        |<span role=img aria-label='z'>|<p>|<a href="/">|</a>|<table><tr><td>|<noscript>|</noscript>
        |<!-- <img> -->|<script>'<img src=x>'</script>|<style>|</style>|<textarea>|<template>
        |<img {{x}}>|{{ '<img>' }}|<?php '<img>' ?>|<img src="{{ a }}">|<img src="<?= 1 ?>" alt='y'>
        |<img alt='1' alt='2'>|<img src="a|">|>|'|"|<|&amp;|&|\r\n|\n|\x0c|\0|<meta charset=utf-8>
        |<![CDATA[|]]>|<math>|<image href=q>|<picture><source srcset="e 2x">|</p>|</table>|=
        |/""".split("|")
    ),
    st.builds(
        lambda name, quote, value: f"<img {name}={quote}{value}{quote}>",
        st.sampled_from(("src", "alt", "Alt", "data-alt", ":alt", "title", "srcset")),
        st.sampled_from(("", "'", '"')),
        st.text(max_size=6),
    ),
)
ALTS = st.lists(st.text(max_size=12), min_size=8, max_size=8)


def without_alts(html: str) -> list[object]:
    """The tree of a page as a list, but for what may be written."""
    found: list[object] = []
    nodes = [JustHTML(html, sanitize=False).root]
    while nodes:
        node = nodes.pop()
        attributes = dict(getattr(node, "attrs", None) or {})
        for name in ("alt", "role", "aria-label", "aria-hidden"):
            attributes.pop(name, None)
        found.append((node.name, attributes, getattr(node, "data", None)))
        if node.name != "noscript":  # whose content a browser with scripts takes for text
            nodes += node.children or []
        nodes += [node.template_content] if getattr(node, "template_content", None) else []
    return found


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=12),
    alts=ALTS,
    encoding=st.sampled_from(("utf-8", "latin-1", "utf-16", "utf-8-sig")),
    overwrite=st.booleans(),
)
def test_any_page_can_be_written_and_taken_back(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[str],
    alts: list[str],
    encoding: str,
    overwrite: bool,
) -> None:
    root = tmp_path_factory.mktemp("any")
    path = root / "a.html"
    content = "".join(pieces).encode(encoding, "replace")
    path.write_bytes(content)
    before, _ = decode(content)
    page, occurrences = occurrences_in_html(before, page="a.html")
    store = cast(Store, FakeStore(page, occurrences, alts))
    [change] = writeback.plan(store, root, overwrite=overwrite) or [writeback.PageChange("")]
    journal = root / "journal"
    writeback.apply(store, [change], journal=journal)
    after, _ = decode(path.read_bytes())
    written = {edit.occurrence for edit in change.edits}
    assert without_alts(after) == without_alts(before)
    for number, now in enumerate(occurrences_in_html(after, page="a.html")[1]):
        was = occurrences[number]
        if number not in written:
            assert (now.alt, now.markup) == (was.alt, was.markup)
        elif was.kind in (Kind.IMG, Kind.INPUT, Kind.AREA):
            assert now.alt == clean(alts[number])
            assert overwrite or not (was.alt or "").strip()
        else:
            assert now.name == " ".join(clean(alts[number]).split()) or "aria-hidden" in now.markup
    writeback.undo(store, journal)
    assert path.read_bytes() == content


def test_a_drawing_marked_as_decorative_stands_at_the_next_apply(site: Site) -> None:
    path = one(site, "<svg width=9><path d=M0/></svg><svg><path d=M1/></svg>", "", "Boats")
    assert site.apply().occurrences == 2
    assert b'aria-hidden="true"' in path.read_bytes()
    assert site.reasons() == []
    assert site.apply().occurrences == 0
