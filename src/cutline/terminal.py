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


def printable(text: str) -> str:
    r"""Return the text on one line, with invisible characters as escapes: a newline reads `\n`.

    Control characters, bidirectional overrides and their like would otherwise change what a
    terminal shows. Letters of every script stay as they are.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
