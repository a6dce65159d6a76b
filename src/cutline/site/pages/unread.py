"""What looks like an image in a source file and is not read, counted by what it is."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

from justhtml import Element

from cutline.site.model import ImageOccurrence
from cutline.site.pages.dom import attribute_of, is_picture_address
from cutline.site.pages.templates import Span, SpanKind

_EXTENSION = r"\.(?:apng|avif|bmp|gif|jfif|jpe?g|jxl|png|svg|webp)\b"
_PICTURE_NAME = re.compile(rf"[^\s\"'<>|]{_EXTENSION}", re.IGNORECASE)
_IMAGE_TAG = re.compile(
    r"\A(?:\{\{[<%]|\{%[-~]?|\{\{)\s*(?:include\s+)?[\w./-]*(?:figure|ima?ge?|picture|photo)\b",
    re.IGNORECASE,
)
_WIKI_IMAGE = re.compile(
    rf"!\[\[[^\[\]\n]{{1,300}}{_EXTENSION}[^\[\]\n]{{0,300}}\]\]", re.IGNORECASE
)
_TAG = re.compile(r"<(?:img|Image|Img|Figure|Picture)(?=[\s/>{])")
_DIRECTIVE = re.compile(
    r"^[ \t>]*(?:`{3,}|:{3,}|~{3,})\{(?:image|figure|subfigure)\}[ \t]*\S", re.MULTILINE
)
_MARKDOWN_IMAGE = re.compile(
    rf"(?<!\\)!\[[^\[\]\n]{{0,300}}\]\([^()\s]{{1,300}}{_EXTENSION}[^()\n]{{0,300}}\)",
    re.IGNORECASE,
)
_RAW_TEXT = re.compile(r"<(/?)(?:pre|script|style|textarea)\b", re.IGNORECASE)
_IMG = re.compile(r"<img[\s/>]", re.IGNORECASE)
_OTHER_FORMATS = {
    "adoc": re.compile(r"(?<![:\w])image::?[^\s:\[][^\[\n]{0,300}\["),
    "org": re.compile(rf"\[\[[^\]\n]{{1,300}}{_EXTENSION}", re.IGNORECASE),
    "textile": re.compile(rf"![^\s!]{{1,300}}{_EXTENSION}[^\s!]{{0,100}}!", re.IGNORECASE),
}
_ALIASES = {"asciidoc": "adoc", "asc": "adoc"}
_TEMPLATES = (
    "astro cshtml ejs erb ftl gohtml haml handlebars hbs j2 jinja jinja2 jsp jsx latte liquid"
    " mustache njk phtml php pug svelte tmpl tpl tsx twig vue"
).split()
_TEMPLATE_IMAGE = re.compile(
    r"<(?:amp-img|img|Image)[\s/>]|^[ \t]*(?:%img|img)[({.#]", re.MULTILINE
)

OTHER_SUFFIXES = frozenset(f".{one}" for one in (*_OTHER_FORMATS, *_ALIASES, *_TEMPLATES))
"""File name extensions of pages that are not read; images in them are counted."""


class UnreadCounter:
    """Counts, by what they are, the things that look like images and were not read."""

    def __init__(self, other: UnreadCounter | None = None) -> None:
        self._counts: Counter[str] = Counter(other._counts if other else ())

    def add(self, what: str, number: int = 1) -> None:
        """Count some more of a kind."""
        if number:
            self._counts[what] += number

    def counts(self) -> tuple[tuple[str, int], ...]:
        """The kinds and their numbers, the most frequent first."""
        return tuple(self._counts.most_common())

    def add_code(
        self, source: str, spans: Iterable[Span], occurrences: Sequence[ImageOccurrence]
    ) -> None:
        """Count template code and code samples that name an image outside of any occurrence.

        Args:
            source: the file.
            spans: in it.
            occurrences: those that were read.
        """
        inside = _Inside(occurrences)
        for span in spans:
            text = source[span.start : span.end]
            if span.kind is not SpanKind.CODE or inside(span.start, span.end):
                continue
            if _in_tag(source, span.start):
                continue
            if text.startswith("<"):
                self.add("image in program code", len(_IMG.findall(text)))
                continue
            if not (_PICTURE_NAME.search(text) or _IMAGE_TAG.search(text)):
                continue
            self.add("shortcode or template tag")

    def add_markdown(
        self, text: str, spans: Iterable[Span], occurrences: Sequence[ImageOccurrence], mdx: bool
    ) -> None:
        """Count images in Markdown of other dialects, outside of code.

        Args:
            text: the source.
            spans: template code and Markdown code in it.
            occurrences: those that were read.
            mdx: whether indented lines are content.
        """
        inside = _Inside(occurrences)
        for what, pattern in (
            ("wiki link", _WIKI_IMAGE),
            ("JSX or template tag", _TAG),
            ("directive", _DIRECTIVE),
            ("Markdown within HTML", _MARKDOWN_IMAGE),
        ):
            for found in pattern.finditer(text):
                start = found.start()
                # A directive is written as a fenced block, so it is Markdown code itself.
                if any(each.start < start or what != "directive" for each in _around(spans, start)):
                    continue
                if inside(start, found.end()) or _in_comment(text, start) or _in_raw(text, start):
                    continue
                line = text[text.rfind("\n", 0, start) + 1 : start]
                if not mdx and line.startswith(("    ", "\t")) and not line.strip():
                    continue  # an indented code block
                self.add(what)


class _Inside:
    """Whether a part of a file belongs to the markup of an occurrence."""

    def __init__(self, occurrences: Sequence[ImageOccurrence]) -> None:
        known = sorted((each.offset, each.offset + len(each.markup)) for each in occurrences)
        self._starts = [start for start, _ in known]
        self._ends = [end for _, end in known]

    def __call__(self, start: int, end: int) -> bool:
        at = bisect_right(self._starts, start) - 1
        if at >= 0 and start < self._ends[at]:
            return True
        return at + 1 < len(self._starts) and self._starts[at + 1] < end


def _around(spans: Iterable[Span], offset: int) -> list[Span]:
    known = spans if isinstance(spans, list) else list(spans)
    at = bisect_right(known, offset, key=lambda span: span.start) - 1
    return [known[at]] if at >= 0 and offset < known[at].end else []


def _in_comment(source: str, offset: int) -> bool:
    """Whether an offset is in an HTML comment."""
    begin = source.rfind("<!--", max(0, offset - 20_000), offset)
    return begin >= 0 and source.find("-->", begin, offset) < 0


def _in_raw(source: str, offset: int) -> bool:
    """Whether an offset is in an element whose content is code or plain text."""
    tags = list(_RAW_TEXT.finditer(source, max(0, offset - 20_000), offset))
    return bool(tags) and not tags[-1][1]


def _in_tag(source: str, offset: int) -> bool:
    """Whether an offset is between the angle brackets of a tag, such as `<meta content=...>`."""
    begin = max(0, offset - 2000)
    before = source[begin:offset]
    opening = before.rfind("<")
    tag = before[opening : opening + 2]
    return opening > before.rfind(">") and tag[1:].isalpha()


def in_element(unread: UnreadCounter, element: Element, component: bool) -> None:
    """Count an element that shows an image and has no alt that we know of.

    Args:
        unread: the counter.
        element: no image by the HTML standard.
        component: whether it is a custom element or a component.
    """
    if component and any(
        is_picture_address(attribute_of(element, name)) for name in element.attrs if name != "href"
    ):
        unread.add("component")
    elif element.name == "embed" and is_picture_address(attribute_of(element, "src")):
        unread.add("image in an embed element")
    elif element.name == "iframe" and "srcdoc" in element.attrs:
        unread.add("image in an iframe's srcdoc", len(_IMG.findall(element.attrs["srcdoc"] or "")))


def in_other_format(text: str, suffix: str) -> tuple[tuple[str, int], ...]:
    """How many images a file of a format that is not read seems to hold.

    Args:
        text: the file.
        suffix: its file name extension, one of `OTHER_SUFFIXES`.
    """
    suffix = suffix.lower().lstrip(".")
    suffix = _ALIASES.get(suffix, suffix)
    number = len(_OTHER_FORMATS.get(suffix, _TEMPLATE_IMAGE).findall(text))
    return ((f"image in a .{suffix} file", number),) if number else ()
