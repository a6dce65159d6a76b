"""Checks of alts, as they stand and as we draft them; each finding names its WCAG technique.

Rules that axe-core has carry its name and agree with it, use for use; the others are those that
WCAG's failures F30, F38 and F39 and the W3C's tutorials describe. An error is a failure of WCAG, a
warning most likely makes somebody's page worse, a note is a matter of taste.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser

from cutline.site.model import Alt, Finding, ImageUse, Kind, Severity
from cutline.site.url_words import is_picture, name_words, tail

MISSING = frozenset(
    """area-alt image-alt input-image-alt link-name object-alt role-img-alt svg-img-alt
    whitespace""".split()
)
"""The rules by which an image lacks a name that it needs."""

MAX_CHARS = 125  # a habit, not a rule of WCAG
_STUFFED = 4  # as often as this, a word is not said for the sake of readers

REDUNDANT_PREFIX = re.compile(
    r"""^\W*
    (?:this\s+is\s+|here\s+is\s+)?
    (?:(?:an?|the)\s+)?
    (?:close[- ]?up\s+)?
    (?:image|picture|pic|photo|photograph|photography|graphic|snapshot|thumbnail)\b\s*
    (?:of|showing|shows|depicting|depicts|:|-)\s*""",
    re.IGNORECASE | re.VERBOSE,
)
"""What screen readers have already said when the alt begins."""


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


def says_nothing(text: str) -> bool:
    """Whether a text is empty, a file's name, a placeholder or as vague as "image"."""
    return (
        not text.strip()
        or _is_filename(text, "")
        or bool(_PLACEHOLDER.fullmatch(_plain(text)))
        or _is_vague(text)
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
    if use.alt_state is Alt.WHITESPACE:
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
    plain = _plain(alt)
    words = plain.split()
    if _is_filename(alt, use.url or use.source):
        yield Finding(
            "filename",
            Severity.ERROR,
            f'"{alt.strip()}" is the name of a file; say what the picture shows',
            "WCAG 1.1.1, F30",
        )
    elif plain in _DECORATION:
        yield Finding(
            "decorative-alt",
            Severity.ERROR,
            f'"{alt.strip()}" is nothing to read out; write alt=""',
            "WCAG 1.1.1, F38, F39",
        )
    elif _PLACEHOLDER.fullmatch(plain):
        yield Finding(
            "placeholder",
            Severity.ERROR,
            f'"{alt.strip()}" stands in for an alt; say what the picture shows',
            "WCAG 1.1.1, F30",
        )
    elif _is_vague(alt):
        yield Finding(
            "vague",
            Severity.WARNING,
            f'"{alt.strip()}" could be any picture; say what is in this one',
            "WCAG 1.1.1, F30",
        )
    elif found := REDUNDANT_PREFIX.match(alt):
        photo = "photo" in found[0].lower()
        yield Finding(
            "redundant-prefix",
            Severity.NOTE if photo else Severity.WARNING,
            f'screen readers say that it is an image; leave out "{found[0].strip()}"',
            "WCAG 1.1.1, H37",
        )
    if where := _says_same(plain, use):
        yield Finding(
            "image-redundant-alt",
            Severity.WARNING,
            f'the {where} says the same, so it is read twice; write alt=""',
            "WCAG 1.1.1, H2",
        )
    common = Counter(word for word in words if len(word) > 3).most_common(1)
    listed = len(re.findall(r"[^,;|]+[,;|]", alt)) >= 5 and len(words) <= 3 * alt.count(",") + 3
    if (common and common[0][1] >= _STUFFED) or listed:
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
            "stray-space", Severity.NOTE, "spaces or line breaks that nobody reads", "WCAG 1.1.1"
        )


def _says_same(plain: str, use: ImageUse) -> str:
    """Which text beside an image repeats its alt."""
    if plain and plain == _plain(use.link_text):
        return "link's text"
    if plain and plain == _plain(use.caption):
        return "figcaption"
    if len(plain.split()) > 1:  # a single word is there by chance
        if f" {_plain(use.before)}".endswith(f" {plain}"):
            return "text before it"
        if f"{_plain(use.after)} ".startswith(f"{plain} "):
            return "text after it"
    return ""


def _repeated(uses: Sequence[ImageUse]) -> Iterator[Finding]:
    """Different pictures of one page with the same alt, unless they lead to the same place."""
    alike: defaultdict[str, list[ImageUse]] = defaultdict(list)
    for use in uses:
        if use.alt_state is Alt.PRESENT:
            alike[_plain(use.alt or "")].append(use)
    for same in alike.values():
        pictures = {use.url or use.source for use in same}
        if len(pictures) > 1 and len({use.link for use in same} | {""}) != 2:
            for use in same:
                yield Finding(
                    "repeated",
                    Severity.WARNING,
                    f"{len(pictures)} different pictures of this page have this alt",
                    "WCAG 1.1.1, F30",
                    use,
                )


def _is_filename(text: str, url: str) -> bool:
    """Whether a text is a file's name: this picture's, or one by its ending, or a camera's."""
    text = text.strip()
    if " " not in text and is_picture(text):
        return True
    if url and text and text.lower() in (tail(url).lower(), tail(url).lower().rpartition(".")[0]):
        return not text.isalpha() or len(name_words(url)) != 1
    return bool(_CAMERA.fullmatch(text))


def _is_vague(text: str) -> bool:
    words = _plain(text).split()
    return bool(words) and all(word in _VAGUE for word in words)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


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


_CAMERA = re.compile(
    r"(?i)(img|dsc[fn]?|dcim|pxl|mvc|p\d{2}|image|photo|screen ?shot|bild|foto|pic)[-_ ]?\d{3,}\w*"
)
_PLACEHOLDER = re.compile(
    r"(insert |enter |your |no |image )?alt(ernative)?( text)?( here)?"
    r"|(enter |your |no )?(a |an )?(image )?description( here)?"
    r"|(image|picture|photo|figure|bild) \d+|lorem ipsum.*|xxx+|asdf.*"
    r"|todo|tbd|tba|fixme|test|untitled|undefined|null|none|nan|placeholder"
)
_VAGUE = frozenset(
    """a an the image images picture pictures photo photos photograph pic pics graphic graphics
    icon logo banner thumbnail thumb screenshot illustration figure fig bild foto click here more
    link button read this enlarge zoom to""".split()
)
_DECORATION = frozenset(
    """spacer blank bullet divider separator line hr arrow decoration decorative border shadow
    transparent pixel 1x1""".split()
) | {"decorative image", "decorative line", "blue bullet"}
_GLOBAL_ARIA = frozenset(
    f"aria-{name}"
    for name in """atomic braillelabel brailleroledescription busy controls current describedby
    description details dropeffect flowto grabbed keyshortcuts label labelledby live owns relevant
    roledescription""".split()
)
