"""Language detection for short texts, by script and frequent words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nb": "Norwegian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""English names by primary language subtag (BCP 47)."""

_SCRIPTS = {
    "CJK": ("zh", "ja"),
    "HIRAGANA": ("ja",),
    "KATAKANA": ("ja",),
    "HANGUL": ("ko",),
    "CYRILLIC": ("ru", "uk", "bg", "sr"),
    "GREEK": ("el",),
    "ARABIC": ("ar", "fa"),
    "HEBREW": ("he",),
    "THAI": ("th",),
    "DEVANAGARI": ("hi",),
}
_FREQUENT = {
    "en": "the a an and of with is are in on at to his her its while by for from that this over",
    "de": "der die das und ein eine einen einem einer mit ist sind auf im über vor dem von zum am",
    "fr": "le la les un une des et est dans sur avec du de au aux devant qui en par près deux",
    "es": "el la los las un una y con es en sobre de del que por al una sus hombre mujer",
    "it": "il lo la gli un una e con è su di del della nel sul che in uno donna uomo",
    "pt": "o a os as um uma e com é em no na de do da que por sobre homem mulher",
    "nl": "de het een en met is op in van voor aan bij naar die over een zijn",
    "sv": "en ett och med är på i av som den det för till över",
    "pl": "i w na z się jest do po nad pod obok przez",
}
_WORDS = {code: frozenset(words.split()) for code, words in _FREQUENT.items()}


def primary(tag: str) -> str:
    """The primary subtag of a language tag in lower case: de-AT -> de; "" for none."""
    return re.split(r"[-_]", tag.strip().lower())[0]


def english_name(tag: str) -> str:
    """What a language is called in English; the tag itself if it is not known here."""
    return NAMES.get(primary(tag), tag.strip() or "English")


def detect(text: str) -> str:
    """The language of a text as a primary subtag; "" if it is short or unclear."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return ""
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in letters)
    script, count = scripts.most_common(1)[0]
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * len(letters):
        return "ja"
    if script in _SCRIPTS and count >= 0.5 * len(letters):
        return _SCRIPTS[script][0]
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = {code: sum(word in known for word in words) for code, known in _WORDS.items()}
    best = max(counts, key=lambda code: counts[code])
    others = max(count for code, count in counts.items() if code != best)
    clear = counts[best] >= 2 and counts[best] >= others + 2 and counts[best] >= 0.2 * len(words)
    return best if clear else ""


def mismatch(text: str, wanted: str) -> str:
    """A note if a text seems to be in another language than wanted; "" if it does not."""
    found, expected = detect(text), primary(wanted)
    if not found or not expected or found == expected:
        return ""
    if {found, expected} <= {"zh", "ja"} or {found, expected} <= set(_SCRIPTS["CYRILLIC"]):
        return ""
    if {found, expected} <= {"ar", "fa"}:
        return ""
    return f"the answer seems to be in {english_name(found)}, not in {english_name(expected)}"
