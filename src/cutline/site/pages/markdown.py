"""Reading Markdown: markdown-it renders it to HTML, which the HTML reader reads.

So the images of a Markdown page have the headings, links and text around them that they have on the
web. Images and pieces of HTML carry a number through, by which they are found in the file again.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice, pairwise

from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline, html_inline, image
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.html import occurrences_in_rendered
from cutline.site.pages.markdown_dialects import (
    alt_in_list,
    attribute_list_at,
    dialect_parser,
    is_mdx,
)
from cutline.site.pages.markdown_embeds import add_embeds
from cutline.site.pages.templates import (
    Protected,
    front_matter_end,
    front_matter_field,
    template_spans,
)
from cutline.site.pages.unread import UnreadCounter

_LINE_END = re.compile(r"\r\n|\r|\n")


def occurrences_in_markdown(
    text: str, *, page: str, base: str | None = None, root: str = ""
) -> tuple[Page, list[ImageOccurrence]]:
    """Every image occurrence in a Markdown page, in order.

    CommonMark with tables, admonitions and tabs of MkDocs, HTML elements with a `markdown`
    attribute, attribute lists behind images, wiki links to images, Hugo's `figure` shortcode, and
    MDX where the page's name ends in ".mdx". Code,
    comments and front matter hold no images; of front matter only title and language are read.
    Pieces of HTML are read as HTML. Markdown cannot leave an alt out, so `![](x.png)` counts as
    missing: whether it was a decision is unknown.

    Args:
        text, page, base, root: as for `occurrences_in_html`.

    Returns:
        As `occurrences_in_html`; `markup` is all of `![alt](source)`, with its attribute list.
    """
    mdx = is_mdx(page)
    spans = template_spans(text, markdown=True, mdx=mdx)
    matter_end = front_matter_end(text, markdown=True)
    protected = Protected(text, spans)
    body = _Body(text, protected, matter_end or int(text.startswith("\ufeff")), mdx)
    read, found = occurrences_in_rendered(body.html, protected, page=page, base=base, root=root)
    matter = text[:matter_end]
    title = front_matter_field(matter, "title") or read.title or body.title
    language = front_matter_field(matter, "lang", "language") or read.language
    occurrences = [
        replace(body.placed(occurrence), page_title=title, language=occurrence.language or language)
        for occurrence in found
    ]
    unread = UnreadCounter()
    for what, number in read.unread:
        unread.add(what, number)
    unread.add_code(text, spans, occurrences)
    unread.add_markdown(text, spans, occurrences, mdx)
    checksum = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    page_read = replace(
        read, sha256=checksum, title=title, language=language, unread=unread.counts()
    )
    return page_read, occurrences


class _Body:
    """A Markdown text as HTML, and the way back.

    Attributes:
        html: the page, with a mark in front of each piece of HTML and on each image.
        title: its first heading of the first level; "" if there is none.
    """

    def __init__(self, text: str, protected: Protected, begin: int, mdx: bool) -> None:
        self._text = text
        self._mark = "cutline"
        while self._mark in text:
            self._mark += "x"
        self._pieces: list[list[int]] = []  # of each: where its characters are in the text
        self._embeds: set[int] = set()  # the numbers of shortcodes and wiki links
        source = protected.text
        lines = [begin, *(found.end() for found in _LINE_END.finditer(source, begin))]
        self._lines = [
            (start, _LINE_END.split(source[start:end], maxsplit=1)[0])
            for start, end in pairwise([*lines, len(source)])
        ]
        parser = dialect_parser(mdx=mdx)
        parser.normalizeLink = str  # type: ignore[assignment,method-assign]
        parser.validateLink = _any_link  # type: ignore[assignment,method-assign]
        parser.inline.ruler.at("image", _placing(image if mdx else _image_with_attributes))
        parser.inline.ruler.at("html_inline", _placing(html_inline))
        add_embeds(parser, protected, _placing)
        tokens = parser.parse(source[begin:])
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

    def placed(self, occurrence: ImageOccurrence) -> ImageOccurrence:
        """The Markdown occurrence that an occurrence in the rendered HTML comes from."""
        own = re.search(rf'{self._mark}="(\d+)"', occurrence.markup)
        if own:
            offset, markup = self._slice(int(own[1]), 0, None)
            alt = (
                occurrence.alt
                if f"{self._mark}-alt=" in occurrence.markup
                else occurrence.alt or None
            )
            kind = Kind.EMBED if int(own[1]) in self._embeds else Kind.MARKDOWN
            return replace(occurrence, kind=kind, alt=alt, offset=offset, markup=markup)
        mark = bisect_right(self._mark_ends, occurrence.offset) - 1
        if mark < 0:
            return replace(occurrence, offset=-1)
        begin = occurrence.offset - self._mark_ends[mark]
        offset, markup = self._slice(
            self._mark_numbers[mark], begin, begin + len(occurrence.markup)
        )
        return replace(
            occurrence, offset=offset, markup=markup if offset >= 0 else occurrence.markup
        )

    def _slice(self, number: int, begin: int, end: int | None) -> tuple[int, str]:
        places = self._pieces[number][begin:end]
        if not places or -1 in places:
            return -1, ""
        return places[0], self._text[places[0] : places[-1] + 1]

    def _number(self, tokens: Sequence[Token]) -> None:
        """Give each image and piece of HTML a number, and record its place in the text."""
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
                if piece.meta.get("embed"):
                    self._embeds.add(len(self._pieces))
                self._pieces.append(places[begin:end])

    def _places(self, content: str, first: int, reached: dict[int, int]) -> list[int]:
        """The offset in the text of each character of a block's content; -1 if unknown.

        Args:
            content: the block without the marks of a quote, a list, a heading, a cell.
            first: the number of its first line.
            reached: how far the cells before it in the same line reach; updated.
        """
        places: list[int] = []
        for number, line in enumerate(content.split("\n"), first):
            start, source = self._lines[number] if number < len(self._lines) else (0, "")
            begin = source.find(line, reached.get(number, 0))
            if begin >= 0:
                columns: list[int] = list(range(begin, begin + len(line)))
            else:  # a cell, in which "\|" means "|"
                begin = source.find(line.replace("|", "\\|"), reached.get(number, 0))
                pairs = re.finditer(r"\\\||.", source[max(begin, 0) :])
                ends = (max(begin, 0) + found.end() - 1 for found in pairs)
                columns = list(islice(ends, len(line))) if begin >= 0 else [-1 - start] * len(line)
            if columns:
                reached[number] = columns[-1] + 1
            places += [start + column for column in columns]
            places.append(start + len(source))
        return places


def _any_link(_: str) -> bool:
    return True


def _placing(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """An inline rule whose token records its place in its block."""

    def placing(state: StateInline, silent: bool) -> bool:
        begin = state.pos
        matched = rule(state, silent)
        if matched and not silent:
            state.tokens[-1].meta["place"] = (begin, state.pos)
        return matched

    return placing


def _image_with_attributes(state: StateInline, silent: bool) -> bool:
    """An image, with the attribute list behind it."""
    if not image(state, silent):
        return False
    end = attribute_list_at(state.src, state.pos)
    if end > 0 and end <= state.posMax:
        if not silent:
            state.tokens[-1].meta["alt"] = alt_in_list(state.src[state.pos : end])
        state.pos = end
    return True


class _Renderer(RendererHTML):
    """Renders HTML with our marks in it."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        if "number" in tokens[idx].meta:
            tokens[idx].attrSet(env["mark"], str(tokens[idx].meta["number"]))
        if tokens[idx].meta.get("alt") is not None:
            tokens[idx].attrSet("alt", tokens[idx].meta["alt"])
            tokens[idx].attrSet(f"{env['mark']}-alt", "")
            return self.renderToken(tokens, idx, options, env)
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
