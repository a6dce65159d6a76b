"""PowerPoint presentations: slides, speaker notes, layouts and masters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.documents.alt_elements import is_decorative
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.documents.model import Document, DocumentImage
from cutline.site.pages.documents.office import (
    CHARTS,
    SIGNED,
    Package,
    PartReader,
    Picture,
    require_main,
)
from cutline.site.pages.documents.xml_part import Node

_TITLES = frozenset({"title", "ctrTitle"})


def read_slides(archive: Archive, page: ImageOccurrence) -> Document:
    """Read a presentation.

    Pictures of hidden slides are read like all others, because a slide may be shown again.

    Args:
        archive: the file.
        page: the fields that all its occurrences have in common.

    Raises:
        DataError: it is damaged or no presentation.
    """
    package = Package(archive)
    main = require_main(package, "PowerPoint", "p:presentation")
    title, language = package.title_and_language()
    images: list[DocumentImage] = []
    unread: Counter[str] = Counter()
    titles: dict[str, str] = {}
    default = _default_language(package, main)
    page = replace(page, page_title=title, language=language or default)
    for name, place, slide in _parts(package, main):
        reader = _SlideReader(package, name, default)
        reader.visit(reader.part.root)
        reader.title = reader.title if not slide else titles.get(slide, "")
        titles[name] = reader.title
        if not page.page_title and reader.title:
            page = replace(page, page_title=reader.title)
        shown = f"hidden {place}" if reader.part.root.attributes.get("show") == "0" else place
        images += reader.images(replace(page, place=shown), heading=reader.heading)
        unread.update(reader.unread)
    found = Page(
        page.page, title=page.page_title, language=page.language, unread=tuple(unread.items())
    )
    return Document(found, tuple(images), SIGNED if package.is_signed else "")


def _parts(package: Package, main: str) -> Iterator[tuple[str, str, str]]:
    """Each part with pictures, its place, and the slide that speaker notes belong to."""
    relationships = package.relationships(main)
    seen: set[str] = set()

    def new(name: str) -> bool:
        known = name in seen or name not in package.archive
        seen.add(name)
        return not known

    listed = package.part(main).root.child("p:sldIdLst")
    for number, entry in enumerate(listed.children if listed else [], start=1):
        slide = relationships.get(entry.attributes.get("r:id", ""))
        if slide is None or slide.is_external or not new(slide.target):
            continue
        yield slide.target, f"slide {number}", ""
        for notes in filter(new, package.related(slide.target, "notesSlide")):
            yield notes, f"notes of slide {number}", slide.target
    for master in filter(new, package.related(main, "slideMaster")):
        yield master, "slide master", ""
        for layout in filter(new, package.related(master, "slideLayout")):
            yield layout, _layout_name(package, layout), ""
    for kind, place in (("notesMaster", "notes master"), ("handoutMaster", "handout master")):
        for master in filter(new, package.related(main, kind)):
            yield master, place, ""


def _layout_name(package: Package, layout: str) -> str:
    data = package.part(layout).root.child("p:cSld")
    named = data.attributes.get("name", "") if data else ""
    return f"layout {named}".strip()


def _default_language(package: Package, main: str) -> str:
    for node in package.part(main).root.descendants("a:defRPr"):
        if language := node.attributes.get("lang", ""):
            return language
    return ""


class _SlideReader(PartReader):
    """Reads one slide, layout, master or page of notes."""

    def __init__(self, package: Package, name: str, language: str) -> None:
        super().__init__(package, name, language)
        stated = Counter(
            each.attributes.get("lang", "")
            for each in self.part.root.descendants("a:rPr", "a:endParaRPr")
        )
        stated.pop("", None)
        if stated:
            self.language = stated.most_common(1)[0][0]
        self.title = ""

    def heading(self, picture: Picture) -> str:
        """The title of the slide, wherever it is in the file."""
        return self.title

    def visit(self, node: Node) -> None:
        """Read an element."""
        tag = node.tag
        if tag == "a:t":
            self.flow.add(node.text)
        elif tag == "a:br":
            self.flow.add(" ")
        elif tag == "a:p":
            number = self.flow.new_block()
            self.visit_children(node)
            self.flow.end_block(number)
        elif tag == "p:sp":
            self._read_shape(node)
        elif tag == "p:pic":
            self._read_picture(node, "")
        elif tag == "p:graphicFrame":
            self._read_frame(node, "")
        elif tag == "p:grpSp":
            self._read_group(node, "")
        elif tag == "mc:AlternateContent":
            self.read_alternatives(node)
        else:
            self.visit_children(node)

    def _read_shape(self, node: Node, group_alt: str = "") -> None:
        placeholder = node.child("p:nvSpPr", "p:nvPr", "p:ph")
        kind = placeholder.attributes.get("type", "") if placeholder else ""
        if image := self.image_of(node.child("p:spPr", "a:blipFill")):
            own, size = node.child("p:nvSpPr", "p:cNvPr"), node.child("p:spPr", "a:xfrm", "a:ext")
            self.add_picture(own, image, group_alt=group_alt, size=size)
        self.visit_children(node)
        if kind in _TITLES and not self.title:
            texts = (each.text for each in node.descendants("a:t"))
            self.title = " ".join(" ".join(texts).split())

    def _read_picture(self, node: Node, group_alt: str) -> None:
        own, size = node.child("p:nvPicPr", "p:cNvPr"), node.child("p:spPr", "a:xfrm", "a:ext")
        self.add_picture(own, self.image_of(node), group_alt=group_alt, size=size)

    def _read_frame(self, node: Node, group_alt: str) -> None:
        """Read a graphic frame: a chart, a diagram, an embedded object, or a table's text."""
        own, size = node.child("p:nvGraphicFramePr", "p:cNvPr"), node.child("p:xfrm", "a:ext")
        data = node.child("a:graphic", "a:graphicData")
        if data is None:
            return
        if chart := next(data.descendants(*CHARTS), None):
            reference = chart.attributes.get("r:id") or chart.attributes.get("r:dm", "")
            target = self.relationships.get(reference)
            self.add_picture(own, target, Kind.CHART, group_alt=group_alt, size=size)
        elif next(data.descendants("p:oleObj"), None):
            self.add_picture(own, self.image_of(data), group_alt=group_alt, size=size)
        else:
            self.visit_children(data)

    def _read_group(self, node: Node, outer_alt: str) -> None:
        """Read the shapes of a group, each with an alt of its own."""
        own = node.child("p:nvGrpSpPr", "p:cNvPr")
        if own and is_decorative(self.part.source(own)):
            inside = sum(1 for _ in node.descendants("a:blip"))
            self.unread["picture in a decorative group"] += inside
            return
        group_alt = self.alt_of(own) or outer_alt
        readers = {
            "p:sp": self._read_shape,
            "p:pic": self._read_picture,
            "p:graphicFrame": self._read_frame,
            "p:grpSp": self._read_group,
        }
        for shape in node.children:
            if reader := readers.get(shape.tag):
                reader(shape, group_alt)
            else:
                self.visit(shape)
