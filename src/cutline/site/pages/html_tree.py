"""Trees of HTML pages: parsing, walking, and XHTML as HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from justhtml import JustHTML, Node, Template, Text

_TAG = (
    r"""<([a-zA-Z][^\s/>]*+)(?:[\s/]++|=?[^\s/>=]++"""
    r"""(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>"'][^\s>]*+))?+|=)*+>"""
)
START_TAG = re.compile(_TAG)
"""A start tag; its first group is the name."""

_XML_OPENER = re.compile(r"<(?:!--|!\[CDATA\[|\?|(?=[a-zA-Z]))")
_XML_CLOSERS = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>"}
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_XML_DECLARATION = re.compile(r"\A(\ufeff?\s*)(<\?xml[^>]*>)")
_BOGUS = re.compile(r"<[!?][^>]*>")


def as_html(xhtml: str) -> tuple[str, list[tuple[int, int]]]:
    """XHTML with an end tag for each self-closing element.

    Returns:
        The HTML, and by how much its offsets are ahead of the XHTML's, from which offset on.
    """
    pieces, shifts, reached, ahead = [], [(0, 0)], 0, 0
    for name, end in _self_closing(xhtml):
        pieces += [xhtml[reached:end], f"</{name}>"]
        reached = end
        ahead += len(pieces[-1])
        shifts.append((reached + ahead, ahead))
    return "".join([*pieces, xhtml[reached:]]), shifts


def _self_closing(xhtml: str) -> Iterator[tuple[str, int]]:
    """The name and the end of each tag such as `<a/>`, outside of comments and CDATA sections."""
    position = 0
    absent: set[str] = set()
    while opener := _XML_OPENER.search(xhtml, position):
        position = opener.end()
        if closer := _XML_CLOSERS.get(opener[0]):
            end = -1 if closer in absent else xhtml.find(closer, position)
            if end < 0:
                absent.add(closer)
            else:
                position = end + len(closer)
            continue
        tag = START_TAG.match(xhtml, opener.start())
        if tag is None:
            return  # no tag ends after this one begins
        position = tag.end()
        if tag[1] not in _VOID and tag[0].endswith("/>"):
            yield tag[1], position


def without_declarations(text: str) -> str:
    """Text without "<!x>" and "<?x>", which a browser takes for comments."""
    if "<" not in text:
        return text
    head, end, tail = text.rpartition(">")
    return _BOGUS.sub(" ", head + end) + tail


def parse(html: str, *, fragment: bool = False) -> Node:
    """The tree that a browser builds, except that "<!x>" and "<?x>" are text.

    justhtml keeps them as text when it tracks offsets.
    """
    html = _XML_DECLARATION.sub(lambda found: found[1] + " " * len(found[2]), html, count=1)
    return JustHTML(html, sanitize=False, track_node_locations=True, fragment=fragment).root


def walk(root: Node, children: Callable[[Node], list[Any]]) -> Iterator[tuple[Any, bool]]:
    """Every node in document order: with True before its children, with False after; text once."""
    stack: list[tuple[Any, bool]] = [(root, True)]
    while stack:
        node, entering = stack.pop()
        yield node, entering
        if entering and not isinstance(node, Text):
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(children(node)))


def shown_children(node: Node) -> list[Any]:
    """The children of a node, without a template's content."""
    return node.children or []


def all_children(node: Node) -> list[Any]:
    """The children of a node, a template's content included."""
    if isinstance(node, Template) and node.template_content:
        return [node.template_content]
    return node.children or []
