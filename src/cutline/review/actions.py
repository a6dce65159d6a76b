"""Reading drafts from the store and recording reviews, for the review page.

An action names the review that the person saw. If another tab or a spreadsheet has reviewed the
occurrence since, the action is refused.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from cutline.errors import CutlineError, StoreError
from cutline.image import load_image
from cutline.site.decide.lint import lint
from cutline.site.model import ImageOccurrence, Purpose, Review, Verdict, new_review
from cutline.site.pages.alt_markup import current_alt
from cutline.site.pipeline import is_faulty
from cutline.site.store.store import Store, StoredImage, StoredOccurrence
from cutline.site.url_words import tail
from cutline.terminal import printable

MAX_CANDIDATES = 9  # one key each
_OTHERS = 60  # occurrences of the same image whose texts are candidates
_REPLACING = (Verdict.EDITED, Verdict.DECORATIVE)  # may replace the alt that was shown
_DECODING = threading.Semaphore(2)  # images decoded at a time: the largest take 480 MB


class NotFoundError(CutlineError, LookupError):
    """There is no such occurrence or image."""


@dataclass(frozen=True)
class Action:
    """A person's decision about one occurrence.

    Attributes:
        verdict: what was decided.
        alt: the text that the person saw or wrote; None for none.
        seen: when the review was made that the person saw; "" if there was none.
        present: the alt that the page was shown to have; None if none was shown.
        long_description: what the person saw or wrote; None takes the draft's.
    """

    verdict: Verdict
    alt: str | None = None
    seen: str = ""
    present: str | None = None
    long_description: str | None = None


class ReviewActions:
    """Reads and writes of the review page, each of them complete before it returns.

    Args:
        store: the site's store.
        who: the reviewer's name.
    """

    def __init__(self, store: Store, who: str) -> None:
        self.store = store
        self.who = who
        self._writing = threading.Lock()  # a check and its write are one step, over all tabs

    def occurrence(self, id: int) -> StoredOccurrence:
        """One occurrence.

        Raises:
            NotFoundError: there is none with this id.
        """
        try:
            return self.store.occurrence(id)
        except StoreError as error:
            raise NotFoundError(str(error)) from error

    def occurrences(self, ids: Iterable[int]) -> Iterator[StoredOccurrence]:
        """Several occurrences; those whose pages are gone by now are left out."""
        for id in ids:
            with suppress(StoreError):
                yield self.store.occurrence(id)

    def faulty(self, only: dict[str, Any]) -> set[int]:
        """The ids of unreviewed occurrences in which lint finds an error."""
        return {
            stored.id
            for stored in self.store.occurrences(**only)
            if stored.review is None and is_faulty(stored.occurrence)
        }

    def review(self, id: int, action: Action) -> bool:
        """Write one review; False if the occurrence was reviewed in the meantime.

        Raises:
            NotFoundError: there is no such occurrence.
            OptionError: the verdict needs a text.
        """
        with self._writing:
            stored = self.occurrence(id)
            review = self._new_review(
                stored, action.verdict, action.alt or "", action.long_description
            )
            if review.verdict in _REPLACING and action.present == current_alt(stored.occurrence):
                review = replace(review, replaces=action.present)
            old = stored.review
            if old is not None and replace(review, who=old.who, when=old.when) == old:
                return True  # the same request again, because the first response was lost
            if action.seen != (old.when if old else ""):
                return False
            self.store.put_review(id, review)
            return True

    def review_all(
        self,
        ids: Iterable[int],
        verdict: Verdict,
        alt: str | None,
        least: float | None,
        long_description: str | None = None,
    ) -> int:
        """Write many reviews at once, where there is none yet; returns how many.

        Args:
            ids: of the occurrences.
            verdict: approved, decorative or skipped.
            alt: the text for all; None takes each one's draft.
            least: only drafts of this confidence or more; None is all.
            long_description: for all; None takes each one's draft.
        """
        with self._writing:
            when = _now()
            reviews = []
            for stored in self.occurrences(dict.fromkeys(ids)):
                draft = stored.draft
                if stored.review is not None:
                    continue
                text = draft.alt if draft and alt is None else alt
                if verdict is Verdict.APPROVED and text is None:
                    continue
                if least is not None and not (
                    draft and draft.confidence is not None and draft.confidence >= least
                ):
                    continue
                review = self._new_review(stored, verdict, text or "", long_description)
                reviews.append((stored.id, replace(review, when=when)))
            self.store.put_reviews(reviews)
            return len(reviews)

    def undo(self) -> list[int]:
        """Undo the newest review and all others of the same action; returns their occurrences."""
        with self._writing:
            return self.store.undo_newest()

    def progress(self) -> dict[str, Any]:
        """How many occurrences are reviewed, and how many wait."""
        counts = self.store.counts()
        reviewed = sum(counts.reviewed.values())
        return {
            "reviewed": reviewed,
            "total": reviewed + counts.drafted + counts.asked,
            "asked": counts.asked,
            "drafted": counts.drafted,
            "skipped": counts.reviewed[Verdict.SKIPPED],
            "failed": counts.failed,
            "uses": counts.uses,
        }

    def detail(self, stored: StoredOccurrence) -> dict[str, Any]:
        """Everything that the page shows of one occurrence, as JSON."""
        occurrence, draft, image = stored.occurrence, stored.draft, stored.image
        known = {name: _visible(name, getattr(occurrence, name)) for name in _CONTEXT}
        known["link"] = printable(self.store.named(occurrence.link))
        known["stands"] = current_alt(occurrence)
        known["page_title"] = printable(occurrence.title_and_place)
        decision = draft.decision if draft else None
        alt = _alt(stored)
        same, candidates = self._candidates(stored)
        return row(stored) | {
            "context": known,
            "size": [image.width_px, image.height_px, image.bytes] if image and image.bytes else [],
            "error": printable(self.store.named(image.error)) if image else "",
            "draft": draft.alt if draft else None,
            "words": draft.words if draft else (),
            "purpose": decision.purpose if decision else "",
            "rule": decision.rule if decision else "",
            "evidence": printable(self.store.named(decision.evidence)) if decision else "",
            "abstained": bool(draft and draft.abstained),
            "labels": draft.labels if draft else (),
            "model": draft.model if draft else "",
            "long_description": _long_description(stored),
            "notes": [printable(self.store.named(note)) for note in _notes(stored)],
            "review": stored.review and vars(stored.review),
            "same": same,
            "candidates": candidates,
            "findings": [] if alt is None else findings(alt, occurrence),
        }

    def image(self, id: int) -> StoredImage:
        """An image whose file exists.

        Raises:
            NotFoundError: there is no such image, or it could not be fetched.
        """
        try:
            image = self.store.image(id)
        except StoreError as error:
            raise NotFoundError(str(error)) from error
        if image.path is None or not image.path.is_file():
            raise NotFoundError(self.store.named(image.error) or "the image is not fetched yet")
        return image

    def _new_review(
        self, stored: StoredOccurrence, verdict: Verdict, alt: str, long_description: str | None
    ) -> Review:
        return new_review(
            stored.draft,
            verdict,
            alt,
            long_description=long_description,
            who=self.who,
            when=_now(),
        )

    def _candidates(self, stored: StoredOccurrence) -> tuple[int, list[dict[str, str]]]:
        """How many other occurrences the image has; other texts for it, best first."""
        image, draft = stored.image, stored.draft
        found: dict[str, str] = {}
        same = 0
        if image is not None:
            key: dict[str, Any] = {"image": image.id}
            if image.content is not None:
                key = {"group": image.group or image.content}
            others = [
                each for each in self.store.occurrences(limit=_OTHERS, **key) if each != stored
            ]
            same = self.store.count_occurrences(**key) - 1
            for other in others:
                if other.review and other.review.alt:
                    found.setdefault(
                        other.review.alt, f"approved on {_page_name(other.occurrence)}"
                    )
            for other in others:
                if other.occurrence.alt and other.occurrence.alt.strip():
                    text = " ".join(other.occurrence.alt.split())
                    found.setdefault(text, f"written on {_page_name(other.occurrence)}")
        if stored.judgement is not None and stored.judgement.alt:
            found.setdefault(stored.judgement.alt, f"suggested by {stored.judgement.judge}")
        for text in draft.alternatives if draft else ():
            found.setdefault(text, "also suggested")
        if stored.occurrence.alt and stored.occurrence.alt.strip():
            found.setdefault(" ".join(stored.occurrence.alt.split()), "in the page now")
        found.pop(draft.alt if draft and draft.alt else "", None)
        return same, [
            {"text": text, "from": where} for text, where in list(found.items())[:MAX_CANDIDATES]
        ]


_CONTEXT = """page position kind source alt alt_state name title role hidden link link_text button
    caption heading before after page_title language markup noscript""".split()


def _visible(name: str, value: Any) -> Any:
    """A field as the page shows it: only what is sent back stays as it is."""
    if isinstance(value, str) and name not in ("alt", "alt_state", "kind", "page"):
        return printable(value, keep="\t\n\r")
    return value


def row(stored: StoredOccurrence) -> dict[str, Any]:
    """What a row of the list shows of an occurrence, as JSON."""
    occurrence, draft, review, image = stored.occurrence, stored.draft, stored.review, stored.image
    state = "found"
    if review is not None:
        state = str(review.verdict)
    elif draft is not None and draft.decision.purpose is Purpose.KEPT:
        state = "kept"
    elif draft is not None:
        state = "asked" if draft.alt is None else "drafted"
    return {
        "id": stored.id,
        "name": printable(tail(occurrence.url or occurrence.source))[:120]
        or f"{occurrence.kind} {occurrence.position + 1}",
        "page": occurrence.page,
        "picture": image.id if image is not None and image.status == "ok" else None,
        "group": image and (image.group or image.content),
        "whole": bool(image and not 0.5 < image.width_px / max(image.height_px, 1) < 2),
        "state": state,
        "alt": _alt(stored),
        "sure": draft.confidence if draft else None,
        "stale": stored.stale,
        "applied": stored.applied,
        "failed": bool(image and image.status == "failed"),
        "seen": review.when if review else "",
    }


def _alt(stored: StoredOccurrence) -> str | None:
    """The reviewed text, else the draft, else the alt in the page."""
    if stored.review is not None and stored.review.verdict is not Verdict.SKIPPED:
        return stored.review.alt
    if stored.draft is not None and stored.draft.decision.purpose is not Purpose.KEPT:
        return stored.draft.alt
    return stored.occurrence.alt


def _long_description(stored: StoredOccurrence) -> str | None:
    """The reviewed long description, else the draft's; None if the image needs none."""
    draft, review = stored.draft, stored.review
    text = draft.long_description if draft else ""
    if review is not None and review.verdict is not Verdict.SKIPPED:
        text = stored.approved_long_description
    needed = draft is not None and (
        draft.decision.purpose is Purpose.COMPLEX or bool(draft.long_description)
    )
    return text if text or needed else None


def findings(alt: str, occurrence: ImageOccurrence) -> list[dict[str, str]]:
    """What lint finds in a text for an occurrence, as JSON."""
    return [
        {
            "rule": finding.rule,
            "severity": finding.severity,
            "message": finding.message,
            "reference": finding.reference,
        }
        for finding in lint([replace(occurrence, alt=alt)])
    ]


def _notes(stored: StoredOccurrence) -> list[str]:
    """The judgement and the notes of a draft.

    Lint messages are left out: the page shows them beside the text.
    """
    draft, judgement, notes = stored.draft, stored.judgement, list[str]()
    if judgement is not None:
        better = f' Better: "{judgement.alt}"' if judgement.alt else ""
        notes.append(
            f"The alt in the page is judged {judgement.verdict} by {judgement.judge}: "
            f"{judgement.reason}{better}"
        )
    if draft is not None:
        reported = {finding["message"] for finding in findings(draft.alt or "", stored.occurrence)}
        notes += [note for note in draft.notes if note not in reported]
    return notes


def _page_name(occurrence: ImageOccurrence) -> str:
    return tail(occurrence.page) or urlsplit(occurrence.page).netloc or occurrence.page


@lru_cache(maxsize=400)
def thumbnail(path: Path, sha256: str, side_px: int) -> tuple[bytes, str]:
    """An image scaled into a square, as a file, with its media type.

    Args:
        path: the file.
        sha256: of its bytes, so that a file that changed is read again.
        side_px: of the square.

    Raises:
        ImageError: it cannot be read.
    """
    with _DECODING:
        picture = load_image(path, around_px=side_px)
    picture.thumbnail((side_px, side_px), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if picture.width * picture.height <= 128 * 128:
        picture.save(file, "PNG")
        return file.getvalue(), "image/png"
    picture.save(file, "JPEG", quality=86)
    return file.getvalue(), "image/jpeg"


def _now() -> str:
    """The current time to the microsecond: the reviews of one action share it, for undo."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
