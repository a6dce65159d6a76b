"""Office Open XML packages: parts, relationships, and the pictures in DrawingML and VML."""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from cutline.errors import DataError
from cutline.site.model import ImageOccurrence, Kind
from cutline.site.pages.documents.alt_elements import STRICT_DRAWING, alt_of
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.documents.model import AltElement, DocumentImage
from cutline.site.pages.documents.text_flow import Mark, TextFlow
from cutline.site.pages.documents.xml_part import Node, XmlPart, start_tag

_OPEN = "http://schemas.openxmlformats.org/"
_STRICT = "http://purl.oclc.org/ooxml/"
_BOTH = {
    "w": ("wordprocessingml/2006/main", "wordprocessingml/main"),
    "p": ("presentationml/2006/main", "presentationml/main"),
    "a": ("drawingml/2006/main", "drawingml/main"),
    "pic": ("drawingml/2006/picture", "drawingml/picture"),
    "wp": ("drawingml/2006/wordprocessingDrawing", "drawingml/wordprocessingDrawing"),
    "c": ("drawingml/2006/chart", "drawingml/chart"),
    "dgm": ("drawingml/2006/diagram", "drawingml/diagram"),
    "r": ("officeDocument/2006/relationships", "officeDocument/relationships"),
}
PREFIXES: Mapping[str, str] = {
    **{_OPEN + transitional: prefix for prefix, (transitional, _) in _BOTH.items()},
    **{_STRICT + strict: prefix for prefix, (_, strict) in _BOTH.items()},
    "http://schemas.openxmlformats.org/markup-compatibility/2006": "mc",
    "http://schemas.microsoft.com/office/word/2010/wordprocessingShape": "wps",
    "http://schemas.microsoft.com/office/word/2010/wordprocessingGroup": "wpg",
    "http://schemas.microsoft.com/office/word/2010/wordprocessingCanvas": "wpc",
    "http://schemas.microsoft.com/office/drawing/2014/chartex": "cx",
    "urn:schemas-microsoft-com:vml": "v",
    "urn:schemas-microsoft-com:office:office": "o",
    "http://schemas.openxmlformats.org/package/2006/relationships": "rel",
    "http://schemas.openxmlformats.org/package/2006/metadata/core-properties": "core",
    "http://purl.org/dc/elements/1.1/": "dc",
}
"""The prefix for each namespace; those of Strict and Transitional documents are the same."""

_EMU_PER_PX = 9525
SIGNATURES = "digital-signature/origin"
SIGNED = "it has a digital signature, which a change would break"
CHARTS = frozenset({"c:chart", "cx:chart", "dgm:relIds"})


@dataclass(frozen=True)
class Relationship:
    """A reference of a part.

    Attributes:
        kind: the last segments of its type, such as "image".
        target: the name of a part, or the URL or path of something outside of the package.
        is_external: whether it is outside.
    """

    kind: str
    target: str
    is_external: bool


class Package:
    """The parts of an Office file.

    Args:
        archive: the file.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._by_lower_name = {each.name.lower(): each.name for each in archive}
        self._relationships: dict[str, dict[str, Relationship]] = {}
        package = self.relationships("")
        self.is_signed = any(each.kind.endswith(SIGNATURES) for each in package.values()) or any(
            each.name.lower().startswith("_xmlsignatures/") for each in archive
        )
        self.main = next(
            (each.target for each in package.values() if each.kind.endswith("/officeDocument")), ""
        )
        self.core = next(
            (each.target for each in package.values() if each.kind.endswith("/core-properties")), ""
        )

    def part(self, name: str) -> XmlPart:
        """A parsed part.

        Raises:
            DataError: it is missing or damaged.
        """
        return XmlPart(self.archive.read(name), name, PREFIXES)

    def relationships(self, name: str) -> dict[str, Relationship]:
        """The references of a part by id; "" is the package itself."""
        if name not in self._relationships:
            folder, _, file = name.rpartition("/")
            path = posixpath.join(folder, "_rels", f"{file}.rels")
            self._relationships[name] = self._read_relationships(path, folder)
        return self._relationships[name]

    def _read_relationships(self, path: str, folder: str) -> dict[str, Relationship]:
        path = self._by_lower_name.get(path.lower(), "")
        if not path:
            return {}
        found: dict[str, Relationship] = {}
        for node in self.part(path).root.children:
            values = node.attributes
            kind, target = values.get("Type", ""), values.get("Target", "")
            external = values.get("TargetMode") == "External"
            if not external:
                inside = posixpath.normpath(posixpath.join("/", folder, unquote(target)))
                inside = inside.lstrip("/")
                target = self._by_lower_name.get(inside.lower(), inside)
            found[values.get("Id", "")] = Relationship(kind, target, external)
        return found

    def related(self, name: str, kind: str) -> list[str]:
        """The existing parts that a part refers to by relationships of a kind, in file order."""
        relationships = self.relationships(name).values()
        return [
            each.target
            for each in relationships
            if each.kind.endswith(f"/{kind}")
            and not each.is_external
            and each.target in self.archive
        ]

    def title_and_language(self) -> tuple[str, str]:
        """What the document's properties say; "" for each that they do not."""
        if self.core not in self.archive:
            return "", ""
        root = self.part(self.core).root
        title, language = root.child("dc:title"), root.child("dc:language")
        return _one_line(title), _one_line(language)


@dataclass(eq=False)
class Picture:
    """A picture found in a part.

    Attributes:
        nodes: the elements that hold its alt: the first is read, all are written.
        image: the relationship of its image; None if it has none.
        kind: a picture or a chart.
        group_alt: the alt of the group around it.
        mark: its place in the text.
    """

    nodes: list[Node]
    image: Relationship | None
    kind: Kind
    mark: Mark
    group_alt: str = ""
    size: tuple[int | None, int | None] = (None, None)
    link: str = ""
    link_text: str = ""
    language: str = ""


class PartReader(ABC):
    """Reads the pictures and the text of one part; Word and PowerPoint add their own elements.

    Args:
        package: the document.
        name: of the part.
        language: of text that does not state one.
    """

    def __init__(self, package: Package, name: str, language: str = "") -> None:
        self.package, self.name = package, name
        self.part = package.part(name)
        self.relationships = package.relationships(name)
        self.flow = TextFlow()
        self.language = language
        self.pictures: list[Picture] = []
        self.unread: Counter[str] = Counter()

    def visit_children(self, node: Node) -> None:
        """Visit all children of an element."""
        for child in node.children:
            self.visit(child)

    @abstractmethod
    def visit(self, node: Node) -> None:
        """Read an element."""

    # Alternate content

    def read_alternatives(self, node: Node) -> None:
        """Read `mc:AlternateContent`: programs show one of its branches, so all get the same alt.

        The pictures of the later branches are copies of those of the first branch that has any:
        the ones with the same image, or else, if both have as many, those in the same order.
        """
        outer, muted = self.pictures, self.flow.muted
        branches: list[list[Picture]] = []
        for branch in node.children:
            self.pictures = []
            self.visit_children(branch)
            branches.append(self.pictures)
            self.flow.muted = True
        self.pictures, self.flow.muted = outer, muted
        shown = next((branch for branch in branches if branch), [])
        self.pictures += shown
        for copies in branches:
            if copies is not shown:
                self.pictures += _join_copies(shown, copies)

    # DrawingML

    def image_of(self, node: Node | None) -> Relationship | None:
        """The image of the first `a:blip` in an element."""
        blip = next(node.descendants("a:blip"), None) if node else None
        if blip is None:
            return None
        for name in ("r:embed", "r:link"):
            if found := self.relationships.get(blip.attributes.get(name, "")):
                return found
        return None

    def add_picture(
        self,
        properties: Node | None,
        image: Relationship | None,
        kind: Kind = Kind.PICTURE,
        *,
        group_alt: str = "",
        size: Node | None = None,
    ) -> None:
        """Add a picture whose alt is in an element such as `wp:docPr`."""
        if properties is None:
            return
        if properties.attributes.get("hidden", "") in ("1", "true"):
            self.unread["hidden picture"] += 1
            return
        width, height = (_pixels(size, name) for name in ("cx", "cy"))
        link = properties.child("a:hlinkClick")
        target = self.relationships.get(link.attributes.get("r:id", "")) if link else None
        leads = target.target if target and target.is_external else ""
        found = Picture([properties], image, kind, self.flow.mark(), group_alt, (width, height))
        found.link, found.language = leads, self.language
        self.pictures.append(found)

    def alt_of(self, properties: Node | None) -> str:
        """The alt in an element; "" without one."""
        return (alt_of(self.part.source(properties)) or "") if properties else ""

    # VML

    def read_vml(self, node: Node) -> None:
        """Read the pictures in VML, such as that of `w:pict`."""
        for shape in node.children:
            if shape.tag in ("v:group",):
                self.read_vml(shape)
            elif shape.tag.startswith("v:") and shape.tag != "v:shapetype":
                data = shape.child("v:imagedata") or shape.child("v:fill")
                image = self._vml_image(data) if data else None
                if image is not None:
                    found = Picture([shape], image, Kind.PICTURE, self.flow.mark())
                    found.language, found.link = self.language, shape.attributes.get("href", "")
                    self.pictures.append(found)
                for box in shape.descendants("v:textbox"):
                    self.visit_children(box)

    def _vml_image(self, data: Node) -> Relationship | None:
        for name in ("r:id", "o:relid", "r:pict", "r:href", "o:href"):
            reference = data.attributes.get(name, "")
            if found := self.relationships.get(reference):
                return found
            if reference and name == "o:href":
                return Relationship("image", reference, True)
        source = data.attributes.get("src", "")
        return Relationship("image", source, True) if source else None

    # Results

    def images(
        self,
        page: ImageOccurrence,
        *,
        heading: Callable[[Picture], str] | None = None,
    ) -> list[DocumentImage]:
        """The pictures as occurrences.

        Args:
            page: what all of them have in common.
            heading: the heading of a picture; None takes the nearest one before it.
        """
        strict = STRICT_DRAWING in self.part.text
        found = []
        for picture in self.pictures:
            nodes = picture.nodes
            elements = tuple(
                AltElement(self.name, *self._span(node), strict=strict, is_copy=number > 0)
                for number, node in enumerate(nodes)
            )
            found.append(DocumentImage(self._occurrence(picture, page, heading), elements))
        return found

    def _span(self, node: Node) -> tuple[int, int]:
        """Where the markup with an alt is: an element, or the start tag of a VML shape."""
        if node.tag.startswith("v:"):
            return node.start, node.start + len(start_tag(self.part.text, node.start))
        return self.part.span(node)

    def _occurrence(
        self,
        picture: Picture,
        page: ImageOccurrence,
        heading: Callable[[Picture], str] | None,
    ) -> ImageOccurrence:
        node, image, flow, mark = picture.nodes[0], picture.image, self.flow, picture.mark
        start, end = self._span(node)
        markup = self.part.text[start:end]
        target = image.target if image else ""
        inside = image is not None and not image.is_external and target in self.package.archive
        return replace(
            page,
            kind=picture.kind,
            source=target,
            url=target if inside and picture.kind is Kind.PICTURE else "",
            alt=alt_of(markup),
            name=picture.group_alt,
            title=node.attributes.get("title", ""),
            width_px=picture.size[0],
            height_px=picture.size[1],
            link=picture.link,
            link_text=picture.link_text,
            caption=flow.caption(mark),
            heading=heading(picture) if heading else flow.heading(mark),
            before=flow.before(mark),
            after=flow.after(mark),
            beside=flow.beside(mark),
            language=picture.language or page.language,
            markup=markup,
            offset=node.start,
            part=self.name,
        )


def _join_copies(shown: list[Picture], branch: list[Picture]) -> list[Picture]:
    """Add a branch's pictures to those that are shown; returns the pictures without a match."""
    left = list(branch)
    waiting = list(shown)
    for picture in shown:
        alike = [each for each in left if each.image is not None and each.image == picture.image]
        if alike:
            picture.nodes += alike[0].nodes
            left.remove(alike[0])
            waiting.remove(picture)
    if len(left) == len(waiting):
        for picture, other in zip(waiting, left, strict=True):
            picture.nodes += other.nodes
        left = []
    return left


def _pixels(size: Node | None, name: str) -> int | None:
    value = size.attributes.get(name, "") if size else ""
    return round(int(value) / _EMU_PER_PX) if value.isdecimal() and len(value) < 15 else None


def _one_line(node: Node | None) -> str:
    return " ".join(node.text.split()) if node else ""


def require_main(package: Package, what: str, root: str) -> str:
    """The main part of a package.

    Args:
        package: the document.
        what: the program that writes such files.
        root: the root element of the main part.

    Raises:
        DataError: it has none, or one of another format.
    """
    if package.main not in package.archive:
        raise DataError(f"it names no main part; expected a {what} file")
    if package.part(package.main).root.tag != root:
        raise DataError(f"its main part is of another format; expected a {what} file")
    return package.main
