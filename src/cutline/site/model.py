"""What the site's parts say to each other: where an image stands, what was decided, what was said.

An *image use* is one place on one page that shows an image; an image is what stands there, however
many uses it has. `alt` is what the page says today, a `Draft` is what we suggest, a `Review` is
what a person made of it, and only a person's word is written back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cutline.errors import OptionError


class Kind(StrEnum):
    """What kind of element shows the image."""

    IMG = "img"
    INPUT = "input"  # <input type=image>
    AREA = "area"
    SVG = "svg"  # inline
    ROLE_IMG = "role-img"  # any other element with role=img
    OBJECT = "object"
    MARKDOWN = "markdown"
    CSS = "css"  # a background: a note, never a gap
    ROW = "row"  # a line of a crawler's export, of which the page was not seen


class Alt(StrEnum):
    """The four states of an alt, which are four different things."""

    MISSING = "missing"
    EMPTY = "empty"  # alt="": somebody's decision
    WHITESPACE = "whitespace"
    PRESENT = "present"


@dataclass(frozen=True)
class ImageUse:
    """One place on one page that shows an image, with what surrounds it.

    Attributes:
        page: the page's URL, or the file's path relative to the folder scanned.
        position: 0-based, in document order among the page's uses.
        kind: which element shows it.
        source: what the page names, as it stands there: a URL, a path, a data URI; "" for an
            inline SVG or an element that names none.
        url: `source` made absolute and normalised; "" where there is nothing to fetch.
        candidates: the other sources (`srcset`, `<picture>`, lazy-loading), absolute.
        alt: as it stands in the page, entities resolved; None if there is no such attribute.
        name: the accessible name from aria-labelledby, aria-label, an SVG's title or an input's
            labels; "" if none.
        title: the title attribute; "" if none.
        role: the role attribute; "" if none.
        hidden: aria-hidden, hidden or display:none, its own or an ancestor's.
        width_px, height_px: from attributes or inline style; None if neither says.
        link: where the link around it leads, absolute, or "./" and the path in the folder scanned;
            "" if there is none.
        link_text: the link's or button's text (or name) without this image.
        button: whether a button, or it is itself an input, so that it does something.
        caption: the figcaption's text.
        heading: the nearest heading before it.
        before, after: text near it, up to about 200 characters each.
        beside: text after it, or else before it, in the same block, such as a paragraph or a cell.
        page_title, language: of the page; language as in `lang`, nearest ancestor first.
        markup: the element's start tag (or Markdown) exactly as it stands in the file.
        offset: where `markup` begins in the decoded file; -1 if not known.
        noscript: stands in a <noscript> and shows only without scripts.
    """

    page: str
    position: int
    kind: Kind
    source: str
    url: str = ""
    candidates: tuple[str, ...] = ()
    alt: str | None = None
    name: str = ""
    title: str = ""
    role: str = ""
    hidden: bool = False
    width_px: int | None = None
    height_px: int | None = None
    link: str = ""
    link_text: str = ""
    button: bool = False
    caption: str = ""
    heading: str = ""
    before: str = ""
    after: str = ""
    beside: str = ""
    page_title: str = ""
    language: str = ""
    markup: str = ""
    offset: int = -1
    noscript: bool = False

    @property
    def alt_state(self) -> Alt:
        """Missing, empty, whitespace or present."""
        if self.alt is None:
            return Alt.MISSING
        if self.alt == "":
            return Alt.EMPTY
        return Alt.PRESENT if self.alt.strip() else Alt.WHITESPACE


@dataclass(frozen=True)
class Page:
    """A page or file as it was when it was read.

    Attributes:
        url: as in `ImageUse.page`.
        sha256: of its bytes; "" if it could not be read.
        status: the HTTP status; 0 for a file or if nothing answered.
        error: why there is nothing; "" if all is well.
    """

    url: str
    sha256: str = ""
    title: str = ""
    language: str = ""
    status: int = 0
    error: str = ""


class Purpose(StrEnum):
    """What an image is there for: the leaves of the W3C alt decision tree."""

    DECORATIVE = "decorative"  # alt=""
    REDUNDANT = "redundant"  # the text beside it says it already: alt=""
    FUNCTIONAL = "functional"  # a link or button: where it leads, what it does
    TEXT = "text"  # an image of text
    INFORMATIVE = "informative"  # a caption
    COMPLEX = "complex"  # a chart, map, diagram: needs a long description
    KEPT = "kept"  # a person has said something, or alt="": left alone
    UNKNOWN = "unknown"  # needs a person


@dataclass(frozen=True)
class Pixels:
    """What the picture's own bytes tell, as far as they were fetched.

    Attributes:
        width_px, height_px: of the picture; 0 if unknown.
        flat: a single colour or fully transparent.
        text_like, chart_like: 0..1, how much it looks like text, or like a chart or diagram.
    """

    width_px: int = 0
    height_px: int = 0
    flat: bool = False
    text_like: float = 0.0
    chart_like: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What an image is for, by which rule, on what evidence.

    Attributes:
        purpose: the leaf reached.
        rule: its short, stable name, such as "spacer" or "link-without-text".
        evidence: one sentence a person can check: "1 x 1 px", "the link's text says 'Home'".
        alt: what the rule itself suggests; None if the picture must be described.
    """

    purpose: Purpose
    rule: str
    evidence: str
    alt: str | None = None


class Origin(StrEnum):
    """Where a draft's word came from."""

    PICTURE = "picture"
    PAGE = "page"
    GLOSSARY = "glossary"


@dataclass(frozen=True)
class Draft:
    """What we suggest for one use.

    Attributes:
        decision: why this and not something else.
        alt: the suggestion; "" says it is decorative; None: a person must write it.
        words: each word of `alt` with where it came from.
        confidence: 0..1, calibrated share of captions this sure that fit; None without a caption.
        abstained: whether a caption was there but too unsure to suggest; it is in `alternatives`.
        alternatives: other suggestions, best first.
        labels: what is in the picture, likeliest first.
        model: who captioned; "" if none did.
        notes: what else a reviewer should know: lint findings, "ask for a long description".
        long_description: of a chart, map or diagram; "" if there is none. A person approves it too.
        stated_confidence: what a chat model states, 0..1, not calibrated; None if it does not.
        prompt: the version of the prompt; "" without a chat model.
        drafted_at: when a chat model answered, ISO 8601 in UTC; "" without one.
    """

    decision: Decision
    alt: str | None
    words: tuple[tuple[str, Origin], ...] = ()
    confidence: float | None = None
    abstained: bool = False
    alternatives: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    model: str = ""
    notes: tuple[str, ...] = ()
    long_description: str = ""
    stated_confidence: float | None = None
    prompt: str = ""
    drafted_at: str = ""


class Verdict(StrEnum):
    """What a person made of a draft."""

    APPROVED = "approved"
    EDITED = "edited"
    DECORATIVE = "decorative"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Review:
    """A person's word on one use.

    Attributes:
        alt: what is to be written; None for a skip.
        who, when: the person, and when, ISO 8601 in UTC.
        replaces: the alt in the page that the person was shown and put another in place of; None
            if none was shown.
    """

    verdict: Verdict
    alt: str | None
    who: str = ""
    when: str = ""
    replaces: str | None = None


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """What lint found at one use.

    Attributes:
        rule: a short, stable name: axe-core's where it has the rule.
        message: what is wrong and what to do.
        reference: the WCAG criterion and technique, such as "WCAG 1.1.1, F65".
    """

    rule: str
    severity: Severity
    message: str
    reference: str = ""
    use: ImageUse | None = field(default=None, compare=False)


def new_review(
    draft: Draft | None,
    verdict: Verdict | str,
    alt: str | None = None,
    *,
    who: str = "",
    when: str = "",
) -> Review:
    """A person's decision as a review.

    Args:
        draft: the draft that the person saw; None if there was none.
        verdict: what the person decided.
        alt: the text that the person approved or wrote; None takes the draft's.
        who, when: see `Review`.

    Returns:
        A review whose verdict is "approved" if the text is the draft's, and "edited" if not.

    Raises:
        OptionError: there is no such verdict, or it needs a text.
    """
    try:
        verdict = Verdict(verdict)
    except ValueError as error:
        raise OptionError(f"got verdict {verdict!r}; expected {', '.join(Verdict)}") from error
    if verdict is Verdict.SKIPPED:
        return Review(verdict, None, who, when)
    if verdict is Verdict.DECORATIVE:
        return Review(verdict, "", who, when)
    suggested = draft.alt if draft else None
    if alt is None and verdict is Verdict.APPROVED:
        alt = suggested
    words = " ".join((alt or "").split())
    if alt is not None and words == suggested:
        return Review(Verdict.APPROVED, words, who, when)
    if not words:
        raise OptionError('got no text; expected an alt text, or the verdict "decorative"')
    return Review(Verdict.EDITED, words, who, when)
