"""Deciding before describing: what an image is there for, by the W3C's alt decision tree.

https://www.w3.org/WAI/tutorials/images/decision-tree/ asks, in this order, whether an image says
something in text, does something, says something at all, and only then what it shows. `RULES` are
those questions; the first that has an answer decides. They are conservative: a wrong "complex" or
"decorative" costs more than a draft that a person reviews.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from cutline.site.decide.image_stats import measure, read_text
from cutline.site.decide.lint import says_nothing
from cutline.site.model import Alt, Decision, ImageUse, Kind, Pixels, Purpose
from cutline.site.url_words import (
    capital,
    destination,
    is_picture,
    name_words,
    split,
    tail,
)

__all__ = ["RULES", "Rule", "decide", "is_kept", "measure", "read_text", "with_text"]

TEXT_LIKE = CHART_LIKE = 0.7  # from here on `Pixels` count as text, or as a chart,
DRAWN = 0.5  # and from here on as drawn by a program
_TUTORIAL = "https://www.w3.org/WAI/tutorials/images/"
_SMALL_PX = 32  # an icon
_KEEPING = ("css-background", "has-alt", "empty-alt", "named")  # a person has decided
_SEEN = ("text", "complex", "title", "drawing")  # the questions on what a picture shows


class _Answer(NamedTuple):
    purpose: Purpose
    evidence: str
    alt: str | None = None
    rule: str = ""  # by which it was found, if not by the one that was asked


_Asks = Callable[[ImageUse, Pixels], _Answer | None]


@dataclass(frozen=True)
class Rule:
    """One question of the tree.

    Attributes:
        name: short and stable, as in `Decision.rule`.
        says: what it looks for, in one sentence.
        reference: the page of the W3C's images tutorial, or of WCAG, that it follows.
    """

    name: str
    says: str
    reference: str
    ask: _Asks


_rules: list[Rule] = []


def _rule(name: str, page: str = "decision-tree/") -> Callable[[_Asks], _Asks]:
    def keep(ask: _Asks) -> _Asks:
        _rules.append(Rule(name, (ask.__doc__ or "").strip(), _TUTORIAL + page, ask))
        return ask

    return keep


def decide(use: ImageUse, pixels: Pixels | None = None) -> Decision:
    """Decide what an image is for by the first of `RULES` that applies.

    Args:
        use: where it stands.
        pixels: what its bytes tell; None if they were not fetched.

    Returns:
        The decision. Its `alt` is a suggestion where none of the picture is needed for one, ""
        if it should be passed over, and None where the picture must be described or a person asked.
    """
    pixels = pixels or Pixels()
    for rule in RULES:
        found = rule.ask(use, pixels)
        if found is not None:
            return Decision(found.purpose, found.rule or rule.name, found.evidence, found.alt)
    return Decision(
        Purpose.INFORMATIVE, "informative", "nothing says that it is decorative, or does something"
    )


def is_kept(use: ImageUse) -> bool:
    """Whether a person has decided already, so that neither pixels nor further rules matter."""
    return any(rule.ask(use, Pixels()) is not None for rule in RULES if rule.name in _KEEPING)


def with_text(decision: Decision, text: str) -> Decision:
    """The decision on an image of text, now that the text has been read (see `read_text`)."""
    text = " ".join(text.split())
    if decision.purpose is not Purpose.TEXT or not text:
        return decision
    return replace(decision, evidence=f'the picture reads "{_shorten(text)}"', alt=text)


# Somebody has spoken, or nobody is listening.


@_rule("css-background", "decorative/")
def _css_background(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """A CSS background has no alt to give."""
    if use.kind is Kind.CSS:
        return _Answer(Purpose.KEPT, "a CSS background, which takes no alt")
    return None


@_rule("has-alt", "")
def _has_alt(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """Somebody has written an alt."""
    if use.alt_state is Alt.PRESENT:
        return _Answer(Purpose.KEPT, f'its alt says "{_shorten(use.alt or "")}"')
    return None


@_rule("empty-alt", "decorative/")
def _empty_alt(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """Somebody has decided by alt="" that it is decorative."""
    if use.alt_state is not Alt.EMPTY:
        return None
    if _does_something(use) and not use.link_text.strip() and not use.name.strip():
        return _Answer(
            Purpose.KEPT, 'alt="" is somebody\'s decision, but leaves what it does without a name'
        )
    return _Answer(Purpose.KEPT, 'alt="" is somebody\'s decision')


@_rule("named", "")
def _named(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """Somebody has named it by aria-label, aria-labelledby, a label or an SVG's title."""
    if use.name.strip():
        return _Answer(Purpose.KEPT, f'its accessible name is "{_shorten(use.name)}"')
    return None


@_rule("presentation-role", "decorative/")
def _presentation(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """The page says that it is decorative by role=presentation or role=none."""
    role = use.role.lower().split()[:1]
    if role in (["presentation"], ["none"]):
        return _Answer(Purpose.DECORATIVE, f"role={role[0]}", "")
    return None


@_rule("hidden", "decorative/")
def _hidden(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is hidden from assistive technology by itself or an ancestor."""
    if not use.hidden:
        return None
    if re.search(r"aria-hidden\s*=\s*[\"']?true", use.markup, re.IGNORECASE):
        return _Answer(Purpose.DECORATIVE, "aria-hidden=true", "")
    return _Answer(
        Purpose.DECORATIVE,
        "hidden by aria-hidden, hidden or display:none; if a script shows it, describe it",
        "",
    )


# In a link or a button: where it leads, what it does.


@_rule("link-with-text", "functional/")
def _link_with_text(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """The text in the same link or button says what it does."""
    if _does_something(use) and use.link_text.strip():
        what = "button" if use.button else "link"
        return _Answer(
            Purpose.REDUNDANT, f'the {what}\'s own text says "{_shorten(use.link_text)}"', ""
        )
    return None


@_rule("tracking-pixel", "decorative/")
def _tracking(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is a pixel that counts visits."""
    sides = _sides(use, pixels)
    host = split(use.url).hostname
    if sides and max(sides) <= 1 and host and host != split(use.page).hostname:
        return _Answer(Purpose.DECORATIVE, f"{sides[0]} x {sides[1]} px from {host}", "")
    return None


@_rule("link-without-text", "functional/")
def _link_without_text(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is all there is in a link, so its alt says where the link leads."""
    if not use.link or use.button:
        return None
    if use.kind is not Kind.AREA and is_picture(use.link):
        opens = f"the link opens a picture, {tail(use.link)}"
        for rule in RULES:
            if rule.name in _SEEN and (found := rule.ask(use, pixels)) is not None:
                return found._replace(evidence=f"{opens}: {found.evidence}", rule=rule.name)
        return _Answer(Purpose.INFORMATIVE, f"{opens}: describe it")
    if not says_nothing(use.title):
        return _Answer(
            Purpose.FUNCTIONAL, f'in a link, and its title says "{_shorten(use.title)}"', use.title
        )
    where = destination(use.link, use.page)
    return _Answer(
        Purpose.FUNCTIONAL,
        f"all there is in the link to {_shorten(use.link.removeprefix('./')) or 'the start page'}"
        + ("" if where else ", which does not tell where it leads"),
        where or None,
    )


@_rule("area-without-link", "imagemap/")
def _area(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is an area of an image map that leads nowhere."""
    if use.kind is Kind.AREA:
        return _Answer(Purpose.DECORATIVE, "an area without a link", "")
    return None


@_rule("button-without-text", "functional/")
def _button(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is all there is in a button, or it is one, so its alt says what happens."""
    if not (use.button or use.kind is Kind.INPUT):
        return None
    if not says_nothing(use.title):
        return _Answer(Purpose.FUNCTIONAL, f'its title says "{_shorten(use.title)}"', use.title)
    words = name_words(use.url or use.source)
    for size in range(len(words), 0, -1):
        for start in range(len(words) - size + 1):
            key = " ".join(words[start : start + size]).lower()
            if key in _ACTIONS:
                return _Answer(
                    Purpose.FUNCTIONAL, f'a button whose file is named "{key}"', _ACTIONS[key]
                )
    return _Answer(Purpose.FUNCTIONAL, "a button that nothing here tells the action of")


# Decoration.


@_rule("spacer", "decorative/")
def _spacer(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It only takes up room, or is a line between things."""
    sides = _sides(use, pixels)
    if sides and min(sides) <= 2:
        return _Answer(Purpose.DECORATIVE, f"{sides[0]} x {sides[1]} px", "")
    if pixels.flat:
        return _Answer(Purpose.DECORATIVE, "of one colour, or wholly transparent", "")
    words = {word.lower() for word in name_words(use.url or use.source)}
    if words and words <= _SPACERS:
        return _Answer(Purpose.DECORATIVE, f'its file is named "{" ".join(words)}"', "")
    if (named := words & _SEPARATORS) and sides and max(sides) >= 8 * min(sides):
        return _Answer(
            Purpose.DECORATIVE, f'named "{named.pop()}" and {sides[0]} x {sides[1]} px', ""
        )
    return None


@_rule("icon-says", "decision-tree/")
def _icon_says(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is an icon that says something by itself, such as a tick or a warning."""
    sides = _sides(use, pixels)
    if sides and max(sides) <= 2 * _SMALL_PX:
        for word in name_words(use.url or use.source):
            if says := _ICONS.get(word.lower()):
                return _Answer(
                    Purpose.INFORMATIVE, f'a small picture whose file is named "{word}"', says
                )
    return None


@_rule("icon-beside-text", "decorative/")
def _icon(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is an icon beside the text that it illustrates."""
    sides = _sides(use, pixels)
    if sides and max(sides) <= _SMALL_PX and use.beside:
        return _Answer(
            Purpose.DECORATIVE,
            f'an icon, {sides[0]} x {sides[1]} px, beside "{_shorten(use.beside)}"',
            "",
        )
    return None


@_rule("repeats-text", "decorative/")
def _repeats(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """Its title only repeats the words beside it."""
    title = _letters(use.title)
    beside = {"caption": use.caption, "text before it": use.before, "text after it": use.after}
    for where, text in beside.items():
        if title and title == _letters(text):
            return _Answer(Purpose.REDUNDANT, f'the {where} says "{_shorten(text)}" too', "")
    return None


# Logos, inline drawings, text and charts.


@_rule("logo", "functional/")
def _logo(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is a logo, named after whom it stands for."""
    words = name_words(use.url or use.source)
    if "logo" not in {word.lower() for word in words}:
        return None
    owner = " ".join(capital(w) for w in words if w.lower() not in _LOGO_NOISE)
    owner = owner or _site_name(use.page_title)
    if not owner:
        return _Answer(Purpose.UNKNOWN, "a logo, but nothing here says whose")
    near = _letters(f"{use.before} {use.after} {use.caption}")
    if re.search(rf"\b{re.escape(_letters(owner))}\b", near):
        return _Answer(Purpose.REDUNDANT, f'a logo beside the words "{owner}"', "")
    return _Answer(Purpose.INFORMATIVE, "its file is named a logo", f"{owner} logo")


@_rule("svg-without-name", "decision-tree/")
def _svg(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is an inline SVG, which nobody has named."""
    if use.kind is not Kind.SVG:
        return None
    if use.role.strip():
        return _Answer(Purpose.UNKNOWN, "an inline SVG with a role that asks for a name")
    return _Answer(
        Purpose.DECORATIVE, "an inline SVG without role or name: hide it by aria-hidden=true", ""
    )


@_rule("text", "textual/")
def _text(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is a picture of text, so its alt is that text."""
    if pixels.text_like >= TEXT_LIKE:
        return _Answer(Purpose.TEXT, "lines of marks on a plain ground look like text")
    return None


@_rule("complex", "complex/")
def _complex(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is a chart, a map or a diagram, and says more than an alt holds."""
    for word in name_words(use.url or use.source):
        if word.lower() in _COMPLEX:
            return _Answer(Purpose.COMPLEX, f'its file is named "{word}"')
    if found := _NUMBERED.match(use.caption):
        return _Answer(Purpose.COMPLEX, f'its caption begins "{_shorten(found[0])}"')
    if pixels.chart_like >= CHART_LIKE:
        return _Answer(Purpose.COMPLEX, "long straight lines on a plain ground, as in a chart")
    return None


@_rule("title", "informative/")
def _title(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """Somebody has said in its title what it shows."""
    if len(use.title.split()) > 1 and not says_nothing(use.title):
        return _Answer(Purpose.INFORMATIVE, f'its title says "{_shorten(use.title)}"', use.title)
    return None


@_rule("nothing-to-see")
def _nothing(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """There is no picture to look at."""
    if use.kind is Kind.ROLE_IMG and not use.url:
        return _Answer(Purpose.UNKNOWN, "role=img on an element that names no picture")
    if use.kind is Kind.OBJECT and not is_picture(use.url):
        return _Answer(Purpose.UNKNOWN, "an object that may be no picture")
    if not use.url and not use.source and not pixels.width_px:
        return _Answer(Purpose.UNKNOWN, "it names no picture")
    return None


@_rule("drawing", "informative/")
def _drawing(use: ImageUse, pixels: Pixels) -> _Answer | None:
    """It is no photograph, but drawn by a program: a screenshot, a diagram, clip art."""
    if pixels.chart_like >= DRAWN:
        return _Answer(
            Purpose.INFORMATIVE,
            "even patches of colour, as in a screenshot, a diagram or a drawing",
        )
    return None


RULES: tuple[Rule, ...] = tuple(_rules)
"""The tree's questions in the order they are asked."""


# Small questions.


def _does_something(use: ImageUse) -> bool:
    return bool(use.link) or use.button or use.kind is Kind.INPUT


def _sides(use: ImageUse, pixels: Pixels) -> tuple[int, int] | None:
    """Width and height as shown, px; of the picture where the page does not say."""
    width = pixels.width_px if use.width_px is None else use.width_px
    height = pixels.height_px if use.height_px is None else use.height_px
    known = (use.width_px is not None and use.height_px is not None) or pixels.width_px > 0
    return (max(0, width), max(0, height)) if known else None


def _site_name(title: str) -> str:
    """The part of a page's title after its last bar or dash, where sites put their name."""
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
