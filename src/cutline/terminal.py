"""Text of unknown origin, made safe to print."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters: they move the cursor and change the terminal
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, overrides and isolates
    "\u206a-\u206f\ufeff\ufff9-\ufffb"  # deprecated and invisible format characters
    "\U000e0000-\U000e007f"  # tags, an invisible copy of ASCII
    "]"
)


def printable(text: str, *, keep: str = "") -> str:
    r"""Return the text with invisible characters as escapes: a newline reads `\n`.

    Control characters, bidirectional overrides and their like would otherwise change what a
    terminal or a page shows. Letters of every script stay as they are.

    Args:
        text: any text.
        keep: characters to leave as they are, such as "\t\n" for text of several lines.
    """

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in keep else character.encode("unicode_escape").decode()

    return _UNPRINTABLE.sub(escaped, text)
