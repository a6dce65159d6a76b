"""The types that the parts of `cutline.site` exchange: occurrences, decisions, drafts, reviews.

An *image occurrence* is one place on one page that shows an image; the same image may have many.
`alt` is the text in the page now, a `Draft` is a suggestion, and a `Review` is a person's decision.
Only reviewed text is written into pages.
"""

from __future__ import annotations

import re
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
    RST = "rst"  # a directive of reStructuredText
    EMBED = "embed"  # a shortcode or wiki link in Markdown, in which no alt is written
    CSS = "css"  # a background, which cannot have an alt
    ROW = "row"  # a row of a crawler's export, whose page was not read
    PICTURE = "picture"  # in an Office, OpenDocument or PDF file
    CHART = "chart"  # a chart or diagram in such a file, drawn by the program that opens it


# A character that is neither white space nor an invisible format character or filler.
_VISIBLE = re.compile(
    r"[^\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)


class Alt(StrEnum):
    """The state of an alt attribute."""

    MISSING = "missing"
    EMPTY = "empty"  # alt="": intentional
    WHITESPACE = "whitespace"
    PRESENT = "present"


@dataclass(frozen=True)
class ImageOccurrence:
    """One place on one page that shows an image, with the text around it.

    Attributes:
        page: the page's URL, or the file's path relative to the folder scanned.
        position: 0-based, in document order among the page's occurrences.
        kind: which element shows it.
        source: the image's address as written in the page: a URL, a path, a data URI; "" for an
            inline SVG or an element without one.
        url: `source` made absolute and normalised; "" where there is nothing to fetch.
        candidates: the other sources (`srcset`, `<picture>`, lazy-loading), absolute.
        alt: the alt attribute, entities resolved; None if there is none.
        name: the accessible name from aria-labelledby, aria-label, an SVG's title or an input's
            labels; "" if none.
        title: the title attribute; "" if none.
        role: the role attribute; "" if none.
        hidden: aria-hidden, hidden or display:none, its own or an ancestor's.
        width_px, height_px: from attributes or inline style; None if neither says.
        link: the target of the link around it, absolute, or "./" and the path in the folder; "" if
            there is none.
        link_text: the link's or button's text (or name) without this image.
        button: whether it is in a button, or is an `<input type=image>`.
        caption: the figcaption's text.
        heading: the nearest heading before it.
        before, after: text near it, up to about 200 characters each.
        beside: text after it, or else before it, in the same block, such as a paragraph or a cell.
        page_title, language: of the page; language as in `lang`, nearest ancestor first.
        markup: the element's start tag (or Markdown) exactly as in the file.
        offset: the start of `markup` in the decoded file; -1 if not known.
        noscript: whether it is in a <noscript>, and shown only without scripts.
        part: of a book or document, the member of the archive that has the markup, such as
            "word/document.xml"; "" for a file that is a page itself.
        place: where in a book or document, for people: "slide 3"; "" for a page.
        long_description: the long description that an image file has, "" if it has none; None
            where no long description can be written.
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
    part: str = ""
    place: str = ""
    long_description: str | None = None

    @property
    def title_and_place(self) -> str:
        """The page's title, in a document with the place: "Sales, slide 3"; "" without both."""
        different = self.place if self.place != self.page_title else ""
        return ", ".join(filter(None, (self.page_title, different)))

    @property
    def name_or_title(self) -> str:
        """What names it besides its alt; an Office program does not read a title to anybody."""
        has_title = self.kind not in (Kind.PICTURE, Kind.CHART)
        return self.name.strip() or (self.title.strip() if has_title else "")

    @property
    def alt_state(self) -> Alt:
        """Missing, empty, whitespace or present."""
        if self.alt is None:
            return Alt.MISSING
        if self.alt == "":
            return Alt.EMPTY
        return Alt.PRESENT if _VISIBLE.search(self.alt) else Alt.WHITESPACE


@dataclass(frozen=True)
class Page:
    """A page or file, as it was read.

    Attributes:
        url: as in `ImageOccurrence.page`.
        sha256: of its bytes; "" if it could not be read.
        status: the HTTP status; 0 for a file, or without a response.
        error: why it could not be read; "" if it was.
        unread: what looks like an image and was not read, such as ("wiki link", 3).
    """

    url: str
    sha256: str = ""
    title: str = ""
    language: str = ""
    status: int = 0
    error: str = ""
    unread: tuple[tuple[str, int], ...] = ()


class Purpose(StrEnum):
    """The purpose of an image: the leaves of the W3C alt decision tree."""

    DECORATIVE = "decorative"  # alt=""
    REDUNDANT = "redundant"  # the text beside it says the same: alt=""
    FUNCTIONAL = "functional"  # a link or button: its target or action
    TEXT = "text"  # an image of text
    INFORMATIVE = "informative"  # a caption
    COMPLEX = "complex"  # a chart, map, diagram: needs a long description
    KEPT = "kept"  # a person wrote an alt, or alt="": not changed
    UNKNOWN = "unknown"  # needs a person


@dataclass(frozen=True)
class Pixels:
    """Statistics of an image's pixels.

    Attributes:
        width_px, height_px: its size; 0 if unknown.
        flat: a single colour or fully transparent.
        text_like, chart_like: 0..1, how similar it is to text, and to a chart or diagram.
    """

    width_px: int = 0
    height_px: int = 0
    flat: bool = False
    text_like: float = 0.0
    chart_like: float = 0.0


@dataclass(frozen=True)
class Decision:
    """The purpose of an image, the rule that decided it, and the evidence.

    Attributes:
        purpose: the leaf reached.
        rule: the rule's short, stable name, such as "spacer" or "link-without-text".
        evidence: one sentence that a person can check: "1 x 1 px", "the link's text says 'Home'".
        alt: the rule's suggestion; None if the image must be described.
    """

    purpose: Purpose
    rule: str
    evidence: str
    alt: str | None = None


class Origin(StrEnum):
    """The source of a word of a draft."""

    PICTURE = "picture"
    PAGE = "page"
    GLOSSARY = "glossary"


@dataclass(frozen=True)
class Draft:
    """A suggestion for one occurrence.

    Attributes:
        decision: the purpose of the image, and why.
        alt: the suggestion; "" for a decorative image; None if a person must write it.
        words: each word of `alt` with its source.
        confidence: 0..1, the calibrated probability that the caption fits; None without a caption.
        abstained: whether the caption's confidence was too low; the caption is in `alternatives`.
        alternatives: other suggestions, best first.
        labels: what is in the image, most likely first.
        model: the captioner's name; "" without a caption.
        notes: for the reviewer: lint findings, "ask for a long description".
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
    """A person's decision about a draft."""

    APPROVED = "approved"
    EDITED = "edited"
    DECORATIVE = "decorative"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Review:
    """A person's decision about one occurrence.

    Attributes:
        alt: the text to write; None for a skip.
        who, when: the person's name, and the time, ISO 8601 in UTC.
        replaces: the alt in the page that the person saw and decided to replace; None if the person
            saw none.
        long_description: the long description that the person approved, "" if the person removed
            the draft's; None if there was none, or in a review of version 0.1.
    """

    verdict: Verdict
    alt: str | None
    who: str = ""
    when: str = ""
    replaces: str | None = None
    long_description: str | None = None


class AltVerdict(StrEnum):
    """What an existing alt is."""

    GOOD = "good"
    CHANGE = "change"
    DECORATIVE = "decorative"


@dataclass(frozen=True)
class Judgement:
    """The judgement of one existing alt by a rule or a chat model.

    Attributes:
        verdict: good, to change, or to be decorative.
        reason: why, one sentence.
        alt: a better alt; "" where the verdict is not "change", or none is suggested.
        judge: "rule:NAME", or the model's name.
        prompt: the version of the prompt; "" for a rule.
        judged_at: when, ISO 8601 in UTC; "" if not stored yet.
    """

    verdict: AltVerdict
    reason: str
    alt: str = ""
    judge: str = ""
    prompt: str = ""
    judged_at: str = ""


class Severity(StrEnum):
    """How severe a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """What lint found in one occurrence.

    Attributes:
        rule: a short, stable name: axe-core's where it has the rule.
        message: the problem, and what to do.
        reference: the WCAG criterion and technique, such as "WCAG 1.1.1, F65".
    """

    rule: str
    severity: Severity
    message: str
    reference: str = ""
    occurrence: ImageOccurrence | None = field(default=None, compare=False)


def new_review(
    draft: Draft | None,
    verdict: Verdict | str,
    alt: str | None = None,
    *,
    long_description: str | None = None,
    who: str = "",
    when: str = "",
) -> Review:
    """A person's decision as a review.

    Args:
        draft: the draft that the person saw; None if there was none.
        verdict: what the person decided.
        alt: the text that the person approved or wrote; None takes the draft's.
        long_description: the long description that the person approved or wrote, "" for none; None
            takes the draft's. Ignored for a decorative or skipped image.
        who, when: see `Review`.

    Returns:
        A review whose verdict is "approved" if both texts are the draft's, and "edited" if not.

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
    suggested, drafted = (draft.alt, draft.long_description) if draft else (None, "")
    if alt is None and verdict is Verdict.APPROVED:
        alt = suggested
    words = " ".join((alt or "").split())
    long_text = drafted if long_description is None else _paragraphs(long_description)
    same = alt is not None and words == suggested
    if not (words or same):
        raise OptionError('got no text; expected an alt text, or the verdict "decorative"')
    approved = same and long_text == drafted
    return Review(
        Verdict.APPROVED if approved else Verdict.EDITED,
        words,
        who,
        when,
        long_description=long_text if long_text or drafted else None,
    )


def _paragraphs(text: str) -> str:
    """A text without blank lines and without white space around its lines."""
    return "\n".join(filter(None, (line.strip() for line in text.splitlines())))
