from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from cutline.site import workflow
from cutline.site.model import Decision, Draft, Origin, Page, Pixels, Purpose, Review, Verdict
from cutline.site.pages.scan import occurrences_in_html, scan
from cutline.site.results import report as reports
from cutline.site.results.report_page import percent
from cutline.site.store.store import Content, Store
from cutline.site.writeback import apply as writeback

PAGE = """<!doctype html><html lang="en"><title>Zoo &amp; <b>friends</b></title>
<img src="0.png"><img src="1.png"><img src="2.png"><img src="3.png" alt="A wolf">
<img src="4.png" alt="IMG_1234.jpg"><img src="5.png" alt=""><img src="6.png">
<p hidden><img src="7.png"></p><svg></svg><a href="/x"><img src="8.png"></a>"""


def informative(alt: str | None, **more: object) -> Draft:
    decision = Decision(Purpose.INFORMATIVE, "informative", "nothing says that it is decorative")
    return Draft(decision, alt, model="says-v1", **more)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A site with an image for each state of an occurrence."""
    root = tmp_path / "zoo"
    root.mkdir()
    (root / "a.html").write_text(PAGE)
    for number in range(9):
        Image.new("RGB", (600, 400 - 20 * number), (20 * number, 90, 60)).save(
            root / f"{number}.png"
        )
    store = Store(tmp_path / "zoo.cutline")
    store.put_setting("root", str(root))
    for page, occurrences in scan(root):
        store.put_page(page, occurrences)
    store.put_page(Page("b.html", error="no permission"), [])
    for image in store.images():
        path = Path(image.url.removeprefix("file://"))
        if path.name == "8.png":
            store.put_failure(image.id, "format", "an HTML error page <script>alert(1)</script>")
        else:
            content = Content(path.name * 8, "image/png", 9, Pixels(600, 400))
            store.put_content(image.id, content, path=str(path))
    words = (("A", Origin.PICTURE), ("red", Origin.PICTURE), ("Alpaca", Origin.PAGE))
    store.put_draft(1, informative("A red Alpaca", words=words, confidence=0.71))
    store.put_draft(2, informative(None, abstained=True, alternatives=("A cat?",), confidence=0.2))
    store.put_draft(3, informative("A dog"))
    store.put_draft(7, Draft(Decision(Purpose.DECORATIVE, "spacer", "1 x 1 px", ""), ""))
    store.put_draft(10, Draft(Decision(Purpose.FUNCTIONAL, "link", "all there is in a link"), None))
    store.put_review(3, Review(Verdict.EDITED, "A small dog", "ann"))
    return store


def test_coverage_counts_what_needs_words_and_has_some(store: Store) -> None:
    report = reports.report(store)
    found, after, possible = report.before, report.after, report.possible
    assert (found.words, found.says_nothing, found.decorative, found.missing) == (1, 1, 1, 5)
    assert (found.unmarked, found.needing, found.needing_with_words) == (1, 6, 1)
    assert (after.words, after.missing, after.needing, after.share) == (2, 4, 6, 2 / 6)
    assert (possible.words, possible.decorative, possible.share) == (3, 2, 3 / 6)
    assert found.occurrences == after.occurrences == possible.occurrences == 8, (
        "hidden and unnamed drawings do not count"
    )
    assert (report.left_out, report.counts.uses) == (2, 10)
    assert "are left out: 2 of the 10 images here." in report.to_html()


def test_what_we_wrote_leaves_the_pages_as_they_were_found(store: Store, tmp_path: Path) -> None:
    before = reports.report(store)
    applied = writeback.plan(store, tmp_path / "zoo")
    assert writeback.apply(store, applied, journal=tmp_path / "journal").occurrences == 1
    for page, occurrences in scan(tmp_path / "zoo"):
        store.put_page(page, occurrences)
    after = reports.report(store)
    assert (after.before, after.after) == (before.before, before.after)
    assert after.problems == before.problems
    assert store.undo_newest() == [3]
    assert reports.report(store).after == before.after, "it stands in the page all the same"


def test_an_approval_that_cannot_be_written_solves_nothing(store: Store) -> None:
    before = reports.report(store)
    store.put_review(4, Review(Verdict.APPROVED, "A grey wolf", "ann"))
    store.put_review(5, Review(Verdict.APPROVED, "A fox", "ann"))
    assert reports.report(store).after == before.after
    shown = Review(Verdict.EDITED, "A fox", "ann", replaces="IMG_1234.jpg")
    store.put_review(5, shown)
    assert reports.report(store).after.words == before.after.words + 1


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0 %"), (1e-4, "1 %"), (1 / 18, "6 %"), (0.5, "50 %"), (0.999, "99 %"), (1.0, "100 %")],
)
def test_a_share_is_rounded_but_never_to_all_or_nothing(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_no_path_of_this_machine_is_handed_on(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "zoo"
    store.put_setting("start", str(root))
    uri = root.as_uri()
    why = f"all there is in the link to {uri}/search%20it.html"
    store.put_draft(10, Draft(Decision(Purpose.FUNCTIONAL, "link", why), None))
    store.put_failure(10, "missing", f"{root}/8.png: cannot be read")
    report = reports.report(store)
    assert report.site == "zoo"
    for text in (report.to_html(), report.to_json()):
        assert str(tmp_path) not in text
        assert "link to search%20it.html" in text
    assert store.named(f"see {tmp_path.as_uri()}/b.html, too") == "see ../b.html, too"
    assert store.named(f"link to {uri[:-1]} …") == "link to … …"
    assert store.named("https://example.org/a") == "https://example.org/a"


def test_a_site_without_images_is_no_perfect_one(tmp_path: Path) -> None:
    report = reports.report(Store(tmp_path / "x.cutline"))
    assert report.before.share == 1
    page = report.to_html()
    assert "None was found" in page
    assert "No image that needs words was found." in page
    assert "100 %" not in page


def test_problems_are_counted_as_found_and_as_left(store: Store) -> None:
    report = reports.report(store)
    problems = {each.rule: each for each in report.problems}
    assert (problems["image-alt"].found, problems["image-alt"].left) == (5, 4)
    assert report.problems[0].severity == "error"
    [page] = report.pages
    assert (page.uses, page.missing) == (10, 5)
    assert page.left == page.errors + page.warnings - 1


def test_failures_say_what_why_and_where(store: Store) -> None:
    failures = reports.report(store).failures
    assert [(each.what, each.url, each.pages) for each in failures] == [
        ("page", "b.html", ()),
        ("image", "8.png", ("a.html",)),
    ]


def test_json_says_it_all(store: Store) -> None:
    record = json.loads(reports.report(store).to_json())
    assert list(record) == (
        "version made_at site model counts left_out coverage purposes problems pages verdicts"
        " judged failures unread images".split()
    )
    assert record["version"] == 1
    assert record["coverage"]["after"]["share"] == 2 / 6
    assert record["counts"]["pages"] == 2
    assert [image["status"] for image in record["images"]] == [
        "asked",
        "unsure",
        "waiting",
        "edited",
    ]
    assert "picture" not in record["images"][0]


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_one_file_and_runs_nothing(store: Store) -> None:
    html = reports.report(store).to_html()
    for tag, attributes in _Tags(html).found:
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/webp;base64,")
            assert attributes["alt"] == "", "the words beside it say it"
    assert "url(" not in html
    assert "@import" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_shows_every_kind_of_words(store: Store) -> None:
    html = reports.report(store).to_html()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html[html.index("<main") :]))
    for words in (
        "17 %",
        "33 %",
        "A small dog",
        "71 % sure",
        "Too unsure",
        "A cat?",
        "no permission",
    ):
        assert words in text
    assert 'A red <span class="from-page">Alpaca</span>' in html
    assert "all there is in a link" in text


def test_the_same_picture_with_the_same_words_is_shown_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "zoo" / "a.html").write_text('<img src="0.png">' * 3)
    for page, occurrences in scan(tmp_path / "zoo"):
        store.put_page(page, occurrences)
    for stored in store.occurrences():
        store.put_draft(stored.id, informative("A dog"))
    [card] = reports.report(store).cards
    assert (card.text, card.uses) == ("A dog", 3)


def test_thumbnails_are_few_and_small(store: Store) -> None:
    report = reports.report(store)
    seen: list[tuple[int, int]] = []
    html = report.to_html(thumbnails=2, progress=lambda done, total: seen.append((done, total)))
    assert html.count("<img ") <= 2
    assert "Shown here: 1 of 2" in html
    assert seen[-1] == (2, 2)
    assert len(html) < 60_000


def test_progress_counts_occurrences(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    reports.report(store, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)


def test_axe_finds_nothing_in_a_browser(store: Store, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None and not os.environ.get("CUTLINE_REQUIRE_BROWSER"):
        pytest.skip("no Chromium; scripts/system-packages installs it")
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    for number in range(20):
        page, occurrences = occurrences_in_html(
            "<img src=0.png>", page=f"https://a.example/{number}/{'x' * 80}"
        )
        store.put_page(page, occurrences)
    path = tmp_path / "report.html"
    path.write_text(reports.report(store).to_html(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme, width_px in (("light", 1280), ("dark", 360)):
            size = {"width": width_px, "height": 900}
            tab = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            tab.goto(path.as_uri())
            tab.evaluate(
                "for (const each of document.querySelectorAll('details')) each.open = true"
            )
            results = Axe().run(tab)
            assert results.violations_count == 0, results.generate_report()
            assert tab.evaluate("document.documentElement.scrollWidth") <= width_px
        browser.close()


def test_what_says_nothing_and_what_is_missing_do_not_look_alike(store: Store) -> None:
    page = reports.report(store).to_html()
    palettes = re.findall(r"--nothing: #(\w{6}); --missing: #(\w{6})", page)
    assert len(palettes) == 3, "light, dark and print"
    for nothing, missing in palettes:
        brighter, darker = (luminance(colour) + 0.05 for colour in (nothing, missing))
        assert brighter / darker >= 3, "WCAG 1.4.11"


def luminance(colour: str) -> float:
    """Relative luminance of rrggbb (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_what_was_not_read_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.md").write_text('{{< gallery src="a.jpg" >}}\n\n![x](b.png)\n')
    (folder / "b.adoc").write_text("image::a.png[]\n\nimage::b.png[]\n")
    workflow.scan(tmp_path / "x.cutline", folder)
    with Store(tmp_path / "x.cutline") as store:
        made = reports.report(store)
    assert made.unread == {"image in a .adoc file": 2, "shortcode or template tag": 1}
    assert json.loads(made.to_json())["unread"] == made.unread
    assert "<td>image in a .adoc file</td><td>2</td>" in made.to_html()
