"""Judging alts that exist: by rule where a rule decides, else by a chat model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cutline.chat import ChatRequest, Dialogue
from cutline.chat.answer_text import clean_characters, to_sentence, without_reasoning
from cutline.chat.language import english_name, mismatch
from cutline.chat.refusals import refusal_in
from cutline.errors import RefusalError, ServerError
from cutline.prompts import Prompt, packaged
from cutline.site.decide.chat_alt import find_object
from cutline.site.decide.decision_tree import decide
from cutline.site.decide.lint import lint, lint_alt
from cutline.site.decide.page_context import language_for, obeys_the_page, page_data
from cutline.site.model import (
    Alt,
    AltVerdict,
    ImageOccurrence,
    Judgement,
    Kind,
    Pixels,
    Purpose,
    Severity,
)

_REASON_CHARS = 300
_SAYS_NOTHING = frozenset("decorative-alt filename placeholder vague".split())
"""Rules of lint by which an alt has to change, whatever the image shows."""

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["good", "change", "decorative"]},
        "reason": {"type": "string"},
        "alt": {"type": "string"},
    },
    "required": ["verdict", "reason", "alt"],
    "additionalProperties": False,
}
"""The form of an answer, as a JSON schema."""


@dataclass(frozen=True)
class JudgeOptions:
    """How alts are judged."""

    max_chars: int = 125
    """Longest alt, characters."""

    language: str = ""
    """A language tag for every page; "" takes each page's own."""

    glossary: Mapping[str, str] = field(default_factory=dict)
    """What the site calls things."""

    prompt: Prompt = field(default_factory=lambda: packaged("judge"))
    """How a model is asked."""


def has_alt_to_judge(occurrence: ImageOccurrence) -> bool:
    """Whether an occurrence has an alt, which may be empty, that is shown to anybody."""
    return (
        occurrence.alt_state in (Alt.PRESENT, Alt.EMPTY)
        and occurrence.kind is not Kind.CSS
        and not occurrence.hidden
    )


def judge_by_rule(occurrence: ImageOccurrence, pixels: Pixels | None = None) -> Judgement | None:
    """The judgement that a rule gives without a look at the image; None if none does.

    An alt in which lint finds an error, or that says nothing, is to change. Where the decision
    tree calls the image decorative or redundant, an empty alt is good and another to be
    decorative. An empty alt of a link's only content is to change.

    Args:
        occurrence: the image occurrence, with its alt.
        pixels: measurements of the image; None if it is not at hand.
    """
    found = decide(_without_alt(occurrence), pixels)
    passed_over = found.purpose in (Purpose.DECORATIVE, Purpose.REDUNDANT) and found.alt == ""
    if occurrence.alt_state is Alt.EMPTY:
        if passed_over:
            return Judgement(AltVerdict.GOOD, _sentence(found.evidence), judge=f"rule:{found.rule}")
        if found.purpose is Purpose.FUNCTIONAL:
            reason = "it is all there is in a link or button, which has no name without it"
            return Judgement(AltVerdict.CHANGE, reason, found.alt or "", f"rule:{found.rule}")
        return None
    errors = [
        each
        for each in (*lint_alt(occurrence.alt or "", occurrence), *lint([occurrence]))
        if each.severity is Severity.ERROR or each.rule in _SAYS_NOTHING
    ]
    if errors:
        better = found.alt or ""
        verdict = AltVerdict.DECORATIVE if passed_over else AltVerdict.CHANGE
        return Judgement(verdict, _sentence(errors[0].message), better, f"rule:{errors[0].rule}")
    if passed_over:
        return Judgement(
            AltVerdict.DECORATIVE, _sentence(found.evidence), judge=f"rule:{found.rule}"
        )
    return None


def judge_dialogue(
    occurrence: ImageOccurrence,
    options: JudgeOptions | None = None,
    *,
    model: str,
    pixels: Pixels | None = None,
    others: Sequence[ImageOccurrence] = (),
    shared: bool = False,
) -> Dialogue[Judgement]:
    """Ask what an existing alt is worth; once more, with the finding, if the answer cannot be used.

    Returns:
        The judgement. A better alt that fails a check is left out.

    Raises:
        RefusalError: the model declines.
        ServerError: no answer has the requested form.
    """
    options = options or JudgeOptions()
    language = language_for(occurrence, options.language)
    decision = decide(_without_alt(occurrence), pixels)
    fields = {
        "alt": json.dumps(clean_characters(occurrence.alt or ""), ensure_ascii=False),
        "language": english_name(language),
        "max_chars": options.max_chars,
        "data": page_data(
            occurrence, decision, others=others, glossary=options.glossary, shared=shared
        ),
    }
    finding, kept = "", None
    for _ in range(2):
        system, prompt = options.prompt.render(**fields, finding=finding)
        answer = yield ChatRequest(prompt, system, SCHEMA, "judgement")
        parsed = _parse(answer.text)
        if isinstance(parsed, str):
            finding = parsed
            continue
        verdict, reason, better = parsed
        problem = _problem(verdict, better, occurrence, language, options) if better else ""
        if problem:
            better, finding = "", problem
        kept = Judgement(verdict, reason, better, model, options.prompt.version)
        if verdict is not AltVerdict.CHANGE or better:
            return kept
        finding = finding or 'its verdict was "change", but it had no better alt.'
    if kept is None:
        raise ServerError(f"{model}: got no judgement in the requested form: {finding}")
    return kept


def _parse(text: str) -> tuple[AltVerdict, str, str] | str:
    text, _ = without_reasoning(text)
    content = find_object(text)
    if content is None:
        sentence = to_sentence(text)
        if refusal_in(sentence):
            raise RefusalError(f"declined: {sentence[:_REASON_CHARS]}")
        return "it was not one JSON object."
    try:
        verdict = AltVerdict(str(content.get("verdict")).strip().lower())
    except ValueError:
        return 'its "verdict" was not "good", "change" or "decorative".'
    reason = clean_characters(str(content.get("reason") or ""))[:_REASON_CHARS]
    if refusal_in(reason):
        raise RefusalError(f"declined: {reason}")
    alt = content.get("alt")
    better = to_sentence(alt) if isinstance(alt, str) and verdict is AltVerdict.CHANGE else ""
    return verdict, reason or "no reason given", better


def _problem(
    verdict: AltVerdict,
    better: str,
    occurrence: ImageOccurrence,
    language: str,
    options: JudgeOptions,
) -> str:
    """Why a better alt cannot be used; "" if it can."""
    if refusal_in(better):
        return "its alt was an apology."
    if reason := obeys_the_page(better, occurrence):
        return f"its alt cannot be used: {reason}."
    if len(better) > options.max_chars:
        return f"its alt has {len(better)} characters; at most {options.max_chars} are allowed."
    if note := mismatch(better, language):
        return f"{note}."
    bad = [each for each in lint_alt(better, occurrence) if each.severity is Severity.ERROR]
    return f"its alt fails {bad[0].rule}: {bad[0].message}." if bad else ""


def _without_alt(occurrence: ImageOccurrence) -> ImageOccurrence:
    return replace(occurrence, alt=None)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:2] != text[:2].upper() else text
