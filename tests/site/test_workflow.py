"""`cutline.site` from Python: every step as a function, without a command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import standin
from conftest import scene

from cutline import backends, bundle, site
from cutline.backends.lazy import LazyCaptioner
from cutline.errors import CutlineError, DataError, MissingExtraError, OptionError, StoreError
from cutline.fetch import PrivateHost, private_host
from cutline.progress import Progress
from cutline.site import opening
from cutline.site.model import Page
from cutline.site.pages.crawl_types import CrawlSummary
from cutline.site.pipeline import draft_site
from cutline.site.store.store import Store

PAGE = (
    '<title>Trip</title><h1>Trip</h1><img src="1.png"><img src="2.png"><img src="3.png" alt="x y">'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(PAGE)
    for number in range(1, 4):
        scene(100 + number, 70).rotate(90 * number).save(pages / f"{number}.png")
    return pages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.cutline"


def test_a_site_goes_the_whole_way_from_python(folder: Path, path: Path) -> None:
    steps: list[Any] = []
    told: list[Progress] = []
    done = site.run(folder, standin.StandIn(), path, on_step=steps.append, progress=told.append)
    assert [type(each).__name__ for each in steps] == ["ScanResult", "DraftResult"]
    assert (done.found.occurrences, done.drafted.summary.drafts, done.failed) == (3, 3, 0)
    assert done.report.read_text().startswith("<!doctype html>")
    assert {"scanning", "fetching", "deciding", "captioning", "reporting"} <= {
        each.step for each in told
    }
    with site.open_store(path) as store:
        first, second, _ = store.occurrences()
    assert site.review(path, first.id, "edited", "A  red field", who="Ann").verdict == "edited"
    assert site.review(path, second.id, "approved").verdict == "approved"
    assert site.apply(path, folder).alts == 2
    assert "A red field" not in (folder / "index.html").read_text()
    written = site.apply(path, folder, write=True)
    assert (written.alts, written.files, written.failed) == (2, 1, 0)
    assert 'alt="A red field"' in (folder / "index.html").read_text()
    assert site.undo(path).failed == 0
    assert (folder / "index.html").read_text() == PAGE
    assert list(site.lint(path))
    table = io.StringIO()
    site.export(path, table, "json")
    assert len(json.loads(table.getvalue())["uses"]) == 3
    assert site.status(path).reviewed["approved"] == 1


def test_importing_the_library_loads_no_engine_and_no_crawler() -> None:
    program = (
        "import sys; from cutline import site; from cutline.site import run, crawl, draft, apply;"
        "print([m for m in ('onnxruntime', 'openvino', 'torch', 'transformers', 'scrapy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_name_is_there_and_documented() -> None:
    for name in site.__all__:
        assert getattr(site, name).__doc__, name
    with pytest.raises(AttributeError):
        _ = site.nonsense  # type: ignore[attr-defined]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name="ada_url")

    monkeypatch.setattr("importlib.import_module", missing)
    monkeypatch.delitem(vars(site), "scan", raising=False)
    with pytest.raises(MissingExtraError, match=r"cutline\[site\]"):
        _ = site.scan


@pytest.mark.parametrize("call", ["status", "report", "undo"])
def test_a_store_that_is_not_there_is_refused_and_not_made(path: Path, call: str) -> None:
    with pytest.raises(OptionError, match="expected a site's store"):
        getattr(site, call)(path)
    assert not path.exists()


def test_reviews_say_what_they_lack(folder: Path, path: Path) -> None:
    site.scan(path, folder)
    for verdict, alt in (("approved", None), ("edited", " "), ("perhaps", "x")):
        with pytest.raises(OptionError, match="got"):
            site.review(path, 1, verdict, alt)
    with pytest.raises(StoreError):
        site.review(path, 99, "skipped")
    assert site.review(path, 1, "decorative").alt == ""
    assert site.review(path, 1, "skipped").alt is None


# The model is loaded only if an image needs a caption


class Counted:
    def __init__(self, name: str = "stand-in") -> None:
        self.name, self.loaded = name, 0

    def __call__(self) -> Any:
        self.loaded += 1
        return standin.StandIn(self.name)


def test_the_model_is_loaded_only_for_a_caption(folder: Path, path: Path) -> None:
    load = Counted()
    site.scan(path, folder)
    site.draft(path, LazyCaptioner("stand-in", load))  # type: ignore[arg-type]
    assert load.loaded == 1
    again = site.draft(path, LazyCaptioner("stand-in", load))  # type: ignore[arg-type]
    assert (load.loaded, again.summary.drafts) == (1, 0)
    other = Counted("other")
    redone = site.draft(path, LazyCaptioner("other", other))  # type: ignore[arg-type]
    assert (other.loaded, redone.summary.captioned) == (1, 2)


def test_a_model_with_another_name_than_expected_is_not_captioned_twice(
    folder: Path, path: Path
) -> None:
    site.scan(path, folder)
    for captioned in (2, 0):
        done = site.draft(path, LazyCaptioner("expected", Counted("real")))  # type: ignore[arg-type]
        assert done.summary.captioned == captioned
    with Store(path) as store:
        assert store.setting("model") == "real"


def test_a_lazy_model_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from cutline.backends.lazy import load_lazily

    loaded: list[Any] = []
    monkeypatch.setattr(backends, "load", lambda *given, **_: loaded.append(given))
    assert load_lazily(bundle.DEFAULT).name == bundle.DEFAULT
    assert load_lazily("hub:owner/model").name == "owner/model"
    assert not loaded
    with pytest.raises(CutlineError, match="nonsense"):
        load_lazily("nonsense")


# Renamed images, OCR


def test_a_renamed_image_is_captioned_again(folder: Path, path: Path) -> None:
    site.scan(path, folder)
    site.draft(path, standin.StandIn())
    (folder / "1.png").rename(folder / "0.png")
    (folder / "index.html").write_text(PAGE.replace("1.png", "0.png"))
    site.scan(path, folder)
    done = site.draft(path, standin.StandIn("other"))
    assert (done.summary.uncaptioned, done.summary.captioned) == (0, 2)


def test_a_file_that_was_replaced_is_not_taken_for_the_image_it_was(
    folder: Path, path: Path
) -> None:
    (folder / "9.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "index.html").write_text('<img src="1.png"><img src="9.png">')
    site.scan(path, folder)
    site.draft(path, standin.StandIn())
    (folder / "index.html").write_text('<img src="1.png">')  # no page shows 9.png any more
    scene(500, 30).save(folder / "9.png")
    site.scan(path, folder)
    site.draft(path, standin.StandIn())
    with Store(path) as store:
        [only] = store.occurrences()
        assert only.image is not None
        assert only.image.content is not None
        assert store.picture(only.image.content) == folder / "1.png"


def test_the_smaller_look_alike_is_captioned_once_the_larger_is_gone(
    folder: Path, path: Path
) -> None:
    scene(400, 300).save(folder / "1.png")
    scene(200, 150).save(folder / "2.png")
    site.scan(path, folder)
    site.draft(path, standin.StandIn())
    (folder / "1.png").unlink()
    (folder / "index.html").write_text('<img src="2.png">')
    site.scan(path, folder)
    done = site.draft(path, standin.StandIn("other"))
    assert (done.summary.uncaptioned, done.summary.captioned) == (0, 1)


def test_drafts_are_made_again_once_ocr_is_installed(
    folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    site.scan(path, folder)
    site.draft(path, standin.StandIn())
    assert site.draft(path, standin.StandIn()).summary.drafts == 0
    monkeypatch.setitem(sys.modules, "rapidocr", object())
    assert site.draft(path, standin.StandIn()).summary.drafts == 3


def test_the_tree_is_asked_once_for_each_occurrence(
    folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutline.site import pipeline

    asked: list[Any] = []
    decide = pipeline.decide
    monkeypatch.setattr(
        pipeline,
        "decide",
        lambda occurrence, pixels: asked.append(occurrence.source) or decide(occurrence, pixels),
    )
    site.scan(path, folder)
    site.draft(path, standin.StandIn())
    assert sorted(asked) == ["1.png", "2.png", "3.png"]
    assert draft_site  # the same function that the commands call


def test_the_report_and_apply_agree_on_what_may_be_written(folder: Path, path: Path) -> None:
    site.scan(path, folder)
    for text in ("First words", "Second words"):
        site.review(path, 1, "edited", text)
    (folder / "index.html").write_text(PAGE.replace('"1.png"', '"1.png" alt="First words"'))
    site.scan(path, folder)
    with Store(path) as store:
        assert not store.occurrence(1).is_refused(store.history(1))
    planned = site.apply(path, folder)
    assert (planned.alts, planned.refused) == (1, ())
    (folder / "index.html").write_text(PAGE.replace('"1.png"', '"1.png" alt="Other words"'))
    site.scan(path, folder)
    with Store(path) as store:
        assert store.occurrence(1).is_refused(store.history(1))
    assert len(site.apply(path, folder).refused) == 1


# Which site a store belongs to


def export(path: Path, *rows: tuple[str, str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    lines = ["Source,Destination,Alt Text", *(f"{page},{image}," for page, image in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_exports_of_one_name_are_kept_apart(tmp_path: Path, path: Path) -> None:
    name = "images_missing_alt_text.csv"
    shop = export(tmp_path / "shop" / name, ("https://a.example/shop", "https://a.example/1.png"))
    blog = export(tmp_path / "blog" / name, ("https://a.example/blog", "https://a.example/2.png"))
    site.import_export(path, shop)
    with Store(path) as store:
        [first] = store.occurrences()
    site.review(path, first.id, "edited", "A teapot")
    site.import_export(path, blog)
    with Store(path) as store:
        assert [each.occurrence.source for each in store.occurrences()] == [
            "https://a.example/1.png",
            "https://a.example/2.png",
        ]
        assert store.count_occurrences(stage="reviewed") == 1
    for file, text in ((shop, "A teapot"), (blog, "new")):
        site.export_rows(path, file, tmp_path / "out.csv")
        assert text in (tmp_path / "out.csv").read_text()
    export(shop, ("https://a.example/shop", "https://a.example/3.png"))
    site.import_export(path, shop)
    assert site.status(path).uses == 2


def test_an_export_of_another_site_is_refused(tmp_path: Path, path: Path) -> None:
    site.import_export(
        path, export(tmp_path / "a.csv", ("https://a.example/", "https://cdn.example/1.png"))
    )
    other = export(tmp_path / "b.csv", ("https://b.example/", "https://cdn.example/2.png"))
    with pytest.raises(OptionError, match=r"b\.example.*a\.example.*--store"):
        site.import_export(path, other)
    same = export(tmp_path / "c.csv", ("https://www.a.example/c", "https://cdn.example/3.png"))
    site.import_export(path, same)
    assert site.status(path).uses == 2


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("example.org", "https://example.org"),
        ("example.org/blog?x=1", "https://example.org/blog?x=1"),
        ("localhost:8000", "https://localhost:8000"),
        ("http://example.org/", "http://example.org/"),
    ],
)
def test_a_host_name_is_a_website(source: str, url: str) -> None:
    assert opening.url_of(source) == url


@pytest.mark.parametrize("source", ["nowhere", "missing.csv", "page.html", "notes.md", "a b.org"])
def test_what_is_neither_a_website_nor_a_file_is_refused(source: str) -> None:
    with pytest.raises(OptionError, match="expected a URL"):
        opening.url_of(source)


# How much of a site a crawl covers


class Crawls:
    """Stands in for the crawler: gives these pages."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.summary = CrawlSummary()

    def __call__(self, url: str, options: Any, sink: Any, progress: Any) -> CrawlSummary:
        for page in self.pages:
            sink(page, [])
        dead = sum(bool(page.error) for page in self.pages)
        return CrawlSummary(
            pages=len(self.pages) - dead,
            dead=dead,
            forbidden=self.summary.forbidden,
            hosts=("a.example",),
        )


@pytest.fixture
def crawls(monkeypatch: pytest.MonkeyPatch) -> Crawls:
    from cutline.site.pages import crawl

    stub = Crawls()
    monkeypatch.setattr(crawl, "crawl", stub)
    monkeypatch.setattr("cutline.fetch.private_host", lambda url: None)
    return stub


def pages(*names: str, host: str = "a.example") -> list[Page]:
    return [Page(f"https://{host}/{name}", "digest", status=200) for name in names]


def test_a_complete_crawl_retires_what_is_gone(crawls: Crawls, path: Path) -> None:
    crawls.pages = pages("", "b", "c")
    site.crawl(path, "a.example")
    crawls.pages = [*pages(""), Page("https://a.example/c", status=404, error="HTTP 404")]
    assert site.crawl(path, "a.example").retired == 1
    assert site.status(path).pages == 2


@pytest.mark.parametrize(
    "options",
    [{"max_depth": 0}, {"include": ("/x",)}, {"exclude": ("/b",)}, {"subdomains": False}],
    ids=lambda options: next(iter(options)),
)
def test_a_crawl_of_a_part_retires_nothing(
    crawls: Crawls, path: Path, options: dict[str, Any]
) -> None:
    crawls.pages = [*pages(""), *pages("b", host="shop.a.example")]
    site.crawl(path, "a.example", site.CrawlOptions(subdomains=True))
    crawls.pages = pages("")
    assert site.crawl(path, "a.example", site.CrawlOptions(**options)).retired == 0
    assert site.status(path).pages == 2


@pytest.mark.parametrize(
    "page",
    [
        Page("https://a.example/hub", status=503, error="HTTP 503"),
        Page("https://a.example/hub", error="timeout"),
    ],
)
def test_a_page_that_fails_for_now_keeps_the_pages_it_leads_to(
    crawls: Crawls, path: Path, page: Page
) -> None:
    crawls.pages = pages("", "hub", "behind-hub")
    site.crawl(path, "a.example")
    crawls.pages = [*pages(""), page]
    assert site.crawl(path, "a.example").retired == 0


def test_a_page_that_is_refused_for_good_does_not_keep_others(crawls: Crawls, path: Path) -> None:
    crawls.pages = pages("", "members", "old")
    site.crawl(path, "a.example")
    refused = Page("https://a.example/members", status=403, error="HTTP 403")
    crawls.pages = [*pages(""), refused]
    assert site.crawl(path, "a.example").retired == 1


def test_pages_that_robots_txt_excludes_from_now_on_are_kept(crawls: Crawls, path: Path) -> None:
    crawls.pages = pages("", "private")
    site.crawl(path, "a.example", site.CrawlOptions(robots=False))
    crawls.pages = pages("")
    crawls.summary = CrawlSummary(forbidden=1)
    assert site.crawl(path, "a.example").retired == 0


def test_a_crawl_of_nothing_leaves_no_store(crawls: Crawls, path: Path) -> None:
    crawls.pages = [Page("https://a.example/", error="no answer")]
    with pytest.raises(DataError, match="no answer"):
        site.crawl(path, "a.example")
    assert not path.exists()


# The start host


def test_the_start_host_is_decided_once_when_the_crawl_starts(
    crawls: Crawls, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawls.pages = pages("", host="intranet.example")
    names = {"intranet.example": ["10.0.0.7"]}
    monkeypatch.setattr(
        "cutline.fetch.private_host", lambda url: private_host(url, lambda name, _: names[name])
    )
    site.crawl(path, "http://intranet.example:8123/")
    names["intranet.example"] = ["169.254.169.254"]
    with Store(path) as store:
        assert opening.trusted_host(store) == PrivateHost(
            "intranet.example", 8123, frozenset({"10.0.0.7"})
        )


def test_a_public_start_trusts_nothing_private(crawls: Crawls, path: Path) -> None:
    crawls.pages = pages("")
    site.crawl(path, "a.example")
    with Store(path) as store:
        assert opening.trusted_host(store) is None


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("http://127.0.0.1:8000/", "127.0.0.1"),
        ("http://localhost:8000/", "localhost"),
        ("https://example.org/", None),
        ("/srv/pages", None),
    ],
)
def test_a_store_of_version_0_1_resolves_no_name(
    path: Path, start: str, expected: str | None
) -> None:
    with Store(path) as store:
        store.put_setting("start", start)
        host = opening.trusted_host(store)
        assert (host and host.name) == expected
        store.put_setting("private_host", "[1]")
        with pytest.raises(StoreError, match="private_host is damaged"):
            opening.trusted_host(store)
