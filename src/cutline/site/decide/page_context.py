"""The page context of an image that is sent to a chat model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cutline.chat.answer_text import clean_characters
from cutline.chat.language import primary
from cutline.site.model import Decision, ImageOccurrence, Purpose
from cutline.site.url_words import name_words

_MOST_CHARS = 300
_MOST_ALTS = 5
_MOST_GLOSSARY = 30

TASKS: Mapping[Purpose, str] = {
    Purpose.FUNCTIONAL: (
        "The image is all there is in a link or button. Write where the link leads or what the "
        "button does, in a few words, not what the image shows."
    ),
    Purpose.TEXT: "The image shows text. Write that text word for word, and nothing else.",
    Purpose.COMPLEX: (
        "The image is a chart, map or diagram. Write what kind it is and its gist in the alt; what "
        "it tells in detail belongs into the long description."
    ),
}
"""What to write, by the purpose of the image."""

_DESCRIBE = (
    "Write what a reader who cannot see the image needs to know of it on this page. If it only "
    "decorates the page, say so."
)
INSTRUCTION = re.compile(
    r"ignore (?:all |any |the |your )*(?:previous|prior|above|earlier|other)|disregard (?:all"
    r"|any|the|your|previous)"
    r"|(?:previous|prior|above|system|these|your) (?:instructions?|prompts?|rules)|system prompt"
    r"|you are (?:now|an ai)"
    r"|as an ai\b|(?:act|answer|respond|reply|output|say|write|print|set) (?:as|only|with"
    r"|exactly|the (?:word|text))\b"
    r"|</?(?:script|system|instructions?|prompt)|jailbreak|new instructions?"
    r"|(?:ignoriere|vergiss|missachte) (?:alle|die|deine|vorherige)|ignore[rz]? (?:toutes|les"
    r"|todas|las|le) ",
    re.IGNORECASE,
)
"""Words of somebody who gives a model instructions."""

_MARKUP = re.compile(
    r"<[a-z/!]|&#?\w+;|https?:|www\.|javascript:|\]\(|[{}]|@\w+\.\w", re.IGNORECASE
)


def task_for(decision: Decision) -> str:
    """What to write for an image with this decision."""
    return TASKS.get(decision.purpose, _DESCRIBE)


def wants_long_description(decision: Decision) -> bool:
    """Whether an image needs more than an alt."""
    return decision.purpose is Purpose.COMPLEX


def page_data(
    occurrence: ImageOccurrence,
    decision: Decision,
    *,
    others: Sequence[ImageOccurrence] = (),
    glossary: Mapping[str, str] | None = None,
    shared: bool = False,
) -> str:
    """What is known of an image's place, as a JSON object.

    Args:
        occurrence: the image occurrence.
        decision: what it is for.
        others: other occurrences of the same image, whose alts describe it.
        glossary: what the site calls things.
        shared: whether the image is on many pages, as part of their layout; the title, heading
            and text of one of them then say nothing of it.
    """
    alts = dict.fromkeys(
        each
        for other in (occurrence, *others)
        if (each := _clean(other.alt or "")) and other is not occurrence
    )
    data: dict[str, Any] = {
        "purpose": decision.purpose.value,
        "because": _clean(decision.evidence),
        "link_destination": _clean(occurrence.link),
        "link_text": _clean(occurrence.link_text),
        "in_a_button": occurrence.button or None,
        "caption": _clean(occurrence.caption),
        "title_attribute": _clean(occurrence.title),
        "file_name": " ".join(name_words(occurrence.url or occurrence.source))[:_MOST_CHARS],
        "alts_of_this_image_elsewhere": list(alts)[:_MOST_ALTS],
        "glossary": dict(list((glossary or {}).items())[:_MOST_GLOSSARY]),
    }
    if not shared:
        data |= {
            "page_title": _clean(occurrence.page_title),
            "heading": _clean(occurrence.heading),
            "text_before": _clean(occurrence.before)[-_MOST_CHARS:],
            "text_after": _clean(occurrence.after),
        }
    return json.dumps({name: value for name, value in data.items() if value}, ensure_ascii=False)


def language_for(occurrence: ImageOccurrence, chosen: str = "") -> str:
    """The language of an alt: the one chosen, else the page's own, else English."""
    return primary(chosen) or primary(occurrence.language) or "en"


def obeys_the_page(text: str, occurrence: ImageOccurrence) -> str:
    """Why a text looks as if somebody's instruction had been followed; "" if it does not.

    An instruction in a page or picture can only lead to a text, which this refuses if it reads like
    one, holds markup or an address, or repeats a sentence of the page that gives instructions.
    """
    if _MARKUP.search(text):
        return "it holds markup or an address"
    if INSTRUCTION.search(text):
        return "it reads like an instruction"
    words = re.findall(r"\w+", text.lower())
    near = (
        occurrence.before,
        occurrence.after,
        occurrence.caption,
        occurrence.title,
        occurrence.heading,
        occurrence.page_title,
    )
    for text_near in filter(INSTRUCTION.search, near):
        instruction = " ".join(re.findall(r"\w+", text_near.lower()))
        size = min(3, len(words))
        runs = (" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
        if words and any(re.search(rf"\b{re.escape(run)}\b", instruction) for run in runs):
            return "it repeats a text of the page that gives instructions"
    return ""


def _clean(text: str) -> str:
    return clean_characters(text)[:_MOST_CHARS]
