"""From a caption to alt text: glossary, confidence, length and form.

The decision (`decision_tree.py`) provides the text if it can; the caption is used only for
informative images. Every word of a draft has its origin.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

import numpy as np

from cutline.caption import Caption
from cutline.errors import OptionError
from cutline.image_kind import PHOTOGRAPH, ImageKind
from cutline.site.decide.glossary import core, reword
from cutline.site.decide.lint import lint_alt, redundant_prefix, says_nothing
from cutline.site.model import Alt, Decision, Draft, ImageOccurrence, Origin, Purpose
from cutline.site.url_words import capital, name_words, uncapital

METADATA_RULE = "metadata"
"""The rule of a draft that the image file itself carries, which is kept as it is."""

_Words = tuple[tuple[str, Origin], ...]

_CONTEXT_WORDS = 40
_SURE_LABEL = 0.1  # a label below this probability is noise
_COMPLEX_KINDS = ("chart", "diagram", "map")  # need a long description as well as an alt


@dataclass(frozen=True)
class WordingOptions:
    """The options of drafts.

    Raises:
        OptionError: an option is out of its range.
    """

    max_chars: int = 125
    """Maximum length of a draft, in characters; it is shortened at a word boundary."""

    glossary: Mapping[str, str] = field(default_factory=dict)
    """The site's vocabulary: `{"sheep": "alpaca"}`; see `cutline.site.glossary.parse`."""

    sentence: bool = True
    """Descriptions end in a full stop; otherwise they are fragments without one."""

    threshold: float | None = 0.4
    """Minimum confidence of a caption to be suggested; None suggests every caption."""

    language: str = "en"
    """The captioner's language; drafts for pages in another language get a note."""

    context_nats: float = 0.0
    """Bias of the caption towards words of the page; see `CaptionOptions`. 0 is off."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_chars < 1:
            raise OptionError(f"got max_chars {self.max_chars}; expected at least 1")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"got threshold {self.threshold}; expected 0 to 1, or None")
        if not 0 <= self.context_nats < math.inf:
            raise OptionError(f"got context_nats {self.context_nats}; expected 0 or a little more")
        for key, value in self.glossary.items():
            if not key.split() or not value.split():
                raise OptionError(f"got {key!r} = {value!r} in the glossary; expected words")


def context(occurrence: ImageOccurrence, others: Sequence[ImageOccurrence] = ()) -> str:
    """The words near an image, nearest first, for `InContext`.

    Args:
        occurrence: the image occurrence.
        others: other occurrences of the same image, whose alts describe it.

    Returns:
        At most 40 distinct words, without words that are common near images.
    """
    sources = [
        *(other.alt or "" for other in others),
        occurrence.caption,
        occurrence.title,
        " ".join(name_words(occurrence.url or occurrence.source)),
        occurrence.link_text,
        " ".join(occurrence.before.split()[-12:]),
        " ".join(occurrence.after.split()[:12]),
        occurrence.heading,
        occurrence.page_title,
    ]
    words = (word for source in sources for word in re.findall(r"[^\W_]+(?:['-]\w+)*", source))
    near = dict.fromkeys(word for word in words if word.lower() not in _BOILERPLATE)
    return " ".join(list(near)[:_CONTEXT_WORDS])


def confidence(caption: Caption) -> float | None:
    """The share of captions with this score that fit, 0..1 in hundredths; None if not calibrated.

    A caption fits if its CIDEr-D is at least the lower quartile of captions by people for the same
    images. `scripts/calibrate.py` measures that share on the development splits of Flickr8k and
    COCO by isotonic regression. Captions of other kinds of images fit less often.
    """
    known = calibration().get(caption.model)
    if known is None or not caption.ok or not math.isfinite(caption.score):
        return None
    return round(float(np.interp(caption.score, *known)), 2)


def _other_kind(caption: Caption | None) -> ImageKind | None:
    """The kind of an image that is not a photograph; None for photographs and unknown kinds."""
    kind = caption.kind if caption is not None else None
    return None if kind is None or kind.name == PHOTOGRAPH else kind


@cache
def calibration() -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """By model: scores in nats, ascending, and the share of captions with that score that fit."""
    text = files("cutline.site.decide").joinpath("confidence.json").read_text("utf-8")
    return {
        name: (tuple(curve["scores"]), tuple(curve["fits"]))
        for name, curve in json.loads(text)["models"].items()
    }


def draft(
    occurrence: ImageOccurrence,
    decision: Decision,
    caption: Caption | None,
    options: WordingOptions | None = None,
) -> Draft:
    """Draft the alt of one image occurrence.

    Args:
        occurrence: the image occurrence.
        decision: its purpose.
        caption: of the image, with or without `context(occurrence)`; None if there is none.
        options: None is the default.

    Returns:
        The draft. No suggestion is longer than `max_chars` or begins with "image of".
    """
    options = options or WordingOptions()
    if decision.purpose is Purpose.KEPT:
        return Draft(decision, None)
    wording = _described(occurrence, caption, options)
    sure: float | None = None
    if caption and wording and decision.purpose is Purpose.INFORMATIVE and decision.alt is None:
        sure = confidence(caption)
    words: _Words = ()
    others = list(_alternatives(occurrence, caption, wording, options))
    notes: list[str] = []
    kind = _other_kind(caption) if decision.purpose is Purpose.INFORMATIVE else None
    if kind is not None and decision.alt is None and kind.name in _COMPLEX_KINDS:
        evidence = f"the image looks like a {kind.name} ({kind.probability:.0%})"
        decision = replace(decision, purpose=Purpose.COMPLEX, rule="image-kind", evidence=evidence)
    alt: str | None
    abstained = False
    if decision.alt is not None and decision.rule == METADATA_RULE:
        words = _form(_from_page(decision.alt), options, decision.alt.rstrip().endswith("."))
        alt = _text(words) or None
    elif decision.alt is not None:
        described = decision.purpose is Purpose.INFORMATIVE and decision.rule == "title"
        words = _form(
            _from_page(_without_prefix(decision.alt)), options, options.sentence and described
        )
        alt = _text(words) if words or not decision.alt.strip() else None
    elif kind is not None:
        sure, abstained, alt = None, True, None
        notes.append(
            f"probably not a photograph but a {kind.name} ({kind.probability:.0%}), "
            "and the captioner describes only photographs"
        )
    elif decision.purpose is not Purpose.INFORMATIVE:
        alt = None
    elif sure is not None and decision.rule == "drawing":
        sure, abstained, alt = None, True, None
        notes.append("no photograph, and this captioner's captions were measured on those alone")
    elif sure is not None and options.threshold is not None and sure < options.threshold:
        abstained, alt = True, None
        notes.append(f"too unsure to suggest: such captions fit in {sure:.0%} of cases")
    elif beside := _text_repeating(occurrence, wording):
        decision = replace(decision, purpose=Purpose.REDUNDANT, rule="said-beside", alt="")
        decision = replace(decision, evidence=f"the {beside} says all that the caption does")
        alt = ""
    else:
        words = _with_subject(occurrence, wording, options)
        alt = _text(words) if words else None
        if caption and alt and sure is None:
            notes.append(f"how sure {caption.model or 'the captioner'} is was never measured")
    if alt != _text(wording):
        others.insert(0, _text(wording))
    notes += _notes(occurrence, decision, caption, alt, options)
    return Draft(
        decision,
        alt,
        words,
        sure,
        abstained,
        _different(others, alt),
        tuple(
            label.name
            for label in (caption.labels if caption else ())
            if label.probability >= _SURE_LABEL
        ),
        caption.model if caption is not None and wording else "",
        tuple(notes),
    )


def _different(others: Iterable[str], alt: str | None) -> tuple[str, ...]:
    """The texts that differ from the alt and from each other, ignoring final full stops."""
    found: dict[str, str] = {}
    for other in others:
        found.setdefault(other.rstrip("."), other)
    return tuple(other for key, other in found.items() if key and key != (alt or "").rstrip("."))


def _described(
    occurrence: ImageOccurrence, caption: Caption | None, options: WordingOptions
) -> _Words:
    """The caption as an alt, each word with its origin."""
    return _reword(caption.text, occurrence, options) if caption is not None and caption.ok else ()


def _reword(text: str, occurrence: ImageOccurrence, options: WordingOptions) -> _Words:
    near: set[str] = set()
    if options.context_nats:
        near = {core(word) for word in context(occurrence).split()} - _DANGLING
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    words = tuple(
        (word, Origin.PAGE if core(word) in near else Origin.PICTURE)
        for word in _without_prefix(text).split()
    )
    return _form(reword(words, options.glossary), options, options.sentence)


def _alternatives(
    occurrence: ImageOccurrence, caption: Caption | None, wording: _Words, options: WordingOptions
) -> Iterator[str]:
    """Other suggestions, best first: names on the page, its texts, the other captions."""
    for name in _names(occurrence):
        if wording and (found := _PERSON.match(_text(wording))):
            rest = _text(wording)[found.end() :].split()
            yield _text(_form(_from_page(name) + _from_page(rest), options, options.sentence))
        else:
            yield _text(_form(_from_page(name), options, False))
    for text in (occurrence.title, occurrence.caption):
        if not says_nothing(text):
            yield _text(_form(_from_page(_without_prefix(text)), options, False))
    for other in caption.alternatives if caption is not None and caption.ok else ():
        yield _text(_reword(other.text, occurrence, options))


def _notes(
    occurrence: ImageOccurrence,
    decision: Decision,
    caption: Caption | None,
    alt: str | None,
    options: WordingOptions,
) -> Iterator[str]:
    """Notes for the reviewer."""
    if occurrence.alt_state is Alt.WHITESPACE:
        yield "its alt has only spaces; it neither describes the image nor marks it decorative"
    if decision.purpose is Purpose.COMPLEX:
        yield (
            "name it in the alt, and give its content as a long description next to it "
            "(https://www.w3.org/WAI/tutorials/images/complex/)"
        )
    if decision.purpose is Purpose.TEXT:
        yield "an image of text: the alt is that text (WCAG 1.4.5 would rather have real text)"
    if decision.purpose is Purpose.FUNCTIONAL and alt is None:
        yield "say where it leads or what it does, not what the image shows"
    whole = " ".join((decision.alt or "").split())
    if alt and len(alt) < len(whole.rstrip(".,;:")):
        yield f'shortened from "{whole}"'
    if decision.purpose is Purpose.INFORMATIVE and decision.alt is None:
        if caption is None:
            yield "not captioned"
        elif caption.error is not None:
            yield f"not captioned: {caption.error}"
    page, ours = (
        language.lower().split("-")[0] for language in (occurrence.language, options.language)
    )
    if alt and page and page != ours and decision.alt is None:
        yield (
            f"the page is in {occurrence.language}, this draft in {options.language}: translate it"
        )
    elif alt and page not in ("", "en") and decision.purpose is Purpose.FUNCTIONAL:
        yield f"the page is in {occurrence.language}: check that this draft is, too"
    if alt:
        for finding in lint_alt(alt, occurrence):
            yield finding.message


# Names from the page.


def _with_subject(occurrence: ImageOccurrence, wording: _Words, options: WordingOptions) -> _Words:
    """The caption after the product's name, if the page is clear about it: "Roadster: a bicycle."

    It is where a heading or title of a few capitalised words is also the file's name, and the
    caption is not of people, who are not named by a machine.
    """
    if not wording or _PEOPLE.search(_text(wording)):
        return wording
    named = [core(word) for word in name_words(occurrence.url or occurrence.source)]
    for title in (
        occurrence.title,
        occurrence.heading,
        occurrence.link_text,
        occurrence.page_title,
    ):
        words = title.split()
        cores = [core(word) for word in words]
        if (
            2 <= len(words) <= 5
            and all(word[0].isupper() or word[0].isdigit() for word in words)
            and any(named[i : i + len(cores)] == cores for i in range(len(named)))
            and not set(cores) <= {core(word) for word, _ in wording}
        ):
            first, origin = wording[0]
            lower = first if len(first) > 1 and first == first.upper() else uncapital(first)
            subject = _from_page([*words[:-1], words[-1].rstrip(".:,;") + ":"])
            whole = (*subject, (lower, origin), *wording[1:])
            return whole if len(_text(whole)) <= options.max_chars else wording
    return wording


def _names(occurrence: ImageOccurrence) -> Iterator[str]:
    """Names of people or things near the image, for a person to choose."""
    for text in (occurrence.title, occurrence.caption):
        if found := _NAME.match(text.strip()):
            yield found[0]
    named = [word for word in name_words(occurrence.url or occurrence.source) if word.isalpha()]
    for text in (occurrence.heading, occurrence.before, occurrence.after):
        if found := _NAME.fullmatch(text.strip()):
            yield found[0]
        elif 2 <= len(named) <= 3:
            together = re.search(rf"(?i)\b{named[0]}\s+{' '.join(named[1:])}\b", text)
            if together and _NAME.fullmatch(together[0]):
                yield together[0]


def _text_repeating(occurrence: ImageOccurrence, wording: _Words) -> str:
    """The text near the image that has every content word of the caption; "" if none."""
    meant = {_stem(core(word)) for word, _ in wording if core(word) not in _DANGLING}
    if len(meant) >= 3:
        for where, text in (
            ("figcaption", occurrence.caption),
            ("text before it", occurrence.before),
            ("text after it", occurrence.after),
        ):
            if meant <= {_stem(core(word)) for word in text.split()}:
                return where
    return ""


# Form and length.


def _form(words: Iterable[tuple[str, Origin]], options: WordingOptions, sentence: bool) -> _Words:
    """Capitalise, add or remove the full stop, and shorten at the end of a phrase if too long."""
    whole = tuple((word, origin) for word, origin in words if word)
    if whole and whole[0][0].islower() and not re.search(r"[.@]\w", whole[0][0]):
        whole = ((capital(whole[0][0]), whole[0][1]), *whole[1:])
    fitting = [
        kept
        for size in range(len(whole), 0, -1)
        if size == len(whole) or core(whole[size - 1][0]) not in _DANGLING
        if (kept := _ended(whole[:size], sentence))
        if len(_text(kept)) <= options.max_chars
    ]
    if not fitting or len(fitting[0]) == len(whole):
        return fitting[0] if fitting else ()
    for kept in fitting[: len(fitting) // 2 + 1]:
        last, following = whole[len(kept) - 1][0], whole[len(kept)][0]
        if last[-1] in ",;.:" or core(following) in _DANGLING - _DETERMINERS:
            return kept
    return fitting[0]


def _ended(words: _Words, sentence: bool) -> _Words:
    """The words with or without a final full stop; () if the last word is only punctuation."""
    *start, (last, origin) = words
    if last[-1] not in "!?":
        last = last.rstrip(".,;:")
        last += "." if last and sentence else ""
    return (*start, (last, origin)) if last else ()


def _without_prefix(text: str) -> str:
    """The text without prefixes such as "image of"."""
    while prefix := redundant_prefix(text):
        text = text[len(prefix) :]
    return text


def _from_page(text: str | Iterable[str]) -> _Words:
    return tuple((word, Origin.PAGE) for word in (text.split() if isinstance(text, str) else text))


def _text(words: Iterable[tuple[str, Origin]]) -> str:
    return " ".join(word for word, _ in words)


def _stem(word: str) -> str:
    """An approximate stem, shared by forms such as running and runs."""
    return re.sub(r"(.)\1$", r"\1", re.sub(r"(?<=\w{3})(es|s|ing|ed)$", "", word))


_DANGLING = frozenset(
    """a about above across after against along among an and are around as at be because been
    before behind being below beneath beside between but by down during each for from has have he
    her his if in inside into is it its like near next of off on onto or out outside over she so
    some that the their them there these they this those through to toward towards under until up
    very was were when where which while who whose with within without""".split()
)
_DETERMINERS = frozenset("a an each her his its that the their these this those".split())
_BOILERPLATE = _DANGLING | frozenset(
    """all alt click contact cookie cookies copyright credit download enlarge fig figure foto here
    home html https image images jpeg jpg login logo menu more page photo photograph photos
    picture pictures png read reserved rights screenshot search share site skip source svg thumbnail
    view webp website welcome www""".split()
)
_ADJECTIVES = r"(?:(?:young|old|older|little|small|elderly|smiling|blond|blonde|bald)\s+)*"
_PERSON = re.compile(
    rf"(?:an?|the|one)\s+{_ADJECTIVES}"
    r"(?:man|woman|boy|girl|person|lady|guy|child|kid|player|athlete)\b(?!')",
    re.IGNORECASE,
)
_PEOPLE = re.compile(
    r"""(?ix)\b(man|men|woman|women|boys?|girls?|persons?|people|lad(y|ies)|guys?|child|children|kids?
    |baby|babies|toddlers?|players?|athletes?|crowd|couple|bikers?|riders?|skiers?|surfers?)\b"""
)
_NAME = re.compile(
    r"[A-Z\u00c0-\u00de][\w'\u2019.-]+(?: [A-Z\u00c0-\u00de][\w'\u2019-]+){1,2}"
    r"(?=$|[,.:;(]| [-\u2013] )"
)
