"""What the readers of books and documents return."""

from __future__ import annotations

from dataclasses import dataclass

from cutline.site.model import ImageOccurrence, Page


@dataclass(frozen=True)
class AltElement:
    """The markup that holds an alt.

    Attributes:
        part: the member of the archive.
        start, end: where the markup begins and ends in the decoded text of the part.
        strict: whether the document uses the namespaces of Office Open XML Strict.
        is_copy: whether it is a copy that another program shows, as in `mc:AlternateContent`.
        as_title: whether the alt is a `<title>` after the markup, because the format has no
            attribute for it.
    """

    part: str
    start: int
    end: int
    strict: bool = False
    is_copy: bool = False
    as_title: bool = False


@dataclass(frozen=True)
class DocumentImage:
    """An image occurrence of a document, and the elements that hold its alt.

    Attributes:
        occurrence: its `markup` is the first element.
        elements: all of them get the same alt; none if the alt cannot be written.
    """

    occurrence: ImageOccurrence
    elements: tuple[AltElement, ...]


@dataclass(frozen=True)
class Document:
    """A book or document as it was read.

    Attributes:
        page: its record; `unread` counts the images that are left out.
        images: in reading order.
        read_only: why its alts cannot be written, such as a signature; "" if they can.
    """

    page: Page
    images: tuple[DocumentImage, ...]
    read_only: str = ""

    @property
    def occurrences(self) -> list[ImageOccurrence]:
        """The occurrences of its images."""
        return [each.occurrence for each in self.images]
