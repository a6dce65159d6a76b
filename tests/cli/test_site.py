from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from conftest import scene
from PIL import Image
from typer.testing import CliRunner

from cutline import captioner, cli
from cutline import site as library
from cutline.cli import site_messages, site_review
from cutline.site.model import Decision, Draft, Purpose, Review, Verdict
from cutline.site.store.store import Store

STANDIN = Path(__file__).parents[1] / "standin.py"
PAGE = """<!doctype html><title>Trip</title><h1>Our trip</h1>
<p>On Monday.</p><img src="1.png">
<p>On Tuesday.</p><img src="2.png" >
<p>On Wednesday.</p><img alt src="3.png">
<p>On Thursday.</p><img src="4.png" alt="DSC0004.JPG">
<p>Gone.</p><img src="none.png">
"""


def command(*words: Any) -> list[str]:
    return [sys.executable, str(STANDIN), "site", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "200", **more}


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def site(*words: Any) -> Done:
    """Run a command in this process; the present folder is the home's."""
    found = CliRunner().invoke(cli.app, ["site", *map(str, words)], prog_name="cutline")
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Done(found.exit_code, found.stdout, found.stderr)


@pytest.fixture(autouse=True)
def captioned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the captioner; lists the pictures it was shown."""
    shown: list[str] = []

    class Listing(standin.StandIn):
        def stream(self, images: Any, options: Any = None) -> Any:
            def listed() -> Iterator[Any]:
                for image in images:
                    shown.append(str(image))
                    yield image

            return super().stream(listed(), options)

    monkeypatch.setattr(captioner, "load", lambda *_, **__: Listing())
    return shown


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(PAGE)
    for number in range(1, 5):
        scene(100 + number, 70).save(pages / f"{number}.png")
    return tmp_path


@pytest.fixture
def asked() -> list[str]:
    """What the server was asked for."""
    return []


@pytest.fixture
def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture
def server(home: Path, asked: list[str]) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(home / "pages")))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_goes_the_whole_way(home: Path, captioned: list[str]) -> None:
    done = site("run", "pages")
    assert done.returncode == 1  # one picture is missing
    assert "Found 5 images in 1 file." in done.stderr
    assert "none.png: no such file" in done.stderr.splitlines()
    assert "1 captioned" in done.stderr  # two look the same, two are left as they are
    assert "5 images decided: 2 suggestions, 1 needs your words, 2 left as" in done.stderr
    assert "<html" in (home / "site-report.html").read_text("utf-8")
    assert done.stdout == ""

    sheet = home / "sheet.csv"
    assert site("review", "--write", sheet).returncode == 0
    assert site("review", "--write", sheet).returncode == 2  # it is there already
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["verdict"] = "approved"
    rows[1]["approved_alt"] = 'Our "own" words'
    rows[4]["verdict"] = "perhaps"
    with sheet.open("w", newline="", encoding="utf-16") as file:
        table = csv.DictWriter(file, rows[0], delimiter=";")
        table.writeheader()
        table.writerows(rows)
    done = site("review", "--read", sheet, "--who", "Ann")
    assert done.returncode == 1
    assert "2 reviews read." in done.stdout
    assert "line 6: got verdict 'perhaps'; expected approved" in done.stderr
    assert "0 reviews read." in site("review", "--read", sheet).stdout

    before = (home / "pages/index.html").read_bytes()
    shown = site("apply", "pages")
    assert shown.returncode == 0
    assert '+<p>On Tuesday.</p><img src="2.png"' in shown.stdout
    assert (home / "pages/index.html").read_bytes() == before
    assert site("apply", "pages", "--patch", "p.patch").returncode == 0
    assert "&quot;own&quot;" in (home / "p.patch").read_text()
    assert site("apply", "pages", "--patch", "q.patch", "--write").returncode == 2
    assert not (home / "q.patch").exists()
    done = site("apply", "pages", "--write")
    assert "Written: 2 alts in 1 file." in done.stderr
    assert "&quot;own&quot;" in (home / "pages/index.html").read_text()
    again = site("apply", "pages", "--write").stderr
    assert again == "Nothing to write. The pages have every approved alt.\n"
    assert json.loads(site("status", "--json").stdout)["applied"] == 2

    captioned.clear()
    again = site("run", "pages", "-q", "-o", "again.html")
    assert again.returncode == 1
    assert captioned == []
    assert site("undo").stderr == "Undone: 2 alts in 1 file.\n"
    assert site("undo").stderr == "Everything that was written is undone already.\n"
    assert (home / "pages/index.html").read_bytes() == before


def test_undo_takes_back_every_run_and_names_what_stands_in_changed_files(home: Path) -> None:
    kept = home / "pages/kept.html"
    kept.write_text('<p>A\n<p><img src="1.png">\n<p><img src="2.png">\n')
    before = {path: path.read_bytes() for path in (home / "pages").glob("*.html")}
    site("scan", "pages")
    with Store(home / "site.cutline") as store:
        ids = {
            (each.occurrence.page, each.occurrence.source): each.id for each in store.occurrences()
        }

        def write(page: str, source: str, alt: str) -> None:
            store.put_review(ids[page, source], Review(Verdict.EDITED, alt, "ann"))
            assert site("apply", "pages", "--write").returncode == 0

        write("index.html", "1.png", "One")
        write("index.html", "2.png", "Two")
        write("kept.html", "1.png", "Sand")
        write("kept.html", "2.png", "Sea")
    kept.write_text("<p>New\n" + kept.read_text().replace("Sea", "Sky"))
    done = site("undo")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "kept.html: it changed since it was written; restore it by hand",
        '  kept.html:3: alt="Sand"',
        "Undone: 2 alts in 1 file.",
    ]
    assert (home / "pages/index.html").read_bytes() == before[home / "pages/index.html"]


def test_a_dry_apply_that_is_piped_gives_a_patch_with_whole_lines(home: Path) -> None:
    page = home / "pages/index.html"
    page.write_text(f'<p>{"far " * 100}<img src="1.png">{" away" * 100}\n')
    site("scan", "pages")
    with Store(home / "site.cutline") as store:
        [occurrence] = store.occurrences()
        store.put_review(occurrence.id, Review(Verdict.EDITED, "Sand", "ann"))
    shown = site("apply", "pages").stdout
    assert "…" not in shown
    assert site("apply", "pages", "--patch", "p.patch").returncode == 0
    assert shown == (home / "p.patch").read_text()


def test_a_website_is_crawled_drafted_and_exported(home: Path, server: str) -> None:
    done = site("crawl", server, "--max-pages", 5)
    assert done.returncode == 0, done.stderr
    assert "Found 5 images on 1 page" in done.stderr
    done = site("draft", "--concurrency", 4)
    assert done.returncode == 1
    assert f"{server}none.png: the server answers 404" in done.stderr
    assert "Nothing left to draft." in site("draft").stderr
    linted = site("lint")
    assert f"{server}, image 4: error: 4.png: " in linted.stdout
    assert "As crawled at 20" in linted.stderr
    table = site("export").stdout
    assert len(list(csv.DictReader(table.splitlines()))) == 5
    assert len(json.loads(site("export", "--format", "json").stdout)["uses"]) == 5
    done = site("export", "-o", "alts.sh")
    assert (home / "alts.sh").read_text().startswith("#!/bin/sh")
    assert "The script sets no alt, because none is approved yet." in done.stderr
    other = site("crawl", "https://other.example/")
    assert other.returncode == 2
    assert "name another with --store" in other.stderr


def test_a_site_that_does_not_answer_leaves_the_record_free(home: Path, free_port: int) -> None:
    done = site("run", f"http://127.0.0.1:{free_port}/")
    assert done.returncode == 1
    assert f"no page could be read: http://127.0.0.1:{free_port}/: " in done.stderr
    assert "refused" in done.stderr
    assert "Next" not in done.stderr
    assert not (home / "site-report.html").exists()
    assert not (home / "site.cutline").exists()
    assert "Found 5 images in 1 file." in site("run", "pages").stderr


def test_pages_that_cannot_be_read_are_named(home: Path, server: str) -> None:
    links = "".join(f"<a href=gone{number}.html>" for number in range(21))
    (home / "pages/index.html").write_text(links)
    done = site("crawl", server)
    assert done.returncode == 1
    named = [line for line in done.stderr.splitlines() if "html: HTTP 404 Not Found" in line]
    assert len(named) == 20
    assert "and 1 page more; the report lists all" in done.stderr


def test_private_addresses_are_not_fetched_for_others(home: Path, server: str) -> None:
    (home / "list.csv").write_text(f"url\n{server}1.png\n{server}2.png\n")
    assert site("import", "list.csv").returncode == 0
    done = site("draft")
    assert done.returncode == 1
    assert "expected a public address only" in done.stderr or "got port" in done.stderr
    store = Store(home / "site.cutline")
    assert store.counts().failed == 2
    store.close()
    assert "add --private" in done.stderr
    assert site("draft", "--private").returncode == 0


def test_one_page_is_scanned_and_no_table(home: Path) -> None:
    (home / "pages/other.html").write_text("<img src=1.png>")
    assert "Found 5 images in 1 file." in site("run", "pages/index.html").stderr
    assert "Found 6 images (5 different) in 2 files." in site("scan", "pages").stderr
    for words in (("run", "pages/1.png"), ("import", "pages/1.png")):
        done = site(*words)
        assert done.returncode == 2
        assert "expected a crawler's export as .csv" in done.stderr


def test_lint_tells_errors_by_its_exit_code(home: Path) -> None:
    site("scan", "pages")
    done = site("lint")
    assert done.returncode == 1
    assert 'index.html:5: error: 4.png: "DSC0004.JPG" is the name of a file' in done.stdout
    lines = [json.loads(line) for line in site("lint", "--json").stdout.splitlines()]
    assert {line["rule"] for line in lines} >= {"image-alt"}
    (home / "pages/index.html").write_text('<img src="1.png" alt="A dog on a beach at dusk">')
    assert site("lint").returncode == 0


def test_lint_names_a_gap_once_however_many_rules_and_pages_tell_of_it(home: Path) -> None:
    (home / "pages/index.html").unlink()
    link = '<a href="/"><img src="1.png"></a>\n'
    (home / "pages/a.html").write_text(link + '<p><img src="2.png"><p><img src="2.png">')
    for name in "bcd":
        (home / f"pages/{name}.html").write_text(link)
    site("scan", "pages")
    done = site("lint")
    first, *others = done.stdout.splitlines()
    assert first.startswith("a.html:1: error: 1.png: the link around it has no text; ")
    assert first.endswith(" [image-alt, link-name] (also on 3 other pages)")
    assert [line.rpartition("[")[2] for line in others] == ["image-alt]", "image-alt]"]
    assert done.stderr.startswith("10 errors")
    assert len(site("lint", "--json").stdout.splitlines()) == 10


def test_lint_tells_our_suggestions_from_what_stands_in_the_pages(home: Path) -> None:
    site("scan", "pages")
    with Store(home / "site.cutline") as store:
        first = next(store.occurrences())
        draft = Draft(Decision(Purpose.INFORMATIVE, "informative", ""), "photo.jpg")
        store.put_draft(first.id, draft)
    said = 'index.html: error: 1.png: our suggestion: "photo.jpg" is the name of a file'
    assert said in site("lint", "--drafts").stdout
    assert said not in site("lint").stdout


def test_wrong_use_is_told_in_a_line(home: Path) -> None:
    for words, said in {
        ("draft",): "got no site.cutline; expected a site's store: start with cutline site run, ",
        ("run", "nowhere"): "got nowhere; expected a URL such as https://",
        ("draft", "--store", "pages/index.html"): "not a site's store",
        ("report", "--store", "none"): "got no none; expected a site's store",
    }.items():
        done = site(*words)
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("cutline: ")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (home / "site.cutline").exists()
    site("scan", "pages")
    for glossary in ("pages/1.png", "nowhere"):
        assert site("draft", "--glossary", glossary).returncode == 2


def test_a_folder_without_pages_is_no_empty_site(home: Path) -> None:
    site("scan", "pages")
    (home / "pages/index.html").rename(home / "index.html")
    done = site("scan", "pages")
    assert done.returncode == 1
    assert "pages; expected HTML or Markdown files or documents in it" in done.stderr
    assert "images in them        5" in site("status").stdout  # all that was found is kept


def test_a_run_that_reads_nothing_leaves_no_record(home: Path) -> None:
    (home / "empty").mkdir()
    for source in ("empty", "pages/1.png"):
        assert site("run", source).returncode
        assert not (home / "site.cutline").exists()
    assert site("run", "pages").returncode in (0, 1)
    assert site("run", "empty").returncode
    assert "images in them        5" in site("status").stdout


def test_lint_names_a_file_that_cannot_be_read(home: Path, monkeypatch: Any) -> None:
    site("scan", "pages")
    monkeypatch.setattr("cutline.site.pages.scan._LARGEST_FILE_BYTES", 1)
    done = site("lint")
    assert done.returncode == 1
    assert done.stdout.startswith("index.html: error: it cannot be read: got ")


def test_a_glossary_is_remembered(home: Path) -> None:
    (home / "words.txt").write_text("picture = painting\n")
    site("scan", "pages")
    site("draft", "--glossary", "words.txt")
    assert "Nothing left" in site("draft").stderr
    assert "painting" in site("export").stdout


def test_every_command_has_help_with_examples(home: Path) -> None:
    names = "crawl scan import draft lint review apply undo export report status run".split()
    for name in names:
        done = site(name, "--help")
        assert done.returncode == 0
        assert f"$ cutline site {name}" in done.stdout


@pytest.mark.racy
def test_killed_and_run_again_gives_what_an_undisturbed_run_gives(
    home: Path, captioned: list[str]
) -> None:
    random = np.random.default_rng(1)
    for number in range(5, 30):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((160, 120)).save(home / f"pages/{number}.png")
    images = "".join(f"<p>{number}</p><img src={number}.png>" for number in range(5, 30))
    (home / "pages/index.html").write_text(images)
    site("run", "pages", "--store", "whole")
    env = environment(STANDIN_KILL="20.png")
    killed = subprocess.run(command("run", "pages", "--store", "cut"), env=env, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    captioned.clear()
    site("run", "pages", "--store", "cut")
    found = []
    for name in ("whole", "cut"):
        with Store(home / name) as store:
            found.append([(each.occurrence, each.draft) for each in store.occurrences()])
    assert found[0] == found[1]
    assert 0 < len(captioned) < 25


@pytest.mark.racy
def test_ctrl_c_says_how_to_go_on(home: Path) -> None:
    site("scan", "pages")
    env = environment(STANDIN_DELAY="30", STANDIN_LOG=str(home / "log"))
    with subprocess.Popen(
        command("draft"), cwd=home, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        with Store(home / "site.cutline") as store:
            deadline_s = time.monotonic() + 60
            while store.setting("model") is None and time.monotonic() < deadline_s:
                time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped; everything so far is saved. To continue, run the same command again." in said
    assert "Traceback" not in said


def test_the_report_is_named_as_the_record_and_replaces_only_reports(home: Path) -> None:
    site("run", "pages", "--store", "tags.cutline")
    assert not (home / "site-report.html").exists()
    assert site("report", "--store", "tags.cutline").returncode == 0
    (home / "tags-report.html").write_text("<h1>My own</h1>")
    for words in (("run", "pages"), ("report",)):
        done = site(*words, "--store", "tags.cutline")
        assert done.returncode == 2
        assert "tags-report.html, which exists" in done.stderr
    assert (home / "tags-report.html").read_text() == "<h1>My own</h1>"


def test_the_status_says_in_plain_words_how_far_a_site_has_come(home: Path) -> None:
    (home / "pages/other.html").write_text('<p style="background: url(bg.png)">Sky</p>')
    site("scan", "pages", "--store", "a b")
    status = site("status", "--store", "a b").stdout
    alts = '3 without alt, 1 with alt="", 1 with text, 1 in CSS, which has no alt'
    assert f"images in them        6  {alts}\n" in status
    assert status.endswith("Next: cutline site draft --store 'a b'\n")
    site("draft", "--store", "a b")
    with Store(home / "a b") as store:
        [first, *_] = store.occurrences(stage="drafted")
        store.put_review(first.id, Review(Verdict.EDITED, "Sand", "ann"))
    status = site("status", "--store", "a b").stdout
    assert "distinct              2  1 could not be fetched" in status
    assert "decided               6  3 informative, 3 left as they are" in status
    assert "suggested             1  to approve or change" in status
    assert "need text             1\n" in status
    assert "reviewed              1  1 edited" in status
    assert status.endswith("Next: cutline site review --store 'a b'\n")


def test_what_cannot_be_done_yet_says_why(home: Path) -> None:
    site("scan", "pages")
    assert "Nothing is approved yet: cutline site review\n" in site("apply", "pages").stderr
    assert "Nothing was written" in site("undo").stderr
    done = site("export", "--format", "wp-cli")
    assert done.returncode == 2
    assert "without images on the web" in done.stderr
    (home / "bad.csv").write_text("what,ever\n1,2\n")
    done = site("export", "--rows", "bad.csv", "-o", "out.csv")
    assert done.returncode == 2
    assert "no row was imported here" in done.stderr
    assert not (home / "out.csv").exists()


def test_who_reviews_may_be_nobody_that_the_system_knows(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    site("run", "pages", "-q")
    (home / "sheet.csv").write_text("id,verdict,approved_alt\n1,,Sand\n")
    assert "1 review read." in site("review", "--read", "sheet.csv").stdout


def test_refusals_name_their_flag_and_are_grouped_where_many(home: Path) -> None:
    pages = home / "pages/index.html"
    pages.write_text("".join(f'<p>{n}<img src="1.png" alt="cat{n}.jpg">' for n in range(21)))
    site("scan", "pages")
    with Store(home / "site.cutline") as store:
        ids = [each.id for each in store.occurrences()]
        store.put_reviews([(id, Review(Verdict.EDITED, "A cat", "ann")) for id in ids])
    done = site("apply", "pages")
    assert done.returncode == 1
    assert done.stderr.count("--overwrite replaces them") == 1
    assert "and 20 images more for the same reason" in done.stderr


ODD = "\x1b]0;owned\x07\x9b\u202egpj.exe\u2066"


def odd_site(home: Path) -> None:
    """A page whose every text holds control and bidirectional characters."""
    (home / "pages/index.html").write_text(
        f"<title>{ODD}</title><h1>{ODD}</h1><p>{ODD}<img src='1.png'>{ODD}</p>"
        f'<img src="2.png" alt="{ODD}.jpg">'
        f'<a href="/{ODD}"><img src="gone{ODD}.png" title="{ODD}"></a>',
        encoding="utf-8",
    )


def test_what_a_page_holds_reaches_no_terminal_raw(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd_site(home)
    printed = [site("run", "pages"), site("lint"), site("status"), site("lint", "--json")]
    with Store(home / "site.cutline") as store:
        for each in store.occurrences(state="missing"):
            store.put_review(each.id, Review(Verdict.EDITED, f"Words {ODD}"))
    changes = library.apply("site.cutline", "pages").changes
    for colours in ("", "1"):
        monkeypatch.setenv("NO_COLOR", colours)
        site_messages.print_diff("".join(change.diff() for change in changes))
    diff = capsys.readouterr().out
    assert "gpj.exe" in diff
    shown = "".join(done.stdout + done.stderr for done in printed) + diff
    assert not set(shown) & set("\x1b\x07\x9b\u202e\u2066")
    report = (home / "site-report.html").read_text("utf-8")
    assert "\\u202egpj.exe" in report
    assert not set(report) & set("\x1b\x07\x9b\u202e\u2066")


def test_an_export_to_a_terminal_is_escaped_and_to_a_file_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd_site(home)
    site("scan", "pages")
    site("export", "-o", "all.csv")
    assert "\u202e" in (home / "all.csv").read_text("utf-8")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    library_export(None)
    assert "\\u202egpj.exe" in terminal.getvalue()
    assert not set(terminal.getvalue()) & set("\x1b\x07\x9b\u202e\u2066")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def reconfigure(self, **_: Any) -> None:
        pass


def library_export(output: Path | None) -> None:
    site_review._write_out(output, False, lambda to: library.export("site.cutline", to))


def test_a_scan_says_what_looks_like_an_image_and_was_not_read(home: Path) -> None:
    (home / "pages/post.md").write_text('{{< gallery src="a.jpg" >}}\n\n<Hero image="b.png" />\n')
    (home / "pages/post.adoc").write_text("image::a.png[]\n\nimage::b.png[]\n")
    done = site("scan", "pages")
    assert (
        "4 more things look like images and were not read: 2 images in a .adoc file, "
        "1 component, 1 shortcode or template tag."
    ) in done.stderr
