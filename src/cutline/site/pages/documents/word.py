"""Word documents: the body, headers, footers, notes and comments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.documents.alt_elements import is_decorative
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.documents.model import Document, DocumentImage
from cutline.site.pages.documents.office import (
    CHARTS,
    SIGNED,
    Package,
    PartReader,
    Relationship,
    require_main,
)
from cutline.site.pages.documents.xml_part import Node

_PLACES = {
    "header": "header",
    "footer": "footer",
    "footnotes": "footnotes",
    "endnotes": "endnotes",
    "comments": "comments",
}
_REMOVED = frozenset({"w:del", "w:moveFrom"})
_GROUPS = frozenset({"wpg:wgp", "wpg:grpSp", "wpc:wpc"})


@dataclass(frozen=True)
class _Styles:
    """Which paragraph styles are headings and captions, and the default language."""

    headings: frozenset[str] = frozenset()
    captions: frozenset[str] = frozenset()
    language: str = ""


def read_word(archive: Archive, page: ImageOccurrence) -> Document:
    """Read a Word document.

    Args:
        archive: the file.
        page: the fields that all its occurrences have in common.

    Raises:
        DataError: it is damaged or no Word document.
    """
    package = Package(archive)
    main = require_main(package, "Word", "w:document")
    title, language = package.title_and_language()
    styles = _read_styles(package, main)
    parts = [(main, "")]
    for kind, place in _PLACES.items():
        parts += [(name, place) for name in package.related(main, kind)]
    images: list[DocumentImage] = []
    unread: Counter[str] = Counter()
    for name, place in dict(parts).items():
        reader = _WordReader(package, name, styles, language or styles.language)
        reader.visit(reader.part.root)
        if name == main:
            title = title or reader.first_heading
            page = replace(page, page_title=title, language=language or styles.language)
        images += reader.images(replace(page, place=place))
        unread.update(reader.unread)
    found = Page(page.page, title=title, language=page.language, unread=tuple(unread.items()))
    return Document(found, tuple(images), SIGNED if package.is_signed else "")


def _read_styles(package: Package, main: str) -> _Styles:
    [name, *_] = package.related(main, "styles") or [""]
    if not name:
        return _Styles()
    root = package.part(name).root
    default = root.child("w:docDefaults", "w:rPrDefault", "w:rPr", "w:lang")
    headings, captions = set(), set()
    for style in root.children:
        if style.tag != "w:style" or style.attributes.get("w:type") != "paragraph":
            continue
        shown = style.child("w:name")
        named = shown.attributes.get("w:val", "").lower() if shown else ""
        identifier = style.attributes.get("w:styleId", "")
        level = style.child("w:pPr", "w:outlineLvl")
        outlined = level is not None and level.attributes.get("w:val", "9") != "9"
        if outlined or named.startswith("heading ") or named == "title":
            headings.add(identifier)
        if named == "caption":
            captions.add(identifier)
    language = default.attributes.get("w:val", "") if default else ""
    return _Styles(frozenset(headings), frozenset(captions), language)


class _WordReader(PartReader):
    """Reads one part of a Word document."""

    def __init__(self, package: Package, name: str, styles: _Styles, language: str) -> None:
        super().__init__(package, name, language)
        self._styles = styles
        self.first_heading = ""

    def visit(self, node: Node) -> None:
        """Read an element."""
        tag = node.tag
        if tag == "w:t":
            self.flow.add(node.text)
        elif tag in ("w:tab", "w:br", "w:cr"):
            self.flow.add(" ")
        elif tag == "w:p":
            self._read_paragraph(node)
        elif tag == "w:r":
            self._read_run(node)
        elif tag == "w:hyperlink":
            self._read_link(node)
        elif tag in _REMOVED:
            removed = sum(1 for _ in node.descendants("wp:docPr", "v:imagedata"))
            if removed:
                self.unread["picture in a tracked deletion"] += removed
        elif tag == "mc:AlternateContent":
            self.read_alternatives(node)
        elif tag in ("wp:inline", "wp:anchor"):
            self._read_drawing(node)
        elif tag in ("w:pict", "w:object"):
            self.read_vml(node)
            for drawing in node.children:
                if drawing.tag == "w:drawing":
                    self.visit(drawing)
        else:
            self.visit_children(node)

    def _read_paragraph(self, node: Node) -> None:
        properties = node.child("w:pPr")
        style = node.child("w:pPr", "w:pStyle")
        name = style.attributes.get("w:val", "") if style else ""
        level = properties.child("w:outlineLvl") if properties else None
        outlined = level is not None and level.attributes.get("w:val", "9") != "9"
        heading = outlined or name in self._styles.headings
        language = self.language
        number = self.flow.new_block()
        self.visit_children(node)
        self.flow.end_block(number, heading=heading, caption=name in self._styles.captions)
        if heading and not self.first_heading:
            self.first_heading = self.flow.heading(self.flow.mark())
        self.language = language

    def _read_run(self, node: Node) -> None:
        hidden = node.child("w:rPr", "w:vanish")
        if hidden and hidden.attributes.get("w:val", "1") not in ("0", "false", "off"):
            pictures = sum(1 for _ in node.descendants("wp:docPr", "v:imagedata"))
            if pictures:
                self.unread["hidden picture"] += pictures
            return
        language = node.child("w:rPr", "w:lang")
        if language and (value := language.attributes.get("w:val", "")):
            self.language = value
        self.visit_children(node)

    def _read_link(self, node: Node) -> None:
        first = len(self.pictures)
        self.visit_children(node)
        target = self.relationships.get(node.attributes.get("r:id", ""))
        anchor = node.attributes.get("w:anchor", "")
        leads = target.target if target and target.is_external else f"#{anchor}" if anchor else ""
        text = " ".join("".join(each.text for each in node.descendants("w:t")).split())
        for picture in self.pictures[first:]:
            picture.link = picture.link or leads
            picture.link_text = text

    def _read_drawing(self, node: Node) -> None:
        properties, size = node.child("wp:docPr"), node.child("wp:extent")
        data = node.child("a:graphic", "a:graphicData")
        if data is None or not data.children:
            return
        shown = data.children[0]
        if shown.tag in _GROUPS:
            self._read_group(shown, properties, "")
        elif shown.tag in CHARTS:
            self.add_picture(properties, self._chart(shown), Kind.CHART, size=size)
        elif shown.tag == "wps:wsp":
            if image := self.image_of(shown.child("wps:spPr", "a:blipFill")):
                self.add_picture(properties, image, size=size)
            self._read_text_boxes(shown)
        elif shown.tag == "pic:pic" or self.image_of(shown):
            self.add_picture(properties, self.image_of(shown), size=size)

    def _read_group(self, group: Node, properties: Node | None, outer_alt: str) -> None:
        """Read the pictures in a group, each with an alt of its own."""
        if properties and is_decorative(self.part.source(properties)):
            inside = sum(1 for _ in group.descendants("a:blip"))
            self.unread["picture in a decorative group"] += inside
            return
        group_alt = self.alt_of(properties) or outer_alt
        for shape in group.children:
            if shape.tag in _GROUPS:
                self._read_group(shape, shape.child("wpg:cNvPr"), group_alt)
            elif shape.tag == "pic:pic":
                own, size = shape.child("pic:nvPicPr", "pic:cNvPr"), _size(shape, "pic:spPr")
                self.add_picture(own, self.image_of(shape), group_alt=group_alt, size=size)
            elif shape.tag == "wps:wsp":
                own, size = shape.child("wps:cNvPr"), _size(shape, "wps:spPr")
                if image := self.image_of(shape.child("wps:spPr", "a:blipFill")):
                    self.add_picture(own, image, group_alt=group_alt, size=size)
                self._read_text_boxes(shape)
            elif shape.tag == "mc:AlternateContent" and shape.children:
                self._read_group(shape.children[0], None, group_alt)
            elif shape.tag == "wpg:graphicFrame":
                for chart in shape.descendants(*CHARTS):
                    own = shape.child("wpg:cNvPr")
                    self.add_picture(own, self._chart(chart), Kind.CHART, group_alt=group_alt)

    def _read_text_boxes(self, shape: Node) -> None:
        for box in shape.children:
            if box.tag == "wps:txbx":
                self.visit_children(box)

    def _chart(self, node: Node) -> Relationship | None:
        reference = node.attributes.get("r:id") or node.attributes.get("r:dm", "")
        return self.relationships.get(reference)


def _size(shape: Node, properties: str) -> Node | None:
    return shape.child(properties, "a:xfrm", "a:ext")
