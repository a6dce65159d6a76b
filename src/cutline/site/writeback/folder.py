"""A folder of files as a destination: HTML, Markdown, and the formats of documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from cutline.atomic import check_replaceable, read_regular, remove_leftovers, replacing
from cutline.errors import OutputError
from cutline.site.destination import (
    AltChange,
    Commit,
    Edit,
    Known,
    OpenPage,
    PageBase,
    edited,
)
from cutline.site.model import ImageOccurrence, Page
from cutline.site.pages.alt_markup import differs_in_alt_only
from cutline.site.pages.formats import DocumentFormat, document_format, open_document_image
from cutline.site.pages.scan import scan
from cutline.site.store.store import Store
from cutline.site.writeback.locate import PageFiles, PageText, is_url
from cutline.site.writeback.patch import header, hunks, shown


class FolderDestination:
    """A folder of pages: the folder that was scanned, or a local copy of a crawled site.

    Args:
        root: the folder.
        store: the site's store, which `location` needs for crawled pages.
        include, exclude: patterns of the paths that `read` reads, as for `scan`.
    """

    kind = "folder"

    def __init__(
        self,
        root: Path,
        store: Store | None = None,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        self.root = root.resolve()
        self._store = store
        self._include, self._exclude = include, exclude

    @property
    def address(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def read(self) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
        """Read every page, as `cutline.site.pages.scan.scan` does."""
        return scan(self.root, include=self._include, exclude=self._exclude)

    def open_image(self, url: str) -> bytes | None:
        """The bytes of an image in a document; None for an image file."""
        return open_document_image(url)

    def location(self, page: Page) -> str:
        """The absolute path of a page's file.

        Raises:
            OutputError: there is none, or none with the content of a crawled page.
        """
        if not is_url(page.url):
            return str(self._local.files(page.url)[0])
        files = self._mirror.files(page.url)
        if not page.sha256 or self._store is None:
            return str(files[0])  # the page comes from an export: its occurrences are refused
        for file in files:
            if PageText(_read(file), file).is_page(page, self._store):
                return str(file)
        raise OutputError(
            f"{files[0].name} does not have the content that was crawled; copy the site again "
            "without converting its links, or scan the folder instead"
        )

    def owns(self, location: str) -> bool:
        """Whether a path is within the folder, with all symbolic links followed."""
        try:
            return Path(location).resolve().is_relative_to(self.root)
        except (OSError, ValueError, RuntimeError):
            return False

    def open(self, location: str) -> OpenPage:
        """Read a file.

        Raises:
            OutputError: the path is not absolute, or the file cannot be read.
        """
        file = Path(location)
        if ".." in file.parts or not file.is_absolute():
            raise OutputError("its path in the journal is not absolute; restore it by hand")
        file = file.resolve()
        content = _read(file)
        found = document_format(file)
        if found is not None:
            return DocumentPage(self.root, file, content, found)
        return TextPage(self.root, file, content)

    def clean_up(self) -> None:
        """Delete the temporary files that a killed write left in the folder."""
        remove_leftovers(self.root)

    @cached_property
    def _local(self) -> PageFiles:
        return PageFiles(self.root, ())

    @cached_property
    def _mirror(self) -> PageFiles:
        """The files of crawled pages, whose layout the pages with approved alts show."""
        approved: dict[str, None] = {}
        for stored in self._store.occurrences(stage="reviewed") if self._store else ():
            if stored.review is not None and stored.review.alt is not None:
                approved[stored.occurrence.page] = None
        return PageFiles(self.root, list(approved))


class _File:
    """What the files of all formats have in common."""

    def __init__(self, root: Path, file: Path, content: bytes) -> None:
        self.path = file.relative_to(root).as_posix()
        self.file = file
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()

    def after(self, edits: Sequence[Edit]) -> bytes:
        """The content of the file with these edits."""
        return edited(self.content, edits)

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Replace the file atomically.

        Raises:
            OutputError: an edit does not fit, or the file is read-only or has several hard links.
            OSError: the file cannot be written.
        """
        check_replaceable(self.file)
        after = self.after(edits)
        with replacing(self.file, keep_owner=True) as file:
            file.write(after)
            commit(hashlib.sha256(after).hexdigest())


class TextPage(_File):
    """An HTML or Markdown file."""

    @cached_property
    def text(self) -> PageText:
        """The decoded text with its occurrences."""
        return PageText(self.content, self.file)

    def locate(self, occurrence: ImageOccurrence, page: Page, known: Known) -> ImageOccurrence:
        """The occurrence as it is now; see `PageText.locate`."""
        same = bool(page.sha256) and page.sha256 in self.text.digests
        return self.text.locate(occurrence, same, known)

    def check(self, change: AltChange) -> bool:
        """Whether the markup changes; raises `OutputError` if it cannot."""
        occurrence = change.occurrence
        after = self.text.with_alt(occurrence.markup, occurrence.kind, change.alt)
        return after != occurrence.markup

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits of the file's bytes; see `PageText.edits` and `check_replaceable`."""
        check_replaceable(self.file)
        return self.text.edits(changes)

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether the tags or Markdown images differ in their alts alone."""
        encoding = self.text.encoding
        return all(
            differs_in_alt_only(
                edit.before.decode(encoding, "surrogateescape"),
                edit.after.decode(encoding, "surrogateescape"),
            )
            for edit in edits
        )

    def diff(self, edits: Sequence[Edit]) -> str:
        """The edits as a unified diff with long lines cut."""
        if not edits:
            return ""
        name = header(self.path).decode("utf-8", "replace")
        return name + shown(self.content, edits, self.text.encoding)

    def patch(self, edits: Sequence[Edit]) -> bytes:
        """The edits as a patch for programs."""
        return header(self.path) + hunks(self.content, edits) if edits else b""


class DocumentPage(_File, PageBase):
    """A document in one of the formats of `cutline.site.pages.formats`."""

    def __init__(self, root: Path, file: Path, content: bytes, format: DocumentFormat) -> None:
        super().__init__(root, file, content)
        self._format = format

    @cached_property
    def occurrences(self) -> Sequence[ImageOccurrence]:  # type: ignore[override]
        """All occurrences in the document as it is now."""
        page, occurrences = self._format.read(self.content, self.file, self.path)
        if page.error:
            raise OutputError(page.error)
        return occurrences

    def diff(self, edits: Sequence[Edit]) -> str:
        """The edits of the document's parts, without those of the compressed file."""
        return super().diff([each for each in edits if each.part])

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits of the document's parts, and of the file that has them compressed."""
        check_replaceable(self.file)
        return self._format.edits(self.content, changes)

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether each edit differs in its alt alone."""
        return all(map(self._format.only_alt, edits))

    def after(self, edits: Sequence[Edit]) -> bytes:
        """The content of the document with these edits, verified by the format."""
        return self._format.edited(self.content, edits)


def _read(file: Path) -> bytes:
    try:
        return read_regular(file)
    except OSError as error:
        raise OutputError(f"it cannot be read: {error.strerror}") from error
