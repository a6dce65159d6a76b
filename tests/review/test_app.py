from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import httpx
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Route, expect
from playwright.sync_api import Page as Tab
from serving import until
from starlette.testclient import TestClient

from cutline.errors import OptionError
from cutline.review import app as review
from cutline.review.app import review_app
from cutline.site.model import (
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
from cutline.site.store.store import Content, Store

SITE = "https://example.org/"
SAYS = Decision(Purpose.INFORMATIVE, "informative", "nothing says that it is decorative")
LEADS = Decision(Purpose.FUNCTIONAL, "link-without-text", "all there is in the link")


def shown(page: str, position: int, name: str, **more: Any) -> ImageOccurrence:
    return ImageOccurrence(
        SITE + page,
        position,
        Kind.IMG,
        name,
        url=SITE + name,
        heading="Our animals",
        before=f"Before {name}.",
        after=f"After {name}.",
        page_title=f"About {page}",
        language="en",
        markup=f'<img src="{name}">',
        **more,
    )


def says(text: str, confidence: float | None, **more: Any) -> Draft:
    words = tuple((word, Origin.PICTURE) for word in text.split())
    return Draft(SAYS, text, words, confidence, model="m-v1", **more)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Twelve occurrences on two pages: some with a draft, two without, one kept, one failed."""
    with Store(tmp_path / "site.cutline") as store:
        store.put_setting("start", SITE)
        one = [shown("one", n, f"picture-{n}.jpg") for n in range(8)]
        two = [
            shown("two", 0, "picture-0.jpg", alt="A dog, said elsewhere"),
            shown("two", 1, "home.png", link=SITE, alt=None),
            shown("two", 2, "chart.png"),
            shown("two", 3, "lost.jpg"),
        ]
        store.put_page(Page(SITE + "one", title="About one"), one)
        store.put_page(Page(SITE + "two", title="About two"), two)
        for image in store.images():
            if image.url.endswith("lost.jpg"):
                store.put_failure(image.id, "status", "got 404 Not Found")
                continue
            file = tmp_path / f"{image.id}.png"
            Image.new("RGB", (900, 600), (image.id * 20, 90, 60)).save(file)
            content = Content(f"{image.id:064}", "image/png", 99, Pixels(900, 600))
            store.put_content(image.id, content, path=str(file))
        for stored in store.occurrences():
            store.put_draft(stored.id, _draft(stored.occurrence))
        yield store


def _draft(occurrence: ImageOccurrence) -> Draft:
    n = int(found[1]) if (found := re.search(r"picture-(\d)", occurrence.source)) else 0
    if occurrence.alt:
        return Draft(Decision(Purpose.KEPT, "alt-present", "a person wrote it"), None)
    if occurrence.source == "home.png":
        return Draft(LEADS, None, notes=("say where it leads",))
    if occurrence.source == "chart.png":
        maybe = ("A chart of rain.", "A table.")
        return Draft(SAYS, None, confidence=0.1, abstained=True, alternatives=maybe, model="m-v1")
    return says(f"A dog number {n}.", 0.4 + n * 0.07, alternatives=(f"An animal, {n}.",))


@contextmanager
def served(store: Store) -> Iterator[str]:
    """The page on a thread, as `serve` serves it; gives its address."""
    config = uvicorn.Config(
        review_app(store, token="secret", who="Ann"), log_config=None, lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/secret/"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with served(store) as url:
        yield url


@pytest.fixture
def tab(chromium: Browser, url: str) -> Iterator[Tab]:
    with browser.page(chromium, viewport={"width": 1440, "height": 900}) as tab:
        yield opened(tab, url)


def opened(tab: Tab, url: str) -> Tab:
    tab.goto(url)
    expect(tab.locator("#article:visible, #end:visible")).to_have_count(1)
    return tab


def at(tab: Tab, name: str, position: int) -> None:
    """Wait until this picture is before the person."""
    expect(tab.locator("#name")).to_have_text(name)
    expect(tab.locator("#article .meta")).to_contain_text(f"{position} of")


def press(tab: Tab, *keys: str) -> None:
    for key in keys:
        tab.keyboard.press(key)


def verdicts(store: Store) -> list[tuple[str, str | None] | None]:
    return [
        (str(each.review.verdict), each.review.alt) if each.review else None
        for each in store.occurrences()
    ]


# In a browser


@pytest.mark.racy
def test_an_alt_that_stands_is_edited_as_it_was_shown(
    chromium: Browser, url: str, store: Store
) -> None:
    with browser.page(chromium, viewport={"width": 1440, "height": 900}) as tab:
        opened(tab, f"{url}#show=kept")
        expect(tab.locator("#article")).to_contain_text("A dog, said elsewhere")
        press(tab, "e")
        tab.locator("textarea").fill("A ewe and her lamb")
        press(tab, "Control+Enter")
        until(lambda: store.occurrence(9).review is not None)
    review = store.occurrence(9).review
    assert review is not None
    assert (review.alt, review.replaces) == ("A ewe and her lamb", "A dog, said elsewhere")


@pytest.mark.racy
def test_a_dozen_is_reviewed_by_keys_alone(tab: Tab, store: Store) -> None:
    expect(tab.locator("#progress")).to_have_text("0 of 11 reviewed; 2 need text")
    at(tab, "picture-0.jpg", 1)
    press(tab, "a")
    at(tab, "picture-1.jpg", 2)
    press(tab, "e")
    tab.keyboard.type(" It is asleep.")
    press(tab, "Control+Enter")
    at(tab, "picture-2.jpg", 3)
    press(tab, "d")
    at(tab, "picture-3.jpg", 4)
    press(tab, "s")
    at(tab, "picture-4.jpg", 5)
    press(tab, "1")
    expect(tab.locator("textarea")).to_have_value("An animal, 4.")
    press(tab, "a")
    for n in (5, 6, 7):
        at(tab, f"picture-{n}.jpg", n + 1)
        press(tab, "Enter")
    at(tab, "home.png", 9)
    press(tab, "a")  # nothing to approve: it asks for words
    expect(tab.locator("textarea")).to_be_focused()
    tab.keyboard.type("Home")
    press(tab, "Control+Enter")
    at(tab, "chart.png", 10)
    press(tab, "2", "a")
    at(tab, "lost.jpg", 11)
    press(tab, "d")
    expect(tab.locator("#end-title")).to_have_text("End of the list")
    expect(tab.locator("#progress")).to_have_text("11 of 11 reviewed; 0 need text")
    assert verdicts(store) == [
        ("approved", "A dog number 0."),
        ("edited", "A dog number 1. It is asleep."),
        ("decorative", ""),
        ("skipped", None),
        ("edited", "An animal, 4."),
        ("approved", "A dog number 5."),
        ("approved", "A dog number 6."),
        ("approved", "A dog number 7."),
        None,
        ("edited", "Home"),
        ("edited", "A table."),
        ("decorative", ""),
    ]
    assert {each.review.who for each in store.occurrences() if each.review} == {"Ann"}


@pytest.mark.racy
def test_what_one_writes_is_checked_and_counted_as_one_writes(tab: Tab, store: Store) -> None:
    at(tab, "picture-0.jpg", 1)
    press(tab, "e", "Control+A")
    tab.keyboard.type("image of a dog")
    expect(tab.locator("#findings .warning")).to_contain_text('leave out "image of"')
    expect(tab.locator("#length")).to_have_text("14 of 125 characters")
    press(tab, "Control+A")
    tab.keyboard.type("picture-0.jpg")
    expect(tab.locator("#findings .error")).to_contain_text("the name of a file")
    press(tab, "Control+A")
    tab.keyboard.type("Rex, our dog, " + "barking " * 15)
    expect(tab.locator("#length")).to_have_class("warn")
    press(tab, "Escape", "j")  # the keys work again, and the words are kept
    at(tab, "picture-1.jpg", 2)
    press(tab, "k")
    at(tab, "picture-0.jpg", 1)
    expect(tab.locator("textarea")).to_have_value(re.compile("Rex, our dog"))
    assert verdicts(store)[0] is None


@pytest.mark.racy
def test_a_long_description_is_edited_by_itself_and_saved_with_the_alt(
    tab: Tab, url: str, store: Store
) -> None:
    chart = Decision(Purpose.COMPLEX, "chart", "it looks like a chart")
    store.put_draft(1, Draft(chart, "Sales by year", long_description="It rose.\nFrom 2 to 5."))
    store.put_draft(2, Draft(chart, "Rain by month"))
    tab.reload()
    at(tab, "picture-0.jpg", 1)
    expect(tab.locator(".long p")).to_have_text("It rose.\nFrom 2 to 5.")
    press(tab, "l")
    expect(tab.get_by_role("textbox", name="Long description")).to_be_focused()
    expect(tab.locator("#words")).to_have_text("Sales by year")
    tab.get_by_role("textbox", name="Long description").fill("It rose.\nFrom 2 to 6.")
    assert browser.violations(tab) == []
    press(tab, "Escape", "j")
    at(tab, "picture-1.jpg", 2)
    expect(tab.locator(".long p")).to_contain_text("None.")
    press(tab, "a")
    at(tab, "picture-2.jpg", 3)
    expect(tab.locator(".long")).to_have_count(0)
    press(tab, "k", "k")
    at(tab, "picture-0.jpg", 1)
    expect(tab.get_by_role("textbox", name="Long description")).to_have_value(
        "It rose.\nFrom 2 to 6."
    )
    tab.get_by_role("textbox", name="Long description").press("Control+Enter")
    at(tab, "picture-2.jpg", 3)
    assert verdicts(store)[:2] == [("edited", "Sales by year"), ("approved", "Rain by month")]
    found = [each.approved_long_description for each in store.occurrences(limit=2)]
    assert found == ["It rose.\nFrom 2 to 6.", ""]
    press(tab, "u")
    at(tab, "picture-0.jpg", 1)
    expect(tab.locator(".long p")).to_have_text("It rose.\nFrom 2 to 5.")


@pytest.mark.racy
def test_keys_stay_out_of_text_fields_and_can_be_switched_off(tab: Tab, store: Store) -> None:
    at(tab, "picture-0.jpg", 1)
    press(tab, "/", "a", "d", "s")
    expect(tab.locator("#search")).to_have_value("ads")
    press(tab, "Control+A", "Delete", "Escape")
    tab.wait_for_timeout(300)  # what is typed is looked for after a moment
    tab.wait_for_load_state("networkidle")
    at(tab, "picture-0.jpg", 1)
    press(tab, "?")
    expect(tab.locator("#help")).to_be_visible()
    tab.get_by_label("Single keys work").uncheck()
    press(tab, "Escape", "a", "d")
    at(tab, "picture-0.jpg", 1)
    assert not any(verdicts(store))
    tab.get_by_role("button", name="Approve", exact=True).click()
    at(tab, "picture-1.jpg", 2)
    expect(tab.get_by_role("button", name="Approve", exact=True)).to_be_focused()
    assert verdicts(store)[0] == ("approved", "A dog number 0.")


@pytest.mark.racy
def test_undo_goes_back_also_after_a_reload(tab: Tab, store: Store) -> None:
    press(tab, "a")
    at(tab, "picture-1.jpg", 2)
    press(tab, "d")
    at(tab, "picture-2.jpg", 3)
    press(tab, "u")
    at(tab, "picture-1.jpg", 2)
    expect(tab.locator("#words")).to_have_text("A dog number 1. ")
    tab.reload()
    at(tab, "picture-1.jpg", 1)
    expect(tab.locator("#progress")).to_have_text("1 of 11 reviewed; 2 need text")
    press(tab, "u")
    at(tab, "picture-0.jpg", 1)
    assert not any(verdicts(store))
    expect(tab.locator("#name")).to_be_focused()


@pytest.mark.racy
def test_filters_say_what_is_shown_and_survive_a_reload(tab: Tab) -> None:
    at(tab, "picture-0.jpg", 1)
    tab.get_by_label("Show").select_option("asked")
    expect(tab.locator("#count")).to_have_text("2 images")
    tab.get_by_label("Show").select_option("all")
    tab.locator("#search").fill("before HOME")
    expect(tab.locator("#count")).to_have_text("1 image")
    tab.reload()
    at(tab, "home.png", 1)
    tab.locator("#search").fill("")
    press(tab, "Escape", "f")
    tab.get_by_label("Confidence from").fill("80")
    expect(tab.locator("#count")).to_have_text("2 images")
    tab.get_by_role("button", name="Clear filters").click()
    expect(tab.locator("#count")).to_have_text("12 images")
    tab.get_by_label("Purpose").select_option("functional")
    expect(tab.locator("#count")).to_have_text("1 image")
    at(tab, "home.png", 1)
    tab.get_by_role("button", name="Clear filters").click()
    expect(tab.locator("#count")).to_have_text("12 images")
    at(tab, "home.png", 10)
    tab.get_by_role("button", name="only this page").click()
    expect(tab.locator("#count")).to_have_text("4 images")


@pytest.mark.racy
def test_the_words_tell_where_they_come_from(tab: Tab, store: Store, url: str) -> None:
    words = (("Rex", Origin.PAGE), ("the", Origin.PICTURE), ("alpaca.", Origin.GLOSSARY))
    store.put_draft(1, Draft(SAYS, "Rex the alpaca.", words, 0.5, notes=("look twice",)))
    opened(tab, url)
    expect(tab.locator(".big .from-page")).to_have_text("Rex")
    expect(tab.locator(".big .from-glossary")).to_have_text("alpaca.")
    expect(tab.locator(".legend")).to_contain_text("from the page, from the glossary")
    expect(tab.locator(".because")).to_contain_text("nothing says that it is decorative")
    expect(tab.locator(".because code").first).to_have_text("informative")
    expect(tab.locator(".because")).to_contain_text("look twice")
    expect(tab.locator(".clipping")).to_contain_text("Before picture-0.jpg.")
    expect(tab.locator(".choices-of")).to_contain_text("A dog, said elsewhere")


@pytest.mark.racy
def test_several_at_once_and_one_undo_for_all(tab: Tab, store: Store) -> None:
    at(tab, "picture-0.jpg", 1)
    press(tab, "x", "Shift+J")
    at(tab, "picture-1.jpg", 2)
    press(tab, "Shift+J")
    expect(tab.locator("#selected")).to_have_text("3 selected")
    press(tab, "a")
    expect(tab.locator("#count")).to_have_text("8 images")
    assert sum(each is not None for each in verdicts(store)) == 3
    press(tab, "u")
    expect(tab.locator("#count")).to_have_text("11 images")
    assert not any(verdicts(store))

    tab.get_by_label("Select picture-2.jpg").check()
    tab.get_by_label("Select picture-5.jpg").click(modifiers=["Shift"])
    expect(tab.locator("#selected")).to_have_text("4 selected")
    tab.get_by_role("button", name="Skip", exact=True).first.click()
    expect(tab.locator("#count")).to_have_text("7 images")
    assert [each and each[0] for each in verdicts(store)[2:6]] == ["skipped"] * 4


@pytest.mark.racy
def test_a_picture_is_said_alike_wherever_it_waits(tab: Tab, store: Store) -> None:
    store.put_page(
        Page(SITE + "three"),
        [shown("three", n, "picture-0.jpg") for n in range(3)]
        + [shown("three", 3, "picture-0.jpg", link=SITE)],
    )
    *same, linked = store.occurrences(page=SITE + "three")
    for stored in same:
        store.put_draft(stored.id, Draft(SAYS, None))
    store.put_draft(linked.id, Draft(LEADS, None))
    store.put_review(same[0].id, Review(Verdict.EDITED, "Its own words", "Ben"))
    tab.reload()
    at(tab, "picture-0.jpg", 1)
    tab.get_by_role("button", name="Everywhere").click()
    expect(tab.locator("#ask")).to_contain_text("The same in 3 places?")
    press(tab, "Enter")
    expect(tab.locator("#live")).to_contain_text("3 images approved")
    said = [
        each.review.alt if each.review else None for each in store.occurrences(page=SITE + "three")
    ]
    assert said == ["Its own words", "A dog number 0.", "A dog number 0.", None]
    assert verdicts(store)[0] == ("approved", "A dog number 0.")


@pytest.mark.racy
def test_all_above_a_confidence_are_approved_after_asking(tab: Tab, store: Store) -> None:
    store.put_review(7, Review(Verdict.EDITED, "My own words", "Ben"))
    tab.get_by_label("Approve all suggestions at least").fill("60")
    tab.get_by_role("button", name="Approve 5").click()
    expect(tab.locator("#ask")).to_contain_text("at least 60 % sure")
    tab.get_by_role("button", name="No", exact=True).click()
    assert sum(each is not None for each in verdicts(store)) == 1
    tab.get_by_role("button", name="Approve 5").click()
    tab.get_by_role("button", name="Yes", exact=True).click()
    expect(tab.locator("#count")).to_have_text("6 images")
    expect(tab.locator("#live")).to_contain_text("4 images approved; 1 not changed")
    approved = [n for n, each in enumerate(verdicts(store)) if each and each[0] == "approved"]
    assert approved == [3, 4, 5, 7]
    assert verdicts(store)[6] == ("edited", "My own words")


@pytest.mark.racy
def test_two_tabs_do_not_fight(chromium: Browser, tab: Tab, url: str, store: Store) -> None:
    at(tab, "picture-0.jpg", 1)
    store.put_review(
        1, Review(Verdict.EDITED, "From elsewhere", "Ben", "2026-01-01T00:00:00+00:00")
    )
    press(tab, "d")
    refusal = "Not saved: another tab has edited it in the meantime"
    expect(tab.locator("#live")).to_contain_text(refusal)
    expect(tab.locator("#words")).to_have_text("From elsewhere")
    assert verdicts(store)[0] == ("edited", "From elsewhere")
    press(tab, "d")  # having seen it, one may decide otherwise
    at(tab, "picture-1.jpg", 2)
    assert verdicts(store)[0] == ("decorative", "")
    tab.complaints.clear()  # type: ignore[attr-defined]  # the browser's own line about 409


@pytest.mark.racy
def test_what_could_not_be_saved_is_said_and_tried_again(tab: Tab, store: Store) -> None:
    at(tab, "picture-0.jpg", 1)
    failed: list[Any] = []

    def fail(route: Route) -> None:
        failed.append(route)
        route.abort()

    tab.route("**/review", fail)
    press(tab, "e", "Control+A")
    tab.keyboard.type("Words that matter")
    press(tab, "Control+Enter")
    expect(tab.locator("#trouble")).to_contain_text("Not saved yet: the server does not answer")
    at(tab, "picture-0.jpg", 1)  # the row does not turn before it is kept
    tab.unroute("**/review")
    tab.get_by_role("button", name="Try now").click()
    at(tab, "picture-1.jpg", 2)
    expect(tab.locator("#trouble")).to_be_hidden()
    assert verdicts(store)[0] == ("edited", "Words that matter")
    assert failed
    tab.complaints.clear()  # type: ignore[attr-defined]


@pytest.mark.racy
def test_five_thousand_rows_are_not_all_loaded(chromium: Browser, tmp_path: Path) -> None:
    with Store(tmp_path / "large.cutline") as store:
        store.put_page(Page(SITE), [shown("", n, f"p{n}.jpg") for n in range(5000)])
        _draft_all(store)
        with served(store) as url, browser.page(chromium) as tab:
            requests: list[str] = []
            tab.on("request", lambda asked: requests.append(asked.url))
            opened(tab, url)
            expect(tab.locator("#count")).to_have_text("5,000 images")
            at(tab, "p0.jpg", 1)
            assert tab.locator("#rows > li").count() == review.MAX_ROWS - 20
            assert tab.evaluate("document.querySelectorAll('*').length") < 1000
            assert len(requests) < 20
            press(tab, "]")
            at(tab, "p40.jpg", 41)
            press(tab, "Shift+A")
            expect(tab.locator("#selected")).to_have_text("5,000 selected")
            press(tab, "a")
            tab.get_by_role("button", name="Yes", exact=True).click()
            expect(tab.locator("#end-title")).to_have_text("Nothing left to review")
            assert store.counts().reviewed[Verdict.APPROVED] == 5000
            assert len(requests) < 40


def _draft_all(store: Store) -> None:
    with store._database.writing() as connection:
        record = '{"alt":"A dog.","decision":{"purpose":"informative","rule":"r","evidence":"e"}}'
        connection.execute(
            """INSERT INTO drafts SELECT id, 'informative', 1, 0, '', '', seen, NULL, ?, ''
               FROM uses""",
            (record,),
        )


@pytest.mark.racy
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1000, "dark"), (360, "light")])
def test_axe_finds_nothing_and_nothing_needs_scrolling_sideways(
    chromium: Browser, url: str, store: Store, width: int, scheme: Any
) -> None:
    store.put_draft(1, says("A dog number 0.", 0.4, alternatives=("A long alternative " * 6,)))
    size: Any = {"width": width, "height": 800}
    with browser.page(chromium, viewport=size, color_scheme=scheme) as tab:
        opened(tab, url)
        at(tab, "picture-0.jpg", 1)
        press(tab, "x", "e")
        tab.keyboard.type("image of " + "unbreakable" * 20)
        expect(tab.locator("#findings li")).not_to_have_count(0)
        tab.locator("#more").evaluate("each => { each.open = true }")
        assert browser.violations(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        press(tab, "Escape", "?")
        assert browser.violations(tab) == []
        press(tab, "Escape", "Escape")
        tab.get_by_label("Show").select_option("failed")
        at(tab, "lost.jpg", 1)
        expect(tab.locator(".absent")).to_have_text("got 404 Not Found")
        assert browser.violations(tab) == []


@pytest.mark.racy
@pytest.mark.parametrize("width", [360, 1000])
def test_what_is_told_covers_no_button_on_a_small_screen(
    chromium: Browser, url: str, store: Store, width: int
) -> None:
    with browser.page(chromium, viewport={"width": width, "height": 640}) as tab:
        opened(tab, url)
        at(tab, "picture-0.jpg", 1)
        tab.locator(".acts").get_by_role("button", name="Skip").click()
        expect(tab.locator("#name")).not_to_have_text("picture-0.jpg")
        told, acts = tab.locator("#toast"), tab.locator(".acts")
        expect(told).to_be_visible()
        expect(acts).to_be_visible()
        upper, lower = told.bounding_box(), acts.bounding_box()
        assert upper is not None
        assert lower is not None
        assert upper["y"] + upper["height"] <= lower["y"]


# The server


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    app = review_app(store, token="secret", who="Ann")
    with TestClient(app, base_url="http://127.0.0.1:9") as client:
        yield client


OWN = {"Origin": "http://127.0.0.1:9"}
APPROVE = {"verdict": "approved", "alt": "A dog number 0."}


def test_only_the_page_itself_gets_in(client: httpx.Client, store: Store) -> None:
    path = "/secret/uses/1/review"
    for refused, status in (
        (client.get("/"), 404),
        (client.get("/guess/"), 404),
        (client.get("/secret/", headers={"Host": "evil.example"}), 421),
        (client.post(path, json=APPROVE), 403),
        (client.post(path, json=APPROVE, headers={"Origin": "https://evil.example"}), 403),
        (client.post(path, json=APPROVE, headers={"Origin": "http://127.0.0.1:10"}), 403),
        (client.post(path, json=APPROVE, headers=OWN | {"Sec-Fetch-Site": "cross-site"}), 403),
        (client.post(path, content=iter([b"{}"]), headers=OWN), 413),
        (
            client.post(
                path, content=json.dumps(APPROVE), headers=OWN | {"Content-Type": "text/plain"}
            ),
            422,
        ),
    ):
        assert refused.status_code == status
        assert "default-src 'none'" in refused.headers["content-security-policy"]
    assert not any(verdicts(store))
    assert client.post(path, json=APPROVE, headers=OWN).status_code == 200
    assert verdicts(store)[0] == ("approved", "A dog number 0.")


def test_the_page_carries_no_script_or_style_of_its_own(client: httpx.Client) -> None:
    html = client.get("/secret/").text
    assert not re.search(r"<style|style=|<script(?! src)|\son\w+=|https?:", html)
    policy = client.get("/secret/").headers["content-security-policy"]
    assert "unsafe" not in policy
    for name, kind in (
        ("look.css", "text/css"),
        ("review.css", "text/css"),
        ("review.js", "text/javascript"),
        ("review-article.js", "text/javascript"),
    ):
        answer = client.get(f"/secret/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
    assert client.get("/secret/static/review.py").status_code == 404


def test_pictures_are_made_small_and_svg_cannot_act(
    client: httpx.Client, store: Store, tmp_path: Path
) -> None:
    small = client.get("/secret/pictures/1?size=small")
    assert small.headers["content-type"] == "image/jpeg"
    assert len(small.content) < 5000
    drawn = tmp_path / "drawn.svg"
    drawn.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    store.put_content(1, Content("f" * 64, "image/svg+xml", 9), path=str(drawn))
    svg = client.get("/secret/pictures/1")
    assert svg.headers["content-type"] == "image/svg+xml"
    assert svg.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    drawn.unlink()
    assert client.get("/secret/pictures/1").status_code == 404
    assert client.get("/secret/pictures/999").status_code == 404


def test_an_answer_that_was_lost_is_given_again(client: httpx.Client, store: Store) -> None:
    for _ in range(2):
        again = client.post("/secret/uses/1/review", json=APPROVE | {"seen": ""}, headers=OWN)
        assert again.status_code == 200
    assert len(store.history(1)) == 1


@pytest.mark.parametrize(
    ("sent", "replaces"),
    [
        ({"verdict": "edited", "alt": "A ewe", "there": "IMG_1.jpg"}, "IMG_1.jpg"),
        ({"verdict": "decorative", "there": "IMG_1.jpg"}, "IMG_1.jpg"),
        ({"verdict": "edited", "alt": "A ewe", "there": "IMG_0.jpg"}, None),  # of an older scan
        ({"verdict": "edited", "alt": "A ewe"}, None),
        ({"verdict": "skipped", "there": "IMG_1.jpg"}, None),
    ],
)
def test_only_an_alt_that_was_shown_is_replaced(
    client: httpx.Client, store: Store, sent: dict[str, Any], replaces: str | None
) -> None:
    store.put_page(Page(SITE + "three"), [shown("three", 0, "picture-0.jpg", alt="IMG_1.jpg")])
    assert client.get("/secret/uses/13").json()["context"]["stands"] == "IMG_1.jpg"
    assert client.post("/secret/uses/13/review", json=sent, headers=OWN).status_code == 200
    review = store.occurrence(13).review
    assert review is not None
    assert review.replaces == replaces
    if replaces is None:
        return
    many = {"ids": [9], "verdict": "decorative"}
    assert client.post("/secret/reviews", json=many, headers=OWN).json()["done"] == 1
    assert store.occurrence(9).review == replace(
        store.occurrence(9).review or review, replaces=None
    )


def test_kept_alts_with_errors_are_a_list_of_their_own(client: httpx.Client, store: Store) -> None:
    occurrences = [shown("three", 0, "picture-0.jpg", alt="IMG_1.jpg")]
    store.put_page(Page(SITE + "three"), occurrences)
    store.put_draft(13, _draft(occurrences[0]))
    assert client.get("/secret/list?show=kept").json()["ids"] == [9, 13]
    assert client.get("/secret/list?show=faulty").json()["ids"] == [13]
    store.put_review(13, Review(Verdict.EDITED, "A ewe"))
    assert client.get("/secret/list?show=faulty").json()["ids"] == []


def test_no_words_are_no_alt(client: httpx.Client, store: Store) -> None:
    nothing = {"verdict": "approved", "alt": "  "}
    assert client.post("/secret/uses/1/review", json=nothing, headers=OWN).status_code == 422
    assert client.post("/secret/uses/99/review", json=APPROVE, headers=OWN).status_code == 404
    assert not any(verdicts(store))


@pytest.mark.racy
def test_the_command_says_where_keeps_all_and_ends_by_ctrl_c(store: Store) -> None:
    command = [sys.executable, "-m", "cutline", "site", "review", "--no-browser", "--who", "Ann"]
    with subprocess.Popen(
        [*command, "--store", str(store.path)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"Review: (http://127\.0\.0\.1:\d+)(/[\w-]{24}/)\n", line)
        assert found is not None
        origin, path = found.groups()
        with httpx.Client(base_url=origin, trust_env=False) as client:
            assert "Alt text review" in client.get(path).text
            done = client.post(f"{path}uses/1/review", json=APPROVE, headers={"Origin": origin})
        assert done.status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert verdicts(store)[0] == ("approved", "A dog number 0.")


def test_a_port_that_is_taken_is_refused(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OptionError, match="port"):
        review.serve(store, port=taken.getsockname()[1], browser=False)


def test_what_a_page_holds_cannot_reorder_the_review_page(
    client: httpx.Client, store: Store
) -> None:
    odd = "a\u202egpj.exe\x1b"
    occurrence = replace(
        shown("odd", 0, f"{odd}.jpg", title=odd, caption=odd, alt=odd), heading=odd
    )
    store.put_page(Page(SITE + "odd"), [occurrence])
    [stored] = store.occurrences(page=SITE + "odd")
    store.put_draft(stored.id, Draft(Decision(Purpose.UNKNOWN, "logo", odd), None, notes=(odd,)))
    detail = client.get(f"/secret/uses/{stored.id}").json()
    assert detail["context"]["alt"] == odd  # edited as it is
    displayed = [detail["evidence"], detail["name"], *detail["notes"]]
    displayed += [detail["context"][name] for name in ("title", "caption", "heading", "markup")]
    assert all("\\u202egpj" in text for text in displayed)
    assert not set("".join(displayed)) & set("\u202e\x1b")
