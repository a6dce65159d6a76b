"""Reading Markdown: through markdown-it into HTML, and that through the reader of HTML.

So a Markdown page's images have the headings, links and text around them that they will have on
the web. Images and pieces of HTML carry a number through, to find their place in the file again.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice, pairwise

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline, html_inline, image
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from cutline.site.model import ImageUse, Kind, Page
from cutline.site.pages.html import uses_in_html

_LINE_END = re.compile(r"\r\n|\r|\n")
_FRONT_MATTER = re.compile(
    r"\ufeff?(---|\+\+\+)[ \t]*(?:\r\n?|\n)(.*?)(?:\r\n?|\n)\1[ \t]*(?=\r|\n|\Z)", re.DOTALL
)
_FIELD = r"""^{}[ \t]*[:=][ \t]*(["']?)(.*?)\1[ \t]*$"""


def uses_in_markdown(
    text: str, *, page: str, base: str | None = None, root: str = ""
) -> tuple[Page, list[ImageUse]]:
    """Every image use in a Markdown page (CommonMark with tables), in order.

    Code and comments hold no images; of front matter only title and language are read. Pieces of
    HTML are read as HTML. Markdown has no way to leave an alt out, so `![](x.png)` counts as
    missing: nobody can tell whether it was a decision.

    Args:
        text, page, base, root: as for `uses_in_html`.

    Returns:
        As `uses_in_html`; `markup` is all of `![alt](source)`.
    """
    matter = _FRONT_MATTER.match(text)
    body = _Body(text, matter.end() if matter else int(text.startswith("\ufeff")))
    read, uses = uses_in_html(body.html, page=page, base=base, root=root)
    fields = "\n".join(matter[2].splitlines()) if matter else ""
    title = _field(fields, "title") or read.title or body.title
    language = _field(fields, "lang(?:uage)?") or read.language
    checksum = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return (
        replace(read, sha256=checksum, title=title, language=language),
        [
            replace(body.placed(use), page_title=title, language=use.language or language)
            for use in uses
        ],
    )


def _field(front_matter: str, name: str) -> str:
    found = re.search(_FIELD.format(name), front_matter, re.MULTILINE)
    return found[2] if found else ""


class _Body:
    """A Markdown text as HTML, and the way back.

    Attributes:
        html: the page, with a mark in front of each piece of HTML and on each image.
        title: its first heading of the first level; "" if there is none.
    """

    def __init__(self, text: str, begin: int) -> None:
        self._text = text
        self._mark = "cutline"
        while self._mark in text:
            self._mark += "x"
        self._pieces: list[list[int]] = []  # of each: where its characters stand in the text
        lines = [begin, *(found.end() for found in _LINE_END.finditer(text, begin))]
        self._lines = [
            (start, _LINE_END.split(text[start:end], maxsplit=1)[0])
            for start, end in pairwise([*lines, len(text)])
        ]
        parser = MarkdownIt("commonmark").enable("table")
        parser.normalizeLink = str  # type: ignore[assignment,method-assign]
        parser.validateLink = bool  # type: ignore[assignment,method-assign]
        parser.inline.ruler.at("image", _placing(image))
        parser.inline.ruler.at("html_inline", _placing(html_inline))
        tokens = parser.parse(text[begin:])
        self._number(tokens)
        renderer = _Renderer(parser)
        self.html = renderer.render(tokens, parser.options, {"mark": self._mark})
        self.title = next(
            (
                renderer.renderInlineAsText(inline.children or [], parser.options, {})
                for opening, inline in pairwise(tokens)
                if opening.type == "heading_open" and opening.tag == "h1"
            ),
            "",
        )
        marks = list(re.finditer(rf"<!--{self._mark}:(\d+)-->", self.html))
        self._mark_ends = [mark.end() for mark in marks]
        self._mark_numbers = [int(mark[1]) for mark in marks]

    def placed(self, use: ImageUse) -> ImageUse:
        """A use in the HTML as the use in the Markdown that it came from."""
        own = re.search(rf'{self._mark}="(\d+)"', use.markup)
        if own:
            offset, markup = self._slice(int(own[1]), 0, None)
            alt = use.alt or None
            return replace(use, kind=Kind.MARKDOWN, alt=alt, offset=offset, markup=markup)
        mark = bisect_right(self._mark_ends, use.offset) - 1
        if mark < 0:
            return replace(use, offset=-1)
        begin = use.offset - self._mark_ends[mark]
        offset, markup = self._slice(self._mark_numbers[mark], begin, begin + len(use.markup))
        return replace(use, offset=offset, markup=markup if offset >= 0 else use.markup)

    def _slice(self, number: int, begin: int, end: int | None) -> tuple[int, str]:
        places = self._pieces[number][begin:end]
        if not places or -1 in places:
            return -1, ""
        return places[0], self._text[places[0] : places[-1] + 1]

    def _number(self, tokens: Sequence[Token]) -> None:
        """Give each image and piece of HTML a number, and note where it stands in the text."""
        reached: dict[int, int] = {}
        for token in tokens:
            pieces = [one for one in token.children or [] if "place" in one.meta]
            if token.type == "html_block":
                token.meta["place"] = (0, len(token.content))
                pieces = [token]
            if not token.map or not token.content:
                continue
            places = self._places(token.content, token.map[0], reached)
            for piece in pieces:
                begin, end = piece.meta["place"]
                piece.meta["number"] = len(self._pieces)
                self._pieces.append(places[begin:end])

    def _places(self, content: str, first: int, reached: dict[int, int]) -> list[int]:
        """Where each character of a block's content stands in the text; -1 if nobody knows.

        Args:
            content: the block without what marks it as a quote, a list, a heading, a cell.
            first: the number of its first line.
            reached: how far the cells before it in the same line reach; updated.
        """
        places: list[int] = []
        for number, line in enumerate(content.split("\n"), first):
            start, source = self._lines[number] if number < len(self._lines) else (0, "")
            begin = source.find(line, reached.get(number, 0))
            if begin >= 0:
                columns: list[int] = list(range(begin, begin + len(line)))
            else:  # a cell, in which "\|" stands for "|"
                begin = source.find(line.replace("|", "\\|"), reached.get(number, 0))
                pairs = re.finditer(r"\\\||.", source[max(begin, 0) :])
                ends = (max(begin, 0) + found.end() - 1 for found in pairs)
                columns = list(islice(ends, len(line))) if begin >= 0 else [-1 - start] * len(line)
            if columns:
                reached[number] = columns[-1] + 1
            places += [start + column for column in columns]
            places.append(start + len(source))
        return places


def _placing(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """An inline rule whose token tells where in its block it stands."""

    def placing(state: StateInline, silent: bool) -> bool:
        begin = state.pos
        matched = rule(state, silent)
        if matched and not silent:
            state.tokens[-1].meta["place"] = (begin, state.pos)
        return matched

    return placing


class _Renderer(RendererHTML):
    """CommonMark's HTML with our marks in it."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        if "number" in tokens[idx].meta:
            tokens[idx].attrSet(env["mark"], str(tokens[idx].meta["number"]))
        return super().image(tokens, idx, options, env)

    def html_block(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        mark = f"<!--{env['mark']}:{tokens[idx].meta['number']}-->"
        return mark + super().html_block(tokens, idx, options, env)

    def html_inline(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        mark = f"<!--{env['mark']}:{tokens[idx].meta['number']}-->"
        return mark + super().html_inline(tokens, idx, options, env)
