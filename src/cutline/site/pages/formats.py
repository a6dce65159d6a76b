"""Formats of documents in a folder besides HTML and Markdown, and the protocol they implement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import url2pathname

from cutline.errors import FetchError
from cutline.site.destination import AltChange, Edit
from cutline.site.model import ImageOccurrence, Page
from cutline.site.pages.documents.formats import (
    EpubFormat,
    OpenDocumentFormat,
    SlidesFormat,
    WordFormat,
)
from cutline.site.pages.documents.pdf import PdfFormat


class DocumentFormat(Protocol):
    """A file format whose files hold images with alts, such as an archive of XML parts."""

    @property
    def suffixes(self) -> frozenset[str]:
        """In lower case, with the dot."""
        ...

    def read(self, content: bytes, file: Path, page: str) -> tuple[Page, list[ImageOccurrence]]:
        """Read the occurrences of a file.

        `ImageOccurrence.url` of an image in the file is `FILE_URL#MEMBER`, where FILE_URL is
        `file.as_uri()` and MEMBER is percent-encoded; `open_image` opens it.

        Args:
            content: the bytes of the file.
            file: its absolute path.
            page: the name of the page, for `Page.url` and `ImageOccurrence.page`.

        Returns:
            The page, with an `error` if it cannot be read, and its occurrences. The caller sets
            `Page.sha256`.
        """
        ...

    def edits(self, content: bytes, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits that make these changes, ordered by part and position.

        Raises:
            OutputError: one of them cannot be made, or the file is refused: signed, encrypted.
        """
        ...

    def edited(self, content: bytes, edits: Sequence[Edit]) -> bytes:
        """The bytes of the file with these edits, verified: nothing else differs.

        Raises:
            OutputError: the file is not what it was, or cannot be changed.
        """
        ...

    def only_alt(self, edit: Edit) -> bool:
        """Whether `edit.before` and `edit.after` differ in nothing but the alt."""
        ...

    def open_image(self, file: Path, member: str) -> bytes:
        """The bytes of an image in a file; only the member is read.

        Args:
            file: the document.
            member: the decoded fragment of the image's URL.

        Raises:
            KeyError, ValueError, OSError: there is no such member, or it cannot be read.
        """
        ...


DOCUMENT_FORMATS: tuple[DocumentFormat, ...] = (
    EpubFormat(),
    WordFormat(),
    SlidesFormat(),
    OpenDocumentFormat(),
    PdfFormat(),
)
"""All formats of documents; each is one instance."""


def document_format(file: Path) -> DocumentFormat | None:
    """The format of a file by its suffix; None for HTML, Markdown and everything else."""
    suffix = file.suffix.lower()
    return next((each for each in DOCUMENT_FORMATS if suffix in each.suffixes), None)


def document_suffixes() -> frozenset[str]:
    """The suffixes of all formats of documents."""
    return frozenset(suffix for each in DOCUMENT_FORMATS for suffix in each.suffixes)


def open_document_image(url: str) -> bytes | None:
    """The bytes of an image in a document, by its URL; None for every other image.

    Raises:
        FetchError: it cannot be opened.
    """
    if not url.startswith("file:") or "#" not in url:
        return None
    whole, member = urldefrag(url)
    file = Path(url2pathname(urlsplit(whole).path))
    found = document_format(file)
    if found is None:
        return None
    try:
        return found.open_image(file, unquote(member))
    except (OSError, ValueError, KeyError) as error:
        raise FetchError(url, "unreadable", f"cannot be read: {error}") from error
