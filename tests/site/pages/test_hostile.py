"""Pages whose reading must not take more than linear time."""

from __future__ import annotations

import time

import pytest

from cutline.site.pages.scan import occurrences_in_html, occurrences_in_markdown

HTML = [
    "<noscript>",
    "<noscript><img>",
    "<?",
    "<!",
    "<!--",
    "<",
    "<a ",
    "<figure><img src=a>",
    "<picture><source srcset=a><img>",
    "<details>",
    "<label><input type=image>",
    "<svg><title>",
    "<a href=x><img alt=y>",
]


def seconds(piece: str, length: int, page: str) -> float:
    text = piece * (length // len(piece))
    start = time.process_time()
    if page.endswith(".md"):
        occurrences_in_markdown(text, page=page)
    else:
        occurrences_in_html(text, page=page)
    return time.process_time() - start


@pytest.mark.parametrize("piece", HTML)
def test_repeated_html_takes_linear_time(piece: str) -> None:
    assert seconds(piece, 60_000, "a.html") < 12


@pytest.mark.parametrize("piece", ["<?", "<!--", "<![CDATA[", "<a", "<a x='", "<a/>"])
def test_repeated_xhtml_takes_linear_time(piece: str) -> None:
    assert seconds(piece, 200_000, "a.xhtml") < 12


@pytest.mark.parametrize("piece", ["![", "![](a.png){", "`", "!!! note\n\n    ", "{{", "<!--"])
def test_markdown(piece: str) -> None:
    assert seconds(piece, 20_000, "a.md") < 12


@pytest.mark.parametrize(
    "attribute", ["srcset='{}'", "style='{}'", "style='url({}'", "data-x='{}'", "class='{}'"]
)
@pytest.mark.parametrize("piece", [",", "(", "url(", "a ", "a.png"])
def test_long_attributes_take_linear_time(attribute: str, piece: str) -> None:
    start = time.process_time()
    occurrences_in_html(f"<img {attribute.format(piece * 60_000)}>", page="a.html")
    assert time.process_time() - start < 12
