from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import scene
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from cutline.errors import MissingExtraError
from cutline.site.decide import image_stats as looks
from cutline.site.decide.decision_tree import RULES, decide, with_text
from cutline.site.decide.image_stats import measure, read_text
from cutline.site.model import Decision, ImageOccurrence, Kind, Pixels, Purpose
from cutline.site.url_words import destination, name_words

PAGE = "https://www.example.org/shop/"


def occurrence(**fields: Any) -> ImageOccurrence:
    given = {
        "page": PAGE,
        "position": 0,
        "kind": Kind.IMG,
        "source": "bike.jpg",
        "url": "https://www.example.org/i/red-bicycle.jpg",
    }
    return ImageOccurrence(**given | fields)


CASES: list[tuple[dict[str, Any], Purpose, str, str | None]] = [
    ({}, Purpose.INFORMATIVE, "informative", None),
    ({"kind": Kind.CSS}, Purpose.KEPT, "css-background", None),
    ({"alt": "A bicycle"}, Purpose.KEPT, "has-alt", None),
    ({"alt": ""}, Purpose.KEPT, "empty-alt", None),
    ({"alt": "", "kind": Kind.INPUT}, Purpose.KEPT, "empty-alt", None),
    ({"alt": " \n"}, Purpose.INFORMATIVE, "informative", None),
    ({"name": "A bicycle"}, Purpose.KEPT, "named", None),
    ({"role": "presentation"}, Purpose.DECORATIVE, "presentation-role", ""),
    ({"role": "NONE"}, Purpose.DECORATIVE, "presentation-role", ""),
    ({"hidden": True}, Purpose.DECORATIVE, "hidden", ""),
    ({"link": PAGE, "link_text": "Shop"}, Purpose.REDUNDANT, "link-with-text", ""),
    ({"button": True, "link_text": "Buy"}, Purpose.REDUNDANT, "link-with-text", ""),
    ({"width_px": 1, "height_px": 1, "url": "https://t.net/p"}, Purpose.DECORATIVE,
     "tracking-pixel", ""),
    ({"width_px": 1, "height_px": 1}, Purpose.DECORATIVE, "spacer", ""),
    ({"width_px": 600, "height_px": 2}, Purpose.DECORATIVE, "spacer", ""),
    ({"url": "https://a.net/spacer.gif"}, Purpose.DECORATIVE, "spacer", ""),
    ({"url": "https://a.net/blank-form.png"}, Purpose.INFORMATIVE, "informative", None),
    ({"url": "https://a.net/divider.png", "width_px": 400, "height_px": 20},
     Purpose.DECORATIVE, "spacer", ""),
    ({"url": "https://a.net/divider.png", "width_px": 400, "height_px": 300},
     Purpose.INFORMATIVE, "informative", None),
    ({"link": "https://www.example.org/"}, Purpose.FUNCTIONAL, "link-without-text", "Home"),
    ({"link": "https://www.example.org/", "url": "https://a.net/spacer.gif"},
     Purpose.FUNCTIONAL, "link-without-text", "Home"),
    ({"link": "https://a.net/?id=7"}, Purpose.FUNCTIONAL, "link-without-text", None),
    ({"link": "https://a.net/?id=7", "title": "Our team"}, Purpose.FUNCTIONAL,
     "link-without-text", "Our team"),
    ({"link": "https://a.net/?id=7", "title": "Click to enlarge"}, Purpose.FUNCTIONAL,
     "link-without-text", None),
    ({"link": "https://a.net/full/bicycle.JPG"}, Purpose.INFORMATIVE, "link-without-text", None),
    ({"kind": Kind.AREA, "link": "https://www.example.org/contact"}, Purpose.FUNCTIONAL,
     "link-without-text", "Contact"),
    ({"kind": Kind.AREA}, Purpose.DECORATIVE, "area-without-link", ""),
    ({"kind": Kind.INPUT, "url": "https://a.net/btn_search.gif"}, Purpose.FUNCTIONAL,
     "button-without-text", "Search"),
    ({"kind": Kind.INPUT, "url": "https://a.net/x7.gif"}, Purpose.FUNCTIONAL,
     "button-without-text", None),
    ({"button": True, "url": "https://a.net/add-to-cart.png"}, Purpose.FUNCTIONAL,
     "button-without-text", "Add to cart"),
    ({"width_px": 16, "height_px": 16, "url": "https://a.net/warning.png"},
     Purpose.INFORMATIVE, "icon-says", "Warning"),
    ({"width_px": 16, "height_px": 16, "beside": "Call us"}, Purpose.DECORATIVE,
     "icon-beside-text", ""),
    ({"width_px": 16, "height_px": 16}, Purpose.INFORMATIVE, "informative", None),
    ({"title": "The red bicycle", "caption": "The red bicycle."}, Purpose.REDUNDANT,
     "repeats-text", ""),
    ({"title": "The red bicycle"}, Purpose.INFORMATIVE, "title", "The red bicycle"),
    ({"title": "IMG_2031.JPG"}, Purpose.INFORMATIVE, "informative", None),
    ({"url": "https://a.net/acme-logo.png"}, Purpose.INFORMATIVE, "logo", "Acme logo"),
    ({"url": "https://a.net/logo.png", "page_title": "Shop | Acme Ltd"}, Purpose.INFORMATIVE,
     "logo", "Acme Ltd logo"),
    ({"width_px": 16, "height_px": 16, "after": "Far away"}, Purpose.INFORMATIVE, "informative",
     None),
    ({"url": "https://a.net/acme-logo.png", "after": "Acme, makers of anvils"},
     Purpose.REDUNDANT, "logo", ""),
    ({"url": "https://a.net/logo.png"}, Purpose.UNKNOWN, "logo", None),
    ({"kind": Kind.SVG, "source": "", "url": ""}, Purpose.DECORATIVE, "svg-without-name", ""),
    ({"kind": Kind.SVG, "role": "img", "source": "", "url": ""}, Purpose.UNKNOWN,
     "svg-without-name", None),
    ({"kind": Kind.SVG, "link": "https://facebook.com/acme", "source": "", "url": ""},
     Purpose.FUNCTIONAL, "link-without-text", "Facebook"),
    ({"url": "https://a.net/sales_chart.png"}, Purpose.COMPLEX, "complex", None),
    ({"url": "https://a.net/sitemap-photo.png"}, Purpose.INFORMATIVE, "informative", None),
    ({"caption": "Figure 3.1: Flow diagram of the boiler"}, Purpose.COMPLEX, "complex", None),
    ({"caption": "Map of the valley"}, Purpose.COMPLEX, "complex", None),
    ({"caption": "Map in hand, they set out"}, Purpose.INFORMATIVE, "informative", None),
    ({"caption": "The hikers had no map"}, Purpose.INFORMATIVE, "informative", None),
    ({"kind": Kind.ROLE_IMG, "source": "", "url": ""}, Purpose.UNKNOWN, "nothing-to-see", None),
    ({"kind": Kind.OBJECT, "url": "https://a.net/film.swf"}, Purpose.UNKNOWN,
     "nothing-to-see", None),
    ({"kind": Kind.OBJECT}, Purpose.INFORMATIVE, "informative", None),
    ({"source": "", "url": ""}, Purpose.UNKNOWN, "nothing-to-see", None),
    ({"kind": Kind.ROW, "page": ""}, Purpose.INFORMATIVE, "informative", None),
    ({"kind": Kind.ROW, "page": "", "url": "https://a.net/spacer.gif"}, Purpose.DECORATIVE,
     "spacer", ""),
    ({"kind": Kind.MARKDOWN}, Purpose.INFORMATIVE, "informative", None),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "purpose", "rule", "alt"), CASES)
def test_the_tree_decides(
    fields: dict[str, Any], purpose: Purpose, rule: str, alt: str | None
) -> None:
    decision = decide(occurrence(**fields))
    assert (decision.purpose, decision.rule, decision.alt) == (purpose, rule, alt)
    assert decision.evidence


def test_pixels_decide_where_the_page_does_not() -> None:
    assert decide(occurrence(), Pixels(1, 1, flat=True)).rule == "spacer"
    assert decide(occurrence(), Pixels(300, 200, flat=True)).rule == "spacer"
    assert decide(occurrence(), Pixels(300, 200, text_like=0.9)).purpose is Purpose.TEXT
    assert decide(occurrence(), Pixels(300, 200, chart_like=0.9)).purpose is Purpose.COMPLEX
    drawing = decide(occurrence(), Pixels(300, 200, chart_like=0.5))
    assert (drawing.rule, drawing.purpose, drawing.alt) == ("drawing", Purpose.INFORMATIVE, None)
    assert decide(occurrence(title="The settings window"), Pixels(300, 200, chart_like=0.5)).alt
    opened = {"link": "https://a.net/full/window.png"}
    thumbnail = decide(occurrence(**opened), Pixels(300, 200, chart_like=0.5))
    assert thumbnail.rule == "drawing"
    assert "the link opens an image, window.png" in thumbnail.evidence
    assert decide(occurrence(**opened), Pixels(20, 20, flat=True)).alt is None
    assert (
        decide(occurrence(), Pixels(300, 200, text_like=0.4, chart_like=0.4)).rule == "informative"
    )
    assert decide(occurrence(alt="Kept"), Pixels(1, 1, flat=True)).purpose is Purpose.KEPT


BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.mark.parametrize(
    "attributes",
    [
        *('class="lazy"', "class='b-lazy x'", "class=lazyload", 'data-foo-src="17"'),
        *('data-cfsrc="a"', 'nitro-lazy-src="a"', 'data-echo="a"', 'data-flickity-lazyload="a"'),
        *("width=600 height=400", 'data-original="{}"'),
    ],
)
def test_a_lazy_placeholder_is_asked_about(attributes: str) -> None:
    size = {"width_px": 600, "height_px": 400} if "width" in attributes else {}
    markup = f'<img src="{BLANK}" {attributes}>'
    placeholder = occurrence(source=BLANK, url="", markup=markup, **size)
    decision = decide(placeholder, Pixels(1, 1, flat=True))
    assert (decision.purpose, decision.rule) == (Purpose.UNKNOWN, "lazy-placeholder")


def test_a_spacer_is_no_lazy_placeholder() -> None:
    for attributes in ("width=600 height=1", "", "data-id=7", 'class="spacer" loading="eager"'):
        size = {"width_px": 600, "height_px": 1} if "width" in attributes else {}
        spacer = occurrence(
            source=BLANK, url="", markup=f'<img src="{BLANK}" {attributes}>', **size
        )
        assert decide(spacer, Pixels(1, 1, flat=True)).rule == "spacer", attributes
    photograph = occurrence(markup='<img class="lazy" src="red-bicycle.jpg" data-src="x.jpg">')
    assert decide(photograph, Pixels(800, 600)).rule == "informative"


def test_one_side_from_the_page_and_the_other_from_the_file() -> None:
    photograph = Pixels(2000, 1500)
    for name in ("product-line", "border-collie", "finish-line", "divider"):
        for size in ({"width_px": 150}, {"width_px": 120}, {"height_px": 90}):
            shown = occurrence(url=f"https://a.net/{name}.jpg", **size)
            assert decide(shown, photograph).alt is None, (name, size)
    wide = occurrence(url="https://a.net/finish-line.jpg", width_px=1600, height_px=200)
    assert decide(wide, Pixels(1600, 200)).rule == "informative"
    for size in ({"width_px": 24}, {"height_px": 24}):
        icon = occurrence(url="https://a.net/i.png", beside="Call us", **size)
        assert decide(icon, Pixels(512, 512)).rule == "icon-beside-text"
        assert decide(icon).rule == "informative"
    rule = occurrence(url="https://a.net/divider.png", width_px=600)
    assert decide(rule, Pixels(1200, 40)).rule == "spacer"


@pytest.mark.parametrize(
    ("name", "alt"),
    [
        *(("warning", "Warning"), ("icon-warning", "Warning"), ("warning_16", "Warning")),
        *(("fa-check-circle", "Yes"), ("new-icon", "New"), ("error-24x24", "Error")),
        *(("new-zealand-flag", None), ("red-cross", None), ("check-republic", None)),
        *(("cross-country", None), ("no-warning", None), ("tick-bite", None), ("new-york", None)),
        *(("note-book", None), ("danger-mouse", None), ("tip-jar", None)),
    ],
)
def test_an_icon_says_what_its_whole_name_says(name: str, alt: str | None) -> None:
    icon = occurrence(url=f"https://a.net/{name}.png", width_px=16, height_px=16)
    assert decide(icon).alt == alt


@pytest.mark.parametrize(
    ("name", "alt"),
    [
        *(
            ("btn_search", "Search"),
            ("search-icon-white", "Search"),
            ("add-to-cart", "Add to cart"),
        ),
        *(
            ("go-kart", None),
            ("new-york-print", None),
            ("menu-of-the-day", None),
            ("play-mobil", None),
        ),
    ],
)
def test_a_button_does_what_its_whole_name_says(name: str, alt: str | None) -> None:
    assert decide(occurrence(button=True, url=f"https://a.net/{name}.png")).alt == alt


@pytest.mark.parametrize(
    ("name", "complex"),
    [
        *(
            ("sales_chart", True),
            ("map-of-oslo", True),
            ("org-chart-2", True),
            ("diagram-en", True),
        ),
        *(("chart-topping-band", False), ("graph-paper", False), ("map-in-hand", False)),
        *(("plot-twist", False), ("timeline-of-mine", True)),
    ],
)
def test_a_name_that_ends_in_chart_is_a_chart(name: str, complex: bool) -> None:
    decision = decide(occurrence(url=f"https://a.net/{name}.jpg"))
    assert (decision.purpose is Purpose.COMPLEX) == complex


def test_every_rule_has_a_name_a_sentence_and_a_page_of_the_tutorial() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert {rule for _, _, rule, _ in CASES} - {"informative"} <= set(names)
    for rule in RULES:
        assert rule.condition.endswith(".")
        assert rule.reference.startswith("https://www.w3.org/WAI/tutorials/images/")


@pytest.mark.parametrize(
    ("link", "where"),
    [
        ("https://www.example.org/", "Home"),
        ("https://example.org/index.html", "Home"),
        ("https://example.org", "Home"),
        ("https://www.example.org/contact-us/", "Contact us"),
        ("https://www.example.org/%C3%BCber-uns.html", "Über uns"),
        ("https://www.example.org/a/Annual-Report_2023.pdf", "Download annual report 2023 (PDF)"),
        ("https://www.example.org/search?q=", "Search"),
        ("https://www.example.org/search?q=red+bikes", "Search for red bikes"),
        ("https://www.example.org/search", "Search"),
        ("https://www.example.org/?p=12", ""),
        ("https://www.example.org/view.php?id=12", ""),
        ("https://www.example.org/node/1234", ""),
        ("https://www.example.org/shop/#top", "Back to top"),
        ("https://www.example.org/shop/#opening-hours", "Opening hours"),
        ("https://www.youtube.com/@acme", "YouTube"),
        ("https://de-de.facebook.com/acme", "Facebook"),
        ("https://www.facebook.com/sharer/sharer.php?u=x", "Share on Facebook"),
        ("https://notfacebook.com/", "notfacebook.com"),
        ("https://other.net", "other.net"),
        ("mailto:info@example.org?subject=Hi", "Email info@example.org"),
        ("tel:+49-30-1234", "Call +49-30-1234"),
        ("./", "Home"),
        ("./index.html", "Home"),
        ("./%C3%BCber-uns/index.html", "Über uns"),
        ("./red-bikes.html#prices", "Red bikes"),
        ("javascript:void(0)", ""),
        ("http://[::bad", ""),
        ("", ""),
    ],
)
def test_a_link_says_where_it_leads(link: str, where: str) -> None:
    assert destination(link, PAGE) == where


def test_a_link_within_a_scanned_page_says_what_it_leads_to() -> None:
    assert destination("./shop/a%20b.html#opening-hours", "shop/a b.html") == "Opening hours"


def test_reasons_name_a_file_by_its_path_in_the_folder() -> None:
    decision = decide(replace(occurrence(), page="a.html", link="./shop/1234.html"))
    assert "the link to shop/1234.html, which does not tell" in decision.evidence
    assert "the start page" in decide(replace(occurrence(), page="a.html", link="./")).evidence


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://a.net/i/IMG_2031-red_BicycleShed-300x200.jpg", "red Bicycle Shed"),
        ("DSC00012.JPG", ""),
        ("a/5f3c2b1a9e8d7c6b.png", ""),
        ("Roadster-300-classic@2x.webp", "Roadster 300 classic"),
        ("archive.tar.gz", "archive"),
        ("data:image/png;base64,AAAA", ""),
        ("stra%C3%9Fe.png", "straße"),
    ],
)
def test_words_come_from_file_names(url: str, words: str) -> None:
    assert " ".join(name_words(url)) == words


def test_text_that_was_read_becomes_the_alt() -> None:
    text = Decision(Purpose.TEXT, "text", "looks like text")
    assert with_text(text, " Summer\n sale ").alt == "Summer sale"
    assert with_text(text, "  ") == text
    informative = replace(text, purpose=Purpose.INFORMATIVE)
    assert with_text(informative, "Stop") == informative


def _text(lines: int, size: int) -> Image.Image:
    image = Image.new("RGB", (500, 40 + lines * size * 2), "#f4f4f0")
    draw = ImageDraw.Draw(image)
    for line in range(lines):
        draw.text(
            (20, 20 + line * size * 2),
            "Open from nine until five",
            fill="#202060",
            font=ImageFont.load_default(size),
        )
    return image


def _chart() -> Image.Image:
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.line([(40, 20), (40, 260), (380, 260)], fill="black", width=2)
    for bar in range(6):
        draw.rectangle([60 + 50 * bar, 230 - 30 * bar, 90 + 50 * bar, 259], fill="#3070b0")
    return image


def _window() -> Image.Image:
    image = Image.new("RGB", (400, 300), "#d0d0d8")
    draw = ImageDraw.Draw(image)
    for number in range(12):
        corner = 20 + number % 4 * 90, 30 + number // 4 * 80
        draw.rounded_rectangle([*corner, corner[0] + 70, corner[1] + 50], 8, fill="#4060a0")
        draw.text((corner[0] + 10, corner[1] + 15), "Open", fill="white")
    return image


def _photograph(width: int, height: int) -> Image.Image:
    grain = np.random.default_rng(1).normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(scene(width, height)) * 0.8 + 25 + grain).astype(np.uint8))


def test_text_charts_drawings_blanks_and_photographs_are_told_apart() -> None:
    for image in (_text(1, 20), _text(3, 16), _text(8, 12)):
        assert measure(image).text_like >= 0.7
        assert measure(image).chart_like <= 0.5
    assert measure(_chart()).chart_like >= 0.7
    assert measure(_chart()).text_like < 0.4
    assert measure(_window()) == Pixels(400, 300, chart_like=0.5)
    assert measure(Image.new("RGB", (30, 20), "red")) == Pixels(30, 20, flat=True)
    assert measure(Image.new("RGBA", (30, 20), (9, 9, 9, 0))) == Pixels(30, 20, flat=True)
    photograph = _photograph(300, 200)
    assert measure(photograph) == Pixels(300, 200)
    cut_out = Image.new("RGB", (500, 500), "white")
    cut_out.paste(photograph, (100, 150))
    assert measure(cut_out) == Pixels(500, 500)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (2000, 17), (40, 40)])
def test_any_picture_can_be_measured(mode: str, size: tuple[int, int]) -> None:
    found = measure(Image.new(mode, size))
    assert (found.width_px, found.height_px, found.flat) == (*size, True)


def test_lines_read_without_confidence_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def box(left: int, top: int) -> list[list[int]]:
        return [[left, top], [left + 40, top], [left + 40, top + 20], [left, top + 20]]

    read = SimpleNamespace(
        txts=("sale", "Now", "Summer", "l|lI"),
        scores=(0.98, 0.9, 0.97, 0.3),
        boxes=[box(60, 12), box(10, 60), box(10, 10), box(100, 10)],
    )
    monkeypatch.setattr(looks, "_reader", lambda: lambda pixels: read)
    assert read_text(_text(1, 20)) == "Summer sale\nNow"
    nothing = SimpleNamespace(txts=None, scores=None, boxes=None)
    monkeypatch.setattr(looks, "_reader", lambda: lambda pixels: nothing)
    assert read_text(_text(1, 20)) == ""


def test_real_text_is_read() -> None:
    pytest.importorskip("rapidocr")
    image = Image.new("RGB", (480, 120), "white")
    font = ImageFont.load_default(36)
    ImageDraw.Draw(image).text((20, 30), "Open from 9 to 17", "black", font)
    assert read_text(image) == "Open from 9 to 17"


def test_reading_text_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    looks._reader.cache_clear()
    with pytest.raises(MissingExtraError, match=r"cutline\[ocr\]"):
        read_text(_text(1, 20))


words = st.text(max_size=40) | st.sampled_from(["", "logo", "http://[", "Bild 3", "a", "\n"])
urls = words | st.sampled_from(["https://a.b/c?d=e#f", "mailto:", "//x", "https://a.b:x/", "%ff"])
anywhere = st.builds(
    ImageOccurrence,
    page=urls,
    position=st.integers(0, 9),
    kind=st.sampled_from(Kind),
    source=urls,
    url=urls,
    alt=st.none() | words,
    name=words,
    title=words,
    role=words,
    hidden=st.booleans(),
    width_px=st.none() | st.integers(-9, 99999),
    height_px=st.none() | st.integers(-9, 99999),
    link=urls,
    link_text=words,
    button=st.booleans(),
    caption=words,
    heading=words,
    before=words,
    after=words,
    page_title=words,
    language=words,
    markup=words,
)
measured = st.builds(
    Pixels,
    st.integers(0, 9999),
    st.integers(0, 9999),
    st.booleans(),
    st.floats(0, 1),
    st.floats(0, 1),
)


@given(anywhere, st.none() | measured)
def test_every_occurrence_is_decided_and_no_human_alt_is_replaced(
    occurrence: ImageOccurrence, pixels: Pixels | None
) -> None:
    decision = decide(occurrence, pixels)
    assert decision.evidence
    assert decision == decide(occurrence, pixels)
    if occurrence.alt is not None and (occurrence.alt == "" or occurrence.alt.strip()):
        assert (decision.purpose, decision.alt) == (Purpose.KEPT, None)
