"""Alt text from a chat model: the request, the checks of the answer, the draft."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cutline.caption import Caption
from cutline.chat import ChatRequest, Dialogue
from cutline.chat.answer_text import clean_characters, to_sentence, without_reasoning
from cutline.chat.language import english_name, mismatch
from cutline.chat.refusals import refusal_in
from cutline.errors import RefusalError, ServerError
from cutline.prompts import Prompt, packaged
from cutline.site.decide.alt_text import WordingOptions, draft
from cutline.site.decide.lint import lint_alt
from cutline.site.decide.page_context import (
    language_for,
    obeys_the_page,
    page_data,
    task_for,
    wants_long_description,
)
from cutline.site.model import Decision, Draft, ImageOccurrence, Purpose, Severity

_LONG_CHARS = 4000

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "alt": {"type": "string"},
        "decorative": {"type": "boolean"},
        "confidence": {"type": "number"},
        "long_description": {"type": "string"},
    },
    "required": ["alt", "decorative", "confidence", "long_description"],
    "additionalProperties": False,
}
"""The form of an answer, as a JSON schema."""


@dataclass(frozen=True)
class ChatAltOptions:
    """How a chat model is asked for alt text."""

    max_chars: int = 125
    """Longest alt, characters."""

    language: str = ""
    """A language tag for every page; "" takes each page's own."""

    glossary: Mapping[str, str] = field(default_factory=dict)
    """What the site calls things."""

    prompt: Prompt = field(default_factory=lambda: packaged("alt"))
    """How it is asked."""


@dataclass(frozen=True)
class ChatAlt:
    """What a chat model suggests for an image at one place.

    Attributes:
        alt: the suggestion, cleaned; "" if there is none.
        decorative: whether the model calls the image decorative.
        confidence: what the model states, 0..1, not calibrated; None if it states nothing usable.
        long_description: for charts, maps and diagrams; "" otherwise.
        language: what it was asked for, a primary language subtag.
        problems: why the suggestion must not be used as it is; empty if it can be.
        remarks: what else lint finds, which a second request did not solve.
        notes: what else a reviewer should know.
        prompt: the version of the prompt.
    """

    alt: str = ""
    decorative: bool = False
    confidence: float | None = None
    long_description: str = ""
    language: str = "en"
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prompt: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON for the store."""
        return {
            "alt": self.alt,
            "decorative": self.decorative,
            "confidence": self.confidence,
            "long_description": self.long_description,
            "language": self.language,
            "problems": list(self.problems),
            "remarks": list(self.remarks),
            "notes": list(self.notes),
            "prompt": self.prompt,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ChatAlt:
        """From the result of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        stated = record["confidence"]
        return cls(
            str(record["alt"]),
            bool(record["decorative"]),
            None if stated is None else float(stated),
            str(record["long_description"]),
            str(record["language"]),
            tuple(map(str, record["problems"])),
            tuple(map(str, record["remarks"])),
            tuple(map(str, record["notes"])),
            str(record["prompt"]),
        )


def needs_chat(decision: Decision) -> bool:
    """Whether a decision leaves the text to a reviewer."""
    return decision.alt is None and decision.purpose is not Purpose.KEPT


def alt_dialogue(
    occurrence: ImageOccurrence,
    decision: Decision,
    options: ChatAltOptions | None = None,
    *,
    others: Sequence[ImageOccurrence] = (),
    shared: bool = False,
) -> Dialogue[ChatAlt]:
    """Ask for the alt of an image at one place; once more, with the finding, if it fails a check.

    Args:
        occurrence: the image occurrence.
        decision: what it is for; never changed by an answer.
        options: how to ask; None is the default.
        others: other occurrences of the same image.
        shared: whether the image is part of many pages' layout.

    Returns:
        The suggestion. If both answers fail, the better one with its problems.

    Raises:
        RefusalError: the model declines, in the alt itself.
        ServerError: no answer has the requested form.
    """
    options = options or ChatAltOptions()
    language = language_for(occurrence, options.language)
    fields = {
        "task": task_for(decision),
        "language": english_name(language),
        "max_chars": options.max_chars,
        "data": page_data(
            occurrence, decision, others=others, glossary=options.glossary, shared=shared
        ),
        "long_description": wants_long_description(decision),
    }
    best: ChatAlt | None = None
    finding = ""
    for _ in range(2):
        system, prompt = options.prompt.render(**fields, finding=finding)
        answer = yield ChatRequest(prompt, system, SCHEMA, "alt_text")
        parsed = parse_answer(answer.text)
        if isinstance(parsed, str):
            finding = parsed
            continue
        checked = _checked(parsed, occurrence, decision, language, options)
        if best is None or _rank(checked) < _rank(best):
            best = checked
        if _rank(best) == (0, 0):
            return best
        finding = f"{'; '.join((*checked.problems, *checked.remarks))}."
    if best is None:
        raise ServerError(f"got no alt text in the requested form: {finding}")
    return best


def _rank(answer: ChatAlt) -> tuple[int, int]:
    return len(answer.problems), len(answer.remarks)


def parse_answer(text: str) -> ChatAlt | str:
    """The suggestion in an answer, or what is wrong with its form.

    Raises:
        RefusalError: the model declines.
    """
    text, _ = without_reasoning(text)
    content = find_object(text)
    if content is None:
        sentence = to_sentence(text)
        if refusal_in(sentence):
            raise RefusalError(f"declined: {sentence[:300]}")
        return "it was not one JSON object."
    alt = content.get("alt", content.get("alt_text"))
    decorative = _boolean(content.get("decorative", False))
    if not isinstance(alt, str) or decorative is None:
        return 'it lacked "alt", a string, or "decorative", true or false.'
    cleaned = to_sentence(alt)
    if refusal_in(cleaned):
        raise RefusalError(f"declined: {cleaned[:300]}")
    if not cleaned and not decorative:
        return "its alt was empty, but the image was not called decorative."
    long_description = content.get("long_description")
    return ChatAlt(
        cleaned,
        decorative,
        _confidence(content.get("confidence")),
        _paragraphs(long_description) if isinstance(long_description, str) else "",
    )


def find_object(text: str) -> dict[str, Any] | None:
    """The first JSON object anywhere in a text; None if there is none."""
    decoder = json.JSONDecoder(strict=False)
    for place in [found.start() for found in re.finditer(r"\{", text)][:20]:
        for candidate in (text[place:], re.sub(r",\s*([}\]])", r"\1", text[place:])):
            try:
                content, _ = decoder.raw_decode(candidate)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                return {str(key).strip().lower().replace("-", "_"): v for key, v in content.items()}
    return None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().lower())
    if value is None:
        return False
    return value if isinstance(value, bool) else None


def _confidence(value: Any) -> float | None:
    """0..1 from a number, a percentage or a text that holds one."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", value)
        value = None if found is None else float(found[1]) / (100 if found[2] else 1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value) / 100 if 1 < value <= 100 else float(value)
    return round(number, 2) if 0 <= number <= 1 else None


def _paragraphs(text: str) -> str:
    """A long text with its line breaks, without control characters and markup."""
    lines = (clean_characters(line) for line in text.splitlines())
    return re.sub(r"<[^>]*>", "", "\n".join(filter(None, lines)))[:_LONG_CHARS]


def _checked(
    answer: ChatAlt,
    occurrence: ImageOccurrence,
    decision: Decision,
    language: str,
    options: ChatAltOptions,
) -> ChatAlt:
    """An answer with what is wrong with it."""
    problems = list(_problems(answer, occurrence, language, options))
    remarks: list[str] = []
    notes: list[str] = []
    for finding in lint_alt(answer.alt, occurrence):
        if finding.rule != "too-long":
            said = f"the alt fails {finding.rule}: {finding.message}"
            (problems if finding.severity is Severity.ERROR else remarks).append(said)
    long_description = answer.long_description
    if not wants_long_description(decision):
        long_description = ""
    elif reason := obeys_the_page(long_description, occurrence):
        notes.append(f"a long description was left out: {reason}")
        long_description = ""
    elif not long_description and not answer.decorative:
        problems.append("the long description was empty")
    return replace(
        answer,
        long_description=long_description,
        language=language,
        problems=tuple(problems),
        remarks=tuple(remarks),
        notes=tuple(notes),
        prompt=options.prompt.version,
    )


def _problems(
    answer: ChatAlt, occurrence: ImageOccurrence, language: str, options: ChatAltOptions
) -> Iterator[str]:
    if answer.decorative and not answer.alt:
        return
    if reason := obeys_the_page(answer.alt, occurrence):
        yield f"the alt cannot be used: {reason}"
    if len(answer.alt) > options.max_chars:
        yield f"the alt has {len(answer.alt)} characters; at most {options.max_chars} are allowed"
    if note := mismatch(answer.alt, language):
        yield note


def chat_draft(
    occurrence: ImageOccurrence,
    decision: Decision,
    answer: ChatAlt,
    model: str,
    options: WordingOptions | None = None,
) -> Draft:
    """The draft of an occurrence from a chat model's suggestion.

    The decision stays as it is: that a model calls an image decorative is a note for the reviewer.
    A suggestion with problems that a second request did not solve is only an alternative.

    Args:
        occurrence: the image occurrence.
        decision: what it is for.
        answer: the suggestion.
        model: who made it.
        options: length, glossary and form; None is the default.
    """
    options = replace(
        options or WordingOptions(), threshold=None, language=answer.language, context_nats=0.0
    )
    described = replace(decision, purpose=Purpose.INFORMATIVE, rule="informative")
    place = replace(occurrence, title="", heading="", page_title="", link_text="")
    if decision.purpose is not Purpose.INFORMATIVE:
        place = replace(place, caption="", before="", after="")
    made = draft(place, described, Caption("", answer.alt, 0.0, model), options)
    usable = not (answer.problems or answer.decorative)
    if usable and made.decision.purpose is Purpose.REDUNDANT:
        decision = made.decision  # the text beside the image says the same
    notes = [
        note for note in made.notes if "never measured" not in note and note != "not captioned"
    ]
    made = replace(made, decision=decision, model=model, prompt=answer.prompt)
    made = replace(
        made,
        stated_confidence=answer.confidence,
        long_description=answer.long_description,
    )
    notes = [*answer.notes, *notes]
    if answer.long_description:
        notes.insert(0, "check the long description too; it is approved with the alt")
    if answer.decorative:
        notes.insert(0, f"{model} calls it decorative; if it is, give it an empty alt")
        return _without_suggestion(made, occurrence, answer, notes)
    if answer.problems:
        return _without_suggestion(made, occurrence, answer, [*answer.problems, *notes])
    if answer.confidence is not None:
        notes.append(f"{model} states a confidence of {answer.confidence:.0%}, not calibrated")
    return replace(made, notes=tuple(dict.fromkeys(notes)))


def _without_suggestion(
    made: Draft, occurrence: ImageOccurrence, answer: ChatAlt, notes: list[str]
) -> Draft:
    texts = dict.fromkeys((answer.alt, *made.alternatives))
    others = tuple(text for text in texts if text and not obeys_the_page(text, occurrence))
    return replace(made, alt=None, words=(), alternatives=others, notes=tuple(dict.fromkeys(notes)))
