"""The text of a document in reading order: what is before, after and beside an image."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTEXT = 200
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Mark:
    """A place in a text flow: a number of characters, blocks and headings before it."""

    at: int
    block: int
    heading: int


class TextFlow:
    """Collects text block by block.

    Attributes:
        muted: whether added text is ignored, as in the second copy of an alternate content.
    """

    def __init__(self) -> None:
        self.muted = False
        self._pieces: list[str] = []
        self._length = 0
        self._blocks: list[int] = []
        self._headings: list[tuple[int, int]] = []
        self._captions: set[int] = set()
        self._all = ""

    def add(self, text: str) -> None:
        """Add text to the current block."""
        text = _SPACE.sub(" ", text)
        if text.startswith(" ") and (not self._pieces or self._pieces[-1].endswith(" ")):
            text = text[1:]
        if text and not self.muted:
            self._pieces.append(text)
            self._length += len(text)

    def new_block(self) -> int:
        """Begin another block, such as a paragraph; returns its number."""
        if self.muted:
            return 0
        self.add(" ")
        self._blocks.append(self._length)
        return len(self._blocks)

    def end_block(self, number: int, *, heading: bool = False, caption: bool = False) -> None:
        """End a block, and state what it is."""
        if self.muted or not number:
            return
        start, end = self._block(number)
        if heading and end > start:
            self._headings.append((start, end))
        if caption:
            self._captions.add(number)

    def mark(self) -> Mark:
        """The current place."""
        return Mark(self._length, len(self._blocks), len(self._headings))

    def heading(self, mark: Mark) -> str:
        """The nearest heading before a place."""
        if not mark.heading:
            return ""
        start, end = self._headings[mark.heading - 1]
        return self._text()[start:end].strip()

    def before(self, mark: Mark) -> str:
        """The text before a place, up to about 200 characters."""
        text = self._text()[max(0, mark.at - 2 * _CONTEXT) : mark.at].strip()
        return text if len(text) <= _CONTEXT else text[-_CONTEXT - 1 :].partition(" ")[2]

    def after(self, mark: Mark) -> str:
        """The text after a place, up to about 200 characters."""
        return _first_words(self._text()[mark.at : mark.at + 2 * _CONTEXT])

    def beside(self, mark: Mark) -> str:
        """The text after a place in its block, else the text before it."""
        start, end = self._block(mark.block)
        after = _first_words(self._text()[mark.at : min(end, mark.at + 2 * _CONTEXT)])
        return after or self._text()[max(start, mark.at - _CONTEXT) : mark.at].strip()

    def caption(self, mark: Mark) -> str:
        """The caption in the block of a place, after it or before it."""
        for block in (mark.block, mark.block + 1, mark.block - 1):
            if block in self._captions:
                start, end = self._block(block)
                return self._text()[start:end].strip()
        return ""

    def _block(self, number: int) -> tuple[int, int]:
        """Where a block begins and ends; blocks are counted from 1."""
        start = self._blocks[number - 1] if number else 0
        end = self._blocks[number] if number < len(self._blocks) else self._length
        return start, end

    def _text(self) -> str:
        if len(self._all) != self._length:
            self._all = "".join(self._pieces)
        return self._all


def _first_words(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[: _CONTEXT + 1].rpartition(" ")[0]
