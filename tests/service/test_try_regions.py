from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium, page, violations
from conftest import scene
from playwright.sync_api import Browser, Locator, expect


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def card(browser: Browser, url: str, tmp_path: Path) -> Iterator[Locator]:
    scene(240, 160).save(tmp_path / "a.png")
    with page(browser, viewport={"width": 1200, "height": 900}) as opened:
        opened.goto(url)
        opened.set_input_files("#files", tmp_path / "a.png")
        expect(opened.locator(".result[aria-busy=false]")).to_have_count(1)
        yield opened.locator(".result")


@pytest.mark.racy
def test_a_box_is_drawn_with_the_keyboard_and_read(card: Locator) -> None:
    card.get_by_role("button", name="Draw a box").click()
    box = card.locator(".draft")
    expect(box).to_be_focused()
    expect(box).to_have_attribute("aria-label", "Box: left 25 %, top 25 %, width 50 %, height 50 %")
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Shift+ArrowUp"):
        card.page.keyboard.press(key)
    expect(box).to_have_attribute("aria-label", "Box: left 27 %, top 27 %, width 48 %, height 48 %")
    card.page.keyboard.press("Enter")
    expect(card.locator(".regions li")).to_have_count(1)
    expect(card.locator(".stage .region")).to_have_count(1)
    assert violations(card.page) == []
    card.page.keyboard.press("Escape")
    expect(card.locator(".draft")).to_have_count(0)
    expect(card.get_by_role("button", name="Draw a box")).to_be_focused()


@pytest.mark.racy
def test_a_box_is_drawn_with_the_mouse_and_lights_up_with_its_words(card: Locator) -> None:
    card.get_by_role("button", name="Draw a box").click()
    area = card.locator(".drawing").bounding_box()
    assert area is not None
    mouse = card.page.mouse
    mouse.move(area["x"] + 10, area["y"] + 10)
    mouse.down()
    mouse.move(area["x"] + 90, area["y"] + 70)
    mouse.up()
    words = card.locator(".regions li button")
    expect(words).to_have_count(1)
    drawn = card.locator(".stage .region").bounding_box()
    assert drawn is not None
    assert abs(drawn["x"] - area["x"] - 10) < 3
    assert abs(drawn["width"] - 80) < 3
    words.hover()
    expect(card.locator(".stage .region.on")).to_have_count(1)


@pytest.mark.racy
def test_a_box_is_drawn_with_a_finger_and_the_page_does_not_scroll(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    scene(240, 160).save(tmp_path / "a.png")
    with page(browser, viewport={"width": 400, "height": 700}, has_touch=True) as opened:
        opened.goto(url)
        opened.set_input_files("#files", tmp_path / "a.png")
        expect(opened.locator(".result[aria-busy=false]")).to_have_count(1)
        card = opened.locator(".result")
        card.get_by_role("button", name="Draw a box").tap()
        card.locator(".drawing").scroll_into_view_if_needed()
        area = card.locator(".drawing").bounding_box()
        assert area is not None
        before = opened.evaluate("scrollY")
        finger = opened.context.new_cdp_session(opened)
        for kind, x, y in (
            ("touchStart", 20, 20), ("touchMove", 40, 50), ("touchMove", 100, 80),
            ("touchEnd", None, None),
        ):  # fmt: skip
            points = [] if x is None else [{"x": area["x"] + x, "y": area["y"] + y}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        expect(card.locator(".regions li")).to_have_count(1)
        drawn = card.locator(".stage .region").bounding_box()
        assert drawn is not None
        assert abs(drawn["x"] - area["x"] - 20) < 3
        assert abs(drawn["width"] - 80) < 3
        assert abs(drawn["height"] - 60) < 3
        assert opened.evaluate("scrollY") == before


@pytest.mark.racy
def test_regions_are_found_on_the_page(card: Locator) -> None:
    card.get_by_role("button", name="Find regions").click()
    expect(card.locator(".regions li").first).to_be_visible()
    assert card.locator(".regions li").count() == card.locator(".stage .region").count()


@pytest.mark.racy
def test_a_clip_is_described_shot_by_shot(browser: Browser, url: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    pytest.importorskip("scenedetect")
    import clips

    path = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    bad = tmp_path / "b.mp4"
    bad.write_bytes(b"no video" * 100)
    with page(browser) as opened:
        opened.goto(url)
        opened.set_input_files("#video-file", path)
        shots = opened.locator(".video li")
        expect(shots.first).to_contain_text("0:00.0 to ")
        expect(opened.locator(".video .summary")).not_to_be_empty()
        opened.set_input_files("#video-file", bad)
        failure = opened.locator(".video .failure").first
        expect(failure).to_contain_text("Unsupported video format")
        opened.complaints.clear()  # type: ignore[attr-defined]  # the status 415
        assert violations(opened) == []
        opened.locator(".video .remove").first.click()
        expect(opened.locator(".video")).to_have_count(1)
