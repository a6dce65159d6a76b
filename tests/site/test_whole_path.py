"""A real site that nobody here wrote goes the whole way, with the embedded model.

It is part of the manual of GRASS GIS as Debian packages it: logos and thumbnails in links with
text beside them, maps, diagrams, screenshots; half of its images have alts. It is crawled on the
loopback interface, drafted, reviewed by keys in Chromium, written into a copy, and crawled again.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import browser
import pytest
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from typer.testing import CliRunner

from cutline import cli
from cutline.site.model import Alt, Purpose, Verdict
from cutline.site.store.store import Store

MANUAL = Path("/usr/share/doc/grass-doc/html")
START = "full_index.html"
PAGES = [
    START,
    *"""graphical_index.html miscellaneous_graphical.html d.histogram.html g.gui.gmodeler.html
    i.segment.html r.horizon.html r.sim.water.html r.slope.aspect.html r.stream.extract.html
    v.buffer.html v.qcount.html v.voronoi.html""".split(),
]
ALT = re.compile(rb"""\s+alt=("[^"]*"|'[^']*')""")


@dataclass
class Website:
    """A folder that is served, whichever it is at the time."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def pictures(self) -> list[str]:
        return [path for path in self.asked if path.endswith((".png", ".jpg", ".gif", ".svg"))]


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Website]:
    if not MANUAL.is_dir():
        why = f"no {MANUAL}: install Debian's grass-doc"
        if os.environ.get("CUTLINE_REQUIRE_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    site = Website(tmp_path / "public")
    site.folder.mkdir()
    for name in PAGES:
        html = (MANUAL / name).read_bytes()
        (site.folder / name).write_bytes(html)
        for found in re.findall(rb'<img[^>]* src="([^":]+)"', html):
            (site.folder / found.decode()).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MANUAL / found.decode(), site.folder / found.decode())

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(site.folder))

        def do_GET(self) -> None:
            site.asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def cutline(*words: Any) -> str:
    """Run `cutline site` here, which must go well; gives what it said."""
    done = CliRunner().invoke(cli.app, ["site", *map(str, words)], prog_name="cutline")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.stderr
    return done.stdout + done.stderr


def test_a_real_site_goes_the_whole_way(website: Website, tmp_path: Path) -> None:
    pages = [f"--include=/{name}" for name in PAGES]
    assert f"on {len(PAGES)} pages" in cutline("crawl", website.url + START, *pages)
    said = cutline("draft")
    with Store("site.cutline") as store:
        counts = store.counts()
        pictures = {each.occurrence.url for each in store.occurrences(stage="drafted")}
    assert counts.found == 0
    assert counts.by_purpose[Purpose.KEPT] == counts.by_alt[Alt.PRESENT]
    assert counts.by_purpose[Purpose.REDUNDANT] > 10
    assert counts.by_purpose[Purpose.INFORMATIVE] > 10
    assert counts.drafted + counts.asked == counts.by_alt[Alt.MISSING]
    assert max(Counter(website.pictures()).values()) == 1
    assert len(website.pictures()) == counts.fetched >= len(pictures), said

    review()
    with Store("site.cutline") as store:
        counts = store.counts()
        reviewed = [each for each in store.occurrences(stage="reviewed") if each.review]
        approved = {
            each.id: (each.occurrence, each.review.alt)
            for each in reviewed
            if each.review and each.review.alt is not None
        }
    assert counts.reviewed == {
        Verdict.APPROVED: 4,
        Verdict.EDITED: 3,
        Verdict.DECORATIVE: 1,
        Verdict.SKIPPED: 1,
    }
    assert len(approved) == 8

    copy = tmp_path / "copy"
    shutil.copytree(website.folder, copy)
    assert "To be written: 8 alts" in cutline("apply", copy)
    assert contents(copy) == contents(website.folder)
    assert "Written: 8 alts" in cutline("apply", copy, "--write")
    was, is_ = contents(website.folder), contents(copy)
    assert was.keys() == is_.keys()
    changed = {name for name in was if was[name] != is_[name]}
    assert changed == {
        occurrence.page.removeprefix(website.url) for occurrence, _ in approved.values()
    }
    for name in changed:
        assert ALT.sub(b"", was[name]) == ALT.sub(b"", is_[name])
        written = [
            alt for occurrence, alt in approved.values() if occurrence.page == website.url + name
        ]
        assert Counter(new_alts(was[name], is_[name])) == Counter(written)

    website.folder, before = copy, website.pictures()
    cutline("crawl", website.url + START, *pages)
    assert "Nothing left to draft." in cutline("draft")
    assert website.pictures() == before
    with Store("site.cutline") as store:
        for id, (occurrence, alt) in approved.items():
            found = store.occurrence(id)
            assert (found.occurrence.page, found.occurrence.source, found.occurrence.alt) == (
                occurrence.page,
                occurrence.source,
                alt,
            )
            assert found.applied
        assert store.counts().captions == counts.captions

    cutline("undo")
    assert contents(copy) == was


def review() -> None:
    """Approve four suggestions, change one, make one decorative, skip one, and write two."""
    command = [sys.executable, "-m", "cutline", "site", "review", "--no-browser"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as served,
        browser.chromium() as chromium,
        browser.page(chromium) as tab,
    ):
        assert served.stderr is not None
        address = re.search(r"http://\S+", served.stderr.readline())
        assert address is not None
        tab.goto(f"{address[0]}#show=drafted")
        for number, key in enumerate("aaaeads", start=1):
            at(tab, number)
            tab.keyboard.press(key)
            if key == "e":
                tab.keyboard.press("Control+a")
                write(tab, 'A map of <hills> & "valleys"')
        at(tab, 8)
        tab.goto("about:blank")
        tab.goto(f"{address[0]}#show=asked")
        for number in (1, 2):
            at(tab, number)
            tab.keyboard.press("e")
            write(tab, f"What a person sees, {number}")
        at(tab, 3)
        served.send_signal(signal.SIGINT)
        assert served.wait(20) == 0


def at(tab: Tab, number: int) -> None:
    """Wait until so many pictures are decided and the next is before the person."""
    expect(tab.locator("#article .meta")).to_contain_text(f"{number} of ")


def write(tab: Tab, words: str) -> None:
    tab.keyboard.type(words)
    tab.keyboard.press("Control+Enter")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Reader(HTMLParser):
    """Everything in a page, its alts apart, as another parser than ours reads it."""

    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=False)
        self.alts: list[str | None] = []
        self.rest: list[Any] = []
        self.handle_data = self.handle_comment = self.handle_endtag = self.rest.append  # type: ignore[method-assign,assignment]
        self.handle_decl = self.handle_charref = self.handle_entityref = self.rest.append  # type: ignore[method-assign,assignment]
        self.feed(html.decode("latin-1"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.alts.append(dict(attrs).get("alt"))
        self.rest.append((tag, [each for each in attrs if each[0] != "alt"]))


def new_alts(was: bytes, is_: bytes) -> list[str | None]:
    """The alts that differ, as they are now; nothing else may."""
    before, after = Reader(was), Reader(is_)
    assert before.rest == after.rest
    return [new for old, new in zip(before.alts, after.alts, strict=True) if new != old]
