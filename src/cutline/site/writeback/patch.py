"""Formats edits of a file's bytes as a patch."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, takewhile

from cutline.site.destination import Edit, edited

_CONTEXT_LINES = 3
_NEAR = 60  # characters
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_ODD_NAME = re.compile(rb'[\x00-\x1f\x7f"\\]')


def header(path: str) -> bytes:
    """The header of a file in a patch for `git apply` or `patch -p1`."""
    return b"--- %s\n+++ %s\n" % (_named(f"a/{path}"), _named(f"b/{path}"))


def hunks(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The edits as the hunks of a unified diff.

    A line ends at a line feed and nowhere else, as for git. Nothing is compared, for the edits
    tell which lines they touch.

    Args:
        content: the file as it is.
        edits: in the order of the file.
    """
    lines = _LINE.findall(content)
    ends = list(accumulate(map(len, lines)))
    blocks: list[tuple[int, int, list[Edit]]] = []  # the lines that some edits touch
    for edit in map(_narrowed, edits):
        first = bisect_right(ends, edit.start)
        behind = bisect_right(ends, edit.start + max(len(edit.before), 1) - 1) + 1
        if blocks and first < blocks[-1][1]:
            first, behind = blocks[-1][0], max(behind, blocks[-1][1])
            blocks[-1] = (first, behind, [*blocks[-1][2], edit])
        else:
            blocks.append((first, behind, [edit]))

    found: list[bytes] = []
    grown = 0
    while blocks:
        together = 1
        while together < len(blocks) and (
            blocks[together][0] - blocks[together - 1][1] <= 2 * _CONTEXT_LINES
        ):
            together += 1
        group, blocks = blocks[:together], blocks[together:]
        start = position = max(0, group[0][0] - _CONTEXT_LINES)
        stop = min(len(lines), group[-1][1] + _CONTEXT_LINES)
        body: list[bytes] = []
        added = 0
        for first, behind, inside in group:
            body += [_marked(b" ", line) for line in lines[position:first]]
            body += [_marked(b"-", line) for line in lines[first:behind]]
            begin = ends[first - 1] if first else 0
            shifted = [replace(edit, start=edit.start - begin) for edit in inside]
            new = _LINE.findall(edited(content[begin : ends[behind - 1]], shifted))
            body += [_marked(b"+", line) for line in new]
            added += len(new) - (behind - first)
            position = behind
        body += [_marked(b" ", line) for line in lines[position:stop]]
        count = stop - start
        place = (start + 1, count, start + 1 + grown, count + added)
        found += [b"@@ -%d,%d +%d,%d @@\n" % place, *body]
        grown += added
    return b"".join(found)


def shown(content: bytes, edits: Sequence[Edit], encoding: str) -> str:
    """The edits as hunks for people: of a long line, only the text near an edit."""
    text, position = b"", 0
    short: list[Edit] = []
    for edit in edits:
        text += _brief(content[position : edit.start], encoding, bool(short), True)
        before, after = (
            piece.decode(encoding, "replace").encode() for piece in (edit.before, edit.after)
        )
        short.append(replace(edit, start=len(text), before=before, after=after))
        text += before
        position = edit.start + len(edit.before)
    text += _brief(content[position:], encoding, bool(short), False)
    return hunks(text, short).decode()


def _brief(gap: bytes, encoding: str, follows: bool, precedes: bool) -> bytes:
    """The bytes between two edits in UTF-8, each line cut to the text near one of them."""
    lines = gap.decode(encoding, "replace").split("\n")
    for number, line in enumerate(lines):
        head = _NEAR if follows and number == 0 else 0
        tail = _NEAR if precedes and number == len(lines) - 1 else 0
        head = head or (0 if tail else 2 * _NEAR)
        if len(line) > head + tail + 1:
            lines[number] = f"{line[:head]}…{line[len(line) - tail :]}"
    return "\n".join(lines).encode()


def _marked(mark: bytes, line: bytes) -> bytes:
    return mark + line + (b"" if line.endswith(b"\n") else b"\n\\ No newline at end of file\n")


def _narrowed(edit: Edit) -> Edit:
    """The edit without the bytes that stay, before and behind."""
    shared = _shared(edit.before, edit.after)
    old, new = edit.before[shared:], edit.after[shared:]
    tail = _shared(old[::-1], new[::-1])
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    return replace(edit, start=edit.start + shared, before=old, after=new)


def _shared(one: bytes, other: bytes) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _named(path: str) -> bytes:
    """A path as git writes it: a tab ends one with a space, an odd one is quoted as in C."""
    name = path.encode("utf-8", "surrogateescape")
    if not _ODD_NAME.search(name):
        return name + (b"\t" if b" " in name else b"")
    return b'"%s"' % _ODD_NAME.sub(lambda odd: b"\\%03o" % ord(odd[0]), name)
