"""The formats of books and documents, as `cutline.site.pages.formats` uses them.

An edit of a document is in two forms. The edits of its parts show which alts change. The edits of
the file itself, whose `part` is "", hold the compressed bytes, so that undoing them restores the
file exactly. `edited` checks that both forms describe the same change.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

from cutline.atomic import read_regular
from cutline.errors import DataError, OutputError
from cutline.site.destination import AltChange, Edit, edited
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages import alt_markup
from cutline.site.pages.documents import alt_elements
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.documents.epub import read_epub
from cutline.site.pages.documents.model import AltElement, Document
from cutline.site.pages.documents.opendocument import read_open_document
from cutline.site.pages.documents.slides import read_slides
from cutline.site.pages.documents.word import read_word
from cutline.site.pages.documents.xml_part import escape
from cutline.site.pages.encoding import decode

_ROOT = "file:///archive/"  # stands for the root of an archive while it is read
_SVG_TITLE = re.compile(r"\A(<svg\s[^<>]*>)<title>[^<>]*</title>\Z")
_DESCRIPTION = re.compile(r"<([\w.-]+:)desc(?:/>|>[^<>]*</\1desc\s*>)\Z")
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PASSWORD = "EncryptedPackage".encode("utf-16-le")
_LARGEST_IMAGE_BYTES = 64 << 20
_LARGEST_KEPT_BYTES = 128 << 20
_MOST_RECENT = 2
_BLANK = ImageOccurrence("", 0, Kind.PICTURE, "")


class ArchiveFormat(ABC):
    """A format whose files are ZIP archives of XML parts."""

    suffixes: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._recent: OrderedDict[bytes, Document] = OrderedDict()

    def document(self, content: bytes) -> Document:
        """A document without a name; the last few are kept, because each is needed repeatedly."""
        key = hashlib.sha256(content).digest()
        found = self._recent.get(key)
        if found is None:
            try:
                found = self.read_document(content)
            except RecursionError as error:
                raise DataError("its parts are nested too deeply") from error
        self._recent[key] = found
        while len(self._recent) > _MOST_RECENT:
            self._recent.popitem(last=False)
        return found

    @abstractmethod
    def read_document(self, content: bytes) -> Document:
        """Read a document, without a name.

        Raises:
            DataError: it is damaged or encrypted, or has another format.
        """

    @abstractmethod
    def with_alt(self, markup: str, kind: Kind, alt: str, element: AltElement) -> str:
        """The markup of an element with another alt.

        Raises:
            OutputError: it cannot be changed.
        """

    @abstractmethod
    def differs_in_alt_only(self, one: str, other: str) -> bool:
        """Whether two markups are the same element with different alts."""

    def read(self, content: bytes, file: Path, page: str) -> tuple[Page, list[ImageOccurrence]]:
        """Read the occurrences of a file; see `DocumentFormat.read`."""
        try:
            document = self.document(content)
        except DataError as error:
            return Page(page, error=str(error)), []
        base = file.as_uri()

        def url_of(url: str) -> str:
            return f"{base}#{quote(unquote(url.removeprefix(_ROOT)))}" if url else ""

        return replace(document.page, url=page), [
            replace(
                each,
                page=page,
                position=position,
                url=url_of(each.url),
                candidates=tuple(map(url_of, each.candidates)),
            )
            for position, each in enumerate(document.occurrences)
        ]

    def edits(self, content: bytes, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits that make these changes; see `DocumentFormat.edits`."""
        document = self.document(content)
        if document.read_only:
            raise OutputError(document.read_only)
        archive = Archive(content)
        wanted: dict[str, list[tuple[AltElement, AltChange]]] = defaultdict(list)
        for change in changes:
            image = document.images[change.occurrence.position]
            if not image.elements:
                raise OutputError(self.reason_not_written(change.occurrence))
            for element in image.elements:
                wanted[element.part].append((element, change))
        parts: list[Edit] = []
        new: dict[str, bytes] = {}
        for part in sorted(wanted):
            raw = archive.read(part)
            own = self._part_edits(*decode(raw), part, wanted[part])
            new[part] = edited(raw, own)
            parts += own
        first = changes[0]
        whole = [
            Edit(first.id, start, before, after, first.alt)
            for start, before, after in archive.replacements(new)
            if before != after
        ]
        made = (*whole, *parts)
        self._check_alts(self.edited(content, made), document, changes)
        return made

    def reason_not_written(self, occurrence: ImageOccurrence) -> str:
        """Why an occurrence has no element that holds its alt."""
        return "its place in the document is not known; change it by hand"

    def _part_edits(
        self, text: str, encoding: str, part: str, wanted: Sequence[tuple[AltElement, AltChange]]
    ) -> list[Edit]:
        """The edits of one part, in bytes."""
        found: list[Edit] = []
        position = start = 0
        for element, change in sorted(wanted, key=lambda each: each[0].start):
            if element.start < position:
                raise OutputError("its element is within another one; change it by hand")
            before = text[element.start : element.end]
            after = self.with_alt(before, change.occurrence.kind, change.alt, element)
            start += len(text[position : element.start].encode(encoding, "surrogateescape"))
            old = before.encode(encoding, "surrogateescape")
            if before != after:
                new = _encode(after, encoding)
                found.append(Edit(change.id, start, old, new, change.alt, part))
            start += len(old)
            position = element.end
        return found

    def _check_alts(self, after: bytes, before: Document, changes: Sequence[AltChange]) -> None:
        """Read the new file, and check that it has these alts and the same images."""
        now = self.document(after)
        alts = {change.occurrence.position: change.alt for change in changes}
        same = len(now.images) == len(before.images)
        for position, (new, old) in enumerate(zip(now.images, before.images, strict=False)):
            if position in alts:
                same &= alt_markup.has_alt(new.occurrence, alts[position])
            else:
                same &= new.occurrence.alt == old.occurrence.alt
            same &= new.occurrence.source == old.occurrence.source
        if not same:
            raise OutputError("the document would not read as approved; change it by hand")

    def edited(self, content: bytes, edits: Sequence[Edit]) -> bytes:
        """The bytes of the file with these edits; see `DocumentFormat.edited`."""
        after = edited(content, [each for each in edits if not each.part])
        by_part: dict[str, list[Edit]] = defaultdict(list)
        for each in edits:
            if each.part:
                by_part[each.part].append(each)
        try:
            old, new = Archive(content), Archive(after)
            expected = {part: edited(old.read(part), own) for part, own in by_part.items()}
            problem = old.difference(new, expected)
        except DataError as error:
            problem = str(error)
        if problem:
            raise OutputError(f"more than its alts would change ({problem})")
        return after

    def only_alt(self, edit: Edit) -> bool:
        """Whether an edit changes only an alt; `edited` checks those of the file itself."""
        if not edit.part:
            return True
        encoding = "utf-8"
        if b"\0" in edit.before:
            encoding = "utf-16-le" if edit.before.endswith(b"\0") else "utf-16-be"
        texts = [each.decode(encoding, "surrogateescape") for each in (edit.before, edit.after)]
        return self.differs_in_alt_only(*texts)

    def open_image(self, file: Path, member: str) -> bytes:
        """The bytes of an image in a file; see `DocumentFormat.open_image`."""
        status = file.stat()
        if status.st_size > _LARGEST_KEPT_BYTES:
            archive = open_archive(read_regular(file))
        else:
            archive = _kept_archive(file, status.st_mtime_ns, status.st_size)
        return archive.read(member, max_bytes=_LARGEST_IMAGE_BYTES, counted=False)


class EpubFormat(ArchiveFormat):
    """EPUB 2 and 3."""

    suffixes = frozenset({".epub"})

    def read_document(self, content: bytes) -> Document:
        """Read a book; see `read_epub`."""
        return read_epub(open_archive(content), _BLANK, _ROOT)

    def with_alt(self, markup: str, kind: Kind, alt: str, element: AltElement) -> str:
        """A tag of XHTML with another alt; in EPUB 2 an SVG gets a `<title>`."""
        if not element.as_title:
            return alt_markup.with_alt(markup, kind, alt)
        if not alt or markup.endswith("/>"):
            raise OutputError("EPUB 2 has no mark for a decorative SVG; leave it as it is")
        return f"{markup}<title>{escape(alt)}</title>"

    def differs_in_alt_only(self, one: str, other: str) -> bool:
        """Whether two tags differ in their alts alone."""
        tags = [_SVG_TITLE.sub(r"\1", each) for each in (one, other)]
        return tags[0] == tags[1] or alt_markup.differs_in_alt_only(one, other)


class OfficeFormat(ArchiveFormat):
    """What Word and PowerPoint files have in common."""

    def with_alt(self, markup: str, kind: Kind, alt: str, element: AltElement) -> str:
        """An element of DrawingML or VML with another alt."""
        return alt_elements.with_alt(markup, alt, strict=element.strict, is_copy=element.is_copy)

    def differs_in_alt_only(self, one: str, other: str) -> bool:
        """Whether two elements differ in their alts alone."""
        try:
            return alt_elements.without_alt(one) == alt_elements.without_alt(other)
        except OutputError:
            return False


class WordFormat(OfficeFormat):
    """Word documents and templates, with or without macros."""

    suffixes = frozenset({".docx", ".docm", ".dotx", ".dotm"})

    def read_document(self, content: bytes) -> Document:
        """Read a document; see `read_word`."""
        return _numbered(read_word(open_archive(content), _BLANK))


class SlidesFormat(OfficeFormat):
    """PowerPoint presentations, shows and templates, with or without macros."""

    suffixes = frozenset({".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm"})

    def read_document(self, content: bytes) -> Document:
        """Read a presentation; see `read_slides`."""
        return _numbered(read_slides(open_archive(content), _BLANK))


class OpenDocumentFormat(ArchiveFormat):
    """OpenDocument texts, presentations and their templates."""

    suffixes = frozenset({".odt", ".ott", ".odp", ".otp"})

    def read_document(self, content: bytes) -> Document:
        """Read a document; see `read_open_document`."""
        return read_open_document(open_archive(content), _BLANK, _ROOT)

    def with_alt(self, markup: str, kind: Kind, alt: str, element: AltElement) -> str:
        """The `svg:desc` of a frame with another text."""
        if not alt:
            raise OutputError("mark it as decorative in LibreOffice 7.5 or later")
        found = _DESCRIPTION.match(markup)
        prefix = found[1] if found else "svg:"
        return f"<{prefix}desc>{escape(alt)}</{prefix}desc>"

    def differs_in_alt_only(self, one: str, other: str) -> bool:
        """Whether both are a `svg:desc` or nothing."""
        return all(not each or _DESCRIPTION.match(each) for each in (one, other))

    def reason_not_written(self, occurrence: ImageOccurrence) -> str:
        """Why a frame is not written."""
        return "it is marked as decorative; remove the mark in LibreOffice"


def open_archive(content: bytes) -> Archive:
    """The archive of a document.

    Raises:
        DataError: it is none; the message says what it seems to be.
    """
    if content.startswith(_COMPOUND):
        if _PASSWORD in content:
            raise DataError("it is encrypted with a password; remove the password first")
        raise DataError("it has the old binary format; save it in a current one, such as .docx")
    if not content:
        raise DataError("it is empty")
    return Archive(content)


@lru_cache(maxsize=1)
def _kept_archive(file: Path, mtime_ns: int, size_bytes: int) -> Archive:
    """An archive that is kept until another one is needed, for the next image in it."""
    del mtime_ns, size_bytes  # of the key: the file may change
    return open_archive(read_regular(file))


def _numbered(document: Document) -> Document:
    """The document with URLs of the images in it."""
    return replace(
        document,
        images=tuple(
            replace(
                each,
                occurrence=replace(
                    each.occurrence,
                    url=_ROOT + quote(each.occurrence.url) if each.occurrence.url else "",
                ),
            )
            for each in document.images
        ),
    )


def _encode(text: str, encoding: str) -> bytes:
    """New text of a part in its encoding, with references for characters that it lacks."""
    if encoding.startswith("utf"):
        return text.encode(encoding, "surrogateescape")
    return text.encode(encoding, "xmlcharrefreplace")
