"""Checks of the alts of pages, and of drafts; each finding names its WCAG technique.

Rules that axe-core has carry its name and agree with it on each image; the others are those that
WCAG's failures F30, F38 and F39 and the W3C's tutorials describe. An error is a failure of WCAG, a
warning most likely makes a page worse, a note is a matter of taste.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser

from cutline.site.decide.bad_alts import (
    icon_shown,
    is_placeholder,
    is_template,
    is_vague,
    lists_keywords,
    names_file,
    spoken,
    words_of,
)
from cutline.site.model import Alt, Finding, ImageUse, Kind, Severity
from cutline.site.url_words import is_picture, name_words, split

MISSING = frozenset(
    """area-alt image-alt input-image-alt link-name object-alt role-img-alt svg-img-alt
    whitespace""".split()
)
"""The rules by which an image lacks a name that it needs."""

_ALT_ATTRIBUTE = re.compile(r"""\salt\s*=\s*["']?[^\s"'>]""", re.IGNORECASE)

MAX_CHARS = 125  # a convention of authors, not a rule of WCAG

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


def lint(uses: Sequence[ImageUse]) -> Iterator[Finding]:
    """Check the alts of a page, or of several: each by itself, then those of one page together.

    Args:
        uses: in any order.

    Yields:
        Findings, each with its use.
    """
    pages: defaultdict[str, list[ImageUse]] = defaultdict(list)
    for use in uses:
        for finding in _unnamed(use):
            yield replace(finding, use=use)
        if use.alt_state is Alt.PRESENT:
            for finding in lint_alt(use.alt or "", use):
                yield replace(finding, use=use)
        pages[use.page].append(use)
    for together in pages.values():
        yield from _repeated(together)


def lint_alt(alt: str, use: ImageUse) -> list[Finding]:
    """Check what is, or would be, one image's alt.

    Args:
        alt: a draft, an edit, or what stands there; "" is nobody's mistake by itself.
        use: where it stands, or would.
    """
    return list(_worded(alt, use)) if alt.strip() else []


def redundant_prefix(alt: str) -> str:
    """What screen readers have already announced when an alt begins, such as "image of "; or "".

    A hyphen without a space after it joins two words, as in "photo-finish".
    """
    found = _REDUNDANT_PREFIX.match(alt)
    return found[0] if found and not _TITLE_CASE.match(alt) else ""


def says_nothing(text: str) -> bool:
    """Whether a text is empty, a file's name, a placeholder or as vague as "image"."""
    return (
        not text.strip() or names_file(text) is not None or is_placeholder(text) or is_vague(text)
    )


# What has no name and needs one.


def _unnamed(use: ImageUse) -> Iterator[Finding]:
    decorative = use.role.lower().split()[:1] in (["presentation"], ["none"])
    loud = "" if use.hidden else _loud(use.markup)
    if loud and (decorative or (use.kind is Kind.IMG and use.alt == "")):
        yield Finding(
            "presentation-role-conflict",
            Severity.WARNING,
            f"it is marked as decorative, but {loud} makes browsers show it; drop one of them",
            "WCAG 1.1.1, F39",
        )
    if use.alt == "" and use.title.strip() and use.kind is Kind.IMG and not decorative:
        yield Finding(
            "decorative-title",
            Severity.WARNING,
            f'alt="" says that it is decorative, its title "{use.title.strip()}" that it is not',
            "WCAG 1.1.1, H67",
        )
    if use.hidden or use.noscript or use.kind in (Kind.CSS, Kind.ROW):
        return
    if use.name.strip() or use.title.strip() or use.alt_state is Alt.PRESENT:
        return
    if use.alt_state is Alt.WHITESPACE and not decorative:
        yield Finding(
            "whitespace",
            Severity.ERROR,
            'its alt holds nothing but spaces; describe it, or write alt="" if it is decorative',
            "WCAG 1.1.1, F65, H67",
        )
    elif not decorative or loud:
        yield from _without_alt(use)
    if use.link and not use.link_text.strip() and use.kind is not Kind.AREA:
        yield Finding(
            "link-name",
            Severity.ERROR,
            "the link around it has no text; say in the alt where it leads",
            "WCAG 2.4.4 and 4.1.2, F89, H30",
        )


def _without_alt(use: ImageUse) -> Iterator[Finding]:
    if use.kind in (Kind.IMG, Kind.MARKDOWN) and use.alt is None:
        yield Finding(
            "image-alt",
            Severity.ERROR,
            'it has no alt; describe it, or write alt="" if it is decorative',
            "WCAG 1.1.1, F65, H37",
        )
    elif use.kind is Kind.INPUT:
        yield Finding(
            "input-image-alt",
            Severity.ERROR,
            "an image button without a name; say in its alt what it does",
            "WCAG 1.1.1 and 4.1.2, F65, H36",
        )
    elif use.kind is Kind.AREA and use.link:
        yield Finding(
            "area-alt",
            Severity.ERROR,
            "an area of an image map without a name; say in its alt where it leads",
            "WCAG 1.1.1, 2.4.4 and 4.1.2, F65, H24",
        )
    elif use.kind is Kind.ROLE_IMG:
        yield Finding(
            "role-img-alt",
            Severity.ERROR,
            "role=img without a name; give it an aria-label",
            "WCAG 1.1.1, ARIA6",
        )
    elif use.kind is Kind.SVG and _ALT_ATTRIBUTE.search(use.markup):
        yield Finding(
            "svg-img-alt",
            Severity.ERROR,
            "an SVG has no alt attribute, so nothing reads this one; give it role=img and an "
            "aria-label",
            "WCAG 1.1.1, ARIA6",
        )
    elif use.kind is Kind.SVG and use.role.strip():
        yield Finding(
            "svg-img-alt",
            Severity.ERROR,
            "an SVG that is one image and has no name; give it a title or an aria-label",
            "WCAG 1.1.1, ARIA6",
        )
    elif use.kind is Kind.OBJECT:
        yield Finding(
            "object-alt",
            Severity.ERROR,
            "an object without a name; give it an aria-label or a title, for what stands within it "
            "is shown only where it fails",
            "WCAG 1.1.1, ARIA6",
        )


# What an alt says.


def _worded(alt: str, use: ImageUse) -> Iterator[Finding]:
    yield from _no_words(alt, use)
    if where := _says_same(alt, use):
        yield Finding(
            "image-redundant-alt",
            Severity.WARNING,
            f'the {where} says the same, so it is read twice; write alt=""',
            "WCAG 1.1.1, H2",
        )
    if lists_keywords(alt):
        yield Finding(
            "keyword-stuffing",
            Severity.WARNING,
            "it lists keywords; write one sentence for somebody who does not see the picture",
            "WCAG 1.1.1, G94",
        )
    if len(alt.strip()) > MAX_CHARS:
        yield Finding(
            "too-long",
            Severity.NOTE,
            f"{len(alt.strip())} characters; aim under {MAX_CHARS} and describe the rest beside it",
            "WCAG 1.1.1, G95",
        )
    if alt != " ".join(alt.split()):
        yield Finding(
            "stray-space",
            Severity.NOTE,
            "it has line breaks or extra spaces; remove them",
            "WCAG 1.1.1",
        )


def _no_words(alt: str, use: ImageUse) -> Iterator[Finding]:
    """The first reason for which an alt does not describe its picture, if there is one."""
    url = use.url or use.source
    shown = alt.strip()
    plain = words_of(alt)
    functional = _is_only_content(use)
    template = is_template(alt)
    if template and split(use.page).scheme not in ("http", "https"):
        return  # a template's source, which says something else when the page is served
    if template or is_placeholder(alt, url):
        yield Finding(
            "placeholder",
            Severity.ERROR,
            f'"{shown}" is a placeholder; say what the picture shows',
            "WCAG 1.1.1, F30",
        )
    elif severity := names_file(alt, url):
        seems = "is" if severity is Severity.ERROR else "looks like"
        yield Finding(
            "filename",
            severity,
            f'"{shown}" {seems} the name of a file; say what the picture shows',
            "WCAG 1.1.1, F30",
        )
    elif plain in _DECORATION or (plain in _MAYBE_DECORATION and _is_small(use)):
        yield Finding(
            "decorative-alt",
            Severity.ERROR if plain in _DECORATION else Severity.WARNING,
            f'"{shown}" is of no use when it is read out; write alt=""',
            "WCAG 1.1.1, F38, F39",
        )
    elif is_vague(alt) and not (functional and plain in _ACTIONS):
        yield Finding(
            "vague",
            Severity.WARNING,
            f'"{shown}" could be any picture; say what is in this one',
            "WCAG 1.1.1, F30",
        )
    elif functional and icon_shown(alt, use.link, use.page):
        yield Finding(
            "icon-not-action",
            Severity.WARNING,
            f'"{shown}" says what the icon shows; say what the '
            f"{'button does' if _is_button(use) else 'link leads to'}",
            "WCAG 1.1.1 and 2.4.4, H30, H36",
        )
    elif prefix := redundant_prefix(alt):
        photo = "photo" in prefix.lower()
        yield Finding(
            "redundant-prefix",
            Severity.NOTE if photo else Severity.WARNING,
            f'screen readers say that it is an image; leave out "{prefix.strip()}"',
            "WCAG 1.1.1, H37",
        )


def _is_button(use: ImageUse) -> bool:
    return use.button or use.kind is Kind.INPUT


def _is_only_content(use: ImageUse) -> bool:
    """Whether an image is all there is in a button, or in a link to something but a picture."""
    if use.kind is Kind.AREA or use.link_text.strip():
        return False
    return _is_button(use) or (bool(use.link) and not is_picture(use.link))


def _is_small(use: ImageUse) -> bool:
    """Whether the page shows an image as small as bullets and rules are."""
    sides = [side for side in (use.width_px, use.height_px) if side is not None]
    return bool(sides) and min(sides) <= _ORNAMENT_PX


def _says_same(alt: str, use: ImageUse) -> str:
    """Which text beside an image repeats its alt."""
    own = spoken(alt)
    if own and own == spoken(use.link_text):
        return "link's text"
    if own and own == spoken(use.caption):
        return "figcaption"
    if len(own.split()) > 1:  # a single word is there by chance
        before = f" {spoken(use.before)}"
        if before.endswith(f" {own}") and not _ARTICLE.search(before[: -len(own)]):
            return "text before it"
        if f"{spoken(use.after)} ".startswith(f"{own} "):
            return "text after it"
    return ""


def _repeated(uses: Sequence[ImageUse]) -> Iterator[Finding]:
    """Different pictures of one page with the same alt, unless they lead to the same place.

    Versions of one picture (light and dark, sizes, the twin in a <noscript>) are no different ones.
    """
    alike: defaultdict[str, list[ImageUse]] = defaultdict(list)
    for use in uses:
        if use.alt_state is Alt.PRESENT and not use.noscript and not use.hidden:
            alike[spoken(use.alt or "") or (use.alt or "").strip()].append(use)
    for same in alike.values():
        pictures = {_picture_key(use) for use in same}
        if len(pictures) > 1 and len({use.link for use in same} | {""}) != 2:
            for use in same:
                yield Finding(
                    "repeated",
                    Severity.WARNING,
                    f"{len(pictures)} different pictures of this page have this alt",
                    "WCAG 1.1.1, F30",
                    use,
                )


def _picture_key(use: ImageUse) -> str:
    """What versions of one picture share: the address without size, theme and ending."""
    url = use.url or use.source
    words = [word.lower() for word in name_words(url) if word.lower() not in _VERSIONS]
    if not words:
        return url
    folder = split(url).path.rpartition("/")[0]
    numbers = re.findall(r"\d+", re.sub(r"\d+x\d+|@\dx", "", split(url).path))
    return " ".join([folder, *words, *numbers])


class _StartTag(HTMLParser):
    loud = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _GLOBAL_ARIA or (name == "tabindex" and (value or "").strip()):
                self.loud = self.loud or name


def _loud(markup: str) -> str:
    """Which attribute makes browsers show an element that is marked as decorative."""
    reader = _StartTag()
    if markup.startswith("<"):
        reader.feed(markup)
    return reader.loud


_ARTICLE = re.compile(r"\b(?:an?|the|this|these|your) $")  # then the sentence only names it
_ORNAMENT_PX = 16  # bullets and rules of old pages are 3 to 16 px high
_ACTIONS = frozenset("enlarge zoom more".split())
_DECORATION = frozenset("""spacer divider separator transparent 1x1 blank""".split()) | {
    "decorative image",
    "decorative line",
    "blue bullet",
    "horizontal rule",
    "horizontal line",
}
# Also names of tools, keys and effects, unless the picture is small.
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
