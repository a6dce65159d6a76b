from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import chromium, page, violations
from conftest import scene
from playwright.sync_api import Browser, Page, expect
from serving import Serve

from cutline.caption import CaptionOptions
from cutline.captioner import BundleCaptioner

OPTIONS = {"beam_size": 5, "n_best": 4}
DROP = """
([name, content]) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
    const event = { dataTransfer, clipboardData: dataTransfer, bubbles: true, cancelable: true };
    dispatchEvent(new DragEvent("dragenter", event));
    dispatchEvent(new DragEvent("drop", event));
}
"""
PASTE = DROP.replace('dispatchEvent(new DragEvent("dragenter", event));\n', "").replace(
    'DragEvent("drop"', 'ClipboardEvent("paste"'
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"picture {number}.png")
        scene(200 + 40 * number, 150).rotate(90 * number).save(paths[-1])
    return paths


@pytest.fixture
def tried(browser: Browser, url: str) -> Iterator[Page]:
    with page(browser, viewport={"width": 1200, "height": 900}) as opened:
        opened.goto(url)
        yield opened


def said(captioner: BundleCaptioner, picture: Path) -> Any:
    search = captioner.search.__class__(**{**vars(captioner.search), **OPTIONS})
    return captioner.caption(picture, CaptionOptions(search))


def done(tried: Page, count: int) -> None:
    expect(tried.locator(".result[aria-busy=false]")).to_have_count(count)


@pytest.mark.racy
def test_an_uploaded_picture_gets_the_command_lines_caption_and_all_that_goes_with_it(
    tried: Page, captioner: BundleCaptioner, pictures: list[Path]
) -> None:
    assert violations(tried) == []
    tried.set_input_files("#files", pictures[0])
    done(tried, 1)
    caption = said(captioner, pictures[0])
    card = tried.get_by_role("article", name="picture 0.png")
    assert card.locator(".sentence-text").text_content() == caption.text
    assert card.locator("img").get_attribute("alt") == caption.text
    others = card.locator(".others li").all_text_contents()
    assert others == [other.text for other in caption.alternatives]
    assert card.locator(".labels li").count() == 5
    assert card.locator("img").evaluate("image => image.naturalWidth") == 200
    expect(tried.get_by_role("status")).to_contain_text(caption.text)
    assert violations(tried) == []


@pytest.mark.racy
def test_words_show_where_the_model_looked_by_pointer_and_by_keyboard(
    tried: Page, captioner: BundleCaptioner, pictures: list[Path]
) -> None:
    tried.set_input_files("#files", pictures[1])
    done(tried, 1)
    attention = said(captioner, pictures[1]).attention
    words = tried.locator(".sentence button")
    canvas = tried.locator("canvas")
    assert words.count() == len(attention.words)
    spelled = " ".join(words.all_text_contents()).lower()
    assert spelled == " ".join(attention.words) + "."
    expect(canvas).to_have_css("opacity", "0")

    words.nth(0).hover()
    expect(canvas).to_have_css("opacity", "1")
    brightest = """canvas => {
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let best = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i] > data[best]) best = i;
        const [x, y] = [best / 4 % canvas.width, Math.floor(best / 4 / canvas.width)];
        return [Math.floor(3 * y / canvas.height), Math.floor(3 * x / canvas.width)];
    }"""
    row, column = canvas.evaluate(brightest)
    assert 3 * row + column == attention.weights[0].argmax()
    tried.mouse.move(5, 5)
    expect(canvas).to_have_css("opacity", "0")

    words.nth(0).focus()
    tried.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
    row, column = canvas.evaluate(brightest)
    assert 3 * row + column == attention.weights[1].argmax()
    tried.keyboard.press("End")
    expect(words.last).to_be_focused()
    assert violations(tried) == []
    tried.keyboard.press("Escape")
    expect(canvas).to_have_css("opacity", "0")


@pytest.mark.racy
def test_several_at_once_and_a_bad_one_among_them(
    tried: Page, pictures: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    tried.set_input_files("#files", [*pictures, bad])
    done(tried, 5)
    card = tried.get_by_role("article", name="bad.jpg")
    expect(card.get_by_text("Unsupported image format")).to_be_visible()
    assert tried.locator(".found:visible").count() == 4
    assert violations(tried) == []
    bad.write_bytes(pictures[0].read_bytes())
    card.get_by_role("button", name="Retry").click()
    done(tried, 5)
    card.get_by_role("button", name="Remove").click()
    expect(tried.locator(".result")).to_have_count(4)
    expect(tried.locator(".result").get_by_role("button", name="Remove").first).to_be_focused()
    tried.complaints.clear()  # type: ignore[attr-defined]  # the broken picture cannot be shown


@pytest.mark.racy
@pytest.mark.parametrize("gesture", [DROP, PASTE], ids=["drop", "paste"])
def test_a_picture_may_be_dropped_and_pasted(
    tried: Page, pictures: list[Path], gesture: str
) -> None:
    import base64

    content = base64.b64encode(pictures[2].read_bytes()).decode()
    tried.evaluate(gesture, ["given.png", content])
    done(tried, 1)
    expect(tried.get_by_role("article", name="given.png").locator(".found")).to_be_visible()
    expect(tried.locator(".drop.over")).to_have_count(0)


@pytest.mark.racy
def test_an_address_that_the_service_may_not_fetch_is_refused_clearly(
    tried: Page, url: str
) -> None:
    tried.fill("#url", f"{url}/dog.jpg")
    tried.keyboard.press("Enter")
    done(tried, 1)
    failure = tried.locator(".failure")
    expect(failure).to_be_visible()
    problem = httpx.post(
        f"{url}/v1/captions", json={"images": [{"url": f"{url}/dog.jpg"}]}, trust_env=False
    ).json()["results"][0]["error"]
    told = failure.text_content() or ""  # the style writes its first letter large
    assert problem["title"] in told
    assert problem["detail"] in told
    tried.complaints.clear()  # type: ignore[attr-defined]  # nor can the page show it


@pytest.mark.racy
def test_words_are_copied_as_text_as_alt_and_as_json(
    browser: Browser, url: str, pictures: list[Path]
) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with page(browser, permissions=permissions) as tried:
        tried.goto(url)
        tried.set_input_files("#files", pictures[3])
        done(tried, 1)
        text = tried.locator(".sentence-text").text_content()
        copied = {}
        for name in ("Copy text", "Copy as alt", "Copy JSON"):
            tried.get_by_role("button", name=name).click()
            expect(tried.get_by_role("status")).to_contain_text("Copied")
            copied[name] = tried.evaluate("() => navigator.clipboard.readText()")
            expect(tried.get_by_role("button", name=name)).to_be_visible()
        assert copied["Copy text"] == text
        assert copied["Copy as alt"] == f'alt="{text}"'
        assert json.loads(copied["Copy JSON"])["caption"] == text


@pytest.mark.racy
def test_options_and_words_nearby_reach_the_service(
    tried: Page, url: str, pictures: list[Path]
) -> None:
    tried.get_by_text("Options").click()
    tried.get_by_label("Alternatives").fill("2")
    tried.get_by_label("Text near the image").fill("a bird")
    assert violations(tried) == []
    tried.set_input_files("#files", pictures[0])
    done(tried, 1)
    assert tried.locator(".others li").count() == 1
    with tried.expect_request("**/v1/captions") as sent:
        tried.get_by_label("or the URL of an image").fill(f"{url}/bird.jpg")
        tried.keyboard.press("Enter")
    done(tried, 2)
    options = {"n_best": 2, "beam": 5, "attention": True, "context": "a bird"}
    assert sent.value.post_data_json["options"] == options
    tried.complaints.clear()  # type: ignore[attr-defined]  # there is no such bird


@pytest.mark.racy
def test_everything_works_from_the_keyboard(tried: Page, pictures: list[Path]) -> None:
    tried.keyboard.press("Tab")
    expect(tried.get_by_text("Skip to the captions")).to_be_focused()
    tried.keyboard.press("Tab")
    expect(tried.locator("#files")).to_be_focused()
    tried.set_input_files("#files", pictures[0])
    done(tried, 1)
    tried.get_by_text("Skip to the captions").focus()
    tried.keyboard.press("Enter")
    tried.keyboard.press("Tab")
    expect(tried.locator(".sentence button").first).to_be_focused()
    tried.keyboard.press("Tab")
    expect(tried.get_by_role("button", name="Copy text")).to_be_focused()


@pytest.mark.racy
def test_a_server_with_keys_asks_for_one(
    browser: Browser, serve: Serve, pictures: list[Path]
) -> None:
    with serve(keys=("correct-horse-battery",)) as url, page(browser) as tried:
        tried.goto(url)
        tried.set_input_files("#files", pictures[0])
        done(tried, 1)
        field = tried.get_by_label("This server requires an API key")
        expect(field).to_be_visible()
        assert violations(tried) == []
        field.fill("correct-horse-battery")
        tried.keyboard.press("Enter")
        expect(tried.locator(".found")).to_be_visible()
        expect(field).not_to_be_visible()
        tried.complaints.clear()  # type: ignore[attr-defined]  # Chromium reports the 401


@pytest.mark.racy
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(
    browser: Browser, url: str, pictures: list[Path], scheme: Any
) -> None:
    size = {"width": 360, "height": 740}
    with page(browser, viewport=size, color_scheme=scheme, has_touch=True) as tried:
        tried.goto(url)
        tried.set_input_files("#files", pictures[:2])
        done(tried, 2)
        tried.locator(".sentence button").first.tap()
        assert tried.evaluate("() => document.documentElement.scrollWidth") == 360
        expect(tried.get_by_text("Use the camera")).to_be_visible()
        assert violations(tried) == []


@pytest.mark.racy
def test_a_service_that_may_not_fetch_offers_no_address(browser: Browser, serve: Serve) -> None:
    with serve(fetch=False) as url, page(browser) as tried:
        tried.goto(url)
        expect(tried.locator("#by-url")).to_have_count(0)


def test_only_the_pages_own_files_are_served(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as client:
        for name in ("look.css", "try.css", "try.js"):
            assert client.get(f"/static/{name}").status_code == 200
        for name in ("nothing.js", "..%2Fapi.py", "%2e%2e/api.py"):
            assert client.get(f"/static/{name}").status_code == 404
        policy = client.get("/").headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
