"""Requests to a chat model for the images of a site, and their answers in the store."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cutline.chat import Dialogue
from cutline.site.decide.alt_text import WordingOptions
from cutline.site.decide.chat_alt import ChatAlt, ChatAltOptions, alt_dialogue, chat_draft
from cutline.site.decide.page_context import language_for, page_data
from cutline.site.model import Alt, Decision, Draft, ImageOccurrence
from cutline.site.store.store import Store, StoredOccurrence, now

_SHARED = 3  # an image with more occurrences belongs to the layout, not to one page's text
_MOST_OTHERS = 5


@dataclass
class ImageIndex:
    """How often each image of a site occurs, and with which alts."""

    counts: Counter[int] = field(default_factory=Counter)
    alts: dict[int, list[ImageOccurrence]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> ImageIndex:
        """The index of a store; keeps a few alts of each image."""
        index = cls()
        for each in store.occurrences():
            if (key := _key(each)) is not None:
                index.counts[key] += 1
                if each.occurrence.alt_state is Alt.PRESENT:
                    kept = index.alts.setdefault(key, [])
                    if len(kept) < _MOST_OTHERS:
                        kept.append(each.occurrence)
        return index

    def is_shared(self, each: StoredOccurrence) -> bool:
        """Whether the image has too many occurrences for one page's text to describe it."""
        key = _key(each)
        return key is not None and self.counts[key] > _SHARED

    def others(self, each: StoredOccurrence) -> Sequence[ImageOccurrence]:
        """Other occurrences of the image that have an alt."""
        key = _key(each)
        return (
            []
            if key is None
            else [
                occurrence for occurrence in self.alts.get(key, []) if occurrence != each.occurrence
            ]
        )


@dataclass(frozen=True)
class ChatDrafts:
    """What a chat model is asked for the occurrences of one site.

    Attributes:
        store: the site's.
        model: the model's name.
        options: how it is asked.
        index: the site's images.
    """

    store: Store
    model: str
    options: ChatAltOptions
    index: ImageIndex

    def recipe(
        self, each: StoredOccurrence, occurrence: ImageOccurrence, decision: Decision
    ) -> str:
        """Equal for requests that are equal, so that each is sent once."""
        data = page_data(
            occurrence,
            decision,
            others=self.index.others(each),
            glossary=self.options.glossary,
            shared=self.index.is_shared(each),
        )
        language = language_for(occurrence, self.options.language)
        return digest("alt", self.options.prompt.version, self.options.max_chars, language, data)

    def dialogue(
        self, each: StoredOccurrence, occurrence: ImageOccurrence, decision: Decision
    ) -> Dialogue[ChatAlt]:
        """The dialogue that asks for one occurrence's alt."""
        return alt_dialogue(
            occurrence,
            decision,
            self.options,
            others=self.index.others(each),
            shared=self.index.is_shared(each),
        )

    def save(self, content: int, recipe: str, answer: ChatAlt) -> dict[str, Any]:
        """Store an answer; returns the record."""
        record = {**answer.to_dict(), "text": answer.alt, "drafted_at": now()}
        self.store.put_caption(content, self.model, recipe, record)
        return record

    def draft(
        self,
        occurrence: ImageOccurrence,
        decision: Decision,
        record: dict[str, Any],
        wording: WordingOptions,
    ) -> Draft | None:
        """The draft from a stored answer; None if the record is damaged."""
        try:
            answer = ChatAlt.from_dict(record)
        except (KeyError, TypeError, ValueError):
            return None
        made = chat_draft(occurrence, decision, answer, self.model, wording)
        return replace(made, drafted_at=str(record.get("drafted_at", "")))


def digest(kind: str, *parts: Any) -> str:
    """A short name for a request: equal for equal parts."""
    text = json.dumps(parts, ensure_ascii=False)
    return f"{kind} {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _key(each: StoredOccurrence) -> int | None:
    image = each.image
    return None if image is None else image.group or image.content
