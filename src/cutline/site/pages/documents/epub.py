"""EPUB 2 and 3 books: every content document, read by the reader of HTML pages.

Content documents are XHTML, so `cutline.site.pages.html` reads them and
`cutline.site.pages.alt_markup` writes their alts.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from cutline.errors import DataError
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.documents.model import AltElement, Document, DocumentImage
from cutline.site.pages.documents.xml_part import XmlPart
from cutline.site.pages.encoding import decode
from cutline.site.pages.html import occurrences_in_html

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_SIGNATURES = "META-INF/signatures.xml"
_FONT_OBFUSCATION = frozenset(
    {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
)
_PREFIXES: Mapping[str, str] = {
    "urn:oasis:names:tc:opendocument:xmlns:container": "ocf",
    "http://www.idpf.org/2007/opf": "opf",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://www.w3.org/2001/04/xmlenc#": "enc",
}
_PREFIXED = re.compile(r"<[\w.-]+:(?:img|svg)[\s/>]")
_XHTML = "application/xhtml+xml"
_SUFFIXES = (".xhtml", ".html", ".htm")


@dataclass(frozen=True)
class _Book:
    """What a package document states."""

    version: str
    title: str
    language: str
    chapters: tuple[str, ...]
    svg_pages: int


def read_epub(archive: Archive, page: ImageOccurrence, root: str) -> Document:
    """Read a book.

    Args:
        archive: the file.
        page: the fields that all its occurrences have in common.
        root: a URL that stands for the root of the archive, with a slash at the end. The `url` of
            an image in the archive begins with it.

    Raises:
        DataError: it is damaged, encrypted or no EPUB.
    """
    if _CONTAINER not in archive:
        raise DataError(f"it has no {_CONTAINER}; expected an EPUB file")
    _refuse_encryption(archive)
    container = XmlPart(archive.read(_CONTAINER), _CONTAINER, _PREFIXES)
    packages = [
        unquote(each.attributes.get("full-path", ""))
        for each in container.root.descendants("ocf:rootfile")
    ]
    books = [_read_package(archive, name) for name in packages if name in archive]
    if not books:
        raise DataError("it names no package document; expected an EPUB file")
    first = books[0]
    images: list[DocumentImage] = []
    unread: Counter[str] = Counter()
    for book in books:
        for name in book.chapters:
            found, chapter = _read_chapter(archive, name, book, page, root)
            images += found
            unread.update(dict(chapter.unread))
        if book.svg_pages:
            unread["SVG page"] += book.svg_pages
    signed = "it has a digital signature, which a change would break"
    return Document(
        Page(page.page, title=first.title, language=first.language, unread=tuple(unread.items())),
        tuple(dict.fromkeys(images)),
        signed if _SIGNATURES in archive else "",
    )


def _refuse_encryption(archive: Archive) -> None:
    if _ENCRYPTION not in archive:
        return
    root = XmlPart(archive.read(_ENCRYPTION), _ENCRYPTION, _PREFIXES).root
    for entry in root.descendants("enc:EncryptedData", "enc:EncryptedKey"):
        method = entry.child("enc:EncryptionMethod")
        algorithm = method.attributes.get("Algorithm", "") if method else ""
        if entry.tag == "enc:EncryptedKey" or algorithm not in _FONT_OBFUSCATION:
            raise DataError("it is encrypted (DRM), so its text cannot be read or changed")


def _read_package(archive: Archive, name: str) -> _Book:
    """A package document: the book's title, language and content documents in reading order."""
    root = XmlPart(archive.read(name), name, _PREFIXES).root
    title, language = "", ""
    for node in root.descendants("dc:title", "dc:language"):
        text = " ".join(node.all_text().split())
        title = title or (text if node.tag == "dc:title" else "")
        language = language or (text if node.tag == "dc:language" else "")
    folder = posixpath.dirname(name)
    items: dict[str, str] = {}
    drawings: set[str] = set()
    for item in root.descendants("opf:item"):
        href = unquote(item.attributes.get("href", "").partition("#")[0])
        path = posixpath.normpath(posixpath.join(folder, href))
        is_text = item.attributes.get("media-type", "").lower() == _XHTML
        if item.attributes.get("media-type", "").lower() == "image/svg+xml":
            drawings.add(item.attributes.get("id", ""))
        elif path in archive and (is_text or path.lower().endswith(_SUFFIXES)):
            items[item.attributes.get("id", "")] = path
    spine = [each.attributes.get("idref", "") for each in root.descendants("opf:itemref")]
    ordered = [items[each] for each in spine if each in items]
    chapters = tuple(dict.fromkeys([*ordered, *items.values()]))
    svg_pages = len(drawings.intersection(spine))
    return _Book(root.attributes.get("version", "2.0"), title, language, chapters, svg_pages)


def _read_chapter(
    archive: Archive, name: str, book: _Book, page: ImageOccurrence, root: str
) -> tuple[list[DocumentImage], Page]:
    text, _ = decode(archive.read(name))
    base = root + quote(name)
    chapter, occurrences = occurrences_in_html(
        text, page=page.page, base=base, root=root, xhtml=True, template=False
    )
    found = []
    for each in occurrences:
        image = replace(
            each,
            url=_inside(each.url, root, archive),
            candidates=tuple(
                filter(None, (_inside(one, root, archive) for one in each.candidates))
            ),
            page_title=chapter.title or book.title,
            language=each.language or book.language,
            part=name,
            place=chapter.title or posixpath.basename(name),
        )
        titled = each.kind is Kind.SVG and book.version.startswith("2")
        end = each.offset + len(each.markup)
        element = AltElement(name, each.offset, end, as_title=titled)
        found.append(DocumentImage(image, (element,) if each.markup else ()))
    prefixed = len(_PREFIXED.findall(text))
    if prefixed:
        unread = (*chapter.unread, ("image with a namespace prefix", prefixed))
        chapter = replace(chapter, unread=unread)
    return found, chapter


def _inside(url: str, root: str, archive: Archive) -> str:
    """A URL of a member of the archive; "" for all others, which are never fetched."""
    path = url.removeprefix(root).partition("#")[0].partition("?")[0]
    return root + path if url.startswith(root) and unquote(path) in archive else ""
