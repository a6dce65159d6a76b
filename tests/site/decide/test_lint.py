from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutline.site.decide.lint import MISSING, lint, lint_alt, says_nothing
from cutline.site.model import Finding, ImageUse, Kind, Severity
from cutline.site.pages.scan import uses_in_html

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def use(**fields: Any) -> ImageUse:
    given = {
        "page": "https://www.example.org/",
        "position": 0,
        "kind": Kind.IMG,
        "source": "team-photo-04.jpg",
        "url": "https://www.example.org/team-photo-04.jpg",
    }
    return ImageUse(**given | fields)


def on_page(html: str) -> list[Finding]:
    return list(lint(uses_in_html(html, page="https://www.example.org/")[1]))


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


def test_findings_know_their_use() -> None:
    first, second = on_page("<img src=a.jpg><img src=b.jpg>")
    assert [first.use and first.use.source, second.use and second.use.source] == ["a.jpg", "b.jpg"]


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
        ("Photo credit: Jo Doe", []),
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
    assert rules(lint_alt(alt, use())) == found


def test_an_alt_that_is_the_files_only_word_may_well_be_right() -> None:
    assert not lint_alt("Sunflower", use(url="https://a.net/sunflower.jpg"))


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
    assert rules(lint_alt("Jane Doe", use(**around))) == [("image-redundant-alt", WARNING)]
    assert not lint_alt("Jane Doe bakes", use(**around))


def test_one_word_in_the_text_beside_it_is_no_repetition() -> None:
    assert not lint_alt("Bread", use(after="Bread is what we bake"))


def test_different_pictures_with_the_same_alt() -> None:
    twice = "<img src={}.jpg alt='A dog'><img src={}.jpg alt='a dog.'>"
    assert [f.rule for f in on_page(twice.format(1, 2))].count("repeated") == 2
    assert "repeated" not in [f.rule for f in on_page(twice.format(1, 1))]
    linked = "<a href=/x><img src=1.jpg alt=Next></a><a href={}><img src=2.jpg alt=Next></a>"
    assert not on_page(linked.format("/x"))
    assert len(on_page(linked.format("/y"))) == 2
    pages = [use(alt="A dog", page=page, url=f"https://a.net/{page}") for page in "ab"]
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


@given(st.text(max_size=80), st.builds(use, kind=st.sampled_from(Kind), alt=st.none() | st.text()))
def test_any_text_can_be_checked(alt: str, where: ImageUse) -> None:
    assert lint_alt(alt, where) == lint_alt(alt, where)
    assert bool(alt.strip()) or not lint_alt(alt, where)
    list(lint([where]))
