"""The report of a site as an object, as an HTML page and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cutline.errors import CutlineError
from cutline.image import load_image
from cutline.site.model import AltVerdict, Purpose, Severity
from cutline.site.store.store import Counts
from cutline.templating import data_uri, render

JSON_VERSION = 1
TITLE = "Alt text report: "
THUMBNAILS = 200
THUMBNAIL_PX = 240
_LARGEST_DRAWING_BYTES = 20_000


@dataclass
class Coverage:
    """The state of a site's image occurrences at one time.

    Attributes:
        words: have a meaningful text.
        says_nothing: have a file name, a placeholder or a similar text.
        decorative: are marked as decorative.
        missing: have no text; `unmarked` of these only need to be marked as decorative.
        needing: occurrences that need a text, by the current decision.
        needing_with_words: those of them that have one.
    """

    words: int = 0
    says_nothing: int = 0
    decorative: int = 0
    missing: int = 0
    unmarked: int = 0
    needing: int = 0
    needing_with_words: int = 0

    @property
    def share(self) -> float:
        """The fraction, 0..1, of occurrences that need a text and have one; 1 if none needs one."""
        return self.needing_with_words / self.needing if self.needing else 1.0

    @property
    def occurrences(self) -> int:
        """The number of occurrences counted."""
        return self.words + self.says_nothing + self.decorative + self.missing


@dataclass
class Problem:
    """A lint rule with findings.

    Attributes:
        example: the message of its first finding.
        found, left: findings in the pages as read, and with the approved alts.
    """

    rule: str
    severity: Severity
    example: str
    reference: str
    found: int = 0
    left: int = 0


@dataclass
class JudgedAlt:
    """An alt whose judgement is "change" or "decorative".

    Attributes:
        alt: the alt in the page; `better` a suggestion, "" if there is none.
        reason: why; `judge` is a rule or a chat model.
    """

    page: str
    source: str
    alt: str
    verdict: AltVerdict
    reason: str
    better: str
    judge: str


@dataclass
class PageProblems:
    """The findings on one page as read; `left` counts those with the approved alts."""

    page: str
    title: str
    uses: int
    missing: int = 0
    errors: int = 0
    warnings: int = 0
    notes: int = 0
    left: int = 0


@dataclass(frozen=True)
class Failure:
    """An image or a page that could not be fetched or read, and why."""

    what: str
    url: str
    error: str
    pages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """An image with its text, as the gallery shows it.

    Attributes:
        status: "approved", "edited", "waiting", "unsure" or "asked".
        text: the approved or drafted text; "" if a person must write it.
        words: the words of `text`, each with whether it came from the page, not from the image.
        alternatives: other suggestions.
        confidence: 0..1 or None.
        why: the evidence for the decision, or why there is no draft.
        uses: the number of occurrences with this image and text.
        picture: the image file; None if there is none.
    """

    status: str
    text: str
    words: tuple[tuple[str, bool], ...]
    alternatives: tuple[str, ...]
    confidence: float | None
    why: str
    name: str
    page: str
    uses: int = 1
    picture: Path | None = None
    media_type: str = ""


@dataclass(frozen=True)
class Report:
    """The report of a site; `to_html` and `to_json` render it.

    Attributes:
        made_at: when, ISO 8601 in UTC.
        site: its address, or the name of its folder.
        model: the current captioner; "" if there are no drafts yet.
        counts: as the store counts.
        left_out: occurrences not counted, because screen readers ignore them.
        before: the pages as people wrote them, without Cutline's changes.
        after: with what was approved.
        possible: with the drafts that still wait, too, as they are.
        purposes: what the images are for, the most frequent first.
        problems, pages: lint's findings by rule and by page, the worst first.
        verdicts: how many alts in the pages are judged good, to change, or to be decorative.
        judged: those that are not good.
        failures: images and pages that could not be fetched or read.
        unread: how many things look like images and were not read, by what they are.
        cards: images with their words: asked, unsure, waiting and approved ones.
    """

    made_at: str
    site: str
    model: str
    counts: Counts
    before: Coverage
    after: Coverage
    possible: Coverage
    left_out: int = 0
    purposes: dict[Purpose, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    pages: list[PageProblems] = field(default_factory=list)
    verdicts: dict[AltVerdict, int] = field(default_factory=dict)
    judged: list[JudgedAlt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    cards: list[Card] = field(default_factory=list)

    def to_json(self) -> str:
        """The report for machines, without its images.

        Keys: `version` (of this form, 1), `made_at`, `site`, `model`; `counts` as `Counts`;
        `left_out`; `coverage` with `before`, `after`, `possible`, each as `Coverage` with its
        `share`; `purposes` by name; `problems`, `pages`, `judged` and `failures` as the classes
        of these names; `verdicts` and `unread` by name; and `images`, as `Card`, those without
        words first.
        """
        stages = {"before": self.before, "after": self.after, "possible": self.possible}
        images = []
        for card in self.cards:
            record = asdict(card)
            del record["words"], record["picture"], record["media_type"]
            images.append(record)
        record = {
            "version": JSON_VERSION,
            "made_at": self.made_at,
            "site": self.site,
            "model": self.model,
            "counts": asdict(self.counts),
            "left_out": self.left_out,
            "coverage": {
                name: asdict(stage) | {"share": stage.share} for name, stage in stages.items()
            },
            "purposes": self.purposes,
            "problems": [asdict(each) for each in self.problems],
            "pages": [asdict(each) for each in self.pages],
            "verdicts": self.verdicts,
            "judged": [asdict(each) for each in self.judged],
            "failures": [asdict(each) for each in self.failures],
            "unread": self.unread,
            "images": images,
        }
        return json.dumps(record, indent=1) + "\n"

    def to_html(
        self,
        *,
        thumbnails: int = THUMBNAILS,
        progress: Callable[[int, int], None] | None = None,
    ) -> str:
        """The report as one self-contained HTML page.

        Args:
            thumbnails: the maximum number of thumbnails, each up to 240 px.
            progress: called with the thumbnails made and all of them.
        """
        chosen = _chosen(self.cards, thumbnails)
        pictures: list[str] = []
        for number, card in enumerate(chosen):
            if progress:
                progress(number, len(chosen))
            pictures.append(_thumbnail(card))
        if progress:
            progress(len(chosen), len(chosen))
        galleries = {
            part: [
                each for each in zip(chosen, pictures, strict=True) if each[0].status in statuses
            ]
            for part, statuses in _PARTS.items()
        }
        totals = {
            part: sum(card.status in statuses for card in self.cards)
            for part, statuses in _PARTS.items()
        }
        title = (urlsplit(self.site).netloc or self.site.rstrip("/").rsplit("/", 1)[-1]) or "/"
        return render(
            "site-report.html",
            report=self,
            head=TITLE + title,
            title=title,
            percent=percent,
            galleries=galleries,
            totals=totals,
        )


def percent(share: float) -> str:
    """A fraction, 0..1, as a percentage; only 0 gives "0 %", and only 1 gives "100 %"."""
    return f"{100 * share if share in (0, 1) else min(max(round(100 * share), 1), 99):.0f} %"


_PARTS = {
    "asked": ("asked", "unsure"),
    "waiting": ("waiting",),
    "approved": ("approved", "edited"),
}


def _chosen(cards: list[Card], most: int) -> list[Card]:
    """At most this many cards, divided fairly between the parts of the gallery."""
    parts = [[card for card in cards if card.status in names] for names in _PARTS.values()]
    room = most
    chosen: list[Card] = []
    for waiting, part in enumerate(sorted(parts, key=len)):
        taken = part[: room // (len(parts) - waiting)]
        room -= len(taken)
        chosen += taken
    return chosen


def _thumbnail(card: Card) -> str:
    """A thumbnail as a data URI; "" if the image cannot be shown."""
    if card.picture is None:
        return ""
    try:
        if card.media_type == "image/svg+xml":
            content = card.picture.read_bytes()
            fits = len(content) <= _LARGEST_DRAWING_BYTES
            return data_uri(content, card.media_type) if fits else ""
        picture = load_image(card.picture, around_px=THUMBNAIL_PX).copy()
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        small = io.BytesIO()
        picture.save(small, "WEBP", quality=70)
        return data_uri(small.getvalue(), "image/webp")
    except (CutlineError, OSError, ValueError):
        return ""
