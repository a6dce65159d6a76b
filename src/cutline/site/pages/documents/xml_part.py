"""XML parts of documents: a bounded tree with the offset of each element, and changes of tags.

expat parses the XML and reports offsets, which lxml and ElementTree do not. Entity declarations
are refused, so that no entity can expand; a part has limits of size, elements and depth.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from cutline.errors import DataError, OutputError
from cutline.site.pages.encoding import decode

MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 200

_START_TAG = re.compile(r"<([^\s/>]+)((?:[^>\"']|\"[^\"]*\"|'[^']*')*)>")
_ATTRIBUTE = re.compile(r"\s+([^\s=]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_NO_ATTRIBUTES: Mapping[str, str] = {}


@dataclass(slots=True, eq=False)
class Node:
    """An element.

    Attributes:
        tag: its name with a short prefix for the namespaces that the parser knows, such as
            "w:p"; "{namespace}name" for others.
        attributes: by name, in the same form; without a namespace just the name.
        start: the offset of its start tag in the text of its part.
        end_tag: the offset of its end tag; of "<a/>" the offset after it.
        text: the text in it before its first child.
        tail: the text after it, before the next element.
        children: the elements in it.
    """

    tag: str
    attributes: Mapping[str, str]
    start: int
    end_tag: int = -1
    text: str = ""
    tail: str = ""
    children: list[Node] = field(default_factory=list)

    def child(self, *path: str) -> Node | None:
        """The first element at a path of tags below this one."""
        node: Node | None = self
        for tag in path:
            node = next((each for each in node.children if each.tag == tag), None) if node else None
        return node

    def descendants(self, *tags: str) -> Iterator[Node]:
        """The elements in it with one of these tags, in document order."""
        stack = list(reversed(self.children))
        while stack:
            node = stack.pop()
            if node.tag in tags:
                yield node
            stack.extend(reversed(node.children))

    def all_text(self) -> str:
        """All text in it."""
        return self.text + "".join(each.all_text() + each.tail for each in self.children)


class XmlPart:
    """A parsed XML part.

    Args:
        content: its bytes.
        name: of the part, for messages.
        prefixes: the prefix to use for each namespace.

    Attributes:
        text: the decoded content; `text.encode(encoding)` is the content.
        root: the root element.

    Raises:
        DataError: it is no well-formed XML, declares entities, or is too large.
    """

    def __init__(self, content: bytes, name: str, prefixes: Mapping[str, str]) -> None:
        self.name = name
        self.text, self.encoding = decode(content)
        self._prefixes = prefixes
        self._names: dict[str, str] = {}
        self._shift = int(self.text.startswith("\ufeff"))
        self._data = self.text[self._shift :].encode("utf-8", "surrogateescape")
        self._ascii = self._data.isascii()
        self._at = (0, 0)  # a byte offset, and the same place in characters
        self._stack: list[Node] = []
        self._count = 0
        self._root: Node | None = None
        self._parse()
        if self._root is None:
            raise DataError(f"{name} is empty")
        self.root: Node = self._root

    def _parse(self) -> None:
        parser = expat.ParserCreate("utf-8", namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self._parser = parser
        try:
            parser.Parse(self._data, True)
        except expat.ExpatError as error:
            raise DataError(f"{self.name} is damaged XML ({error})") from error
        except ValueError as error:
            raise DataError(f"{self.name} is damaged XML ({error})") from error
        finally:
            del self._parser

    def _entity(self, name: str, *_: object) -> None:
        raise DataError(f"{self.name} declares the entity {name!r}, which is refused as unsafe")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._stack) >= MAX_DEPTH:
            raise DataError(
                f"{self.name} is too complex; expected at most {MAX_ELEMENTS:,} elements in "
                f"{MAX_DEPTH} levels"
            )
        values = {self._short(key): value for key, value in attributes.items()}
        node = Node(self._short(name), values or _NO_ATTRIBUTES, self._offset())
        if self._stack:
            self._stack[-1].children.append(node)
        else:
            self._root = node
        self._stack.append(node)

    def _end(self, name: str) -> None:
        self._stack.pop().end_tag = self._offset()

    def _characters(self, text: str) -> None:
        node = self._stack[-1]
        if node.children:
            node.children[-1].tail += text
        else:
            node.text += text

    def _short(self, name: str) -> str:
        short = self._names.get(name)
        if short is None:
            namespace, gap, local = name.rpartition(" ")
            prefix = self._prefixes.get(namespace)
            short = f"{prefix}:{local}" if prefix else f"{{{namespace}}}{local}" if gap else local
            self._names[name] = short
        return short

    def _offset(self) -> int:
        """The parser's place in characters of the text."""
        position = self._parser.CurrentByteIndex
        if self._ascii:
            return position + self._shift
        at, characters = self._at
        characters += len(self._data[at:position].decode("utf-8", "surrogateescape"))
        self._at = (position, characters)
        return characters + self._shift

    def span(self, node: Node) -> tuple[int, int]:
        """Where an element begins and ends in the text."""
        tag = start_tag(self.text, node.start)
        if tag.endswith("/>"):
            return node.start, node.start + len(tag)
        return node.start, self.text.index(">", node.end_tag) + 1

    def source(self, node: Node) -> str:
        """An element as it is in the text."""
        start, end = self.span(node)
        return self.text[start:end]


def start_tag(text: str, offset: int = 0) -> str:
    """The start tag at an offset of well-formed XML.

    Raises:
        OutputError: none begins there.
    """
    found = _START_TAG.match(text, offset)
    if found is None:
        raise OutputError("its place in the document is not readable; change it by hand")
    return found[0]


def attributes_of(tag: str) -> list[tuple[str, str]]:
    """The attributes of a start tag, in order, with the values unescaped."""
    found = _START_TAG.match(tag)
    pairs = _ATTRIBUTE.findall(found[2]) if found else []
    return [(name, html.unescape(value[1:-1])) for name, value in pairs]


def with_attribute(tag: str, name: str, value: str) -> str:
    """A start tag with an attribute set; a new one is added after the last.

    Args:
        tag: a whole start tag of well-formed XML.
        name: the attribute, with the prefix that the document uses.
        value: its text, unescaped.
    """
    body = _START_TAG.match(tag)
    if body is None:
        raise OutputError("its place in the document is not readable; change it by hand")
    end = body.end(1)
    for found in _ATTRIBUTE.finditer(tag, end, body.end(2)):
        end = found.end()
        if found[1] == name:
            quote = found[2][0]
            return tag[: found.start(2)] + quote + escape(value, quote) + quote + tag[end:]
    return f'{tag[:end]} {name}="{escape(value)}"{tag[end:]}'


def escape(value: str, quote: str = '"') -> str:
    """Text as an attribute's value within quotes."""
    text = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = text.replace(quote, "&quot;" if quote == '"' else "&apos;")
    return re.sub(r"[\t\n\r]", lambda found: f"&#{ord(found[0])};", text)
