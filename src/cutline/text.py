"""Captions as words and as token ids."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cutline.errors import DataError, OptionError

_WORD = re.compile(r"[A-Za-z0-9]+(?:[-.][A-Za-z0-9]+)*|'(?i:s|t|re|ve|ll|d|m)\b")
_NOT = re.compile(r"(\w)(n't)\b", re.IGNORECASE)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The first words of every vocabulary."""
CONTINUES = "##"
"""Before a piece of a word that goes on from the piece in front of it; no word begins so."""


@dataclass(frozen=True)
class CleanUp:
    """What is done to a caption before it becomes words, in the order of these switches."""

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
    """Drop what stands alone between spaces with one character: a, and full stops set apart."""
    filters: str = ""
    """Each of these characters parts words, as a space does (Keras calls them so)."""
    latin_words: bool = True
    """Only words of Latin letters and digits, with hyphens and dots inside them; clitics stand
    apart: man's -> man 's, isn't -> is n 't."""
    start: str = ""
    """Put before the words by `marked`."""
    end: str = ""
    """Put behind them."""

    def words(self, caption: str) -> list[str]:
        """The words of a caption, without the marks."""
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

`cutline` is `normalise`. `notebook` is what the widespread Flickr8k notebook with DenseNet201 and
startseq/endseq does: its patterns for specials and spaces go to `str.replace`, which takes them
literally and finds nothing, so it lower-cases, drops single characters, and leaves the rest to
Keras' Tokenizer. `notebook-as-meant` keeps letters alone, as its text says. `tensorflow-tutorial`
is the Tokenizer of TensorFlow's "Image captioning with visual attention" as it was with
Inception-v3; its vocabulary is `Vocabulary.build(..., min_count=1, top_k=5000)`.
"""


def normalise(caption: str) -> list[str]:
    """The lower-case words of a caption: man's -> man 's, isn't -> is n 't, café -> cafe.

    Punctuation is dropped, and so is whatever has no Latin letter or digit at its base.
    """
    return CLEAN_UPS["cutline"].words(caption)


def whole_words(pieces: Iterable[str]) -> list[str]:
    """Pieces of words put together: skate ##board ##er -> skateboarder."""
    return " ".join(pieces).replace(f" {CONTINUES}", "").split()


def detokenise(words: Iterable[str]) -> str:
    """Words or pieces of them -> a sentence, "" for none.

    Pieces and clitics are joined to what they belong to; a capital comes first, a full stop last.
    """
    text = re.sub(r" (?='|n 't\b)", "", " ".join(whole_words(words)))
    return f"{text[0].upper()}{text[1:]}." if text else ""


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
