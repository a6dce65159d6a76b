"""Captions as words and as token ids.

English captions go through the clean-up `cutline`. Other languages need one that keeps their
letters, which `choose_clean_up` selects by the captions' characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cutline.errors import DataError, OptionError

_WORD = re.compile(r"[A-Za-z0-9]+(?:[-.][A-Za-z0-9]+)*|'(?i:s|t|re|ve|ll|d|m)\b")
_NOT = re.compile(r"(\w)(n't)\b", re.IGNORECASE)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The first words of every vocabulary."""
CONTINUES = "##"
"""Prefix of a subword that continues the one before it; no word begins so."""
ENGLISH = "cutline"
"""The clean-up for English, and for any language in plain Latin letters."""
AUTO = "auto"
"""The clean-up that `choose_clean_up` selects."""

# Letters of Japanese, Chinese, Thai, Lao, Tibetan, Burmese and Khmer, in this order.
_UNSPACED = (
    "\u3005-\u3007\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u31f0-\u31ff\uff66-\uff9f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3"
)
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_UNSPACED_GAP = re.compile(f"(?<=[{_UNSPACED}]) | (?=[{_UNSPACED}])")
_FULL_STOPS = (
    (re.compile("[\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"), "\u3002"),
    # Devanagari, Bengali, Gurmukhi, Odia; the scripts between and after them have full stops.
    (re.compile("[\u0900-\u0a7f\u0b00-\u0b7f]"), "\u0964"),
    (re.compile("[\u0e01-\u0eff\u1780-\u17d3]"), ""),  # Thai, Lao, Khmer
    (re.compile("[\u1000-\u109f]"), "\u104b"),
    (re.compile("[\u0f40-\u0fbc]"), "\u0f0d"),
)
_ENGLISH = frozenset(("the", "with", "and", "while", "its", "near"))  # rare elsewhere
_MAX_FOREIGN_SHARE = 0.01
_MAX_FOREIGN_SHARE_IN_ENGLISH = 0.25
_MIN_ENGLISH_SHARE = 0.04


@dataclass(frozen=True)
class CleanUp:
    """How a caption is turned into words; steps are applied in the order of these fields."""

    fold_accents: bool = True
    """Letters without their marks: café -> cafe."""
    lower: bool = True
    """Lower case."""
    strip_specials: bool = False
    """Delete whatever is no letter, digit or space: t-shirt -> tshirt."""
    strip_digits: bool = False
    """Delete digits."""
    squeeze_spaces: bool = True
    """Any run of white space counts as one space."""
    drop_single: bool = False
    """Drop single characters between spaces: "a", and separate full stops."""
    filters: str = ""
    """Each of these characters parts words, as a space does (Keras calls them so)."""
    latin_words: bool = True
    """Only words of Latin letters and digits, with hyphens and dots inside them; clitics stand
    apart: man's -> man 's, isn't -> is n 't."""
    start: str = ""
    """Put before the words by `marked`."""
    end: str = ""
    """Put behind them."""
    all_scripts: bool = False
    """Words of the letters, marks and digits of any script, instead of `latin_words`; in scripts
    without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) every
    letter with its marks is a word."""
    dotless_i: bool = False
    """Turkish lower case: I becomes a dotless i, and a dotted capital I becomes i."""

    def words(self, caption: str) -> list[str]:
        """The words of a caption, without the marks."""
        if self.all_scripts:
            return _words_of_all_scripts(caption, self.dotless_i)
        text = caption
        if self.fold_accents:
            text = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
        if self.lower:
            text = text.lower()
        if self.fold_accents:
            text = "".join(letter for letter in text if not unicodedata.combining(letter))
        if self.strip_specials:
            text = re.sub(r"[^\w\s]|_", "", text)
        if self.strip_digits:
            text = re.sub(r"\d", "", text)
        if self.squeeze_spaces:
            text = " ".join(text.split())
        if self.drop_single:
            text = " ".join(word for word in text.split(" ") if len(word) > 1)
        if self.filters:
            text = text.translate(dict.fromkeys(map(ord, self.filters), " "))
        if self.latin_words:
            return _WORD.findall(_NOT.sub(r"\1 \2", text))
        return [word for word in text.split(" ") if word]

    def marked(self, caption: str) -> list[str]:
        """The words between the start and the end mark, as the tutorials feed them."""
        return [*filter(None, [self.start]), *self.words(caption), *filter(None, [self.end])]

    @classmethod
    def named(cls, name: str) -> CleanUp:
        """A preset of `CLEAN_UPS`.

        Raises:
            OptionError: there is none of that name.
        """
        if name not in CLEAN_UPS:
            raise OptionError(f"got clean-up {name!r}; expected one of {', '.join(CLEAN_UPS)}")
        return CLEAN_UPS[name]


CLEAN_UPS = {
    "cutline": CleanUp(),
    "unicode": CleanUp(fold_accents=False, latin_words=False, all_scripts=True),
    "unicode-turkish": CleanUp(
        fold_accents=False, latin_words=False, all_scripts=True, dotless_i=True
    ),
    "notebook": CleanUp(
        fold_accents=False,
        drop_single=True,
        filters='!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n',
        latin_words=False,
        start="startseq",
        end="endseq",
    ),
    "notebook-as-meant": CleanUp(
        fold_accents=False,
        strip_specials=True,
        strip_digits=True,
        drop_single=True,
        latin_words=False,
        start="startseq",
        end="endseq",
    ),
    "tensorflow-tutorial": CleanUp(
        fold_accents=False,
        squeeze_spaces=False,
        filters='!"#$%&()*+.,-/:;=?@[\\]^_`{|}~ ',
        latin_words=False,
        start="<start>",
        end="<end>",
    ),
}
"""Clean-ups by name.

`cutline` is `normalise`, for English. `unicode` keeps the letters of every script, and
`unicode-turkish` also the dotless i.

`notebook` is what the widespread Flickr8k notebook with DenseNet201 and startseq/endseq does: its
patterns for specials and spaces go to `str.replace`, which takes them literally and finds nothing,
so it lower-cases, drops single characters, and leaves the rest to Keras' Tokenizer.
`notebook-as-meant` keeps letters alone, as its text says. `tensorflow-tutorial` is the Tokenizer
of TensorFlow's "Image captioning with visual attention" as it was with Inception-v3; its
vocabulary is `Vocabulary.build(..., min_count=1, top_k=5000)`.
"""


def normalise(caption: str) -> list[str]:
    """The lower-case words of a caption: man's -> man 's, isn't -> is n 't, café -> cafe.

    Punctuation is dropped, and so is whatever has no Latin letter or digit at its base.
    """
    return CLEAN_UPS["cutline"].words(caption)


def _words_of_all_scripts(caption: str, dotless_i: bool) -> list[str]:
    """Runs of letters, marks and digits, with hyphens, dots and apostrophes inside; lower case."""
    text = unicodedata.normalize("NFC", caption.replace("\u2019", "'").replace("\u0640", ""))
    if dotless_i:
        text = text.replace("I", "\u0131").replace("\u0130", "i")
    text = unicodedata.normalize("NFC", text.lower().replace("i\u0307", "i"))
    words: list[str] = []
    word = ""
    for position, letter in enumerate(text):
        kind = _kind(letter)
        if kind == "unspaced":
            words += filter(None, [word, letter])
            word = ""
        elif kind == "mark" and not word and words and _UNSPACED_LETTER.match(words[-1]):
            words[-1] += letter
        elif kind in ("letter", "mark") or (
            kind == "joiner" and word and _kind(text[position + 1 : position + 2]) == "letter"
        ):
            word += letter
        else:
            words += filter(None, [word])
            word = ""
    return [*words, *filter(None, [word])]


@lru_cache(maxsize=4096)
def _kind(letter: str) -> str:
    """What a character is to `_words_of_all_scripts`."""
    if not letter:
        return "other"
    category = unicodedata.category(letter)
    if letter in "-.'\u200c\u200d":  # ZERO WIDTH (NON-)JOINER, in Persian and Indic words
        return "joiner"
    if category[0] == "M":
        return "mark"
    if _UNSPACED_LETTER.match(letter) and category[0] == "L":
        return "unspaced"
    return "letter" if category[0] in "LN" else "other"


def choose_clean_up(captions: Iterable[str]) -> str:
    """The clean-up that keeps the letters of these captions: a name of `CLEAN_UPS`.

    It is `cutline` for English, a rare café included, and for any language that is written in
    plain Latin letters; else `unicode`, or `unicode-turkish` if there is a dotless i.
    """
    total = foreign = english = dotless = 0
    for caption in captions:
        for word in _words_of_all_scripts(caption, dotless_i=False):
            total += 1
            foreign += not word.isascii()
            english += word in _ENGLISH
            dotless += "\u0131" in word
    is_english = english >= _MIN_ENGLISH_SHARE * total
    most = _MAX_FOREIGN_SHARE_IN_ENGLISH if is_english else _MAX_FOREIGN_SHARE
    if foreign <= most * total:
        return ENGLISH
    return "unicode-turkish" if dotless else "unicode"


def whole_words(pieces: Iterable[str]) -> list[str]:
    """Join subwords into words: skate ##board ##er -> skateboarder."""
    return " ".join(pieces).replace(f" {CONTINUES}", "").split()


def detokenise(words: Iterable[str]) -> str:
    """Join words or subwords into a sentence, "" for none.

    Subwords and clitics are joined to what they belong to, and words of scripts that have no
    spaces to each other. The sentence begins with a capital and ends with its script's full stop.
    """
    text = re.sub(r" (?='|n 't\b)", "", " ".join(whole_words(words)))
    if not text.isascii():
        text = _UNSPACED_GAP.sub("", text)
    if not text:
        return ""
    stop = next((stop for last, stop in _FULL_STOPS if last.match(text[-1])), ".")
    return f"{text[0].upper()}{text[1:]}{stop}"


class Vocabulary:
    """Words, or pieces of words, by id; the first four ids are special.

    Attributes:
        words: every word or piece by its id; a piece that goes on begins with `CONTINUES`.
        pad, bos, eos, unk: the special ids 0 to 3.
    """

    pad, bos, eos, unk = range(4)
    unsayable = (pad, bos, unk)

    def __init__(self, words: Sequence[str]) -> None:
        if tuple(words[:4]) != SPECIALS or len(set(words)) != len(words):
            raise DataError(f"got a vocabulary starting {words[:4]}; expected {SPECIALS}, no twins")
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], min_count: int = 5, top_k: int | None = None
    ) -> Vocabulary:
        """The words that occur at least `min_count` times, most frequent first.

        Args:
            captions: lists of words.
            min_count: how often a word must occur.
            top_k: how many words the vocabulary may have, the four special ones among them.

        Raises:
            OptionError: `top_k` leaves room for no word.
        """
        if top_k is not None and top_k <= len(SPECIALS):
            raise OptionError(f"got top_k={top_k}; expected more than {len(SPECIALS)}")
        counts = Counter(word for words in captions for word in words)
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls([*SPECIALS, *(word for _, word in kept)][:top_k])

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """A vocabulary written as one word a line."""
        return cls(path.read_text(encoding="utf-8").splitlines())

    def write(self, path: Path) -> None:
        """One word a line, in the order of their ids."""
        path.write_text("".join(f"{word}\n" for word in self.words), "utf-8", newline="\n")

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Words -> ids, unknown ones -> `unk`; without bos and eos."""
        return [self._ids.get(word, self.unk) for word in words]

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """Ids -> words, up to the first eos; pad and bos are passed over."""
        words = []
        for token in tokens:
            if token == self.eos:
                break
            if token not in (self.pad, self.bos):
                words.append(self.words[token])
        return words

    @property
    def checksum(self) -> str:
        """SHA-256 over the words in order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()
