"""Reads an HTML page: every image occurrence, with the text around it.

justhtml parses the HTML: it builds the tree that a browser builds and records the offset of each
tag. html.parser records offsets but builds no tree; lxml and lexbor build a tree without offsets.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ada_url
from justhtml import Element, Node, Template, Text

from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.dom import (
    attribute_of,
    backgrounds_of,
    best_of,
    in_pixels,
    is_control,
    is_hidden,
    is_remote,
    kind_of,
    language_of,
    one_line,
    only_image_of,
    other_addresses,
    own_name,
    parse_srcset,
    role_of,
    style_of,
)
from cutline.site.pages.html_tree import (
    START_TAG,
    all_children,
    as_html,
    parse,
    shown_children,
    walk,
    without_declarations,
)
from cutline.site.pages.template_sources import resolve_source
from cutline.site.pages.templates import (
    Protected,
    front_matter_field,
    template_spans,
)
from cutline.site.pages.unread import UnreadCounter, in_element
from cutline.site.urls import normalise_url, without_surrogates

_CONTEXT = 200
_LONGEST_LABEL = 500
_MOST_CANDIDATES = 20
_MOST_NODES = 300  # of which an element's text is made, so that nested labels take linear time

_LAZY = ("data-src", "data-lazy-src", "data-original", "data-lazy", "data-original-src")
_PATTERN = re.compile(r"\{|%7B", re.IGNORECASE)  # "x_{width}.jpg"
_LAZY_SETS = ("data-srcset", "data-lazy-srcset")
_PLACEHOLDER = re.compile(
    r"(?:^|[/_.-])(?:1x1|blank|dot|empty|lazy|lazyload|loader|loading|pixel|placeholder|spacer|"
    r"spinner|transparent)(?:[/_.-]|$)",
    re.IGNORECASE,
)
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q ruby s"
    " samp small span strike strong sub sup time tt u var wbr".split()
)
_WITHIN_LINES = frozenset(  # no text, but what is around them stays one block
    "#comment br img input noscript object picture script source style svg".split()
)
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_SPACE = re.compile(r"\s+")
_BOM = "\ufeff"
_WITHOUT_ALT = frozenset({Kind.SVG, Kind.ROLE_IMG, Kind.OBJECT, Kind.CSS})
_ROOTED = re.compile(r"[/\\](?![/\\])")
_NOSCRIPT_END = re.compile(r"</noscript[\s/>]", re.IGNORECASE)


def occurrences_in_html(
    html: str,
    *,
    page: str,
    base: str | None = None,
    root: str = "",
    xhtml: bool | None = None,
    template: bool | None = None,
) -> tuple[Page, list[ImageOccurrence]]:
    """Every image occurrence in a page, in document order.

    `hidden` follows axe-core's "hidden for assistive technology" as far as the page alone shows:
    style sheets and scripts are not run.

    Args:
        html: the page, as `decode` gives it.
        page: its URL or path, for the records.
        base: what its relative URLs are relative to; `page` if None. `<base href>` is honoured.
        root: where URLs that begin with a slash start, for pages in a folder; "" for the host.
        xhtml: whether `<a/>` closes itself, as in XHTML that is not served as HTML; None: if the
            page's name ends in ".xhtml".
        template: whether the page may hold front matter and template code, as source files do;
            None: if `page` is no http(s) URL.

    Returns:
        The page, with the checksum of its text in UTF-8, and its occurrences. An occurrence with a
        known offset has `html[offset : offset + len(markup)] == markup`.
    """
    if xhtml is None:
        xhtml = page.lower().endswith(".xhtml")
    if template is None:
        template = not page.lower().startswith(("http://", "https://"))
    spans = template_spans(html) if template else []
    base = page if base is None else base
    reader = _Reader(html, Protected(html, spans), page, base, root, xhtml)
    occurrences = reader.occurrences()
    unread = UnreadCounter(reader.unread)
    unread.add_code(html, spans, occurrences)
    found = replace(reader.page(), unread=unread.counts())
    if spans and spans[0].start == 0 and not found.title:
        found = replace(found, title=front_matter_field(html[: spans[0].end], "title"))
    return found, occurrences


def occurrences_in_rendered(
    html: str, protected: Protected, *, page: str, base: str | None = None, root: str = ""
) -> tuple[Page, list[ImageOccurrence]]:
    """As `occurrences_in_html`, for HTML rendered from a source text of another format.

    Args:
        html: what `protected.text` was rendered to.
        protected: the source text; its template code is put back into what is read.
        page, base, root: as for `occurrences_in_html`.
    """
    base = page if base is None else base
    plain = Protected(html, [])
    reader = _Reader(html, plain, page, base, root, False, protected.restore)
    return replace(reader.page(), unread=reader.unread.counts()), reader.occurrences()


@dataclass(frozen=True, slots=True)
class _Scope:
    """What an element inherits from its ancestors."""

    shift: int  # from the tree's offsets to the file's
    language: str = ""
    hidden: bool = False
    invisible: bool = False  # visibility: hidden, which descendants can override
    silent: bool = False  # its text is not shown
    noscript: bool = False
    nested: bool = False  # in a <noscript> within a <noscript>
    control: Element | None = None  # the link or button around
    link: Element | None = None
    figure: Element | None = None
    picture: Element | None = None
    heading: int | None = None


@dataclass(slots=True)
class _Found:
    element: Element
    kind: Kind
    scope: _Scope
    heading: int  # the number of headings so far, including its own
    at: int  # in the page's text
    block: int  # the number of block starts and ends so far


class _Reader:
    """Reads one page: once through for names and places, once for images and text."""

    def __init__(
        self,
        source: str,
        protected: Protected,
        page: str,
        base: str,
        root: str,
        xhtml: bool,
        restore: Callable[[str], str] | None = None,
    ) -> None:
        self.source, self.name, self.base, self.root = source, page, base, root
        self.unread = UnreadCounter()
        self._restore = restore or protected.restore
        self._protected = protected.text  # of the source's length
        self.html, self._shifts = as_html(self._protected) if xhtml else (self._protected, [(0, 0)])
        self.title = self.language = ""
        self.ids: dict[str, Element] = {}
        self.labels: dict[str, list[Element]] = {}  # by the id that they are for
        self._pieces: list[str] = []  # the visible text, white space collapsed
        self._length = 0
        self._blocks: list[int] = []  # where a block begins or ends in the text
        self._headings: list[list[int]] = []  # where each begins and ends in the text
        self._found: list[_Found] = []
        self._texts: dict[Element, list[tuple[Element | None, str]]] = {}
        self._captions: dict[Element, Element] = {}  # by figure
        self._picture_sources: dict[Element, list[tuple[str, int | None]]] = {}
        tree = self._tree(self.html)
        self._collect_references(tree)
        self._read(tree)

    def _tree(self, html: str, *, fragment: bool = False) -> Node:
        """A parsed tree, with the template code of the source in attributes and text."""
        tree = parse(html, fragment=fragment)
        for node, entering in walk(tree, all_children):
            if not entering:
                continue
            if isinstance(node, Text):
                if node.data:
                    node.data = self._restore(node.data)
            elif isinstance(node, Element):
                for name, value in node.attrs.items():
                    if value:
                        node.attrs[name] = self._restore(value)
        self._collect_captions(tree)
        return tree

    def page(self) -> Page:
        """The page's record."""
        checksum = hashlib.sha256(self.source.encode("utf-8", "surrogateescape")).hexdigest()
        return Page(self.name, checksum, self.title, self.language)

    def occurrences(self) -> list[ImageOccurrence]:
        """Its image occurrences, in document order."""
        text = "".join(self._pieces)
        headings = [""]
        for begin, end in self._headings:
            headings.append(text[begin:end].strip() or headings[-1])
        return [
            self._occurrence(position, found, text, headings[found.heading])
            for position, found in enumerate(self._found)
        ]

    def _collect_references(self, tree: Node) -> None:
        """Collect what images refer to: ids, labels, base URL, title, language."""
        based = False
        for node, entering in walk(tree, shown_children):
            if not entering or not isinstance(node, Element):
                continue
            is_html = node.namespace == "html"
            if identity := attribute_of(node, "id"):
                self.ids.setdefault(identity, node)
            if node.name == "base" and "href" in node.attrs and not based and is_html:
                based = True
                self.base = self._absolute(attribute_of(node, "href")) or self.base
            elif node.name == "title" and is_html and not self.title:
                self.title = one_line(node.to_text())
            elif node.name == "html":
                self.language = language_of(node) or ""
            elif node.name == "label" and (control := attribute_of(node, "for")):
                self.labels.setdefault(control, []).append(node)

    def _read(self, tree: Node) -> None:
        """Collect images, headings and visible text."""
        scopes = [_Scope(int(self.html.startswith(_BOM)), self.language)]
        seen = set()
        for node, entering in walk(tree, lambda node: self._children(node, scopes[-1])):
            if isinstance(node, Text):
                if not (scopes[-1].hidden or scopes[-1].silent):
                    self._add_text(node.data or "")
                continue
            if node.name not in _INLINE:
                self._add_text(" ")
                if node.name not in _WITHIN_LINES and getattr(node, "namespace", "") != "svg":
                    self._blocks.append(self._length)
            if not entering:
                left = scopes.pop()
                if left.heading is not None and scopes[-1].heading is None:
                    self._headings[left.heading][1] = self._length
            elif not isinstance(node, Element):
                scopes.append(scopes[-1])
            else:
                scope = self._scope(node, scopes[-1])
                scopes.append(scope)
                kind = kind_of(node)
                if kind and node.origin_offset is not None:
                    offset = node.origin_offset + scope.shift
                    if offset not in seen:  # parsers may duplicate unclosed elements
                        seen.add(offset)
                        begun = len(self._headings) if scope.heading is None else scope.heading + 1
                        place = (begun, self._length, len(self._blocks))
                        self._found.append(_Found(node, kind, scope, *place))
                elif not kind:
                    in_element(self.unread, node, self._is_component(node, scope))

    def _is_component(self, element: Element, scope: _Scope) -> bool:
        """Whether it is a custom element, or a component of MDX or Vue (a capitalised name)."""
        if "-" in element.name:
            return element.namespace == "html"
        if element.origin_offset is None:
            return False
        begin = element.origin_offset + scope.shift + 1
        name = self.html[begin : begin + len(element.name)]
        return name[:1].isupper() and not name.isupper()

    def _children(self, node: Node, scope: _Scope) -> list[Any]:
        """An element's children; in a <noscript>, those for a browser without scripts."""
        if isinstance(node, Template) and node.template_content:
            return [node.template_content]
        if node.name == "noscript" and node.children:
            if scope.nested:  # one that was not closed: what is in it is read already
                return []
            end = _NOSCRIPT_END.search(self.html, scope.shift)
            inside = self.html[scope.shift : end.start() if end else None]
            return [self._tree(inside, fragment=True)]
        return node.children or []

    def _scope(self, element: Element, outer: _Scope) -> _Scope:
        """The scope in an element: that around it, with what the element adds."""
        name, attributes = element.name, element.attrs
        changes: dict[str, Any] = {}
        if not outer.hidden and is_hidden(element):
            changes["hidden"] = True
        if attributes:
            if (language := language_of(element)) is not None:
                changes["language"] = language
            visibility = style_of(element).get("visibility")
            if visibility in ("hidden", "collapse", "visible"):
                changes["invisible"] = visibility != "visible"
        if is_control(element):
            changes["control"] = element
            changes["link"] = element if name == "a" else None
        elif name == "noscript":
            changes["nested"] = outer.noscript
            changes["noscript"] = changes["silent"] = True
            if element.children:
                changes["shift"] = outer.shift + (element.children[0].origin_offset or 0)
        elif name in _HEADINGS or role_of(element) == "heading":
            if not outer.hidden and outer.heading is None:
                changes["heading"] = len(self._headings)
                self._headings.append([self._length, self._length])
        elif name == "figure" or role_of(element) == "figure":
            changes["figure"] = element
        elif name == "picture":
            changes["picture"] = element
        elif element.namespace == "svg" and name in ("title", "desc", "metadata"):
            changes["silent"] = True
        return replace(outer, **changes) if changes else outer

    def _add_text(self, text: str) -> None:
        text = _SPACE.sub(" ", without_declarations(without_surrogates(text)))
        if text.startswith(" ") and (not self._pieces or self._pieces[-1].endswith(" ")):
            text = text[1:]
        if text:
            self._pieces.append(text)
            self._length += len(text)

    def _occurrence(self, position: int, found: _Found, text: str, heading: str) -> ImageOccurrence:
        element, scope = found.element, found.scope
        source, candidates = self._sources(element, found.kind, scope)
        place = (element.origin_offset or 0) + scope.shift
        _, shift = self._shifts[bisect_right(self._shifts, (place, len(self.html))) - 1]
        offset = place - shift
        style = style_of(element)
        control, link = scope.control, scope.link
        if found.kind is Kind.AREA:
            control = link = element
        button = control is not None and link is None
        return ImageOccurrence(
            page=self.name,
            position=position,
            kind=found.kind,
            source=without_surrogates(source),
            url=self._absolute(source),
            candidates=candidates,
            alt=self._alt(element, found.kind),
            name=self._name(element),
            title=attribute_of(element, "title"),
            role=attribute_of(element, "role"),
            hidden=scope.hidden or scope.invisible,
            width_px=in_pixels(style.get("width")) or in_pixels(attribute_of(element, "width")),
            height_px=in_pixels(style.get("height")) or in_pixels(attribute_of(element, "height")),
            link=self._destination(link) if link else "",
            link_text=self._label(control, element) if control not in (None, element) else "",
            button=button or found.kind is Kind.INPUT,
            caption=self._caption(scope.figure, element) if scope.figure else "",
            heading=heading[:_LONGEST_LABEL],
            before=_last_words(text[max(0, found.at - 2 * _CONTEXT) : found.at]),
            after=_first_words(text[found.at : found.at + 2 * _CONTEXT]),
            beside=self._beside(found, text),
            page_title=self.title,
            language=scope.language,
            markup=self._start_tag(offset),
            offset=offset,
            noscript=scope.noscript,
        )

    def _start_tag(self, offset: int) -> str:
        matched = START_TAG.match(self._protected, offset)
        return self.source[offset : matched.end()] if matched else ""

    def _alt(self, element: Element, kind: Kind) -> str | None:
        """The alt attribute, of an element that has one in HTML; None if there is none."""
        if kind in _WITHOUT_ALT or "alt" not in element.attrs:
            return None
        return without_surrogates(element.attrs["alt"] or "")

    def _beside(self, found: _Found, text: str) -> str:
        """The text after an image in its block, else the text before it."""
        at, number = found.at, found.block
        begin = self._blocks[number - 1] if number else 0
        end = self._blocks[number] if number < len(self._blocks) else len(text)
        before = text[max(begin, at - 2 * _CONTEXT) : at]
        return _first_words(text[at : min(end, at + 2 * _CONTEXT)]) or _last_words(before)

    def _sources(self, element: Element, kind: Kind, scope: _Scope) -> tuple[str, tuple[str, ...]]:
        """The source to fetch, as the page has it, and the other sources, made absolute."""
        named: list[str] = []
        chosen = ""
        if kind in (Kind.IMG, Kind.INPUT):
            width = in_pixels(attribute_of(element, "width"))
            own = [
                one
                for name in (*_LAZY_SETS, "srcset")
                for one in parse_srcset(attribute_of(element, name), width)
            ]
            others = self._sources_of(scope.picture) if scope.picture else []
            lazy = [
                one
                for name in _LAZY
                if is_remote(one := attribute_of(element, name)) and not _PATTERN.search(one)
            ]
            src = attribute_of(element, "src")
            placeholder = not is_remote(src) or _PLACEHOLDER.search(src) is not None
            unknown = other_addresses(element, placeholder=placeholder)
            if unknown and placeholder:
                lazy += unknown
            named = [*lazy, src, *unknown, *(url for url, _ in own + others)]
            chosen = best_of(own) or (lazy[0] if lazy else "")
            if not chosen and not (is_remote(src) or (src and not own + others)):
                chosen = best_of(own + others) or next((url for url, _ in own + others), "")
            chosen = chosen or src
        elif kind is Kind.OBJECT:
            chosen = attribute_of(element, "data")
        elif kind is Kind.SVG:
            chosen = only_image_of(element)
        elif kind in (Kind.CSS, Kind.ROLE_IMG):
            named = [*backgrounds_of(element), attribute_of(element, "src")]
            chosen = next(filter(None, named), "")
        url = self._absolute(chosen)
        fetchable = (self._absolute(one) for one in named)
        candidates = dict.fromkeys(one for one in fetchable if one and one != url)
        return chosen, tuple(candidates)[:_MOST_CANDIDATES]

    def _sources_of(self, picture: Element) -> list[tuple[str, int | None]]:
        """The sources that a <picture> lists, with their widths."""
        if picture not in self._picture_sources:
            self._picture_sources[picture] = [
                one
                for source in picture.children or []
                if isinstance(source, Element) and source.name == "source"
                for name in (*_LAZY_SETS, "srcset")
                for one in parse_srcset(attribute_of(source, name), None)
            ][:_MOST_CANDIDATES]
        return self._picture_sources[picture]

    def _absolute(self, source: str) -> str:
        source = resolve_source(source.strip()) if self.root else source.strip()
        source, base = self._based(source)
        return normalise_url(source, base) if is_remote(source) else ""

    def _based(self, url: str) -> tuple[str, str]:
        """A URL, and its base URL."""
        if self.root and _ROOTED.match(url):
            return url[1:], self.root
        return url, self.base

    def _destination(self, link: Element) -> str:
        """A link's destination, with its fragment and whatever scheme it has."""
        href = attribute_of(link, "href") or attribute_of(link, "xlink:href")
        try:
            url, base = self._based(href)
            leads = str(ada_url.join_url(base, url)) if href else self.base
        except ValueError:
            return href
        if self.root and leads.startswith(self.root):
            return f"./{leads.removeprefix(self.root)}"
        return leads

    def _name(self, element: Element) -> str:
        """The name given by ARIA, an SVG's title or an input's labels (AccName 1.2, 2B, 2D, 2E)."""
        referred = (self.ids.get(one) for one in attribute_of(element, "aria-labelledby").split())
        name = " ".join(self._text(one) for one in referred if one).strip()
        name = name or one_line(attribute_of(element, "aria-label"))
        if not name and element.namespace == "svg":
            titles = [c for c in element.children or [] if c.name == "title"]
            name = one_line(titles[0].to_text()) if titles else ""
        if not name and element.name == "input":
            name = one_line(" ".join(self._text(one, element) for one in self._labels_of(element)))
        return name[:_LONGEST_LABEL]

    def _labels_of(self, control: Element) -> list[Element]:
        """The labels of a form control: those for its id, and one around it (HTML, 4.10.4)."""
        labels = self.labels.get(attribute_of(control, "id"), [])
        around = control.parent
        while isinstance(around, Element):
            if around.name == "label" and "for" not in around.attrs:
                return [*labels, around]
            around = around.parent
        return labels

    def _label(self, control: Element, image: Element) -> str:
        """The accessible name of a link or button without this image."""
        return self._name(control) or self._text(control, image) or attribute_of(control, "title")

    def _caption(self, figure: Element, image: Element) -> str:
        caption = self._captions.get(figure)
        return self._text(caption, image) if caption else ""

    def _collect_captions(self, tree: Node) -> None:
        """Find the <figcaption> of each figure, the first one that is in no figure within."""
        figures: list[Element] = []
        for node, entering in walk(tree, all_children):
            if not isinstance(node, Element):
                continue
            if node.name == "figure" or role_of(node) == "figure":
                figures.append(node) if entering else figures.pop()
            elif node.name == "figcaption" and entering and figures:
                self._captions.setdefault(figures[-1], node)

    def _text(self, element: Element, without: Element | None = None) -> str:
        """An element's text with the names of the elements in it, except one image's."""
        if element not in self._texts:
            self._texts[element] = list(self._parts(element))
        pieces: list[str] = []
        for owner, piece in self._texts[element]:
            if owner is None or owner is not without:
                pieces.append(piece)
        return one_line("".join(pieces))[:_LONGEST_LABEL]

    def _parts(self, element: Element) -> Iterator[tuple[Element | None, str]]:
        """The text in an element, piece by piece, each with the element that it names, if any."""
        stack: list[Any] = [element]
        length = visited = 0
        while stack and length < 4 * _LONGEST_LABEL and visited < _MOST_NODES:
            node = stack.pop()
            visited += 1
            if isinstance(node, str | Text):
                text = node if isinstance(node, str) else _SPACE.sub(" ", node.data or "")
                length += len(text)
                yield None, text
            elif isinstance(node, Element) and (node is element or not is_hidden(node)):
                name = "" if node is element else own_name(node)
                if name:
                    length += len(name)
                    yield node, f" {name} "
                elif node.namespace != "svg" and node.name != "noscript":
                    gap = [] if node.name in _INLINE else [" "]
                    stack += [*gap, *reversed(node.children or []), *gap]


def _last_words(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[-_CONTEXT - 1 :].partition(" ")[2]


def _first_words(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[: _CONTEXT + 1].rpartition(" ")[0]
