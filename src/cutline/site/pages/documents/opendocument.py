"""OpenDocument texts and presentations: the body, notes, headers, footers and masters.

The alt of a frame is its child element `svg:desc` (OpenDocument 1.3, 10.3.18), which LibreOffice
converts to and from the alt of Office documents. A frame with only a short name, `svg:title`, is
named by it.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import unquote

from cutline.errors import DataError
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.documents.model import AltElement, Document, DocumentImage
from cutline.site.pages.documents.text_flow import Mark, TextFlow
from cutline.site.pages.documents.xml_part import Node, XmlPart, start_tag

_OASIS = "urn:oasis:names:tc:opendocument:xmlns:"
PREFIXES: Mapping[str, str] = {
    **{
        f"{_OASIS}{name}:1.0": name
        for name in "office text presentation style meta manifest".split()
    },
    f"{_OASIS}drawing:1.0": "draw",
    f"{_OASIS}svg-compatible:1.0": "svg",
    f"{_OASIS}xsl-fo-compatible:1.0": "fo",
    "http://www.w3.org/1999/xlink": "xlink",
    "http://purl.org/dc/elements/1.1/": "dc",
    "urn:org:documentfoundation:names:experimental:office:xmlns:loext:1.0": "loext",
}
_MANIFEST = "META-INF/manifest.xml"
_SIGNATURES = "META-INF/documentsignatures.xml"
_PX_PER_UNIT = {"in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4, "pt": 96 / 72, "px": 1}
_CONTOURS = frozenset({"draw:contour-polygon", "draw:contour-path"})
_DECORATIVE = ("draw:decorative", "loext:decorative")  # ODF 1.4, and LibreOffice before
_SPACES = frozenset({"text:s", "text:tab", "text:line-break"})


def read_open_document(archive: Archive, page: ImageOccurrence, root: str) -> Document:
    """Read an OpenDocument text or presentation.

    Args:
        archive: the file.
        page: the fields that all its occurrences have in common.
        root: as for `read_epub`.

    Raises:
        DataError: it is damaged, encrypted or has another format.
    """
    if "content.xml" not in archive:
        raise DataError("it has no content.xml; expected an OpenDocument file")
    if _MANIFEST in archive:
        manifest = XmlPart(archive.read(_MANIFEST), _MANIFEST, PREFIXES).root
        if next(manifest.descendants("manifest:encryption-data"), None):
            raise DataError("it is encrypted with a password; remove the password first")
    title, language = _properties(archive)
    page = replace(page, page_title=title, language=language)
    images: list[DocumentImage] = []
    unread: Counter[str] = Counter()
    common: _Styles = {}
    if "styles.xml" in archive:
        common = _styles(XmlPart(archive.read("styles.xml"), "styles.xml", PREFIXES).root)
    for name in ("content.xml", "styles.xml"):
        if name in archive:
            reader = _Reader(archive, name, root, common)
            reader.visit(reader.part.root, _Scope())
            if not page.page_title and reader.first_heading:
                page = replace(page, page_title=reader.first_heading)
            images += reader.images(page)
            unread.update(reader.unread)
    found = Page(page.page, title=page.page_title, language=language, unread=tuple(unread.items()))
    signed = "it has a digital signature, which a change would break"
    return Document(found, tuple(images), signed if _SIGNATURES in archive else "")


def _properties(archive: Archive) -> tuple[str, str]:
    """The title and the language of a document."""
    found = {"dc:title": "", "dc:language": ""}
    if "meta.xml" in archive:
        meta = XmlPart(archive.read("meta.xml"), "meta.xml", PREFIXES).root
        for node in meta.descendants(*found):
            found[node.tag] = " ".join(node.all_text().split())
    if not found["dc:language"] and "styles.xml" in archive:
        styles = XmlPart(archive.read("styles.xml"), "styles.xml", PREFIXES).root
        for node in styles.descendants("style:text-properties"):
            if language := node.attributes.get("fo:language", ""):
                country = node.attributes.get("fo:country", "")
                found["dc:language"] = f"{language}-{country}".removesuffix("-none").strip("-")
                break
    return found["dc:title"], found["dc:language"].removeprefix("none")


@dataclass(frozen=True)
class _Style:
    """A graphic style; `decorative` is None if the style does not say."""

    decorative: bool | None
    parent: str


_Styles: TypeAlias = "dict[tuple[str, str], _Style]"
"""Styles by family and name."""


def _styles(root: Node) -> _Styles:
    """The graphic styles in a part."""
    found: _Styles = {}
    for node in root.descendants("style:style"):
        family = node.attributes.get("style:family", "")
        if family not in ("graphic", "presentation"):
            continue
        properties = node.child("style:graphic-properties")
        marks = [properties.attributes.get(name) for name in _DECORATIVE] if properties else []
        decorative = "true" in marks if any(marks) else None
        parent = node.attributes.get("style:parent-style-name", "")
        found[family, node.attributes.get("style:name", "")] = _Style(decorative, parent)
    return found


@dataclass(frozen=True)
class _Scope:
    """Where an element is."""

    place: str = ""
    link: str = ""


@dataclass(frozen=True, eq=False)
class _Frame:
    node: Node
    image: Node | None
    mark: Mark
    scope: _Scope


class _Reader:
    """Reads one part."""

    def __init__(self, archive: Archive, name: str, root: str, common: _Styles) -> None:
        self.part = XmlPart(archive.read(name), name, PREFIXES)
        self._styles = common | _styles(self.part.root)
        self.first_heading = ""
        self.unread: Counter[str] = Counter()
        self._archive, self._root = archive, root
        self._flow = TextFlow()
        self._frames: list[_Frame] = []
        self._slides = 0

    def visit(self, node: Node, scope: _Scope) -> None:
        """Read an element and the text in it."""
        tag = node.tag
        if tag == "text:tracked-changes":
            deleted = sum(1 for _ in node.descendants("draw:image"))
            if deleted:
                self.unread["picture in a tracked deletion"] += deleted
        elif tag in ("text:p", "text:h"):
            number = self._flow.new_block()
            self._visit_inside(node, scope)
            self._flow.end_block(number, heading=tag == "text:h")
            if tag == "text:h" and not self.first_heading:
                self.first_heading = self._flow.heading(self._flow.mark())
        elif tag in _SPACES:
            self._flow.add(" ")
        elif tag == "draw:frame":
            self._read_frame(node, scope)
        elif tag == "draw:page":
            self._slides += 1
            self._visit_inside(node, replace(scope, place=f"slide {self._slides}"))
        elif tag == "presentation:notes":
            self._visit_inside(node, replace(scope, place=f"notes of {scope.place}"))
        elif tag == "style:master-page":
            named = node.attributes.get("style:name", "")
            self._visit_inside(node, replace(scope, place=f"master page {named}".strip()))
        elif tag == "draw:a":
            link = node.attributes.get("xlink:href", "")
            self._visit_inside(node, replace(scope, link=link))
        elif tag not in ("svg:title", "svg:desc"):
            self._visit_inside(node, scope)

    def _visit_inside(self, node: Node, scope: _Scope) -> None:
        self._flow.add(node.text)
        for child in node.children:
            self.visit(child, scope)
            self._flow.add(child.tail)

    def _read_frame(self, node: Node, scope: _Scope) -> None:
        images = [each for each in node.children if each.tag == "draw:image"]
        has_object = node.child("draw:object") or node.child("draw:object-ole")
        if images or has_object:
            shown = next((each for each in images if self._member(each)), None)
            image = shown or (images[0] if images else None)
            self._frames.append(_Frame(node, image, self._flow.mark(), scope))
        for child in node.children:
            if child.tag == "draw:text-box":
                self._visit_inside(child, scope)

    def _member(self, image: Node) -> str:
        """The member of the archive with an image; "" if it is linked."""
        path = posixpath.normpath(unquote(image.attributes.get("xlink:href", "")))
        return path if path in self._archive else ""

    def images(self, page: ImageOccurrence) -> list[DocumentImage]:
        """The frames with images as occurrences."""
        return [self._image(frame, page) for frame in self._frames]

    def _image(self, frame: _Frame, page: ImageOccurrence) -> DocumentImage:
        node, flow, mark = frame.node, self._flow, frame.mark
        title, description = (
            " ".join(child.all_text().split()) if (child := node.child(name)) else ""
            for name in ("svg:title", "svg:desc")
        )
        decorative = self._is_decorative(node)
        member = self._member(frame.image) if frame.image else ""
        source = member or (frame.image.attributes.get("xlink:href", "") if frame.image else "")
        occurrence = replace(
            page,
            kind=Kind.PICTURE if frame.image else Kind.CHART,
            source=source,
            url=self._root + member if member else "",
            alt="" if decorative else description or title or None,
            width_px=_pixels(node.attributes.get("svg:width", "")),
            height_px=_pixels(node.attributes.get("svg:height", "")),
            link=frame.scope.link,
            heading=flow.heading(mark),
            before=flow.before(mark),
            after=flow.after(mark),
            beside=flow.beside(mark),
            markup=start_tag(self.part.text, node.start),
            offset=node.start,
            part=self.part.name,
            place=frame.scope.place,
        )
        return DocumentImage(occurrence, (self._element(node),) if not decorative else ())

    def _is_decorative(self, frame: Node) -> bool:
        """Whether a frame or its style, where LibreOffice keeps the mark, says decorative."""
        if "true" in (frame.attributes.get(name) for name in _DECORATIVE):
            return True
        for prefix, family in (("draw", "graphic"), ("presentation", "presentation")):
            name, seen = frame.attributes.get(f"{prefix}:style-name", ""), set[str]()
            while name not in seen and (style := self._styles.get((family, name))):
                if style.decorative is not None:
                    return style.decorative
                seen.add(name)
                name = style.parent
        return False

    def _element(self, node: Node) -> AltElement:
        """The `svg:desc` of a frame, or the place where it is to be inserted."""
        if description := node.child("svg:desc"):
            return AltElement(self.part.name, *self.part.span(description))
        at = node.end_tag
        if title := node.child("svg:title"):
            at = self.part.span(title)[1]
        elif contour := next((each for each in node.children if each.tag in _CONTOURS), None):
            at = contour.start
        return AltElement(self.part.name, at, at)


def _pixels(length: str) -> int | None:
    number, unit = length[:-2], length[-2:]
    try:
        return round(float(number) * _PX_PER_UNIT[unit])
    except (KeyError, ValueError, OverflowError):
        return None
