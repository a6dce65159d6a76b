"""Reading a page: every image use in HTML, with the words around it.

HTML is read by justhtml, which builds the tree a browser builds and still knows where in the file
each tag began; html.parser knows the places but not the tree, lxml and lexbor the tree but not the
places.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ada_url
from justhtml import Element, JustHTML, Node, Template, Text

from cutline.site.model import ImageUse, Kind, Page
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
    own_name,
    parse_srcset,
    role_of,
    style_of,
)
from cutline.site.urls import normalise_url, printable

_CONTEXT = 200
_LONGEST_LABEL = 500
_MOST_CANDIDATES = 20

_LAZY = ("data-src", "data-lazy-src", "data-original", "data-lazy", "data-original-src")
_LAZY_SETS = ("data-srcset", "data-lazy-srcset")
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
_TAG = (
    r"""<([a-zA-Z][^\s/>]*+)(?:[\s/]++|=?[^\s/>=]++"""
    r"""(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>"'][^\s>]*+))?+|=)*+>"""
)
_START_TAG = re.compile(_TAG)
_XML_TOKEN = re.compile(rf"<!--.*?-->|<!\[CDATA\[.*?]]>|<\?.*?\?>|{_TAG}", re.DOTALL)
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_ROOTED = re.compile(r"[/\\](?![/\\])")
_XML_DECLARATION = re.compile(r"\A(\ufeff?\s*)(<\?xml[^>]*>)")
_BOGUS = re.compile(r"<[!?][^>]*>")
_NOSCRIPT_END = re.compile(r"</noscript[\s/>]", re.IGNORECASE)


def uses_in_html(
    html: str, *, page: str, base: str | None = None, root: str = "", xhtml: bool | None = None
) -> tuple[Page, list[ImageUse]]:
    """Every image use in a page, in document order.

    `hidden` follows axe-core's "hidden for assistive technology" as far as the page alone tells:
    style sheets and scripts are not run.

    Args:
        html: the page, as `decode` gives it.
        page: its URL or path, for the records.
        base: what its relative URLs are relative to; `page` if None. `<base href>` is honoured.
        root: where URLs that begin with a slash start, for pages in a folder; "" for the host.
        xhtml: whether `<a/>` closes itself, as in XHTML that is not served as HTML; None: if the
            page's name ends in ".xhtml".

    Returns:
        The page, its checksum that of the text in UTF-8, and its uses. For every use whose offset
        is known, `html[use.offset : use.offset + len(use.markup)] == use.markup`.
    """
    if xhtml is None:
        xhtml = page.lower().endswith(".xhtml")
    reader = _Reader(html, page, page if base is None else base, root, xhtml)
    return reader.page(), reader.uses()


@dataclass(frozen=True, slots=True)
class _Scope:
    """What an element's ancestors say of everything in them."""

    shift: int  # from the tree's offsets to the file's
    language: str = ""
    hidden: bool = False
    invisible: bool = False  # visibility: hidden, which what is inside may take back
    silent: bool = False  # its text is not shown
    noscript: bool = False
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
    heading: int  # how many headings had begun, its own included
    at: int  # in the page's text
    block: int  # how many blocks had begun or ended


class _Reader:
    """Reads one page: once through for names and places, once for images and text."""

    def __init__(self, source: str, page: str, base: str, root: str, xhtml: bool) -> None:
        self.source, self.name, self.base, self.root = source, page, base, root
        self.html, self._shifts = _as_html(source) if xhtml else (source, [(0, 0)])
        self.title = self.language = ""
        self.ids: dict[str, Element] = {}
        self.labels: dict[str, list[Element]] = {}  # by the id that they are for
        self._pieces: list[str] = []  # the text that is shown, blanks collapsed
        self._length = 0
        self._blocks: list[int] = []  # where one begins or ends in the text
        self._headings: list[list[int]] = []  # where each begins and ends in the text
        self._found: list[_Found] = []
        self._said: dict[Element, list[tuple[Element | None, str]]] = {}
        tree = _tree(self.html)
        self._look_round(tree)
        self._read(tree)

    def page(self) -> Page:
        """What is to be known of the page itself."""
        checksum = hashlib.sha256(self.source.encode("utf-8", "surrogateescape")).hexdigest()
        return Page(self.name, checksum, self.title, self.language)

    def uses(self) -> list[ImageUse]:
        """Its image uses, in document order."""
        text = "".join(self._pieces)
        headings = [""]
        for begin, end in self._headings:
            headings.append(text[begin:end].strip() or headings[-1])
        return [
            self._use(position, found, text, headings[found.heading])
            for position, found in enumerate(self._found)
        ]

    def _look_round(self, tree: Node) -> None:
        """What must be known before the first image: ids, labels, base, title, language."""
        based = False
        for node, entering in _walk(tree, _shown_children):
            if not entering or not isinstance(node, Element):
                continue
            if identity := attribute_of(node, "id"):
                self.ids.setdefault(identity, node)
            if node.name == "base" and "href" in node.attrs and not based:
                based = True
                self.base = self._absolute(attribute_of(node, "href")) or self.base
            elif node.name == "title" and node.namespace == "html" and not self.title:
                self.title = one_line(node.to_text())
            elif node.name == "html":
                self.language = language_of(node) or ""
            elif node.name == "label" and (control := attribute_of(node, "for")):
                self.labels.setdefault(control, []).append(node)

    def _read(self, tree: Node) -> None:
        """Keep the images, the headings and the text that is shown."""
        scopes = [_Scope(int(self.html.startswith(_BOM)), self.language)]
        seen = set()
        for node, entering in _walk(tree, lambda node: self._children(node, scopes[-1])):
            if isinstance(node, Text):
                if not (scopes[-1].hidden or scopes[-1].silent):
                    self._say(node.data or "")
                continue
            if node.name not in _INLINE:
                self._say(" ")
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
                    if offset not in seen:  # a parser may double what was not closed
                        seen.add(offset)
                        begun = len(self._headings) if scope.heading is None else scope.heading + 1
                        place = (begun, self._length, len(self._blocks))
                        self._found.append(_Found(node, kind, scope, *place))

    def _children(self, node: Node, scope: _Scope) -> list[Any]:
        """What stands in an element; in a <noscript>, what a browser without scripts sees."""
        if isinstance(node, Template) and node.template_content:
            return [node.template_content]
        if node.name == "noscript" and node.children:
            end = _NOSCRIPT_END.search(self.html, scope.shift)
            return [_tree(self.html[scope.shift : end.start() if end else None], fragment=True)]
        return node.children or []

    def _scope(self, element: Element, outer: _Scope) -> _Scope:
        """What holds in an element: what held around it, and what it adds."""
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

    def _say(self, text: str) -> None:
        text = _SPACE.sub(" ", _BOGUS.sub(" ", printable(text)))
        if text.startswith(" ") and (not self._pieces or self._pieces[-1].endswith(" ")):
            text = text[1:]
        if text:
            self._pieces.append(text)
            self._length += len(text)

    def _use(self, position: int, found: _Found, text: str, heading: str) -> ImageUse:
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
        return ImageUse(
            page=self.name,
            position=position,
            kind=found.kind,
            source=printable(source),
            url=self._absolute(source),
            candidates=candidates,
            alt=printable(element.attrs["alt"] or "") if "alt" in element.attrs else None,
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
            markup=_start_tag(self.source, offset),
            offset=offset,
            noscript=scope.noscript,
        )

    def _beside(self, found: _Found, text: str) -> str:
        """What stands after an image in its block, else what stands before it."""
        at, number = found.at, found.block
        begin = self._blocks[number - 1] if number else 0
        end = self._blocks[number] if number < len(self._blocks) else len(text)
        before = text[max(begin, at - 2 * _CONTEXT) : at]
        return _first_words(text[at : min(end, at + 2 * _CONTEXT)]) or _last_words(before)

    def _sources(self, element: Element, kind: Kind, scope: _Scope) -> tuple[str, tuple[str, ...]]:
        """What to fetch, as it stands there, and what else there is, made absolute."""
        named: list[str] = []
        chosen = ""
        if kind in (Kind.IMG, Kind.INPUT):
            width = in_pixels(attribute_of(element, "width"))
            own = [
                one
                for name in (*_LAZY_SETS, "srcset")
                for one in parse_srcset(attribute_of(element, name), width)
            ]
            others = [
                one
                for source in (scope.picture.children or [] if scope.picture else [])
                if isinstance(source, Element) and source.name == "source"
                for name in (*_LAZY_SETS, "srcset")
                for one in parse_srcset(attribute_of(source, name), None)
            ]
            lazy = [
                one for name in _LAZY if (one := attribute_of(element, name)) and is_remote(one)
            ]
            src = attribute_of(element, "src")
            named = [*lazy, src, *(url for url, _ in own + others)]
            chosen = best_of(own) or (lazy[0] if lazy else "")
            if not chosen and not (is_remote(src) or (src and not own + others)):
                chosen = best_of(own + others) or next((url for url, _ in own + others), "")
            chosen = chosen or src
        elif kind is Kind.OBJECT:
            chosen = attribute_of(element, "data")
        elif kind in (Kind.CSS, Kind.ROLE_IMG):
            named = [*backgrounds_of(element), attribute_of(element, "src")]
            chosen = next(filter(None, named), "")
        url = self._absolute(chosen)
        fetchable = (self._absolute(one) for one in named if is_remote(one))
        candidates = dict.fromkeys(one for one in fetchable if one and one != url)
        return chosen, tuple(candidates)[:_MOST_CANDIDATES]

    def _absolute(self, source: str) -> str:
        source, base = self._based(source.strip())
        return normalise_url(source, base) if is_remote(source) else ""

    def _based(self, url: str) -> tuple[str, str]:
        """A URL, and what it is relative to."""
        if self.root and _ROOTED.match(url):
            return url[1:], self.root
        return url, self.base

    def _destination(self, link: Element) -> str:
        """Where a link leads: its fragment and any scheme kept, for they tell what it does."""
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
        """A link's or button's name as it would be without this image."""
        return self._name(control) or self._text(control, image) or attribute_of(control, "title")

    def _caption(self, figure: Element, image: Element) -> str:
        for node, entering in _walk(figure, _shown_children):
            if entering and node.name == "figcaption":
                return self._text(node, image)
        return ""

    def _text(self, element: Element, without: Element | None = None) -> str:
        """An element's text with the names of what is in it, but for one image's."""
        if element not in self._said:
            self._said[element] = list(self._parts(element))
        pieces: list[str] = []
        for owner, piece in self._said[element]:
            if owner is None or owner is not without:
                pieces.append(piece)
        return one_line("".join(pieces))[:_LONGEST_LABEL]

    def _parts(self, element: Element) -> Iterator[tuple[Element | None, str]]:
        """The text in an element, piece by piece, and whose name each piece is."""
        stack: list[Any] = [element]
        length = 0
        while stack and length < 4 * _LONGEST_LABEL:
            node = stack.pop()
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


def _as_html(xhtml: str) -> tuple[str, list[tuple[int, int]]]:
    """XHTML with an end tag for whatever closes itself.

    Returns:
        The HTML, and from which place in it on by how much it is ahead of the XHTML.
    """
    pieces, shifts, reached, ahead = [], [(0, 0)], 0, 0
    for token in _XML_TOKEN.finditer(xhtml):
        name = token[1]
        if name and name not in _VOID and token[0].endswith("/>"):
            pieces += [xhtml[reached : token.end()], f"</{name}>"]
            reached = token.end()
            ahead += len(pieces[-1])
            shifts.append((reached + ahead, ahead))
    return "".join([*pieces, xhtml[reached:]]), shifts


def _tree(html: str, *, fragment: bool = False) -> Node:
    """The tree a browser builds, but for "<!x>" and "<?x>": text where places are kept."""
    html = _XML_DECLARATION.sub(lambda found: found[1] + " " * len(found[2]), html, count=1)
    return JustHTML(html, sanitize=False, track_node_locations=True, fragment=fragment).root


def _walk(root: Node, children: Callable[[Node], list[Any]]) -> Iterator[tuple[Any, bool]]:
    """Every node in document order: with True before what is in it, with False after; text once."""
    stack: list[tuple[Any, bool]] = [(root, True)]
    while stack:
        node, entering = stack.pop()
        yield node, entering
        if entering and not isinstance(node, Text):
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(children(node)))


def _shown_children(node: Node) -> list[Any]:
    return node.children or []


def _start_tag(html: str, offset: int) -> str:
    matched = _START_TAG.match(html, offset)
    return matched[0] if matched else ""


def _last_words(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[-_CONTEXT - 1 :].partition(" ")[2]


def _first_words(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[: _CONTEXT + 1].rpartition(" ")[0]
