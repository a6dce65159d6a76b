"""Compares the findings on missing names with axe-core's, in Chromium, per occurrence."""

from __future__ import annotations

import base64
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cutline.site.decide.lint import MISSING, lint
from cutline.site.model import ImageOccurrence, Kind
from cutline.site.pages.scan import decode, occurrences_in_html

CHROMIUM = Path("/usr/bin/chromium")
MANUAL = Path("/usr/share/doc/grass-doc/html")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
PAGES = 10  # of the manual
PICTURE = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
RULES = [*sorted(MISSING - {"whitespace"}), "presentation-role-conflict"]

AGREED = (
    """
<img src=a.jpg>
<img src=a.jpg alt>
<img src=a.jpg alt="">
<img src=a.jpg alt=" ">
<img src=a.jpg alt="&nbsp;">
<img src=a.jpg alt="A dog">
<IMG SRC=a.jpg ALT='A dog'>
<img alt-text="A dog" src=a.jpg>
<img src=a.jpg title="A dog">
<img src=a.jpg title=" ">
<img src=a.jpg alt="" title="A dog">
<img src=a.jpg aria-label="A dog">
<img src=a.jpg aria-label="">
<img src=a.jpg alt="" aria-label="A dog">
<span id=dog>A dog</span><img src=a.jpg aria-labelledby=dog>
<img src=a.jpg aria-labelledby=nowhere>
<img src=a.jpg role=presentation>
<img src=a.jpg role=none>
<img src=a.jpg role=presentation alt="x">
<img src=a.jpg role=presentation tabindex=0>
<img src=a.jpg role=presentation aria-live=polite>
<img src=a.jpg role="">
<img src=a.jpg role=foo>
<img src=a.jpg role=button>
<img src=a.jpg role=img>
<img src=a.jpg alt="" tabindex=0>
<img src=a.jpg alt="" tabindex=-1>
<img src=a.jpg alt="" aria-describedby=dog>
<img src=a.jpg alt="" aria-hidden=true tabindex=-1>
<img src=a.jpg aria-hidden=true>
<img src=a.jpg hidden>
<div aria-hidden=true><img src=a.jpg></div>
<div hidden><img src=a.jpg></div>
<div style="display:none"><img src=a.jpg></div>
<div style="visibility:hidden"><img src=a.jpg></div>
<details><img src=a.jpg></details>
<noscript><img src=a.jpg></noscript>
<template><img src=a.jpg></template>
<picture><source srcset=a.webp><img src=a.jpg></picture>
<figure><img src=a.jpg><figcaption>A dog</figcaption></figure>
<img>
<img src="">
<img srcset="a.jpg 1x">
<a href=/c><img src=a.jpg></a>
<a href=/c><img src=a.jpg alt=""></a>
<a href=/c><img src=a.jpg alt=" "></a>
<a href=/c><img src=a.jpg alt=Contact></a>
<a href=/c><img src=a.jpg alt="">Contact</a>
<a href=/c><img src=a.jpg>Contact</a>
<a href=/c aria-label=Contact><img src=a.jpg></a>
<a href=/c title=Contact><img src=a.jpg alt=""></a>
<a href=/c><img src=a.jpg title=Contact></a>
<a href=/c><img src=a.jpg alt=""><img src=b.jpg alt=Contact></a>
<a href=/c><img src=a.jpg><img src=b.jpg></a>
<a href=/c><img src=a.jpg role=presentation></a>
<a href=javascript:void(0)><img src=a.jpg alt=""></a>
<a href=mailto:a@b.c><img src=a.jpg alt=""></a>
<a href=""><img src=a.jpg alt=""></a>
<a name=c><img src=a.jpg alt=""></a>
<a><img src=a.jpg></a>
<button><img src=a.jpg alt=""></button>
<button><img src=a.jpg></button>
<input type=image src=a.jpg>
<input type=image src=a.jpg alt="">
<input type=image src=a.jpg alt=" ">
<input type=image src=a.jpg alt=Search>
<input type=image src=a.jpg title=Search>
<input type=image src=a.jpg aria-label=Search>
<input type=image src=a.jpg value=Search>
<map name=m1><area href=/d shape=rect coords=0,0,9,9></map>
<map name=m2><area href=/d shape=rect coords=0,0,9,9 alt=""></map>
<map name=m3><area href=/d shape=rect coords=0,0,9,9 alt=" "></map>
<map name=m4><area href=/d shape=rect coords=0,0,9,9 alt=Door></map>
<map name=m5><area href=/d shape=rect coords=0,0,9,9 aria-label=Door></map>
<map name=m6><area shape=rect coords=0,0,9,9></map>
<svg width=9 height=9><rect width=9 height=9 /></svg>
<svg width=9 height=9><image href=a.jpg width=9 height=9 /></svg>
<svg role=img width=9 height=9><rect width=9 height=9 /></svg>
<svg role=img width=9 height=9><title>A dog</title></svg>
<svg role=img width=9 height=9><title> </title></svg>
<svg role=img width=9 height=9><desc>A dog</desc></svg>
<svg role=img width=9 height=9><g><title>A dog</title></g></svg>
<svg role=img width=9 height=9 aria-label="A dog"></svg>
<svg role=img width=9 height=9 aria-label=" "></svg>
<svg role=img width=9 height=9 aria-hidden=true></svg>
<svg role=presentation width=9 height=9></svg>
<svg role=graphics-document width=9 height=9></svg>
<svg width=9 height=9><circle role=img r=3 /></svg>
<a href=/c><svg width=9 height=9></svg></a>
<a href=/c><svg width=9 height=9><title>Contact</title></svg></a>
<div role=img style="background:url(a.jpg)"></div>
<div role=img>A dog</div>
<div role=img aria-label="A dog"></div>
<div role=img title="A dog"></div>
<div role=img aria-label=Dogs><img src=a.jpg></div>
<figure role=img><img src=a.jpg></figure>
<canvas role=img></canvas>
<input type=image src=a.jpg id=q1><label for=q1>Find</label>
<label for=q2> </label><input type=image src=a.jpg id=q2>
<label>Search <input type=image src=a.jpg></label>
<label>Search <input type=image src=a.jpg alt=""></label>
<object data=a.png></object>
<object data=a.png>A dog</object>
<object data=a.png><img src=b.png alt="A dog"></object>
<object data=a.png aria-label="A dog"></object>
<object data=a.png title="A dog"></object>
<object data=a.png role=presentation></object>
<object data=a.pdf type=application/pdf></object>
<embed src=a.png>
<video poster=a.jpg></video>
<p style="background-image:url(a.jpg)">A dog</p>
<img src=a.jpg alt="A dog>
<p>all of this is its alt">
""".strip()
    .replace(">\n<p>", "><p>")
    .splitlines()
)

BOTH_WAYS: dict[str, tuple[set[str], str]] = {
    '<img src=a.jpg role=none alt=" ">': (
        {"-image-alt"},
        "its role says that it is decorative, and screen readers pass over it; axe wants no space",
    ),
    "<details><img src=a.jpg></details>": (
        {"+image-alt"},
        "a click shows it; axe checks what is shown at the moment",
    ),
    '<img src=a.jpg role="none presentation">': (
        {"-image-alt"},
        "browsers take the first role they know (WAI-ARIA 1.2, 8.1); axe takes neither of two",
    ),
    "<label for=none>Search <input type=image src=a.jpg></label>": (
        {"+input-image-alt"},
        "a label that is for something else (HTML, 4.10.4); axe takes any that stands around",
    ),
    "<label><input type=image src=a.jpg></label>": (
        {"+input-image-alt"},
        "a label without words; axe counts the word Submit that browsers make up for the button",
    ),
    "<input type=IMAGE src=a.jpg>": (
        {"+input-image-alt"},
        "axe looks for type=image in lower case; to a browser case makes no difference",
    ),
    "<area href=/d>": (
        {"+area-alt"},
        "axe looks for areas within a map; outside of one it is a fault all the same",
    ),
    "<span role=image>:)</span>": (
        {"+role-img-alt"},
        "ARIA 1.3 makes role=image the same as role=img; axe does not know it yet",
    ),
    "<svg role=image width=9 height=9></svg>": ({"+svg-img-alt"}, "as above"),
    "<a role=link tabindex=0><img src=a.jpg alt=''></a>": (
        {"+link-name"},
        "a link by its role: axe has that under another rule, aria-command-name",
    ),
    "<object data=dead.png>A dog</object>": (
        {"+object-alt"},
        "where the picture fails, browsers show the text within; a page does not say that it will",
    ),
}
"""Where verdicts differ: + is ours alone, - is axe's alone, and why."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    missing = ""
    if not CHROMIUM.exists():
        missing = f"no {CHROMIUM}"
    else:
        try:
            import axe_playwright_python  # noqa: F401
            from playwright.sync_api import sync_playwright
        except ImportError as error:
            missing = str(error)
    if missing:
        if os.environ.get("CUTLINE_REQUIRE_BROWSER"):
            pytest.fail(f"{missing}, and CUTLINE_REQUIRE_BROWSER is set")
        pytest.skip(missing)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


def axe(page: Any, place: str) -> set[tuple[Any, str]]:
    """What axe finds on a page: where, by a script's word on an element, and by which rule."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    results = page.evaluate(
        "rules => axe.run({runOnly: {type: 'rule', values: rules}, resultTypes: ['violations']})",
        RULES,
    )
    return {
        (page.evaluate(f"s => {{ const e = document.querySelector(s); {place} }}", target), rule)
        for rule, target in (
            (violation["id"], node["target"][-1])
            for violation in results["violations"]
            for node in violation["nodes"]
        )
    }


def serve(route: Any, html: str) -> None:
    """Answer with the page, or a picture, but for dead ones."""
    url = route.request.url
    if url.endswith("/"):
        route.fulfill(body=html, content_type="text/html")
    else:
        status = 404 if "dead" in url else 200
        route.fulfill(status=status, body=PICTURE, content_type="image/gif")


def ours(occurrence: ImageOccurrence, rule: str) -> str:
    """Our rule by axe's name: an alt of spaces is as good as none."""
    names = {Kind.INPUT: "input-image-alt", Kind.AREA: "area-alt"}
    return names.get(occurrence.kind, "image-alt") if rule == "whitespace" else rule


@pytest.mark.racy
def test_verdicts_on_snippets_are_those_of_axe(browser: Any) -> None:
    snippets = [*AGREED, *BOTH_WAYS]
    html = "<!doctype html><html lang=en><title>T</title><body>" + "".join(
        f"<div id=s{number}>{snippet}</div>" for number, snippet in enumerate(snippets)
    )
    page = browser.new_page()
    page.route("**/*", lambda route: serve(route, html))
    page.goto("https://www.example.org/")
    theirs = axe(page, "return e.closest('div[id^=s]').id")
    page.close()
    _, occurrences = occurrences_in_html(html, page="https://www.example.org/")
    found = {
        (
            html[html.rfind("<div id=s", 0, occurrence.offset + 1) :][8:].split(">")[0],
            ours(occurrence, f.rule),
        )
        for f in lint(occurrences)
        if (occurrence := f.occurrence) is not None and ours(occurrence, f.rule) in RULES
    }
    for number, snippet in enumerate(snippets):
        here = f"s{number}"
        differing = {f"+{rule}" for place, rule in found - theirs if place == here}
        differing |= {f"-{rule}" for place, rule in theirs - found if place == here}
        expected, why = BOTH_WAYS.get(snippet, (set(), ""))
        assert differing == expected, f"{snippet} {why}"
    assert len(theirs) > 40


@pytest.mark.racy
@pytest.mark.skipif(not MANUAL.is_dir(), reason="grass-doc is not installed")
def test_verdicts_on_a_real_manual_are_those_of_axe(browser: Any) -> None:
    """Its pages with the most images, but without scripts, which add more of them."""
    texts = [
        re.sub(r"(?s)<script\b.*?</script>", "", decode(path.read_bytes())[0])
        for path in sorted(MANUAL.glob("*.html"))
    ]
    richest = sorted(texts, key=lambda text: -text.count("<img"))[:PAGES]
    page = browser.new_page()
    images_seen, unnamed = 0, []
    for text in richest:
        for html in (text, _damaged(text)):
            _, occurrences = occurrences_in_html(html, page="page.html")
            images = [occurrence for occurrence in occurrences if occurrence.kind is Kind.IMG]
            page.set_content(html, wait_until="domcontentloaded")
            assert page.evaluate("document.images.length") == len(images)
            theirs = axe(page, "return [...document.images].indexOf(e.querySelector('img') || e)")
            found = {
                (images.index(occurrence), ours(occurrence, f.rule))
                for f in lint(images)
                if (occurrence := f.occurrence) is not None and ours(occurrence, f.rule) in RULES
            }
            assert found == theirs
            images_seen += len(images)
            unnamed.append(len(theirs))
    page.close()
    assert images_seen > 100
    assert sum(unnamed) > 50, unnamed


def _damaged(html: str) -> str:
    """Of four alts one is left, one taken away, one emptied, one filled with spaces."""
    turns = itertools.cycle([r"\g<0>", "", ' alt=""', ' alt="  "'])
    return re.sub(r' alt="[^"]*"', lambda alt: alt.expand(next(turns)), html)
