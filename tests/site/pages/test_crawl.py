"""A crawl of a small site on loopback, with all that real sites do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import pytest

from cutline.errors import DataError, OptionError
from cutline.site.model import ImageOccurrence, Page
from cutline.site.pages.crawl import crawl
from cutline.site.pages.crawl_types import CrawlOptions, CrawlSummary, on_site
from cutline.site.pages.spider import read_sitemap

QUICK = CrawlOptions(throttle=False, retries=0, timeout_s=5)


class Site:
    """Pages by path, each (status, headers, body); counts who was asked for."""

    def __init__(self, pages: dict[str, tuple[int, dict[str, str], str]]) -> None:
        self.pages = pages
        self.asked: Counter[str] = Counter()
        self.slow_s = 0.0
        lock = Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    site.asked[self.path] += 1
                time.sleep(site.slow_s)
                status, headers, body = site.pages.get(self.path, (404, {}, "gone"))
                self.send_response(status)
                for name, value in ({"Content-Type": "text/html"} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def page(body: str, head: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
    return 200, headers, f"<html lang=en><head>{head}</head><body>{body}</body></html>"


def links(*urls: str) -> str:
    return "".join(f'<a href="{url}">go</a>' for url in urls)


def moved(to: str) -> tuple[int, dict[str, str], str]:
    return 301, {"Location": to}, ""


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site({})
    yield site
    site.close()


def run(
    url: str, options: CrawlOptions = QUICK
) -> tuple[CrawlSummary, dict[str, tuple[Page, list[ImageOccurrence]]]]:
    found: dict[str, tuple[Page, list[ImageOccurrence]]] = {}

    def sink(page: Page, occurrences: list[ImageOccurrence]) -> None:
        assert page.url not in found, "a page came twice"
        found[page.url] = page, occurrences

    return crawl(url, options, sink), found


def test_a_site_as_sites_are(site: Site) -> None:
    here = site.url
    copy = page("copy", "<title>One</title><link rel=canonical href=/one>")
    site.pages = {
        "/robots.txt": (
            200,
            {"Content-Type": "text/plain"},
            f"User-agent: *\nDisallow: /private/\nSitemap: {here}/map.xml\n",
        ),
        "/map.xml": (
            200,
            {"Content-Type": "application/xml"},
            f"<sitemapindex xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'><sitemap>"
            f"<loc>{here}/pages.xml</loc></sitemap></sitemapindex>",
        ),
        "/pages.xml": (
            200,
            {"Content-Type": "application/xml"},
            f"<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'><url>"
            f"<loc>{here}/orphan</loc></url></urlset>",
        ),
        "/": page(
            "<img src='a.png'><img src='b.png' alt=''>"
            + links("/one#top", "/one?utm_source=x", "/one?sort=1", "/two?sort=1", "old", "/loop")
            + links("/private/x", "/gone", "/broken", "/data", "/away", "/me", "/other", "/a.jpg")
            + links("https://example.invalid/", "mailto:a@example.org", "/skip/this"),
            "<title>Home</title>",
        ),
        "/one": page("<img src='/one.png' alt='One'>", "<title>One</title>"),
        "/one?sort=1": copy,
        "/two?sort=1": page("x", "<title>Two</title><link rel=canonical href=/nowhere>"),
        "/me": page("x", "<title>Me</title><link rel=canonical href=/other>"),
        "/other": page("x", "<title>Other</title><link rel=canonical href=/me>"),
        "/orphan": page("<img src=o.png>"),
        "/old": moved("/new"),
        "/new": page("new", "<title>New</title>"),
        "/loop": moved("/loop2"),
        "/loop2": moved("/loop"),
        "/away": moved("https://example.invalid/"),
        "/data": (200, {"Content-Type": "application/pdf"}, "%PDF"),
        "/broken": (500, {}, "oh"),
        "/private/x": page("secret"),
        "/skip/this": page("skipped"),
        "/a.jpg": page("never asked for"),
    }
    summary, found = run(f"{here}/", CrawlOptions(**vars(QUICK) | {"exclude": ["/skip/*"]}))
    read = {url.removeprefix(here) for url, (page, _) in found.items() if not page.error}
    assert read == {"/", "/one", "/two?sort=1", "/me", "/other", "/orphan", "/new"}
    dead = {url.removeprefix(here): page for url, (page, _) in found.items() if page.error}
    assert {path: page.status for path, page in dead.items()} == {
        "/gone": 404,
        "/broken": 500,
        "/loop": 0,
        "/nowhere": 404,
    }
    assert dead["/gone"].error == "HTTP 404 Not Found"
    assert "redirect" in dead["/loop"].error
    home, occurrences = found[f"{here}/"]
    assert (home.title, home.language, home.status) == ("Home", "en", 200)
    assert [(occurrence.url, occurrence.alt, occurrence.page) for occurrence in occurrences] == [
        (f"{here}/a.png", None, f"{here}/"),
        (f"{here}/b.png", "", f"{here}/"),
    ]
    assert summary.pages == 7
    assert (summary.dead, summary.forbidden, summary.duplicates) == (4, 1, 1)
    assert summary.occurrences == 4
    assert summary.waiting == 0
    never = {"/private/x", "/skip/this", "/a.jpg"}
    assert not never & set(site.asked)


def test_limits_of_pages_and_depth(site: Site) -> None:
    chain = {f"/{n}": page(links(f"/{n + 1}", f"/{n}/leaf")) for n in range(9)}
    site.pages = chain | {"/robots.txt": (200, {}, ""), "/5": (404, {}, "")}
    _, found = run(f"{site.url}/0", CrawlOptions(**vars(QUICK) | {"max_depth": 2}))
    assert {url.removeprefix(site.url) for url in found} == {
        "/0",
        "/1",
        "/2",
        "/0/leaf",
        "/1/leaf",
    }
    summary, found = run(f"{site.url}/0", CrawlOptions(**vars(QUICK) | {"max_pages": 3}))
    assert len(found) == 3
    assert summary.waiting


def test_a_start_that_moved_takes_the_site_along(site: Site) -> None:
    other = Site({"/": page(links("/b")), "/b": page("<img src=x.png>")})
    site.pages = {"/": moved(f"{other.url}/")}
    try:
        _, found = run(site.url)
    finally:
        other.close()
    assert set(found) == {f"{other.url}/", f"{other.url}/b"}


def test_no_answer_is_told(site: Site) -> None:
    site.close()
    summary, found = run(site.url)
    [(page, occurrences)] = found.values()
    assert "refused" in page.error.lower()
    assert (occurrences, summary.dead, summary.pages) == ([], 1, 0)


def wide(count: int) -> dict[str, tuple[int, dict[str, str], str]]:
    every = [f"/{n}" for n in range(count)]
    return {"/": page(links(*every))} | {path: page(f"<img src={path}.png>") for path in every}


def test_a_stop_and_a_resume_read_every_page_once(site: Site, tmp_path: Path) -> None:
    site.pages = wide(40)
    options = CrawlOptions(**vars(QUICK) | {"job": tmp_path / "job", "concurrency": 4})
    taken: list[str] = []

    def stopping(page: Page, occurrences: list[ImageOccurrence]) -> None:
        if len(taken) == 15:
            raise KeyboardInterrupt
        taken.append(page.url)

    with pytest.raises(KeyboardInterrupt):
        crawl(site.url, options, stopping)
    log = tmp_path / "job" / "crawl.jsonl"
    log.write_bytes(log.read_bytes()[:-20])  # as a power cut leaves it
    with pytest.raises(DataError, match="holds another crawl"):
        crawl("http://127.0.0.1:1/", options, stopping)
    summary = crawl(site.url, options, lambda page, occurrences: taken.append(page.url))
    assert set(taken) == {f"{site.url}{path}" for path in site.pages}
    assert len(taken) <= len(site.pages) + 1
    assert (summary.pages, summary.occurrences) == (41, 40)
    again: list[str] = []
    crawl(site.url, options, lambda page, occurrences: again.append(page.url))
    assert set(again) == set(taken)


@pytest.mark.racy
def test_a_kill_ends_both_processes_and_loses_nothing(site: Site, tmp_path: Path) -> None:
    site.pages = wide(60)
    site.slow_s = 0.05
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
            import multiprocessing, sys
            from pathlib import Path
            from cutline.site.pages.crawl import CrawlOptions, crawl

            def sink(page, uses):
                children = [child.pid for child in multiprocessing.active_children()]
                print(children[0], page.url, flush=True)

            if __name__ == "__main__":
                options = CrawlOptions(throttle=False, job=Path({str(tmp_path / "job")!r}))
                crawl({site.url!r}, options, sink)
        """)
    )
    taken: list[str] = []
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdout
        child = 0
        while len(taken) < 20:
            child, url = ran.stdout.readline().split()
            taken.append(url)
        os.kill(ran.pid, signal.SIGKILL)
        taken += [line.split()[1] for line in ran.stdout if line.endswith("\n")]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists(), "the fetching process outlived its parent"
    site.slow_s = 0
    options = CrawlOptions(**vars(QUICK) | {"job": tmp_path / "job"})
    crawl(site.url, options, lambda page, occurrences: taken.append(page.url))
    assert set(taken) == {f"{site.url}{path}" for path in site.pages}
    assert len(taken) <= len(site.pages) + 1


@pytest.mark.parametrize(
    ("url", "subdomains", "expected"),
    [
        ("https://example.org/x", False, True),
        ("http://www.example.org/", False, True),
        ("https://shop.example.org/", False, False),
        ("https://shop.example.org/", True, True),
        ("https://badexample.org/", True, False),
        ("https://example.org:8080/", True, False),
        ("https://example.org@evil.invalid/", False, False),
        ("file://example.org/", False, False),
    ],
)
def test_what_belongs_to_a_site(url: str, subdomains: bool, expected: bool) -> None:
    assert on_site(url, ["example.org"], subdomains) is expected


@pytest.mark.parametrize("start", ["ftp://example.org/", "file:///etc/", ""])
def test_a_start_must_be_on_the_web(start: str) -> None:
    with pytest.raises(OptionError, match="expected a URL"):
        run(start)


def test_options_out_of_range() -> None:
    with pytest.raises(OptionError, match="max_pages=0"):
        CrawlOptions(max_pages=0)


def test_the_first_page_is_read_once_under_both_its_names(site: Site) -> None:
    home = page(links("/index.html", "/a/index.html") + "<img src=a.png>")
    site.pages = {"/": home, "/index.html": home, "/a/index.html": home}
    read: list[str] = []
    summary = crawl(f"{site.url}/", QUICK, lambda page, occurrences: read.append(page.url))
    assert sorted(read) == [f"{site.url}/", f"{site.url}/a/index.html"]
    assert summary.duplicates == 1


SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"


@pytest.mark.parametrize(
    ("body", "pages", "sitemaps"),
    [
        (
            f"<urlset xmlns='{SITEMAP}' xmlns:image='http://www.google.com/schemas/sitemap-image/1.1'>"
            "<url><loc> https://a.example/1 </loc><image:image><image:loc>https://a.example/1.png"
            "</image:loc></image:image></url></urlset>",
            ["https://a.example/1"],
            [],
        ),
        (
            f"<urlset xmlns='{SITEMAP}' xmlns:video='http://www.google.com/schemas/sitemap-video/1.1'>"
            "<url><loc>https://a.example/1</loc><video:video><video:content_loc>https://a.example/v"
            "</video:content_loc></video:video></url></urlset>",
            ["https://a.example/1"],
            [],
        ),
        (
            f"<sitemapindex xmlns='{SITEMAP}'><sitemap><loc>https://a.example/s.xml</loc></sitemap>"
            "</sitemapindex>",
            [],
            ["https://a.example/s.xml"],
        ),
        (
            "\ufeffhttps://a.example/1\r\nhttps://a.example/2 \n\nnot a URL\n",
            ["https://a.example/1", "https://a.example/2"],
            [],
        ),
        (
            "<rss version='2.0'><channel><link>https://a.example/</link><item><link>"
            "https://a.example/1</link></item></channel></rss>",
            ["https://a.example/1"],
            [],
        ),
        (
            "<feed xmlns='http://www.w3.org/2005/Atom'><entry><link href='/1'/></entry></feed>",
            ["https://a.example/1"],
            [],
        ),
        (
            "<feed xmlns='http://www.w3.org/2005/Atom'><entry><link rel='enclosure' href='/1.jpg'/>"
            "<link rel='alternate' href='/1'/></entry></feed>",
            ["https://a.example/1"],
            [],
        ),
        ("<urlset><url><loc>https://a.example/1</loc></url", ["https://a.example/1"], []),
        ("", [], []),
        ("<", [], []),
        ("<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>", [], []),
    ],
    ids="images videos index text rss atom enclosure cut-off empty broken entity".split(),
)
def test_sitemaps_of_every_form_name_pages_only(
    body: str, pages: list[str], sitemaps: list[str]
) -> None:
    assert read_sitemap(body.encode(), "https://a.example/sitemap") == (pages, sitemaps)
    utf16 = body.removeprefix("\ufeff").encode("utf-16")
    assert read_sitemap(utf16, "https://a.example/sitemap") == (pages, sitemaps)


def test_a_text_sitemap_is_followed_and_a_late_base_counts_for_links(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    padding = f"<style>/* {'x' * 6000} */</style>"
    site.pages = {
        "/robots.txt": (200, {"Content-Type": "text/plain"}, f"Sitemap: {site.url}/map.txt\n"),
        "/map.txt": (200, {"Content-Type": "text/plain"}, f"{site.url}/listed\n"),
        "/listed": page("listed"),
        "/": page(links("one", "a.pdf") + '<img src="x.png">', f"{padding}<base href='/deep/'>"),
        "/deep/one": page("one"),
    }
    summary, found = run(f"{site.url}/")
    assert {url.removeprefix(site.url) for url in found} == {"/", "/listed", "/deep/one"}
    assert found[f"{site.url}/"][1][0].url == f"{site.url}/deep/x.png"
    assert (summary.dead, summary.hosts) == (0, (site.url.removeprefix("http://"),))
    assert "/deep/a.pdf" not in site.asked


def test_the_pages_of_frames_are_read(site: Site) -> None:
    site.pages = {
        "/": page("<iframe src=inner></iframe><iframe src=https://other.example/></iframe>"),
        "/inner": page("inner", "<frameset><frame src=/frame></frameset>"),
        "/frame": page("<img src=x.png>"),
    }
    _, found = run(f"{site.url}/")
    assert {"/", "/inner"} <= {url.removeprefix(site.url) for url in found}
