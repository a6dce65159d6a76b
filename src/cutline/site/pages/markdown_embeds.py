"""Images that programs of their own embed in Markdown: Obsidian's wiki links, Hugo's `figure`."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import TypeAlias

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline, text
from markdown_it.token import Token

from cutline.site.pages.templates import Protected

_Rule: TypeAlias = Callable[[StateInline, bool], bool]

_WIKI_LINK = re.compile(
    r"!\[\[([^\[\]|#\n]+\.(?:apng|avif|bmp|gif|jfif|jpe?g|jxl|png|svg|webp))(?:#[^\[\]|\n]*)?"
    r"((?:\\?\|[^\[\]|\n]*)*)\]\]",
    re.IGNORECASE,
)
_SIZE = re.compile(r"\d+(?:x\d+)?")
_FIGURE = re.compile(r"\{\{[<%]\s*figure\s(.*?)/?\s*[>%]\}\}", re.DOTALL)
_PARAMETER = re.compile(
    r"""([\w-]+)\s*=\s*("(?:\\.|[^"\\])*"|`[^`]*`|'(?:\\.|[^'\\])*'|[^\s"'`]+)"""
)


def add_embeds(parser: MarkdownIt, protected: Protected, placing: Callable[[_Rule], _Rule]) -> None:
    """Make a parser read wiki links and `figure` shortcodes as images.

    Their tokens have `meta["embed"]`, and in `meta["alt"]` the alt, if there is one.

    Args:
        parser: gets the rules.
        protected: what it parses, with shortcodes replaced.
        placing: wraps a rule so that its tokens record their places.
    """

    def shortcode(state: StateInline, silent: bool) -> bool:
        code = protected.code_at(state.src, state.pos)
        figure = _FIGURE.fullmatch(code[0]) if code else None
        if code is None or figure is None:
            return False
        parameters = {
            found[1].lower(): _unquoted(found[2]) for found in _PARAMETER.finditer(figure[1])
        }
        source = parameters.get("src", "")
        if not source:
            return False
        if not silent:  # Hugo shows the caption as the alt where there is none
            alt = parameters.get("alt", parameters.get("caption"))
            _push_image(state, source, alt if alt is None else " ".join(alt.split()))
        state.pos = code[1]
        return True

    marks: list[int] = []  # where template code begins in the block that is parsed
    marked = ""

    def until_code(state: StateInline, silent: bool) -> bool:
        """The rule for text, which ends where template code begins."""
        nonlocal marks, marked
        if marked is not state.src:
            marked = state.src
            marks = [found.start() for found in re.finditer(protected.code_mark, marked)]
        after = bisect_right(marks, state.pos)
        if after == len(marks):
            return text(state, silent)
        # `text` would search up to the next mark of Markdown, again for each piece of code.
        end = min(state.posMax, marks[after])
        found = state.md.inline.terminator_re.search(state.src, state.pos, end)
        end = found.start() if found else end
        if end == state.pos:
            return False
        if not silent:
            state.append_pending(state.src[state.pos : end])
        state.pos = end
        return True

    parser.inline.ruler.before("image", "wiki_link", placing(_wiki_link))
    parser.inline.ruler.before("text", "shortcode", placing(shortcode))
    parser.inline.ruler.at("text", until_code)


def _wiki_link(state: StateInline, silent: bool) -> bool:
    found = _WIKI_LINK.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        parts = [part.strip() for part in re.split(r"\\?\|", found[2])[1:]]
        alt = next((part for part in parts if part and not _SIZE.fullmatch(part)), None)
        _push_image(state, found[1].strip(), alt)
    state.pos = found.end()
    return True


def _push_image(state: StateInline, source: str, alt: str | None) -> None:
    token: Token = state.push("image", "img", 0)
    token.attrs = {"src": source, "alt": ""}
    token.children = []
    token.meta = {"embed": True, "alt": alt}


def _unquoted(value: str) -> str:
    if value[:1] == "`":
        return value[1:-1]
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] in "\"'" else value
