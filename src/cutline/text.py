"""Captions as words and as token ids."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cutline.errors import DataError

_WORD = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*|'(?:s|t|re|ve|ll|d|m)\b")
_SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


def normalise(caption: str) -> list[str]:
    """The lower-case words of a caption: man's -> man 's, isn't -> is n 't, café -> cafe.

    Punctuation is dropped, and so is whatever has no Latin letter or digit at its base.
    """
    letters = unicodedata.normalize("NFKD", caption.replace("\u2019", "'")).lower()
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return _WORD.findall(re.sub(r"(\w)n't\b", r"\1 n't", plain))


def detokenise(words: Iterable[str]) -> str:
    """Words -> a sentence: clitics joined, a capital first, a full stop last; "" for no words."""
    text = re.sub(r" (?='|n 't\b)", "", " ".join(words))
    return f"{text[0].upper()}{text[1:]}." if text else ""


class Vocabulary:
    """Words by id; the first four ids are special.

    Attributes:
        words: every word by its id.
        pad, bos, eos, unk: the special ids 0 to 3.
    """

    pad, bos, eos, unk = range(4)
    unsayable = (pad, bos, unk)

    def __init__(self, words: Sequence[str]) -> None:
        if tuple(words[:4]) != _SPECIALS or len(set(words)) != len(words):
            raise DataError(
                f"got a vocabulary starting {words[:4]}; expected {_SPECIALS}, no twins"
            )
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int = 5) -> Vocabulary:
        """The words that occur at least `min_count` times, most frequent first."""
        counts = Counter(word for words in captions for word in words)
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls([*_SPECIALS, *(word for _, word in kept)])

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
