from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutline.site.decide.lint import MISSING, lint, lint_alt, says_nothing
from cutline.site.model import Finding, ImageOccurrence, Kind, Severity
from cutline.site.pages.scan import occurrences_in_html

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def occurrence(**fields: Any) -> ImageOccurrence:
    given = {
        "page": "https://www.example.org/",
        "position": 0,
        "kind": Kind.IMG,
        "source": "team-photo-04.jpg",
        "url": "https://www.example.org/team-photo-04.jpg",
    }
    return ImageOccurrence(**given | fields)


def on_page(html: str) -> list[Finding]:
    return list(lint(occurrences_in_html(html, page="https://www.example.org/")[1]))


def rules(findings: list[Finding]) -> list[tuple[str, Severity]]:
    return [(finding.rule, finding.severity) for finding in findings]


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ("<img src=a.jpg>", [("image-alt", ERROR)]),
        ("<img src=a.jpg alt=' '>", [("whitespace", ERROR)]),
        ("<img src=a.jpg alt=''>", []),
        ("<img src=a.jpg alt='' title='A dog'>", [("decorative-title", WARNING)]),
        ("<img src=a.jpg alt='' aria-label='A dog'>", [("presentation-role-conflict", WARNING)]),
        ("<a href=/><img src=a.jpg></a>", [("image-alt", ERROR), ("link-name", ERROR)]),
        ("<a href=/><img src=a.jpg alt=''></a>", [("link-name", ERROR)]),
        ("<a href=/><img src=a.jpg alt=''>Home</a>", []),
        ("<input type=image src=a.jpg alt=''>", [("input-image-alt", ERROR)]),
        ("<map name=m><area href=/x></map>", [("area-alt", ERROR)]),
        ("<svg role=img></svg>", [("svg-img-alt", ERROR)]),
        ("<svg></svg>", []),
        ("<div role=img></div>", [("role-img-alt", ERROR)]),
        ("<object data=a.png></object>", [("object-alt", ERROR)]),
        ("<p style='background:url(a.jpg)'>A dog</p>", []),
        ("<div hidden><img src=a.jpg></div>", []),
    ],
)
def test_what_needs_a_name_and_has_none(html: str, found: list[tuple[str, Severity]]) -> None:
    assert rules(on_page(html)) == found


def test_findings_have_their_occurrence() -> None:
    first, second = on_page("<img src=a.jpg><img src=b.jpg>")
    assert [
        first.occurrence and first.occurrence.source,
        second.occurrence and second.occurrence.source,
    ] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("alt", "found"),
    [
        ("Six people round a table", []),
        ("NASA/JPL", []),
        ("AC/DC on stage", []),
        ("team-photo-04.jpg", [("filename", ERROR)]),
        ("team-photo-04", [("filename", ERROR)]),
        ("IMG_2041", [("filename", ERROR)]),
        ("DSC00012.JPG", [("filename", ERROR)]),
        ("images/dogs/rex.png", [("filename", ERROR)]),
        ("spacer", [("decorative-alt", ERROR)]),
        ("alt text", [("placeholder", ERROR)]),
        ("TODO", [("placeholder", ERROR)]),
        ("Image 3", [("placeholder", ERROR)]),
        ("image", [("vague", WARNING)]),
        ("Click here", [("vague", WARNING)]),
        ("Logo", [("vague", WARNING)]),
        ("Image of six people", [("redundant-prefix", WARNING)]),
        ("A picture showing six people", [("redundant-prefix", WARNING)]),
        ("A photograph of six people", [("redundant-prefix", NOTE)]),
        ("Imagery of the sixties", []),
        *((alt, [("placeholder", ERROR)]) for alt in ("-", "?", "*", "jpg", ".png", "file")),
        ("Photo credit: Jo Doe", [("placeholder", ERROR)]),
        ("Photo by Jo Doe on Unsplash", [("placeholder", ERROR)]),
        ("Photo by the door of a red house", []),
        ("Photo by Jo Doe of a cat on a mat", []),
        ("Photo credit: Jo Doe. A cat on a mat", []),
        ("Photo-finish at the derby", []),
        ("Picture-perfect beach", []),
        ("Image-guided surgery", []),
        ("Photo - a cat", [("redundant-prefix", NOTE)]),
        ("A painting of six people", []),
        ("bikes, cheap bikes, best bikes, buy bikes", [("keyword-stuffing", WARNING)]),
        ("shoes, boots, sandals, heels, sneakers, loafers", [("keyword-stuffing", WARNING)]),
        ("A red, blue, and green flag on a pole, seen from below, at dusk", []),
        ("Six people\n round a table", [("stray-space", NOTE)]),
        ("Si vis pacem, " + "x" * 120, [("too-long", NOTE)]),
        ("", []),
        ("   ", []),
    ],
)
def test_what_an_alt_says(alt: str, found: list[tuple[str, Severity]]) -> None:
    assert rules(lint_alt(alt, occurrence())) == found


def test_an_alt_that_is_the_files_only_word_may_well_be_right() -> None:
    assert not lint_alt("Sunflower", occurrence(url="https://a.net/sunflower.jpg"))


@pytest.mark.parametrize(
    "around",
    [
        {"link_text": "Jane Doe"},
        {"caption": "Jane Doe."},
        {"before": "Written by Jane Doe"},
        {"after": "Jane Doe is our baker"},
    ],
)
def test_an_alt_that_the_text_beside_it_says_too(around: dict[str, str]) -> None:
    assert rules(lint_alt("Jane Doe", occurrence(**around))) == [("image-redundant-alt", WARNING)]
    assert not lint_alt("Jane Doe bakes", occurrence(**around))


def test_one_word_in_the_text_beside_it_is_no_repetition() -> None:
    assert not lint_alt("Bread", occurrence(after="Bread is what we bake"))


# Alts of real pages and their siblings, beside the file's name: none may be flagged.
GOOD = (
    ("PyObject_Call", "call.svg"),
    ("snake_case_name", "name.png"),
    ("User avatars in the forum", "avatars.png"),
    ("Default settings", "default.png"),
    ("Loading dock of a warehouse", "dock.jpg"),
    ("Stock photographer at work", "p.jpg"),
    ("Eiffel Tower", "Eiffel%20Tower.jpg"),
    ("W3C", "w3c.png"),
    ("H&M", "H%26M.png"),
    ("COVID-19", "covid-19.png"),
    ("Coca-Cola", "coca-cola.svg"),
    ("San José", "San%20Jos%C3%A9.jpg"),
    ("[None]", "mode-none.png"),
    ("Rolls-Royce", "Rolls-Royce.jpg"),
    ("AT&T", "AT&T.png"),
    ("C++", "c++.png"),
    ("C#", "c%23.png"),
    ("Node.js", "node.js.png"),
    (".NET", "dotnet.png"),
    ("7-Eleven", "7-eleven.png"),
    ("3M", "3m.svg"),
    ("T-Mobile", "t-mobile.png"),
    ("Wi-Fi", "wi-fi.png"),
    ("Spider-Man", "spider-man.jpg"),
    ("Jean-Luc Picard", "jean-luc-picard.jpg"),
    ("iPhone 15", "iphone-15.png"),
    ("iPhone", "iPhone.png"),
    ("GitHub", "GitHub.svg"),
    ("MP3", "mp3.png"),
    ("H2O", "h2o.png"),
    ("x-ray", "x-ray.png"),
    ("X-ray", "x-ray.png"),
    ("e-mail", "e-mail.png"),
    ("Red bicycle", "red-bicycle.jpg"),
    ("red bicycle", "red%20bicycle.jpg"),
    ("Mont-Saint-Michel", "mont-saint-michel.jpg"),
    ("Stratford-upon-Avon", "stratford-upon-avon.jpg"),
    ("Photo-finish at the derby", "a.jpg"),
    ("Picture-perfect valley", "a.jpg"),
    ("Photo office in Berlin", "a.jpg"),
    ("Image-guided surgery", "a.jpg"),
    ("Boeing 747-400", "747.jpg"),
    ("Windows 11", "windows11.png"),
    ("Web 2.0", "web2.png"),
    ("2023", "2023.png"),
    ("24/7", "a.png"),
    ("A dog.", "a.jpg"),
    ("Menu", "menu.png"),
    ("Console", "console.png"),
    ("Map of Oslo", "map.png"),
    ("A bar chart of sales by month", "chart.png"),
    ("Screenshot of the settings page", "a.png"),
    ("None", "mode-none.png"),
    ("Test tube", "a.jpg"),
    ("Testing the water", "a.jpg"),
    ("Foo Fighters", "a.jpg"),
    ("Null Island", "a.jpg"),
    ("Undefined behaviour in C", "a.png"),
    ("Description of a Struggle, first edition", "a.jpg"),
    ("Alternative rock band on stage", "a.jpg"),
    ("Alt key", "a.jpg"),
    ("A farmer, two sheep, a dog, a cart, a barn and a gate", "a.jpg"),
    ("Red, orange, yellow, green, blue and violet balloons", "a.jpg"),
    ("Buttons for File, Edit, View, Insert, Format and Help", "a.png"),
    ("The Save button, the Cancel button, the Help button, and the Close button", "a.png"),
    ("Three men, one with a hat, one with a cap, one with a scarf, in Rome, Italy, 1950", "a.jpg"),
    ("Ann Lee, Bo Yi, Carl Orr, Di Fox, Ed Poe and Flo Ray", "a.jpg"),
    ("Line", "line.png"),
    ("Arrow keys", "a.png"),
    ("Shadow", "shadow.png"),
    ("Pixel 8", "a.png"),
    ("👍", "a.png"),
    ("€", "a.png"),
    ("π", "a.png"),
    ("+", "a.png"),
    ("Share on X", "x.png"),
    ("DSC Sports Club", "a.png"),
    ("IMG Academy", "a.png"),
    ("Canon EOS 5D Mark IV", "a.png"),
    ("P1 engine", "a.png"),
    ("Scan the code", "a.png"),
    ("Slide into first base", "a.jpg"),
    ("Bild der Wissenschaft", "a.jpg"),
    ("Logo of the W3C", "a.png"),
    ("facade", "facade.jpg"),
    ("deadbeef", "a.png"),
    ("accede", "a.png"),
    ("R2-D2", "r2-d2.jpg"),
    ("F-16", "f-16.jpg"),
    ("B-52", "b-52.jpg"),
    ("Area 51", "area-51.jpg"),
    ("Apollo 11", "apollo-11.jpg"),
    ("Apollo 11", "apollo11.jpg"),
    ("Eiffel_Tower by night", "a.jpg"),
    ("JPEG", "jpeg.png"),
    ("PNG", "png.png"),
    ("Edit photo.png in GIMP and export it again", "a.png"),
    ("README.md", "a.png"),
    ("The Picture of Dorian Gray", "a.jpg"),
    ("A Photo of Me", "a.jpg"),
    ("Jean-Michel", "a.jpg"),
    ("Paris", "paris.jpg"),
    ("sunflower", "sunflower.jpg"),
    ("Tour Eiffel", "Tour%20Eiffel.jpg"),
    ("北京", "北京.jpg"),
    ("Ampère", "Amp%C3%A8re.jpg"),
    ("São Paulo", "S%C3%A3o_Paulo.jpg"),
    ("Table tennis", "table-tennis.jpg"),
    ("The map is torn", "a.jpg"),
    ("E=mc²", "a.png"),
    ("S&P 500", "a.png"),
    ("Q&A", "q&a.png"),
    ("R&D", "r%26d.png"),
    ("O'Reilly", "o'reilly.png"),
    ("Yahoo!", "yahoo!.png"),
    ("Guns N' Roses", "a.jpg"),
)
BAD = (  # each must be flagged, with a file's own name where it matters
    ("MVIMG_20200101_010101", ""),
    ("CamScanner 04-01-2023 12.34", ""),
    ("shutterstock_123456789", ""),
    ("AdobeStock 123456789", ""),
    ("Ohne Titel", ""),
    ("Ohne Titel 2", ""),
    ("Sans titre", ""),
    ("hero_banner_v2_final", ""),
    ("51Zx7+abcL._SL1500_", ""),
    ("1234567890", "1234567890_n.jpg"),
    ("hero image", ""),
    ("The product image", ""),
    ("User avatar", ""),
    ("No alternative text provided", ""),
    ("Image not found", ""),
    ("Loading...", ""),
    ("decorative image", ""),
    ("&nbsp;", ""),
    ("IMG 2031", ""),
    ("DSC 0012", ""),
    ("Screenshot 2024-01-02 at 10.00.00", ""),
    ("Screen Shot 2020-05-01 at 9.41.00 AM", ""),
    ("Screenshot (12)", ""),
    ("Bildschirmfoto 2021-03-04 um 10.11.12", ""),
    ("Capture d’écran 2022-01-01 à 10.00.00", ""),
    ("Captura de pantalla 2022-01-01 a las 10.00.00", ""),
    ("WhatsApp Image 2021-03-04 at 10.11.12", ""),
    ("PXL 20210304 101112", ""),
    ("20210304_101112", ""),
    ("2021-03-04 10.11.12", ""),
    ("Image (3)", ""),
    ("download (1)", ""),
    ("unnamed", ""),
    ("Untitled-1", ""),
    ("FB_IMG_1580000000", ""),
    ("DJI 0001", ""),
    ("_MG_1234", ""),
    ("P1010012", ""),
    ("CIMG0001", ""),
    ("IMG-20210304-WA0001", ""),
    ("f47ac10b-58cc-4372-a567-0e02b2c3d479", ""),
    ("3f2a9b1c4d5e6f70", ""),
    ("スクリーンショット 2021-03-04 10.11.12", ""),
    ("Снимок экрана 2021-03-04 в 10.11.12", ""),
    ("Picture1", ""),
    ("Slide1", ""),
    ("Bild 1", ""),
    ("[object Object]", ""),
    ("...", ""),
    ("…", ""),
    ("---", ""),
    ("???", ""),
    ("this image.jpg", ""),
    ("my photo.PNG", ""),
    ("A chart.", ""),
    ("A menu.", ""),
    ("A console.", ""),
    ("A diagram", ""),
    ("Chart", ""),
    ("Diagram", ""),
    ("Screenshot", ""),
    ("A map.", ""),
    ("a graph", ""),
    ("A button.", ""),
    ("A window.", ""),
    ("The screenshot", ""),
    ("Ein Diagramm.", ""),
    ("undefined", ""),
    ("null", ""),
    ("NaN", ""),
    ("N/A", ""),
    ("alt", ""),
    ("alt text here", ""),
    ("Insert alt text", ""),
    ("Image description", ""),
    ("description of image", ""),
    ("image alt text", ""),
    ("placeholder image", ""),
    ("No alt text provided for this image", ""),
    ("Kein Alternativtext", ""),
    ("Describe image", ""),
    ("JPEG image", ""),
    ("image/png", ""),
    ("Grafik 1", ""),
    ("background", ""),
    ("{{ alt }}", ""),
    ("${alt}", ""),
    ("%ALT%", ""),
    ("{title}", ""),
    ("lorem ipsum dolor", ""),
    ("test", ""),
    ("image1", "image1.png"),
    ("photo-1234", ""),
    ("hero-banner", "hero-banner.jpg"),
    ("heroBanner", "heroBanner.jpg"),
    ("team_photo", "team_photo.jpg"),
    ("red_bicycle", "red_bicycle.jpg"),
    ("red-bicycle-shed", "red-bicycle-shed.jpg"),
    ("red-bicycle-shed", "red-bicycle-shed-300x200.jpg"),
    ("Eiffel%20Tower", "Eiffel%20Tower.jpg"),
    ("https://e.org/a.jpg", ""),
    ("https://e.org/about", ""),
    ("file:///C:/a", ""),
    ("Logo final v2", "Logo%20final%20v2.png"),
    ("image", ""),
    ("Image", ""),
    ("photo", ""),
    ("picture of", ""),
    ("Click here", ""),
    ("cheap shoes, buy shoes, shoes online, best shoes, shoes sale", ""),
    ("lawyer, attorney, legal advice, law firm, divorce, custody", ""),
    ("shoes boots shoes sandals shoes heels shoes", ""),
    ("spacer", ""),
    ("画像", ""),
    ("写真", ""),
    ("Imagen", ""),
    ("123456789", ""),
    ("Figure 3", ""),
    ("Fig. 2", ""),
    ("Figure 1.2", ""),
    ("photo.jpg.", ""),
    ("C:\\pics\\rex.jpg", ""),
    ("GOPR0001", ""),
    ("Screenshot_20210304-101112", ""),
    ("Screenshot from 2021-03-04 10-11-12", ""),
    ("Screen Recording 2021-03-04", ""),
    ("image.png", ""),
    ("Image 2021-03-04", ""),
    ("Copy of IMG_1234", ""),
    ("IMG_1234 (1)", ""),
    ("IMG_1234-edited", ""),
    ("A person.", ""),
    ("A thing", ""),
    ("An image.", ""),
    ("Some text", ""),
    ("A graphic", ""),
    ("A logo", ""),
    ("An icon", ""),
    ("todo: describe", ""),
    ("xxx", ""),
    ("asdf", ""),
    ("Enter alt text", ""),
    ("Image of", ""),
    ("Untitled design", ""),
    ("Untitled design (3)", ""),
    ("Blank", ""),
    ("1x1", ""),
    ("IMAGE MISSING", ""),
)
ICONS = (
    "Magnifying glass",
    "Printer",
    "W3C logo",
    "Search icon",
    "Facebook icon",
    "a magnifying glass",
    "Hamburger menu",
    "House",
    "Envelope",
    "Trash can",
    "Gear",
    "Pencil",
    "Floppy disk",
    "Arrow",
    "Right arrow",
    "Plus sign",
    "Three dots",
    "X",
    "Red cross",
    "Bell",
    "Facebook logo",
    "magnifier",
    "Icon of a printer",
    "Loupe",
    "Lupe",
    "Star",
    "Heart",
    "Telephone",
    "Shopping cart icon",
    "Black triangle",
    "blue arrow pointing right",
    "Magnifying glass icon",
    "picture of a printer",
    "Paper plane",
    "A gear.",
    "Question mark",
)
ACTIONS = (
    "Search",
    "Print",
    "Home",
    "W3C",
    "W3C home",
    "Menu",
    "More",
    "Delete",
    "Settings",
    "Edit",
    "Save",
    "Next",
    "Previous",
    "Close",
    "Facebook",
    "Add to cart",
    "Cart",
    "Help",
    "Next page",
    "Back to top",
    "Contact",
    "RSS",
    "Download PDF",
    "Printers",
    "Printer-friendly version",
    "Star Wars",
    "Key features",
    "Heart health",
    "House for sale",
    "Play",
    "Zoom",
    "Enlarge",
)


def named(file: str, **fields: Any) -> ImageOccurrence:
    return occurrence(source=file, url=f"https://www.example.org/{file}", **fields)


@pytest.mark.parametrize(("alt", "file"), GOOD)
def test_good_alts_that_look_like_bad_ones(alt: str, file: str) -> None:
    assert not lint_alt(alt, named(file))


@pytest.mark.parametrize(("alt", "file"), BAD)
def test_bad_alts_of_programs_cameras_and_hasty_people(alt: str, file: str) -> None:
    assert lint_alt(alt, named(file or "x.jpg"))


@pytest.mark.parametrize(
    "where", [{"link": "https://www.example.org/q/"}, {"button": True}, {"kind": Kind.INPUT}]
)
def test_links_and_buttons_say_what_they_do(where: dict[str, Any]) -> None:
    for alt in ICONS:
        assert rules(lint_alt(alt, named("x.jpg", **where))) in (
            [("icon-not-action", WARNING)],
            [("vague", WARNING)],
        ), alt
        text = named("x.jpg", link_text="Search", **where)
        assert "icon-not-action" not in dict(rules(lint_alt(alt, text))), alt
    for alt in ACTIONS:
        assert not lint_alt(alt, named("x.jpg", **where)), alt


def test_an_icon_that_is_named_like_where_it_leads() -> None:
    assert not lint_alt("Printer", occurrence(link="https://www.example.org/shop/printers"))
    german = occurrence(link="https://www.example.org/de/")
    assert rules(lint_alt("German flag", german)) == [("icon-not-action", WARNING)]
    assert not lint_alt("German flag", occurrence(link="https://www.example.org/flags"))
    assert not lint_alt("X", occurrence(link="https://x.com/example"))
    assert not lint_alt("Star", occurrence(link="https://www.example.org/star"))
    assert not lint_alt("Magnifying glass", occurrence(link="https://www.example.org/big.jpg"))


def test_template_code_is_a_fault_only_where_a_page_is_served() -> None:
    for alt in ("{{ page.title }}", "<%= title %>", "${alt}", "{title}"):
        assert rules(lint_alt(alt, occurrence())) == [("placeholder", ERROR)]
        assert not lint_alt(alt, occurrence(page="_layouts/post.html"))


def test_signs_and_emoji_make_alts_different() -> None:
    pair = "<img src=1.jpg alt='{}'><img src=2.jpg alt='{}'>"
    for one, two in (("Learn C", "Learn C++"), ("C# book", "C book"), ("Cat 😀", "Cat 😢")):
        assert not on_page(pair.format(one, two))
    assert len(on_page(pair.format("A cat.", "a  cat"))) == 3
    assert not lint_alt("Learn C++", occurrence(after="Learn C in a week"))


def test_versions_of_one_picture_may_share_an_alt() -> None:
    for one, two in (
        ("logo-light.svg", "logo-dark.svg"),
        ("rex.jpg", "rex-300x200.jpg"),
        ("rex.png", "rex.webp"),
        ("rex@2x.png", "rex.png"),
    ):
        assert not on_page(f"<img src={one} alt='Rex, a dog'><img src={two} alt='Rex, a dog'>")
    assert on_page("<img src=rex1.jpg alt='Rex, a dog'><img src=rex2.jpg alt='Rex, a dog'>")
    lazy = "<img src=data:image/gif;base64,R0lGOD data-src=rex.jpg alt='Rex, a dog'>"
    assert not on_page(f"{lazy}<noscript><img src=other.jpg alt='Rex, a dog'></noscript>")


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ("<img src=a.jpg alt=' ' role=presentation>", []),
        ("<img src=a.jpg alt=' ' role=none>", []),
        ("<img src=a.jpg alt='&nbsp;'>", [("whitespace", ERROR)]),
        ("<img src=a.jpg alt='\u200b&shy;'>", [("whitespace", ERROR)]),
        ("<img src=a.jpg alt=' ' role=img>", [("whitespace", ERROR)]),
    ],
)
def test_spaces_are_no_alt_unless_the_role_says_decorative(
    html: str, found: list[tuple[str, Severity]]
) -> None:
    assert rules(on_page(html)) == found


def test_the_end_of_a_sentence_about_a_picture_does_not_repeat_it() -> None:
    before = "You should now see the admin index page:"
    assert not lint_alt("Admin index page", occurrence(before=before))


def test_different_pictures_with_the_same_alt() -> None:
    twice = "<img src={}.jpg alt='A dog'><img src={}.jpg alt='a dog.'>"
    assert [f.rule for f in on_page(twice.format(1, 2))].count("repeated") == 2
    assert "repeated" not in [f.rule for f in on_page(twice.format(1, 1))]
    linked = "<a href=/x><img src=1.jpg alt=Next></a><a href={}><img src=2.jpg alt=Next></a>"
    assert not on_page(linked.format("/x"))
    assert len(on_page(linked.format("/y"))) == 2
    pages = [occurrence(alt="A dog", page=page, url=f"https://a.net/{page}") for page in "ab"]
    assert not list(lint(pages))


def test_every_finding_names_wcag_and_says_what_to_do() -> None:
    html = """<img src=a.jpg><img src=a.jpg alt=" "><img src=b.jpg alt="image">
    <img src=c.jpg alt="c.jpg"><img src=d.jpg alt="spacer"><input type=image src=e.jpg>
    <a href=/><img src=f.jpg alt="" title="x"></a><a href=/><img src=f.jpg alt=""></a>
    <svg role=img></svg><div role=img></div><object data=a.png></object>
    <map><area href=/></map><img src=g.jpg alt="Image of Rex"><img src=h.jpg alt="TODO">"""
    findings = on_page(html)
    assert {finding.rule for finding in findings} >= MISSING
    for finding in findings:
        assert finding.reference.startswith("WCAG ")
        assert finding.message


def test_titles_that_say_nothing() -> None:
    for text in ("", " ", "image", "Click to enlarge", "IMG_1.jpg", "untitled", "alt text"):
        assert says_nothing(text), text
    for text in ("Home", "Our image", "Rex"):
        assert not says_nothing(text), text


@given(
    st.text(max_size=80),
    st.builds(occurrence, kind=st.sampled_from(Kind), alt=st.none() | st.text()),
)
def test_any_text_can_be_checked(alt: str, where: ImageOccurrence) -> None:
    assert lint_alt(alt, where) == lint_alt(alt, where)
    assert bool(alt.strip()) or not lint_alt(alt, where)
    list(lint([where]))
