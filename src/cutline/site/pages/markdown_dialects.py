"""Constructs of Markdown dialects that CommonMark reads as code or as HTML.

Admonitions and tabs of MkDocs, HTML elements with a `markdown` attribute (Python-Markdown and
kramdown), elements of JSX on lines of their own (MDX), and attribute lists behind images (Pandoc,
Quarto, kramdown, Python-Markdown).
"""

from __future__ import annotations

import html
import re

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock

from cutline.errors import OutputError

MARKDOWN_SUFFIXES = frozenset(
    {".md", ".markdown", ".mdown", ".mdwn", ".mkd", ".mdx", ".qmd", ".rmd"}
)
"""File name extensions of pages that are read as Markdown."""

_CONTAINER = re.compile(r"(?:!!!|\?\?\?\+?)[ \t]+\S|===[!+]{0,2}[ \t]+[\"']")
_TITLE = re.compile(r"""["'](.*)["'][ \t]*\Z""")
_MARKDOWN_ELEMENT = re.compile(
    r"<([A-Za-z][\w-]*)(?=[ \t])[^<>\n]*?[ \t]"
    r"""markdown(?:=["']?(?:1|block|span|true|yes)?["']?)?(?=[ \t>])[^<>\n]*>"""
)
_HTML_LINE = re.compile(r"</?[A-Za-z][^\n]*>[ \t]*\Z")
_JSX_LINE = re.compile(r"(?:</?[A-Za-z][\w.:-]*(?:[ \t][^<>\n]*)?/?>|</?>)[ \t]*\Z")
_QUOTED = r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_ATTRIBUTES = re.compile(rf"""\{{:?\s*((?:[^{{}}"'\n]|\n(?![ \t>]*(?:\n|\Z))|{_QUOTED})*)\}}""")
_LOOKS_LIKE = re.compile(r":?\s*(?:[.#][\w-]|[\w.-]+[ \t]*=)")
_ATTRIBUTE = re.compile(
    rf"""(?<![\w.-])([A-Za-z_][\w:.-]*)[ \t]*=[ \t]*({_QUOTED}|[^\s"'{{}}]+)|{_QUOTED}"""
)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def is_mdx(page: str) -> bool:
    """Whether a page is MDX, by its name."""
    return page.lower().endswith(".mdx")


def is_quarto(page: str) -> bool:
    """Whether a page's image captions are not its alts, by its name: Quarto and R Markdown."""
    return page.lower().endswith((".qmd", ".rmd"))


def dialect_parser(*, mdx: bool = False) -> MarkdownIt:
    """A parser of CommonMark with tables and the dialects' blocks."""
    parser = MarkdownIt("commonmark").enable("table")
    interrupts: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote"]}
    parser.block.ruler.before("table", "container", _container, interrupts)
    parser.block.ruler.before("html_block", "markdown_element", _markdown_element, interrupts)
    if mdx:
        parser.block.ruler.before("html_block", "jsx_line", _jsx_line, interrupts)
        parser.disable("code")
    return parser


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _container(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """An admonition or a tab: a title, and content that is indented by four columns."""
    line = _line(state, start)
    if state.is_code_block(start) or not _CONTAINER.match(line):
        return False
    if silent:
        return True
    number = behind = start + 1
    while number < end:
        if not state.isEmpty(number):
            if state.sCount[number] < state.blkIndent + 4:
                break
            behind = number + 1
        number += 1
    state.push("container_open", "div", 1).map = [start, behind]
    if title := _TITLE.search(line):
        _push_paragraph(state, title[1], start)
    parent, line_max = state.parentType, state.lineMax
    state.parentType, state.lineMax = "container", behind
    state.blkIndent += 4
    state.md.block.tokenize(state, start + 1, behind)
    state.blkIndent -= 4
    state.parentType, state.lineMax = parent, line_max
    state.push("container_close", "div", -1)
    state.line = behind
    return True


def _markdown_element(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """The start tag of an element whose content is Markdown, or a line of HTML in one."""
    if state.is_code_block(start):
        return False
    line = _line(state, start)
    inside: list[str] = state.env.setdefault("markdown_elements", [])
    tag = _MARKDOWN_ELEMENT.match(line)
    if tag is None:
        # Without this, HTML would go on to the next blank line, past the end tag.
        if not (inside and _HTML_LINE.match(line)):
            return False
        if not silent:
            _push_html(state, line, start)
            if f"</{inside[-1]}>" in line.lower():
                inside.pop()
            state.line = start + 1
        return True
    if silent:
        return True
    if f"</{tag[1].lower()}>" not in line.lower():
        inside.append(tag[1].lower())
    _push_html(state, tag[0], start)
    if rest := line[tag.end() :].strip():
        _push_paragraph(state, rest, start)
    state.line = start + 1
    return True


def _jsx_line(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A tag alone on its line, between which MDX reads Markdown."""
    line = _line(state, start)
    if not _JSX_LINE.match(line):
        return False
    if silent:
        return True
    _push_html(state, line, start)
    state.line = start + 1
    return True


def _push_html(state: StateBlock, tag: str, number: int) -> None:
    token = state.push("html_block", "", 0)
    token.map = [number, number + 1]
    token.content = tag


def _push_paragraph(state: StateBlock, text: str, number: int) -> None:
    state.push("paragraph_open", "p", 1).map = [number, number + 1]
    token = state.push("inline", "", 0)
    token.content, token.map, token.children = text, [number, number + 1], []
    state.push("paragraph_close", "p", -1)


# Attribute lists


def attribute_list_at(text: str, position: int) -> int:
    """Where an attribute list ends that begins at a position; -1 if none does.

    Several lists in a row are one in kramdown, whose lists begin with `{:`.
    """
    end = -1
    while found := _ATTRIBUTES.match(text, position):
        if not _LOOKS_LIKE.match(found[0], 1) or (end >= 0 and not found[0].startswith("{:")):
            break
        position = end = found.end()
        if not found[0].startswith("{:"):
            break
    return end


def split_attribute_list(markup: str) -> tuple[str, str]:
    """A Markdown image, and the attribute list behind it; "" if there is none."""
    if markup.endswith("}"):
        for found in re.finditer(r"[)\]](?=\{)", markup):
            if attribute_list_at(markup, found.end()) == len(markup):
                return markup[: found.end()], markup[found.end() :]
    return markup, ""


def alt_in_list(attributes: str) -> str | None:
    """The alt that an attribute list gives an image; None if it gives none."""
    found = _alt_of(attributes)
    if found is None:
        return None
    value = found[2]
    value = value[1:-1] if value[0] in "\"'" else value
    return html.unescape(_ESCAPE.sub(r"\1", value))


def with_alt_in_list(attributes: str, value: str) -> str:
    """An attribute list with another alt.

    Args:
        attributes: the list; "" makes one with Quarto's `fig-alt`.
        value: escaped, without double quotes.

    Raises:
        OutputError: another character follows the quotes of its alt.
    """
    found = _alt_of(attributes)
    if found is not None:
        if attributes[found.end() :][:1] not in (" ", "\t", "\r", "\n", "}"):
            raise OutputError("its attribute list cannot be read safely; change it by hand")
        return f'{attributes[: found.start(2)]}"{value}"{attributes[found.end(2) :]}'
    if attributes:
        inner = attributes[:-1]
        return f'{inner}{"" if inner.endswith((" ", "{")) else " "}fig-alt="{value}"}}'
    return f'{{fig-alt="{value}"}}'


def without_alt_in_list(attributes: str) -> str:
    """An attribute list without its alt, for comparison; "" if nothing else is in it."""
    found = _alt_of(attributes)
    if found is not None:
        attributes = attributes[: found.start()].rstrip() + attributes[found.end() :]
    attributes = re.sub(r"\s+\}\Z", "}", attributes)
    return attributes if attributes.strip("{: }") else ""


def _alt_of(attributes: str) -> re.Match[str] | None:
    alts: dict[str, re.Match[str]] = {}
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1] and found[1].lower() in ("fig-alt", "alt"):
            alts.setdefault(found[1].lower(), found)
    return alts.get("fig-alt") or alts.get("alt")
