"""Lint rules for alts in pages and drafts; each finding names its WCAG technique.

Rules of axe-core have the same name and the same result as there; the others follow WCAG failures
F30, F38 and F39 and the W3C tutorials. An error fails WCAG, a warning is probably a problem, and a
note is a matter of style.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser

from cutline.site.decide.bad_alts import (
    icon_shown,
    is_generated,
    is_placeholder,
    is_template,
    is_vague,
    lists_keywords,
    names_file,
    spoken,
    words_of,
)
from cutline.site.decide.lint_rules import LINT_RULES
from cutline.site.model import Alt, Finding, ImageOccurrence, Kind, Severity
from cutline.site.url_words import is_picture, name_words, split

MISSING = frozenset(
    """area-alt image-alt input-image-alt link-name object-alt role-img-alt svg-img-alt
    whitespace""".split()
)
"""The rules for images of web pages without the accessible name that they need, as in axe-core."""

_ALT_ATTRIBUTE = re.compile(r"""\salt\s*=\s*["']?[^\s"'>]""", re.IGNORECASE)

MAX_CHARS = 125  # a common convention, not a WCAG rule

_REDUNDANT_PREFIX = re.compile(
    r"""^\W*
    (?:this\s+is\s+|here\s+is\s+)?
    (?:(?:an?|the)\s+)?
    (?:close[- ]?up\s+)?
    (?:image|picture|pic|photo|photograph|photography|graphic|snapshot|thumbnail)
    (?:\s+(?:of|showing|shows|depicting|depicts)\b|\s*:(?!\w)|\s*[-\u2013\u2014](?=\s))\s*""",
    re.IGNORECASE | re.VERBOSE,
)
# A title, such as that of a novel: The Picture of Dorian Gray.
_TITLE_CASE = re.compile(r"\W*(?:An?|The) [A-Z]")


def lint(occurrences: Sequence[ImageOccurrence]) -> Iterator[Finding]:
    """Check the alts of one or more pages: each alone, then those of each page together.

    Args:
        occurrences: in any order.

    Yields:
        Findings, each with its occurrence.
    """
    pages: defaultdict[str, list[ImageOccurrence]] = defaultdict(list)
    for occurrence in occurrences:
        for finding in _unnamed(occurrence):
            yield replace(finding, occurrence=occurrence)
        if occurrence.alt_state is Alt.PRESENT:
            for finding in lint_alt(occurrence.alt or "", occurrence):
                yield replace(finding, occurrence=occurrence)
        pages[occurrence.page].append(occurrence)
    for together in pages.values():
        yield from _repeated(together)


def lint_alt(alt: str, occurrence: ImageOccurrence) -> list[Finding]:
    """Check the current or a proposed alt of one image.

    Args:
        alt: a draft, an edit or the current alt; "" alone has no findings.
        occurrence: the image occurrence.
    """
    return list(_worded(alt, occurrence)) if alt.strip() else []


def redundant_prefix(alt: str) -> str:
    """A prefix that repeats what screen readers announce, such as "image of "; "" if none.

    A hyphen without a space after it joins two words, as in "photo-finish".
    """
    found = _REDUNDANT_PREFIX.match(alt)
    return found[0] if found and not _TITLE_CASE.match(alt) else ""


def says_nothing(text: str) -> bool:
    """Whether a text is empty, a file's name, a placeholder, generated or as vague as "image"."""
    return (
        not text.strip()
        or names_file(text) is not None
        or is_placeholder(text)
        or is_generated(text)
        or is_vague(text)
    )


def _finding(
    name: str,
    message: str,
    severity: Severity | None = None,
    occurrence: ImageOccurrence | None = None,
) -> Finding:
    """A finding of a rule, with the rule's severity unless another is given."""
    rule = LINT_RULES[name]
    return Finding(name, severity or rule.severity, message, rule.reference, occurrence)


# Missing names.


def _unnamed(occurrence: ImageOccurrence) -> Iterator[Finding]:
    decorative = occurrence.role.lower().split()[:1] in (["presentation"], ["none"])
    exposing = "" if occurrence.hidden else _exposing_attribute(occurrence.markup)
    if exposing and (decorative or (occurrence.kind is Kind.IMG and occurrence.alt == "")):
        yield _finding(
            "presentation-role-conflict",
            f"it is marked as decorative, but {exposing} makes browsers show it; drop one of them",
        )
    if (
        occurrence.alt == ""
        and occurrence.title.strip()
        and occurrence.kind is Kind.IMG
        and not decorative
    ):
        yield _finding(
            "decorative-title",
            f'alt="" says that it is decorative, its title "{occurrence.title.strip()}" '
            "that it is not",
        )
    if occurrence.hidden or occurrence.noscript or occurrence.kind in (Kind.CSS, Kind.ROW):
        return
    if occurrence.name_or_title or occurrence.alt_state is Alt.PRESENT:
        return
    if occurrence.alt_state is Alt.WHITESPACE and not decorative:
        yield _finding(
            "whitespace",
            'its alt has only spaces; describe it, or write alt="" if it is decorative',
        )
    elif not decorative or exposing:
        yield from _without_alt(occurrence)
    if occurrence.link and not occurrence.link_text.strip() and occurrence.kind is not Kind.AREA:
        yield _finding("link-name", "the link around it has no text; say in the alt where it leads")


def _without_alt(occurrence: ImageOccurrence) -> Iterator[Finding]:
    if occurrence.kind in _WITH_ALT and occurrence.alt is None:
        yield _finding(
            "image-alt", 'it has no alt; describe it, or write alt="" if it is decorative'
        )
    elif occurrence.kind in (Kind.PICTURE, Kind.CHART) and occurrence.alt is None:
        yield _finding(
            "document-alt",
            f"the {occurrence.kind} has no alt text; describe it, or mark it as decorative",
        )
    elif occurrence.kind is Kind.INPUT:
        yield _finding(
            "input-image-alt", "an image button without a name; say in its alt what it does"
        )
    elif occurrence.kind is Kind.AREA and occurrence.link:
        yield _finding(
            "area-alt", "an area of an image map without a name; say in its alt where it leads"
        )
    elif occurrence.kind is Kind.ROLE_IMG:
        yield _finding("role-img-alt", "role=img without a name; give it an aria-label")
    elif occurrence.kind is Kind.SVG and _ALT_ATTRIBUTE.search(occurrence.markup):
        yield _finding(
            "svg-img-alt",
            "an SVG has no alt attribute, so nothing reads this one; give it role=img and an "
            "aria-label",
        )
    elif occurrence.kind is Kind.SVG and occurrence.role.strip():
        yield _finding(
            "svg-img-alt",
            "an SVG that is one image and has no name; give it a title or an aria-label",
        )
    elif occurrence.kind is Kind.SVG and occurrence.source:
        yield _finding(
            "svg-image",
            "an SVG that shows an image and has no name; give it role=img and an aria-label",
        )
    elif occurrence.kind is Kind.OBJECT:
        yield _finding(
            "object-alt",
            "an object without a name; give it an aria-label or a title, because its content "
            "is shown only where it fails",
        )


# The text of alts.


def _worded(alt: str, occurrence: ImageOccurrence) -> Iterator[Finding]:
    yield from _no_words(alt, occurrence)
    if where := _text_repeating(alt, occurrence):
        yield _finding(
            "image-redundant-alt", f'the {where} says the same, so it is read twice; write alt=""'
        )
    if lists_keywords(alt):
        yield _finding(
            "keyword-stuffing",
            "it lists keywords; write one sentence for somebody who does not see the image",
        )
    if len(alt.strip()) > MAX_CHARS:
        yield _finding(
            "too-long",
            f"{len(alt.strip())} characters; aim under {MAX_CHARS} and describe the rest beside it",
        )
    if alt != " ".join(alt.split()):
        yield _finding("stray-space", "it has line breaks or extra spaces; remove them")


def _no_words(alt: str, occurrence: ImageOccurrence) -> Iterator[Finding]:
    """The first reason why an alt does not describe its image, if any."""
    url = occurrence.url or occurrence.source
    shown = alt.strip()
    plain = words_of(alt)
    functional = _is_only_content(occurrence)
    template = is_template(alt)
    if template and split(occurrence.page).scheme not in ("http", "https"):
        return  # a template expression, replaced when the page is served
    if template or is_placeholder(alt, url):
        yield _finding("placeholder", f'"{shown}" is a placeholder; say what the image shows')
    elif is_generated(alt):
        yield _finding(
            "generated", "a program wrote this alt and nobody has checked it; check or replace it"
        )
    elif severity := names_file(alt, url):
        seems = "is" if severity is Severity.ERROR else "looks like"
        yield _finding(
            "filename",
            f'"{shown}" {seems} the name of a file; say what the image shows',
            severity,
        )
    elif plain in _DECORATION or (plain in _MAYBE_DECORATION and _is_small(occurrence)):
        yield _finding(
            "decorative-alt",
            f'"{shown}" is of no use when it is read out; write alt=""',
            Severity.ERROR if plain in _DECORATION else Severity.WARNING,
        )
    elif is_vague(alt) and not (functional and plain in _ACTIONS):
        yield _finding("vague", f'"{shown}" could be any image; say what is in this one')
    elif functional and icon_shown(alt, occurrence.link, occurrence.page):
        yield _finding(
            "icon-not-action",
            f'"{shown}" says what the icon shows; say what the '
            f"{'button does' if _is_button(occurrence) else 'link leads to'}",
        )
    elif prefix := redundant_prefix(alt):
        photo = "photo" in prefix.lower()
        yield _finding(
            "redundant-prefix",
            f'screen readers say that it is an image; leave out "{prefix.strip()}"',
            Severity.NOTE if photo else Severity.WARNING,
        )


def _is_button(occurrence: ImageOccurrence) -> bool:
    return occurrence.button or occurrence.kind is Kind.INPUT


def _is_only_content(occurrence: ImageOccurrence) -> bool:
    """Whether an image is the only content of a button, or of a link to a non-image."""
    if occurrence.kind is Kind.AREA or occurrence.link_text.strip():
        return False
    return _is_button(occurrence) or (bool(occurrence.link) and not is_picture(occurrence.link))


def _is_small(occurrence: ImageOccurrence) -> bool:
    """Whether the page shows an image at the size of bullets and rules."""
    sides = [side for side in (occurrence.width_px, occurrence.height_px) if side is not None]
    return bool(sides) and min(sides) <= _ORNAMENT_PX


def _text_repeating(alt: str, occurrence: ImageOccurrence) -> str:
    """The text near an image that repeats its alt; "" if none."""
    own = spoken(alt)
    if own and own == spoken(occurrence.link_text):
        return "link's text"
    if own and own == spoken(occurrence.caption):
        return "figcaption"
    if len(own.split()) > 1:  # a single word may match by chance
        before = f" {spoken(occurrence.before)}"
        if before.endswith(f" {own}") and not _ARTICLE.search(before[: -len(own)]):
            return "text before it"
        if f"{spoken(occurrence.after)} ".startswith(f"{own} "):
            return "text after it"
    return ""


def _repeated(occurrences: Sequence[ImageOccurrence]) -> Iterator[Finding]:
    """Different images of one page with the same alt, unless they have the same link target.

    Versions of one image (light and dark, sizes, the copy in a <noscript>) count as one image.
    """
    alike: defaultdict[str, list[ImageOccurrence]] = defaultdict(list)
    for occurrence in occurrences:
        if (
            occurrence.alt_state is Alt.PRESENT
            and not occurrence.noscript
            and not occurrence.hidden
        ):
            alike[spoken(occurrence.alt or "") or (occurrence.alt or "").strip()].append(occurrence)
    for same in alike.values():
        pictures = {_picture_key(occurrence) for occurrence in same}
        if len(pictures) > 1 and len({occurrence.link for occurrence in same} | {""}) != 2:
            for occurrence in same:
                yield _finding(
                    "repeated",
                    f"{len(pictures)} different images of this page have this alt",
                    occurrence=occurrence,
                )


def _picture_key(occurrence: ImageOccurrence) -> str:
    """The key that versions of one image share: the URL without size, theme and extension."""
    url = occurrence.url or occurrence.source
    words = [word.lower() for word in name_words(url) if word.lower() not in _VERSIONS]
    if not words:
        return url
    folder = split(url).path.rpartition("/")[0]
    numbers = re.findall(r"\d+", re.sub(r"\d+x\d+|@\dx", "", split(url).path))
    return " ".join([folder, *words, *numbers])


class _StartTag(HTMLParser):
    exposing = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _GLOBAL_ARIA or (name == "tabindex" and (value or "").strip()):
                self.exposing = self.exposing or name


def _exposing_attribute(markup: str) -> str:
    """The attribute that makes browsers expose an element marked as decorative; "" if none."""
    reader = _StartTag()
    if markup.startswith("<"):
        reader.feed(markup)
    return reader.exposing


_ARTICLE = re.compile(r"\b(?:an?|the|this|these|your) $")  # then the alt is part of a sentence
_WITH_ALT = (Kind.IMG, Kind.MARKDOWN, Kind.RST, Kind.EMBED)
_ORNAMENT_PX = 16  # bullets and rules of old pages are 3 to 16 px high
_ACTIONS = frozenset("enlarge zoom more".split())
_DECORATION = frozenset("""spacer divider separator transparent 1x1 blank""".split()) | {
    "decorative image",
    "decorative line",
    "blue bullet",
    "horizontal rule",
    "horizontal line",
}
# These are also names of tools, keys and effects; decorative only for small images.
_MAYBE_DECORATION = frozenset(
    "arrow border bullet decoration decorative hr line pixel shadow".split()
)
_VERSIONS = frozenset(
    """light dark day night mobile desktop tablet retina large small medium mini lg sm md xl xs
    white black inverted mono color colour 1x 2x 3x en de fr es""".split()
)
_GLOBAL_ARIA = frozenset(
    f"aria-{name}"
    for name in """atomic braillelabel brailleroledescription busy controls current describedby
    description details dropeffect flowto grabbed keyshortcuts label labelledby live owns relevant
    roledescription""".split()
)
