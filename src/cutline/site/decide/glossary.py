"""Glossary: replacing words of a caption by a site's own terms."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cutline.errors import OptionError
from cutline.site.model import Origin
from cutline.site.url_words import capital

Words = tuple[tuple[str, Origin], ...]
_PUNCTUATION = "\"'\u2018\u2019\u201c\u201d.,;:!?()[]{}"


def parse(text: str) -> dict[str, str]:
    """A glossary from lines such as `sheep = alpaca`; `#` begins a comment.

    To replace the article too, include it: `a man = Alexander`, `the man = Alexander`.

    Raises:
        OptionError: a line is invalid; the message shows it.
    """
    glossary = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        key, equals, value = (" ".join(part.split()) for part in line.partition("="))
        if not (key and equals and value):
            raise OptionError(f"got {line!r} in line {number}; expected `sheep = alpaca`")
        glossary[key] = value
    return glossary


def reword(words: Words, glossary: Mapping[str, str]) -> Words:
    """Replace whole words by those of the glossary; number, case and article agree."""
    if not glossary:
        return words
    table = {tuple(key.lower().split()): value.split() for key, value in glossary.items()}
    several = {
        (*key[:-1], _plural(key[-1])): [*value[:-1], _plural(value[-1])]
        for key, value in table.items()
    }
    longest = max(map(len, table))
    cores = [core(word) for word, _ in words]
    replaced: list[tuple[str, Origin]] = []
    place = 0
    while place < len(words):
        for size in range(min(longest, len(words) - place), 0, -1):
            last = re.sub(r"['\u2019]s$", "", cores[place + size - 1])
            key = (*cores[place : place + size - 1], last)
            if key in table or key in several:
                break
        else:
            replaced.append(words[place])
            place += 1
            continue
        follows = place + size
        if key in table and key in several:  # singular and plural are equal, as in "sheep"
            many = bool(_MANY.intersection(cores[max(0, place - 1) : place]))
            many = many or bool(_ARE.intersection(cores[follows : follows + 1]))
        else:
            many = key in several
        value = list((several if many else table)[key])
        first, end = words[place][0], words[follows - 1][0]
        if re.sub(r"^\W+", "", first)[:1].isupper():
            value[0] = capital(value[0])
        _agree(replaced, value)
        at = end.lower().rfind(last) + len(last)
        value[0] = first[: len(first) - len(first.lstrip(_PUNCTUATION))] + value[0]
        value[-1] += end[at:]
        replaced += [(word, Origin.GLOSSARY) for word in value]
        place = follows
    return tuple(replaced)


def _agree(ours: list[tuple[str, Origin]], value: list[str]) -> None:
    """Correct the article before a replacement: "an alpaca"; none before "the mayor"."""
    article, origin = ours[-1] if ours else ("", Origin.PAGE)
    if article.lower() not in ("a", "an", "the"):
        return
    if value[0].lower() in ("a", "an", "the"):
        ours.pop()
        if article[0].isupper():
            value[0] = capital(value[0])
    elif article.lower() != "the":
        fit = "an" if _VOWEL.match(value[0]) else "a"
        ours[-1] = (capital(fit) if article[0].isupper() else fit, origin)


def _plural(noun: str) -> str:
    """An English noun's plural, in its case."""
    lower = noun.lower()
    if lower in _IRREGULAR:
        plural = _IRREGULAR[lower]
        return capital(plural) if noun[:1].isupper() else plural
    if lower in _IRREGULAR.values():
        return noun
    if re.search(r"(s|x|z|ch|sh)$", lower):
        return noun + "es"
    if re.search(r"[^aeiou]y$", lower) and noun[:1].islower():
        return noun[:-1] + "ies"
    return noun + "s"


def core(word: str) -> str:
    """A word in lower case without the punctuation around it."""
    return word.strip(_PUNCTUATION).lower()


_MANY = frozenset(
    """two three four five six seven eight nine ten dozen several many few some these those both
    of other""".split()
)
_ARE = frozenset("are were have graze play run stand lie sit walk".split())
_VOWEL = re.compile(
    r"(?i)\W*(?:(?!uni|use|usu|eu|one\b|once\b|ur[aeiou])[aeiou]|hour|honest|honou?r|heir|8|11\b|18\b)"
)
_IRREGULAR = {
    "child": "children",
    "deer": "deer",
    "fish": "fish",
    "foot": "feet",
    "goose": "geese",
    "knife": "knives",
    "leaf": "leaves",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "sheep": "sheep",
    "tooth": "teeth",
    "wolf": "wolves",
    "woman": "women",
}
