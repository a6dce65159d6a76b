"""Subword vocabularies by byte-pair encoding, for many or rare words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from cutline.errors import DataError
from cutline.text import CONTINUES, SPECIALS, Vocabulary, whole_words


def _tokenizer(pieces: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    return Tokenizer(BPE(pieces, merges, unk_token="<unk>", continuing_subword_prefix=CONTINUES))


class Subwords(Vocabulary):
    """A `Vocabulary` of subwords (Sennrich et al., 2016).

    `vocabulary.txt` in a bundle lists the subwords; `Vocabulary` and `detokenise` can decode them.
    The merges, which only encoding needs, are in a file beside it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda piece: piece[1])
        super().__init__([piece for piece, _ in pieces])
        self._tokenizer = tokenizer

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], min_count: int = 2, top_k: int | None = 4000
    ) -> Self:
        """Learn pieces from captions.

        Args:
            captions: lists of words.
            min_count: how often two pieces must meet to become one.
            top_k: how many pieces there may be, the four special ones among them.
        """
        words = [word for caption in captions for word in caption]
        letters = sorted({letter for word in words for letter in word})
        # The trainer numbers letters within words at random unless they are named beforehand.
        known = [*SPECIALS, *letters, *(f"{CONTINUES}{letter}" for letter in letters)]
        trainer = BpeTrainer(
            vocab_size=top_k or 2**31,
            min_frequency=min_count,
            special_tokens=known,
            continuing_subword_prefix=CONTINUES,
            show_progress=False,
        )
        learner = Tokenizer(BPE(unk_token="<unk>", continuing_subword_prefix=CONTINUES))
        learner.train_from_iterator(words, trainer)  # each text is one word
        learnt = json.loads(learner.to_str())["model"]
        merges = [tuple(merge) for merge in learnt["merges"]]
        return cls(_tokenizer(learnt["vocab"], merges))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The pieces written at `path`, with the merges beside it.

        Raises:
            DataError: the merges are missing or of other pieces.
        """
        merges = cls.merges(path)
        try:
            subwords = cls(Tokenizer.from_file(str(merges)))
        except Exception as error:  # tokenizers raises nothing more precise
            raise DataError(
                f"got no merges in {merges}: {error}; expected those of {path}"
            ) from error
        if subwords.words != Vocabulary.read(path).words:
            raise DataError(
                f"got merges in {merges} of other pieces than {path}; expected the same"
            )
        return subwords

    def write(self, path: Path) -> None:
        """One piece a line, in the order of their ids, and the merges beside them."""
        super().write(path)
        self._tokenizer.save(str(self.merges(path)))

    @staticmethod
    def merges(path: Path) -> Path:
        """Where the merges of the pieces at `path` are."""
        return path.with_suffix(".merges.json")

    def encode(self, words: Iterable[str]) -> list[int]:
        """Words -> ids of their pieces; letters never seen -> `unk`; without bos and eos."""
        found = self._tokenizer.encode(list(words), is_pretokenized=True)
        return list(found.ids)

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """Ids -> whole words, up to the first eos; pad and bos are passed over."""
        return whole_words(super().decode(tokens))
