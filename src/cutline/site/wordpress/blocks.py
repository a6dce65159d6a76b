"""Blocks in the content of WordPress posts: where they are, and their attributes as JSON.

A block is delimited by comments: `<!-- wp:image {"id":3} -->` and `<!-- /wp:image -->`. The JSON is
edited in place and never serialised again, so that all other attributes keep their bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# As in WordPress's own parser (WP_Block_Parser::next_token).
_DELIMITER = re.compile(
    r"<!--\s+(?P<closer>/)?wp:(?P<name>(?:[a-z][a-z0-9_-]*/)?[a-z][a-z0-9_-]*)\s+"
    r"(?P<json>\{(?:[^}]+|\}+(?=\})|(?!\}\s+/?-->).)*?\}\s+)?(?P<void>/)?-->",
    re.DOTALL,
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        name: with its namespace, such as "core/image".
        start, end: of the whole block in the content.
        json_start, json_end: of the attributes in the opening comment; both are where they would
            be inserted if there are none.
        attributes: as JSON; empty if there are none, or they are damaged.
        parent: the block around it.
    """

    name: str
    start: int
    end: int
    json_start: int
    json_end: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parent: Block | None = None

    def ancestors(self) -> Iterator[Block]:
        """The block itself and all blocks around it, innermost first."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent


def parse_blocks(content: str) -> list[Block]:
    """All blocks of a post's content, inner ones after outer ones; [] for classic content.

    A closing comment without a block, and a block without a closing comment, are treated as
    WordPress does: the first is ignored, the second ends with the content.
    """
    found: list[Block] = []
    open_blocks: list[tuple[int, Block]] = []
    ends: dict[int, int] = {}
    for match in _DELIMITER.finditer(content):
        name = match["name"] if "/" in match["name"] else f"core/{match['name']}"
        if match["closer"]:
            if open_blocks and any(block.name == name for _, block in open_blocks):
                while True:
                    number, block = open_blocks.pop()
                    ends[number] = match.end()
                    if block.name == name:
                        break
            continue
        text = match["json"]
        start = match.start("json") if text else match.end("name")
        end = start + len(text.rstrip(_SPACE)) if text else start
        parent = open_blocks[-1][1] if open_blocks else None
        block = Block(name, match.start(), match.end(), start, end, _attributes(text), parent)
        found.append(block)
        if not match["void"]:
            open_blocks.append((len(found) - 1, block))
    for number, _ in open_blocks:
        ends[number] = len(content)
    moved: dict[int, Block] = {}
    for number, block in enumerate(found):
        parent = moved.get(id(block.parent)) if block.parent else None
        moved[id(block)] = Block(
            block.name,
            block.start,
            ends.get(number, block.end),
            block.json_start,
            block.json_end,
            block.attributes,
            parent,
        )
    return [moved[id(block)] for block in found]


def block_at(blocks: Sequence[Block], offset: int) -> Block | None:
    """The innermost block around an offset; None outside of all blocks."""
    inside = [block for block in blocks if block.start <= offset < block.end]
    return max(inside, key=lambda block: block.start, default=None)


@dataclass(frozen=True)
class Span:
    """A place in a text, and what replaces it."""

    start: int
    end: int
    text: str


def with_string(content: str, block: Block, key: str, value: str) -> Span:
    """The edit that sets one string among a block's attributes, and nothing else.

    Args:
        content: the post's content.
        block: the block.
        key: of a string at the top level of the attributes; added as the last one if it is missing.
        value: the new string.

    Raises:
        ValueError: the attributes cannot be read safely, or have another type of value there.
    """
    text = content[block.json_start : block.json_end]
    written = encode_string(value)
    if not text:
        return Span(block.json_start, block.json_start, f' {{"{key}":{written}}}')
    span = _value_span(text, key)
    if span is None:
        end = text.rindex("}")
        head = text[:end].rstrip(_SPACE)
        comma = "" if head.endswith("{") else ","
        at = block.json_start + len(head)
        return Span(at, at, f'{comma}"{key}":{written}')
    start, end = span
    if not text[start:end].startswith('"'):
        raise ValueError(f"its attribute {key} is not a text")
    return Span(block.json_start + start, block.json_start + end, written)


def encode_string(value: str) -> str:
    """A string as JSON in a block's comment.

    As `serialize_block_attributes` in WordPress writes it, so that the comment cannot end early;
    square brackets are escaped too, because shortcodes are looked for in comments.
    """
    text = json.dumps(value, ensure_ascii=False)[1:-1]
    for letters in ("\\\\", '\\"', "--", "<", ">", "&", "[", "]"):  # backslashes first
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in json.loads(f'"{letters}"'))
        text = text.replace(letters, escaped)
    return f'"{text}"'


def _attributes(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _value_span(text: str, key: str) -> tuple[int, int] | None:
    """Where the value of a key at the top level of a JSON object is; None if there is no such key.

    Raises:
        ValueError: it is not a JSON object, or has the key twice.
    """
    if not isinstance(json.loads(text), dict):
        raise ValueError("its attributes are damaged")
    decoder = json.JSONDecoder()
    found: tuple[int, int] | None = None
    position = _skip(text, text.index("{") + 1)
    while text[position] != "}":
        name = _STRING.match(text, position)
        if name is None:
            raise ValueError("its attributes are damaged")
        position = _skip(text, name.end())
        start = _skip(text, position + 1)  # after the colon
        _, end = decoder.raw_decode(text, start)
        if json.loads(name[0]) == key:
            if found is not None:
                raise ValueError(f"its attributes have {key} twice")
            found = (start, end)
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return found


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position
