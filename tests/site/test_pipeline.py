from __future__ import annotations

import base64
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cutline.caption import Alternative, Caption, CaptionOptions, InContext, Label
from cutline.errors import CutlineError, EngineError, ImageError, OptionError
from cutline.fetch import Fetcher, FetchOptions
from cutline.image import load_image
from cutline.options import SearchOptions
from cutline.progress import Progress
from cutline.similarity import groups, signature
from cutline.site import pipeline
from cutline.site.decide import alt_text as wording
from cutline.site.decide.alt_text import WordingOptions
from cutline.site.images import DownloadOptions
from cutline.site.model import Alt, ImageOccurrence, Kind, Page, Purpose, Review, Verdict
from cutline.site.pages.scan import scan
from cutline.site.pipeline import DraftOptions, Summary, draft_site
from cutline.site.store.store import Store


class Says:
    """A captioner that says a picture's size, remembering what it was shown."""

    def __init__(self, name: str = "says-v1", fails: type[CutlineError] | None = None) -> None:
        self.name = name
        self.search = SearchOptions(beam_size=2)
        self.fails = fails
        self.shown: list[Any] = []

    def stream(
        self, images: Iterable[Any], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        for image in images:
            self.shown.append(image)
            path = image.image if isinstance(image, InContext) else image
            if self.fails is not None:
                yield Caption(str(path), error=self.fails("the server is away"))
                continue
            width, height = load_image(path).size
            yield Caption(
                str(path),
                f"a dog {width} by {height}",
                -0.51239,
                self.name,
                (Alternative("something else", -1.0),),
                (Label("thing", 0.5),),
            )

    def caption(self, images: Any, options: CaptionOptions | None = None) -> Any:
        raise AssertionError("the pipeline streams")


def noise(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A picture unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


class Site:
    """A folder of pictures on loopback, and how often each was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.conditional: list[str] = []
        folder.mkdir()
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if self.headers["If-Modified-Since"]:
                    site.conditional.append(self.path)
                super().do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        handler = partial(Handler, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def save(self, name: str, image: Image.Image) -> None:
        image.save(self.folder / name)

    def page(self, store: Store, name: str, *sources: str, **more: Any) -> None:
        occurrences = [
            ImageOccurrence(
                f"{self.url}/{name}", n, Kind.IMG, source, f"{self.url}/{source}", **more
            )
            for n, source in enumerate(sources)
        ]
        store.put_page(Page(f"{self.url}/{name}", status=200), occurrences)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "www")
    yield site
    site.close()


@pytest.fixture(autouse=True)
def _no_model_was_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "calibration", dict)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "site.cutline") as store:
        yield store


def run(store: Store, captioner: Any = None, **options: Any) -> Summary:
    with Fetcher(FetchOptions(retries=0, host_concurrency=8)) as fetcher:
        chosen = DraftOptions(**{"ocr": False, **options})
        return draft_site(store, captioner or Says(), chosen, fetcher=fetcher)


def test_each_picture_is_fetched_and_captioned_once(site: Site, store: Store) -> None:
    for number in range(3):
        site.save(f"{number}.jpg", noise(number))
    shutil.copy(site.folder / "0.jpg", site.folder / "copy.jpg")
    site.save("small.png", noise(0, 96, 72))
    for number in range(4):
        site.page(store, str(number), "0.jpg", "1.jpg", "2.jpg", "copy.jpg", "small.png")
    captioner = Says()
    summary = run(store, captioner)
    assert sorted(site.asked) == ["/0.jpg", "/1.jpg", "/2.jpg", "/copy.jpg", "/small.png"]
    assert len(captioner.shown) == summary.captioned == 3
    assert (summary.fetched, summary.failed, summary.drafts) == (5, 0, 20)
    alts = [each.draft.alt for each in store.occurrences() if each.draft]
    assert alts == ["A dog 160 by 120."] * 20
    assert store.counts().distinct == 3
    assert not list(store.cache.rglob(".*"))  # no temporary file is left


def test_a_second_run_fetches_and_captions_nothing(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg", "gone.jpg")
    run(store)
    site.asked.clear()
    captioner = Says()
    summary = run(store, captioner)
    assert site.asked == captioner.shown == []
    assert summary == Summary(elapsed_s=summary.elapsed_s)


def test_what_fails_is_told_and_the_rest_goes_on(site: Site, store: Store) -> None:
    site.save("good.png", noise(1))
    whole = (site.folder / "good.png").read_bytes()
    (site.folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (site.folder / "page.jpg").write_bytes(b"<!doctype html><title>404</title>")
    (site.folder / "drawing.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100"/>'
    )
    site.page(store, "1", "cut.png", "good.png", "page.jpg", "gone.jpg", "drawing.svg")
    summary = run(store)
    assert (summary.fetched, summary.failed, summary.captioned) == (2, 3, 1)
    found = {each.occurrence.source: each for each in store.occurrences()}
    codes = {source: each.image.code for source, each in found.items() if each.image}
    assert codes == {
        "cut.png": "corrupt",
        "good.png": "",
        "page.jpg": "not-an-image",
        "gone.jpg": "status",
        "drawing.svg": "",
    }
    for source, said in {"cut.png": "cut short", "page.jpg": "web page", "gone.jpg": "404"}.items():
        draft = found[source].draft
        assert draft is not None
        assert draft.alt is None
        assert said in draft.notes[0]
    drawn = found["drawing.svg"]
    assert drawn.image is not None
    assert (drawn.image.width_px, drawn.image.height_px) == (200, 100)
    assert drawn.draft is not None
    assert "SVG" in drawn.draft.notes[0]
    assert store.counts().failed == 3


def test_local_files_data_uris_and_what_lies_outside(tmp_path: Path, store: Store) -> None:
    root = tmp_path / "root"
    root.mkdir()
    noise(1).save(root / "in.png")
    noise(2).save(tmp_path / "out.png")
    store.put_setting("root", str(root))
    inline = base64.b64encode((root / "in.png").read_bytes()).decode()
    urls = [(root / "in.png").as_uri(), (tmp_path / "out.png").as_uri(), (root / "no.png").as_uri()]
    occurrences = [ImageOccurrence("p", n, Kind.IMG, url, url) for n, url in enumerate(urls)]
    occurrences.append(ImageOccurrence("p", 3, Kind.IMG, f"data:image/png;base64,{inline}"))
    occurrences.append(ImageOccurrence("p", 4, Kind.IMG, "data:image/png;base64,AAAA"))
    store.put_page(Page("p"), occurrences)
    summary = run(store)
    assert (summary.fetched, summary.failed, summary.captioned) == (2, 3, 1)
    codes = [each.image.code for each in store.occurrences() if each.image]
    assert codes == ["", "outside", "missing", "", "not-an-image"]
    assert store.image(1).path == root / "in.png"
    assert run(store).fetched == 0
    noise(3).save(root / "in.png")
    os.utime(root / "in.png", (1, 1))
    again = run(store)
    assert (again.fetched, again.captioned, again.drafts) == (1, 1, 1)


def test_what_people_decided_is_neither_fetched_nor_drafted_anew(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "kept.jpg", alt="A person wrote this.")
    site.page(store, "2", "a.jpg")
    run(store)
    assert site.asked == ["/a.jpg"]
    [reviewed] = store.occurrences(stage="drafted")
    store.put_review(reviewed.id, Review(Verdict.APPROVED, "Mine."))
    summary = run(store, Says("says-v2"), redo=True)
    assert summary.captioned == 0
    assert store.occurrence(reviewed.id).draft == reviewed.draft


def test_local_images_of_kept_occurrences_are_read_and_errors_counted(
    store: Store, tmp_path: Path
) -> None:
    root = tmp_path / "pages"
    root.mkdir()
    for name in ("a.png", "b.png"):
        noise(1).save(root / name)
    noise(2).save(tmp_path / "outside.png")
    (root / "x.html").write_text(
        '<img src="a.png" alt="A wolf"><img src="b.png" alt="IMG_1.jpg"><img src="b.png" alt="">'
        '<img src="../outside.png" alt="A fox">'
    )
    store.put_setting("root", str(root))
    for page, occurrences in scan(root):
        store.put_page(page, occurrences)
    summary = run(store)
    assert (summary.kept, summary.faulty, summary.captioned) == (4, 1, 0)
    assert store.counts().distinct == 2, "a and b are the same"
    wolf, *_, fox = store.occurrences()
    assert wolf.image is not None
    assert wolf.image.path == root / "a.png"
    assert fox.image is not None
    assert (fox.image.code, fox.image.path) == ("outside", None)


def test_another_model_or_wording_makes_drafts_anew(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg", "a.jpg")
    run(store)
    assert run(store, Says("says-v2")).captioned == 1
    shorter = run(store, Says("says-v2"), wording=WordingOptions(max_chars=7, context_nats=0))
    assert (shorter.captioned, shorter.drafts) == (0, 2)
    assert {each.draft.alt for each in store.occurrences() if each.draft} == {"A dog."}
    assert site.asked == ["/a.jpg"]


def test_pages_have_a_say_only_if_asked_to(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg", caption="Alpacas at dusk")
    site.page(store, "2", "a.jpg", caption="Alpacas at dusk")
    site.page(store, "3", "a.jpg", caption="Our llama farm")
    captioner = Says()
    run(store, captioner)
    assert [type(shown) is InContext for shown in captioner.shown] == [False]
    captioner.shown.clear()
    run(store, captioner, wording=WordingOptions(context_nats=1))
    assert sorted(shown.words.split()[0] for shown in captioner.shown) == ["Alpacas", "Our"]


def test_old_pictures_are_asked_for_again(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.save("b.jpg", noise(2))
    site.page(store, "1", "a.jpg", "b.jpg")
    run(store)
    store._database._connect().execute("UPDATE images SET checked_at = '2020-01-01T00:00:00+00:00'")
    modified = (site.folder / "a.jpg").stat().st_mtime
    for image in store.images():  # this server gives Last-Modified
        assert image.last_modified
    noise(3).save(site.folder / "b.jpg")
    os.utime(site.folder / "b.jpg", (modified + 100, modified + 100))
    summary = run(store)
    assert sorted(site.conditional) == ["/a.jpg", "/b.jpg"]
    assert (summary.fetched, summary.unchanged, summary.captioned, summary.drafts) == (1, 1, 1, 1)
    assert run(store).fetched == 0


def test_a_picture_lost_from_the_cache_is_fetched_again(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg")
    run(store)
    shutil.rmtree(store.cache)
    summary = run(store)
    assert (summary.fetched, summary.captioned, summary.drafts) == (1, 0, 0)


def test_a_server_away_keeps_what_we_have_and_is_tried_again(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg")
    nowhere = "http://127.0.0.1:1/b.jpg"
    store.put_page(Page("x"), [ImageOccurrence("x", 0, Kind.IMG, nowhere, nowhere)])
    assert run(store).failed == 1
    assert run(store).failed == 1
    run(store)
    store._database._connect().execute("UPDATE images SET checked_at = '2020-01-01T00:00:00+00:00'")
    site.server.server_close()
    run(store)
    [image] = store.images("ok")
    assert image.sha256


@pytest.mark.parametrize("error", [EngineError, partial(ImageError, "x")])
def test_a_captioner_that_refuses_leaves_the_draft_for_later(
    error: Any, site: Site, store: Store
) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg")
    summary = run(store, Says(fails=error))
    assert (summary.uncaptioned, summary.drafts) == (1, 0)
    assert summary.refusals == ["the server is away"]
    assert store.counts().found == 1
    assert run(store).drafts == 1


def test_stopping_keeps_what_was_made_and_going_on_gives_the_same(
    site: Site, store: Store, tmp_path: Path
) -> None:
    sources = [f"{number}.jpg" for number in range(9)]
    for number, source in enumerate(sources):
        site.save(source, noise(number))
    site.page(store, "1", *sources)
    with Store(tmp_path / "undisturbed") as undisturbed:
        site.page(undisturbed, "1", *sources)
        run(undisturbed)
        expected = [each.draft for each in undisturbed.occurrences()]
    for step in ("fetching", "captioning"):

        def stop(progress: Progress, step: str = step) -> None:
            if progress.step == step and progress.done == 4:
                raise KeyboardInterrupt

        began_s = time.monotonic()
        with Fetcher() as fetcher, pytest.raises(KeyboardInterrupt):
            draft_site(store, Says(), fetcher=fetcher, progress=stop)
        assert time.monotonic() - began_s < 5
    assert store.counts().drafted == 4
    captioner = Says()
    run(store, captioner)
    assert len(captioner.shown) == 5
    assert [each.draft for each in store.occurrences()] == expected
    assert not store.counts().failed


def test_images_of_text_are_read_once(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.save("a.png", noise(1))
    site.page(store, "1", "a.png", "a.png")
    read: list[Any] = []

    def read_text(image: Image.Image) -> str:
        read.append(image)
        return "Opening hours"

    def decide(occurrence: ImageOccurrence, pixels: Any = None) -> Any:
        found = original(occurrence, pixels)
        return replace(found, purpose=Purpose.TEXT) if pixels else found

    original = pipeline.decide
    monkeypatch.setattr(pipeline, "read_text", read_text)
    monkeypatch.setattr(pipeline, "decide", decide)
    run(store, ocr=True)
    run(store, ocr=True, redo=True)
    assert len(read) == 1
    assert [each.draft.alt for each in store.occurrences() if each.draft] == ["Opening hours"] * 2


def test_progress_names_each_step(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg", "gone.jpg", "a.jpg")
    told: list[Progress] = []
    with Fetcher(FetchOptions(retries=0)) as fetcher:
        draft_site(store, Says(), fetcher=fetcher, progress=told.append)
    last = {each.step: each for each in told}
    assert last == {
        "fetching": Progress("fetching", 2, 2, 1),
        "deciding": Progress("deciding", 3, 3),
        "captioning": Progress("captioning", 1, 1),
    }


def test_pictures_are_grouped_even_if_the_run_that_fetched_them_ended(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.save("a.jpg", noise(1))
    site.save("small.jpg", noise(1, 96, 72))
    site.page(store, "1", "a.jpg", "small.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_groups", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    assert store.counts().fetched == 2
    assert run(store).captioned == 1


def stopped(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_looks_the_same_is_grouped_and_nothing_else(tmp_path: Path) -> None:
    pictures: list[Image.Image] = []
    for seed in range(12):
        large = noise(seed, 640, 480)
        large.save(tmp_path / "x.jpg", quality=40)
        pictures += [large, large.resize((200, 150)), load_image(tmp_path / "x.jpg")]
    tall = noise(0, 480, 640)
    found = [
        (number, f"{number:04}", picture.width, picture.height, signature(picture))
        for number, picture in enumerate([*pictures, tall])
    ]
    same = groups(found)
    assert same == {number: 3 * (number // 3) for number in range(36)}
    assert groups(reversed(found)) == same


@pytest.mark.parametrize(
    "picture", [Image.new("RGB", (300, 300), "red"), noise(1, 63, 200), Image.new("RGB", (0, 0))]
)
def test_small_and_plain_pictures_have_no_likeness(picture: Image.Image) -> None:
    assert signature(picture) == b""


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="got threads 0; expected at least 1"):
        DownloadOptions(threads=0)


def test_alt_states_do_not_change_by_drafting(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg")
    run(store)
    assert store.counts().by_alt[Alt.MISSING] == 1


def test_an_empty_alt_is_a_gap_only_in_a_list_or_if_asked(site: Site, store: Store) -> None:
    site.save("a.jpg", noise(1))
    site.page(store, "1", "a.jpg", alt="")
    store.put_export("x.csv", [(0, replace(next(store.occurrences()).occurrence, page="x.csv"))])
    run(store)
    [read], [listed] = store.occurrences(origin=""), store.occurrences(origin="x.csv")
    assert read.draft is not None
    assert read.draft.decision.purpose is Purpose.KEPT
    assert listed.draft is not None
    assert listed.draft.alt == "A dog 160 by 120."
    assert "may be intentional" in listed.draft.notes[0]
    assert listed.occurrence.alt == ""
    assert run(store).drafts == 0
    run(store, fill_empty=True)
    assert {each.draft.alt for each in store.occurrences() if each.draft} == {"A dog 160 by 120."}


def tried(site: Site, *names: str) -> dict[str, Any]:
    first, *others = names
    return {
        "source": first,
        "url": f"{site.url}/{first}",
        "candidates": tuple(f"{site.url}/{name}" for name in others),
    }


def test_a_source_that_fails_is_followed_by_the_next(site: Site, store: Store) -> None:
    site.save("real.png", noise(1))
    site.save("other.png", noise(2, 90, 60))
    page = f"{site.url}/"
    occurrences = [
        ImageOccurrence(page, 0, Kind.IMG, **tried(site, "gone_720x.png", "gone.png", "real.png")),
        ImageOccurrence(page, 1, Kind.IMG, **tried(site, "other.png", "never.png")),
    ]
    store.put_page(Page(page, status=200), occurrences)
    summary = run(store)
    first, second = store.occurrences()
    assert (summary.failed, summary.fetched, summary.captioned) == (0, 2, 2)
    assert first.draft
    assert first.draft.alt == "A dog 160 by 120."
    assert first.image
    assert first.image.url.endswith("/real.png")
    assert second.draft
    assert second.draft.alt == "A dog 90 by 60."
    assert "/never.png" not in site.asked

    asked = len(site.asked)
    store.put_page(Page(page, status=200), occurrences)  # the same again
    assert run(store).drafts == 0
    assert len(site.asked) == asked


def test_a_blank_placeholder_is_followed_by_the_next(site: Site, store: Store) -> None:
    site.save("px.png", Image.new("RGB", (1, 1)))
    site.save("grey.png", Image.new("RGB", (600, 400), "grey"))
    site.save("real.png", noise(1))
    page = f"{site.url}/"
    occurrences = [
        ImageOccurrence(page, n, Kind.IMG, **tried(site, name, "real.png"))
        for n, name in enumerate(("px.png", "grey.png"))
    ]
    store.put_page(Page(page, status=200), occurrences)
    run(store)
    for each in store.occurrences():
        assert each.draft
        assert each.draft.alt == "A dog 160 by 120."


def test_where_every_source_fails_the_first_ones_error_is_told(site: Site, store: Store) -> None:
    page = f"{site.url}/"
    occurrence = ImageOccurrence(page, 0, Kind.IMG, **tried(site, "a.png", "b.png", "c.png"))
    store.put_page(Page(page, status=200), [occurrence])
    for _ in range(2):
        summary = run(store)
        [each] = store.occurrences()
        assert each.image
        assert each.image.url.endswith("/a.png")
        assert each.draft
        assert each.draft.alt is None
    assert summary.failed <= 1
    assert sorted(set(site.asked)) == ["/a.png", "/b.png", "/c.png"]

    site.save("b.png", noise(3))  # back again, as another visit finds out
    run(store, download=DownloadOptions(max_age_s=0))
    [each] = store.occurrences()
    assert each.draft
    assert each.draft.alt == "A dog 160 by 120."
