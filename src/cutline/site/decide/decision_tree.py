"""The W3C alt decision tree: decides the purpose of an image.

https://www.w3.org/WAI/tutorials/images/decision-tree/ asks, in this order, whether an image holds
text, has a function, adds meaning, and only then what it shows. `RULES` implements these questions;
the first rule that applies decides. The rules are conservative: a wrong "complex" or "decorative"
costs more than a draft that a person reviews.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from cutline.site.decide.bad_alts import is_generated
from cutline.site.decide.lint import says_nothing
from cutline.site.model import Alt, Decision, ImageOccurrence, Kind, Pixels, Purpose
from cutline.site.url_words import (
    capital,
    destination,
    is_picture,
    name_words,
    split,
    tail,
)

# Thresholds on `Pixels`, chosen on 800 photographs of Flickr8k, 499 screenshots and 400 plots of
# Debian's documentation packages and 300 rendered texts.
TEXT_LIKE = 0.7  # image of text: 88 % of texts, 1 % of screenshots, 3 % of plots, no photograph
CHART_LIKE = 0.7  # a chart or diagram: 56 % of the plots, 34 % of screenshots, no photograph
DRAWN = 0.5  # drawn by a program: 97 % of the plots, 83 % of screenshots, no photograph
# Icon sets draw for 16 to 32 px beside text; 64 px is that at twice the density.
_ICON_PX = 32
_LARGE_ICON_PX = 64
_SEPARATOR_PX = 40  # the highest rule or divider
_SEPARATOR_RATIO = 8  # of its sides
_TUTORIAL = "https://www.w3.org/WAI/tutorials/images/"
_DECIDED_BY_AUTHOR = ("css-background", "has-alt", "empty-alt", "named")
_ON_CONTENT = ("text", "complex", "title", "drawing")  # the questions on what an image shows


class _Answer(NamedTuple):
    purpose: Purpose
    evidence: str
    alt: str | None = None
    rule: str = ""  # the rule that applies, if it is not the rule that was called


_Asks = Callable[[ImageOccurrence, Pixels], _Answer | None]


@dataclass(frozen=True)
class Rule:
    """One rule of the tree.

    Attributes:
        name: short and stable, as in `Decision.rule`.
        condition: when it applies, in one sentence.
        reference: the source: a page of the W3C images tutorial, or of WCAG.
    """

    name: str
    condition: str
    reference: str
    ask: _Asks


_rules: list[Rule] = []


def _rule(name: str, page: str = "decision-tree/") -> Callable[[_Asks], _Asks]:
    def keep(ask: _Asks) -> _Asks:
        _rules.append(Rule(name, (ask.__doc__ or "").strip(), _TUTORIAL + page, ask))
        return ask

    return keep


def decide(occurrence: ImageOccurrence, pixels: Pixels | None = None) -> Decision:
    """Decide the purpose of an image by the first of `RULES` that applies.

    Args:
        occurrence: the image occurrence.
        pixels: measurements of the image; None if it was not fetched.

    Returns:
        The decision. Its `alt` is a suggestion from the context alone, "" for a decorative image,
        and None if the image needs a caption or a person.
    """
    pixels = pixels or Pixels()
    for rule in RULES:
        found = rule.ask(occurrence, pixels)
        if found is not None:
            return Decision(found.purpose, found.rule or rule.name, found.evidence, found.alt)
    return Decision(
        Purpose.INFORMATIVE, "informative", "nothing says that it is decorative, or does something"
    )


def is_kept(occurrence: ImageOccurrence) -> bool:
    """Whether the page already has a decision, so that pixels and other rules do not matter."""
    return any(
        rule.ask(occurrence, Pixels()) is not None
        for rule in RULES
        if rule.name in _DECIDED_BY_AUTHOR
    )


def with_text(decision: Decision, text: str) -> Decision:
    """The decision on an image of text, with the recognised text (see `read_text`)."""
    text = " ".join(text.split())
    if decision.purpose is not Purpose.TEXT or not text:
        return decision
    return replace(decision, evidence=f'the image reads "{_shorten(text)}"', alt=text)


# The page already has a decision.


@_rule("css-background", "decorative/")
def _css_background(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a CSS background, which cannot have an alt."""
    if occurrence.kind is Kind.CSS:
        return _Answer(Purpose.KEPT, "a CSS background, which cannot have an alt")
    return None


@_rule("has-alt", "")
def _has_alt(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It has an alt that no program states to have generated."""
    if occurrence.alt_state is Alt.PRESENT and not is_generated(occurrence.alt or ""):
        return _Answer(Purpose.KEPT, f'its alt says "{_shorten(occurrence.alt or "")}"')
    return None


@_rule("empty-alt", "decorative/")
def _empty_alt(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It has alt="", which marks it as decorative."""
    if occurrence.alt_state is not Alt.EMPTY:
        return None
    if (
        _does_something(occurrence)
        and not occurrence.link_text.strip()
        and not occurrence.name.strip()
    ):
        return _Answer(
            Purpose.KEPT, 'alt="" is somebody\'s decision, but leaves what it does without a name'
        )
    return _Answer(Purpose.KEPT, 'alt="" is somebody\'s decision')


@_rule("named", "")
def _named(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It has a name from aria-label, aria-labelledby, a label or an SVG title."""
    if occurrence.name.strip():
        return _Answer(Purpose.KEPT, f'its accessible name is "{_shorten(occurrence.name)}"')
    return None


@_rule("presentation-role", "decorative/")
def _presentation(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It has role=presentation or role=none, which marks it as decorative."""
    role = occurrence.role.lower().split()[:1]
    if role in (["presentation"], ["none"]):
        return _Answer(Purpose.DECORATIVE, f"role={role[0]}", "")
    return None


@_rule("hidden", "decorative/")
def _hidden(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It, or an ancestor, is hidden from assistive technology."""
    if not occurrence.hidden:
        return None
    if re.search(r"aria-hidden\s*=\s*[\"']?true", occurrence.markup, re.IGNORECASE):
        return _Answer(Purpose.DECORATIVE, "aria-hidden=true", "")
    return _Answer(
        Purpose.DECORATIVE,
        "it, or an element around it, is hidden from assistive technology (aria-hidden, hidden, "
        "inert, display:none); if a script shows it, describe it",
        "",
    )


# Links and buttons.


@_rule("link-with-text", "functional/")
def _link_with_text(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """The same link or button has text that describes its function."""
    if _does_something(occurrence) and occurrence.link_text.strip():
        what = "button" if occurrence.button else "link"
        return _Answer(
            Purpose.REDUNDANT, f'the {what}\'s own text says "{_shorten(occurrence.link_text)}"', ""
        )
    return None


@_rule("tracking-pixel", "decorative/")
def _tracking(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a tracking pixel."""
    sides = _sides(occurrence, pixels)
    host = split(occurrence.url).hostname
    if sides and max(sides) <= 1 and host and host != split(occurrence.page).hostname:
        return _Answer(Purpose.DECORATIVE, f"{sides[0]} x {sides[1]} px from {host}", "")
    return None


@_rule("link-without-text", "functional/")
def _link_without_text(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is the only content of a link, so its alt is the link's target."""
    if not occurrence.link or occurrence.button:
        return None
    if occurrence.kind is not Kind.AREA and is_picture(occurrence.link):
        opens = f"the link opens an image, {tail(occurrence.link)}"
        for rule in RULES:
            if rule.name in _ON_CONTENT and (found := rule.ask(occurrence, pixels)) is not None:
                return found._replace(evidence=f"{opens}: {found.evidence}", rule=rule.name)
        return _Answer(Purpose.INFORMATIVE, f"{opens}: describe it")
    if not says_nothing(occurrence.title):
        return _Answer(
            Purpose.FUNCTIONAL,
            f'in a link, and its title says "{_shorten(occurrence.title)}"',
            occurrence.title,
        )
    where = destination(occurrence.link, occurrence.page)
    target = _shorten(occurrence.link.removeprefix("./")) or "the start page"
    return _Answer(
        Purpose.FUNCTIONAL,
        f"all there is in the link to {target}"
        + ("" if where else ", which does not tell where it leads"),
        where or None,
    )


@_rule("area-without-link", "imagemap/")
def _area(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is an area of an image map without a link."""
    if occurrence.kind is Kind.AREA:
        return _Answer(Purpose.DECORATIVE, "an area without a link", "")
    return None


@_rule("button-without-text", "functional/")
def _button(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a button, or the only content of one, so its alt is the action."""
    if not (occurrence.button or occurrence.kind is Kind.INPUT):
        return None
    if not says_nothing(occurrence.title):
        return _Answer(
            Purpose.FUNCTIONAL, f'its title says "{_shorten(occurrence.title)}"', occurrence.title
        )
    named = _bare_name(occurrence)
    if action := _ACTIONS.get(named):
        return _Answer(Purpose.FUNCTIONAL, f'a button whose file is named "{named}"', action)
    return _Answer(Purpose.FUNCTIONAL, "a button that nothing here tells the action of")


# Decorative images.


@_rule("lazy-placeholder", "decision-tree/")
def _lazy(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a placeholder for an image that a script loads and that the page does not name."""
    sides = _sides(occurrence, pixels)
    blank = pixels.flat or (0 < max(pixels.width_px, pixels.height_px) <= 2)
    inline = occurrence.source[:5].lower() == "data:"
    if not (blank or inline or tail(occurrence.url).lower().startswith(_PLACEHOLDERS)):
        return None
    if _LAZY.search(occurrence.markup):
        return _Answer(Purpose.UNKNOWN, "a placeholder; a script loads another image in its place")
    if inline and blank and sides and min(sides) > _SEPARATOR_PX:
        return _Answer(
            Purpose.UNKNOWN,
            f"a blank image within the page, shown as {sides[0]} x {sides[1]} px: "
            "a script may load another in its place",
        )
    return None


@_rule("spacer", "decorative/")
def _spacer(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a spacer or a separator."""
    sides = _sides(occurrence, pixels)
    if sides and min(sides) <= 2:
        return _Answer(Purpose.DECORATIVE, f"{sides[0]} x {sides[1]} px", "")
    if pixels.flat:
        return _Answer(Purpose.DECORATIVE, "of one colour, or wholly transparent", "")
    words = {word.lower() for word in name_words(occurrence.url or occurrence.source)}
    if words and words <= _SPACERS:
        return _Answer(Purpose.DECORATIVE, f'its file is named "{" ".join(words)}"', "")
    named = sorted(words & _SEPARATORS)
    thin = sides and min(sides) <= _SEPARATOR_PX and max(sides) >= _SEPARATOR_RATIO * min(sides)
    if named and sides and thin:
        return _Answer(Purpose.DECORATIVE, f'named "{named[0]}" and {sides[0]} x {sides[1]} px', "")
    return None


@_rule("icon-says", "decision-tree/")
def _meaningful_icon(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is an icon with a meaning of its own, such as a tick or a warning."""
    sides = _sides(occurrence, pixels)
    named = _bare_name(occurrence)
    if sides and max(sides) <= _LARGE_ICON_PX and (meaning := _ICONS.get(named)):
        return _Answer(Purpose.INFORMATIVE, f'a small image whose file is named "{named}"', meaning)
    return None


@_rule("icon-beside-text", "decorative/")
def _icon(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is an icon next to the text that it illustrates."""
    sides = _sides(occurrence, pixels)
    if sides and max(sides) <= _ICON_PX and occurrence.beside:
        return _Answer(
            Purpose.DECORATIVE,
            f'an icon, {sides[0]} x {sides[1]} px, beside "{_shorten(occurrence.beside)}"',
            "",
        )
    return None


@_rule("repeats-text", "decorative/")
def _repeats(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """Its title only repeats the text next to it."""
    title = _letters(occurrence.title)
    beside = {
        "caption": occurrence.caption,
        "text before it": occurrence.before,
        "text after it": occurrence.after,
    }
    for where, text in beside.items():
        if title and title == _letters(text):
            return _Answer(Purpose.REDUNDANT, f'the {where} says "{_shorten(text)}" too', "")
    return None


# Logos, inline drawings, text and charts.


@_rule("logo", "functional/")
def _logo(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a logo, and its alt is the name of the organisation or product."""
    words = name_words(occurrence.url or occurrence.source)
    if "logo" not in {word.lower() for word in words}:
        return None
    owner = " ".join(capital(w) for w in words if w.lower() not in _LOGO_NOISE)
    owner = owner or _site_name(occurrence.page_title)
    if not owner:
        return _Answer(Purpose.UNKNOWN, "a logo, but nothing here says whose")
    near = _letters(f"{occurrence.before} {occurrence.after} {occurrence.caption}")
    if re.search(rf"\b{re.escape(_letters(owner))}\b", near):
        return _Answer(Purpose.REDUNDANT, f'a logo beside the words "{owner}"', "")
    return _Answer(Purpose.INFORMATIVE, "its file is named a logo", f"{owner} logo")


@_rule("svg-without-name", "decision-tree/")
def _svg(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is an inline SVG without a name that does not just wrap an image file."""
    if occurrence.kind is not Kind.SVG or occurrence.source:
        return None
    if occurrence.role.strip():
        return _Answer(Purpose.UNKNOWN, "an inline SVG with a role that asks for a name")
    return _Answer(
        Purpose.DECORATIVE, "an inline SVG without role or name: hide it by aria-hidden=true", ""
    )


@_rule("text", "textual/")
def _text(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is an image of text, so its alt is that text."""
    if pixels.text_like >= TEXT_LIKE:
        return _Answer(Purpose.TEXT, "lines of marks on a plain ground look like text")
    return None


@_rule("complex", "complex/")
def _complex(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is a chart, a map or a diagram, and needs a long description."""
    if occurrence.kind is Kind.CHART:
        return _Answer(Purpose.COMPLEX, "a chart or diagram that an Office program draws")
    if word := _complex_name(occurrence):
        return _Answer(Purpose.COMPLEX, f'its file is named "{word}"')
    if found := _NUMBERED.match(occurrence.caption):
        return _Answer(Purpose.COMPLEX, f'its caption begins "{_shorten(found[0])}"')
    if pixels.chart_like >= CHART_LIKE:
        return _Answer(Purpose.COMPLEX, "long straight lines on a plain ground, as in a chart")
    return None


@_rule("title", "informative/")
def _title(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """Its title describes it."""
    if len(occurrence.title.split()) > 1 and not says_nothing(occurrence.title):
        return _Answer(
            Purpose.INFORMATIVE, f'its title says "{_shorten(occurrence.title)}"', occurrence.title
        )
    return None


@_rule("nothing-to-see")
def _nothing(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It has no image file."""
    if occurrence.kind is Kind.ROLE_IMG and not occurrence.url:
        return _Answer(Purpose.UNKNOWN, "role=img on an element that names no image")
    if occurrence.kind is Kind.OBJECT and not is_picture(occurrence.url):
        return _Answer(Purpose.UNKNOWN, "an object that may be no image")
    if occurrence.kind is Kind.PICTURE and not occurrence.url:
        what = "a linked image, which is not fetched" if occurrence.source else "no image file"
        return _Answer(Purpose.UNKNOWN, what)
    if not occurrence.url and not occurrence.source and not pixels.width_px:
        return _Answer(Purpose.UNKNOWN, "it names no image")
    return None


@_rule("drawing", "informative/")
def _drawing(occurrence: ImageOccurrence, pixels: Pixels) -> _Answer | None:
    """It is not a photograph but computer graphics: a screenshot, a diagram, clip art."""
    if pixels.chart_like >= DRAWN:
        return _Answer(
            Purpose.INFORMATIVE,
            "even patches of colour, as in a screenshot, a diagram or a drawing",
        )
    return None


RULES: tuple[Rule, ...] = tuple(_rules)
"""The rules in order of evaluation."""


# Helper functions.


def _does_something(occurrence: ImageOccurrence) -> bool:
    return bool(occurrence.link) or occurrence.button or occurrence.kind is Kind.INPUT


def _sides(occurrence: ImageOccurrence, pixels: Pixels) -> tuple[int, int] | None:
    """Width and height at which the image is shown, px; None if they are not known.

    Where the page gives only one of them, the other is computed from the file, as in browsers.
    """
    width, height = occurrence.width_px, occurrence.height_px
    known = pixels.width_px > 0 and pixels.height_px > 0
    if width is None and height is None:
        return (pixels.width_px, pixels.height_px) if known else None
    if width is None or height is None:
        if not known:
            return None
        if width is None:
            width = round((height or 0) * pixels.width_px / pixels.height_px)
        else:
            height = round(width * pixels.height_px / pixels.width_px)
    return max(0, width), max(0, height or 0)


def _bare_name(occurrence: ImageOccurrence) -> str:
    """The words of the file name without those of icon sets: "fa-check-circle" is "check"."""
    words = [word.lower() for word in name_words(occurrence.url or occurrence.source)]
    return " ".join(word for word in words if word not in _ICON_NOISE and not word.isdigit())


def _complex_name(occurrence: ImageOccurrence) -> str:
    """The word in a file name for a chart: the last, or one before "of"; "" if none."""
    words = [word for word in name_words(occurrence.url or occurrence.source) if not word.isdigit()]
    while len(words) > 1 and words[-1].lower() in _NAME_ENDS:
        words.pop()
    for number, word in enumerate(words):
        last = number == len(words) - 1
        if word.lower() in _COMPLEX and (last or words[number + 1].lower() in ("of", "for")):
            return word
    return ""


def _site_name(title: str) -> str:
    """The part of a page title after its last bar or dash, usually the site's name."""
    parts = re.split(r"\s[|–—·»-]\s", title)  # noqa: RUF001
    return parts[-1].strip() if len(parts) > 1 and len(parts[-1].split()) <= 4 else ""


def _letters(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _shorten(text: str, most: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


_ACTIONS = {
    "add": "Add",
    "add to basket": "Add to basket",
    "add to cart": "Add to cart",
    "back": "Back",
    "basket": "Basket",
    "buy": "Buy",
    "buy now": "Buy now",
    "cancel": "Cancel",
    "cart": "Cart",
    "checkout": "Check out",
    "close": "Close",
    "delete": "Delete",
    "download": "Download",
    "edit": "Edit",
    "go": "Go",
    "help": "Help",
    "login": "Log in",
    "logout": "Log out",
    "menu": "Menu",
    "next": "Next",
    "ok": "OK",
    "pause": "Pause",
    "play": "Play",
    "prev": "Previous",
    "previous": "Previous",
    "print": "Print",
    "register": "Register",
    "remove": "Remove",
    "save": "Save",
    "search": "Search",
    "send": "Send",
    "sign in": "Sign in",
    "sign up": "Sign up",
    "submit": "Submit",
    "subscribe": "Subscribe",
    "upload": "Upload",
}
_ICONS = {
    "alert": "Alert",
    "caution": "Caution",
    "check": "Yes",
    "checkmark": "Yes",
    "cross": "No",
    "danger": "Danger",
    "error": "Error",
    "important": "Important",
    "locked": "Locked",
    "new": "New",
    "note": "Note",
    "tick": "Yes",
    "tip": "Tip",
    "unlocked": "Unlocked",
    "warning": "Warning",
}
_ICON_NOISE = frozenset(
    """icon icons ico sign symbol mark button btn fa fas far fal bi mdi md glyphicon material svg
    png gif small mini large big circle circled round square solid outline outlined filled fill
    line alt hover active normal white black light dark gray grey""".split()
)
_NAME_ENDS = frozenset(
    "en de fr es it small large big dark light white black web print new final full hd".split()
)
# A class or an attribute of a lazy-loading script: lazyload, b-lazy, data-cfsrc, nitro-lazy-src.
_LAZY = re.compile(
    r"""(?ix)\bclass\s*=\s*(?:"[^"]*|'[^']*|[^\s"'>]*)(?:lazy|lozad|unveil|deferred)
    |\s(?!(?:src|srcset)\b)[a-z][\w:.-]*(?:src|lazy|original|echo|image|img)[\w:.-]*\s*=\s*["']?[^\s"'>]"""
)
_PLACEHOLDERS = (
    "blank.",
    "spacer.",
    "placeholder.",
    "pixel.",
    "transparent.",
    "lazy",
    "loading.",
    "1x1.",
)
_SPACERS = frozenset("spacer blank transparent spaceball shim trans1x1".split())
_SEPARATORS = frozenset("border divider gradient hr line rule separator shadow".split())
_COMPLEX = frozenset(
    """chart charts diagram diagrams flowchart graph histogram infographic map piechart plot
    schematic schematics timeline""".split()
)
_NUMBERED = re.compile(
    r"(?:(?:fig(?:ure)?\.?|abb(?:ildung)?\.?)\s*[\d.]+\W+)?"
    r"(?:(?:an?|the)\s+)?(?:(?:bar|pie|line|flow|organi[sz]ation(?:al)?|street|road)[ -])?"
    r"(?:chart|diagram|flowchart|graph|histogram|infographic|map|schematic)"
    r"(?=\s*(?:$|[.:;(-]|\b(?:of|for|showing|shows|that|with)\b))",
    re.IGNORECASE,
)
_LOGO_NOISE = frozenset(
    """logo logos logotype header footer main site website brand white black dark light small
    large big retina mobile desktop color colour transparent new horizontal vertical icon img image
    web full square round""".split()
)
