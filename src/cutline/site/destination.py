"""The protocol of a destination: where pages are stored, how they are read and written.

A folder of files, a WordPress site and a picture archive are destinations. A destination only
reads and writes. `cutline.site.writeback.apply` decides what may be written, keeps the journal,
records what was written and undoes it, in the same way for all of them.

A page is stored as one or more *parts*, each of which is a sequence of bytes: the content of a
file, a member of an archive, a field of a record. An `Edit` replaces a few bytes of one part.
Undoing a write is a write of the inverted edits.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from cutline.errors import OutputError
from cutline.site.model import ImageOccurrence, Kind, Page

Commit: TypeAlias = Callable[[str], None]
"""Called by `OpenPage.write` with the SHA-256 that the page will have, just before the first
change. It writes the journal entry to the disk. If it raises, the page must not change."""

Known: TypeAlias = Callable[[], Sequence[ImageOccurrence]]
"""Returns all occurrences of a page as they are in the store."""

_NEAR = 30  # characters on either side that distinguish equal images


@dataclass(frozen=True)
class Edit:
    """The change of a few bytes of a page that belong to one occurrence.

    Attributes:
        occurrence: its id in the store.
        start: where `before` begins in the part as it is now, in bytes.
        before, after: the bytes, current and new: a whole tag, or the whole value of a field.
        alt: the approved alt.
        part: which part of the page it is, such as a member of an archive; "" if the page has
            only one.
    """

    occurrence: int
    start: int
    before: bytes
    after: bytes
    alt: str
    part: str = ""


@dataclass(frozen=True)
class AltChange:
    """An approved alt that may be written.

    Attributes:
        id: of the occurrence in the store.
        occurrence: as it is in the page now.
        alt: the approved alt, on one line; "" for a decorative image.
        long_description: the approved long description that replaces the one of the occurrence;
            None if it stays as it is.
    """

    id: int
    occurrence: ImageOccurrence
    alt: str
    long_description: str | None = None


class OpenPage(Protocol):
    """One page as it is now.

    `PageBase` has defaults for `locate`, `check` and `diff`, `FieldPage` for more.
    """

    @property
    def path(self) -> str:
        """A short name for messages, unique in the destination: a relative path, or a URL."""
        ...

    @property
    def sha256(self) -> str:
        """The SHA-256 of everything that a write could change."""
        ...

    def locate(self, occurrence: ImageOccurrence, page: Page, known: Known) -> ImageOccurrence:
        """The occurrence as it is in the page now, with any alt.

        Args:
            occurrence: as it was when the page was read.
            page: the page as it was read.
            known: its occurrences as they were read.

        Raises:
            OutputError: it is missing or ambiguous; the message gives the reason.
        """
        ...

    def check(self, change: AltChange) -> bool:
        """Whether writing this alt would change the page.

        Raises:
            OutputError: it cannot be written; the message gives the reason.
        """
        ...

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits that make all these changes, ordered by part and position.

        Raises:
            OutputError: the page does not allow one of them.
        """
        ...

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether these edits change nothing but alts; those of a journal are not trusted."""
        ...

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Make the edits, all or none.

        Args:
            edits: of `edits`, or their inverse.
            commit: must be called with the new SHA-256 just before the page changes.

        Raises:
            OutputError: the page cannot be written, or is not what it was; it is unchanged.
            ChangedByStoreError: it was written, and the store keeps another text.
        """
        ...

    def diff(self, edits: Sequence[Edit]) -> str:
        """The edits as a unified diff to read."""
        ...


class Destination(Protocol):
    """Where the pages of a site are stored; `DestinationBase` has defaults."""

    @property
    def kind(self) -> str:
        """A short name, such as "folder", under which `cutline.site.destinations` opens it."""
        ...

    @property
    def address(self) -> str:
        """What the record of a site belongs to: an absolute path, or a URL."""
        ...

    def read(self) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
        """Read every page with its occurrences, in a stable order.

        A page that cannot be read has an `error` and no occurrences.
        """
        ...

    def open_image(self, url: str) -> bytes | None:
        """The bytes of an image that only the destination can open.

        Args:
            url: as in `ImageOccurrence.url`.

        Returns:
            None for every other image: it is fetched from the network or the folder.

        Raises:
            FetchError: it cannot be opened.
        """
        ...

    def location(self, page: Page) -> str:
        """Where a page is stored: an absolute path or a URL, which `open` accepts.

        Raises:
            OutputError: it is not stored here; the message gives the reason.
        """
        ...

    def owns(self, location: str) -> bool:
        """Whether a location, which may come from a forged journal, is in this destination."""
        ...

    def open(self, location: str) -> OpenPage:
        """Read a page as it is now.

        Raises:
            OutputError: there is no such page, or it cannot be read.
        """
        ...

    def clean_up(self) -> None:
        """Delete what a killed write left behind; called before the first write."""
        ...


class ChangedByStoreError(OutputError):
    """A page was written, but the store keeps another text than the one it was given.

    Args:
        reason: what differs, as a sentence.
        sha256: of the page as it is now.
        edits: what was changed in effect, so that undo can invert it.
    """

    def __init__(self, reason: str, sha256: str, edits: Sequence[Edit]) -> None:
        super().__init__(reason)
        self.sha256 = sha256
        self.edits = tuple(edits)


class PageBase:
    """Defaults for an `OpenPage` that knows all its occurrences.

    Attributes:
        notes: set by `edits`: what the user should know about them, such as another file that is
            written. They are printed with the page's name.
    """

    path: str
    sha256: str
    occurrences: Sequence[ImageOccurrence]
    notes: Sequence[str] = ()

    def locate(self, occurrence: ImageOccurrence, page: Page, known: Known) -> ImageOccurrence:
        """The occurrence as it is now: by its position in an unchanged page, else by content."""
        if page.sha256 == self.sha256 and occurrence.position < len(self.occurrences):
            there = self.occurrences[occurrence.position]
            if identity(there) == identity(occurrence):
                return there
        return find_again(occurrence, self.occurrences, known)

    def check(self, change: AltChange) -> bool:
        """Whether the alt differs."""
        return change.occurrence.alt != change.alt

    def diff(self, edits: Sequence[Edit]) -> str:
        """The old and the new bytes of each edit."""
        lines = [f"--- a/{self.path}", f"+++ b/{self.path}"] if edits else []
        for edit in edits:
            lines.append(f"@@ {edit.part or self.path}, byte {edit.start} @@")
            for mark, content in (("-", edit.before), ("+", edit.after)):
                text = content.decode("utf-8", "replace")
                lines += [f"{mark}{line}" for line in text.split("\n")]
        return "".join(f"{line}\n" for line in lines)


class FieldPage(PageBase, ABC):
    """A page whose alts are values, such as the fields of an entry in a content management system.

    Each alt is a part of the page, and its value as JSON is the content of the part. A subclass
    implements `save`.

    Args:
        path: a short name of the page, see `OpenPage`.
        occurrences: all its images as they are now, in a stable order; `position` counts them.

    Attributes:
        title, language: of the page; "" if they are not known.
    """

    title: str = ""
    language: str = ""

    def __init__(self, path: str, occurrences: Sequence[ImageOccurrence]) -> None:
        self.path, self.occurrences = path, list(occurrences)
        self.sha256 = self._digest({})

    @abstractmethod
    def save(self, alts: Mapping[int, str | None], commit: Callable[[], None]) -> None:
        """Set alts, all or none.

        Args:
            alts: the new alts by the positions of their images; None removes an alt.
            commit: must be called just before the page changes. If it raises, the page must not
                change.

        Raises:
            OutputError: the page cannot be written; it is unchanged.
        """

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """For each alt, its present and its new value as JSON."""
        return tuple(
            Edit(
                each.id,
                0,
                _encoded(each.occurrence.alt),
                _encoded(each.alt),
                each.alt,
                part=f"alt/{each.occurrence.position}",
            )
            for each in sorted(changes, key=lambda change: change.occurrence.position)
        )

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether each edit sets an alt of this page to a text or removes it."""
        try:
            return bool(self._alts(edits)) or not edits
        except OutputError:
            return False

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Check the present alts, and save the new ones.

        Raises:
            OutputError: an alt is not what it was, or the page cannot be written.
        """
        alts = self._alts(edits)
        for position, edit in zip(alts, edits, strict=True):
            if _encoded(self.occurrences[position].alt) != edit.before:
                raise OutputError(f"image {position + 1} is not what it was; read the page again")
        self.save(alts, lambda: commit(self._digest(alts)))

    def _alts(self, edits: Sequence[Edit]) -> dict[int, str | None]:
        """The alts that edits set, by position.

        Raises:
            OutputError: one of them is no edit of an alt, or sets the same alt as another.
        """
        parts = {f"alt/{position}": position for position in range(len(self.occurrences))}
        alts: dict[int, str | None] = {}
        for edit in edits:
            try:
                alt = json.loads(edit.after)
            except ValueError:
                alt = False
            if not isinstance(alt, str | None) or edit.part not in parts:
                raise OutputError(f"got a change of {edit.part}; expected one of an alt")
            alts[parts[edit.part]] = alt
        if len(alts) != len(edits):
            raise OutputError("got two changes of one alt; expected one")
        return alts

    def _digest(self, alts: Mapping[int, str | None]) -> str:
        """The hash of the page with these alts."""
        values = [
            (*identity(each), alts.get(position, each.alt))
            for position, each in enumerate(self.occurrences)
        ]
        return hashlib.sha256(_encoded(values)).hexdigest()


class DestinationBase(ABC):
    """Defaults for a `Destination` of `FieldPage` objects, which are found by their URLs or names.

    Attributes:
        kind, address: see `Destination`.
    """

    kind: str
    address: str

    @abstractmethod
    def urls(self) -> Iterator[str]:
        """The URL or the name of every page, in a stable order."""

    @abstractmethod
    def open_page(self, url: str) -> FieldPage:
        """Read a page as it is now.

        Raises:
            OutputError: there is no such page, or it cannot be read.
        """

    def read(self) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
        """Read every page with its occurrences."""
        for url in self.urls():
            try:
                page = self.open_page(url)
            except OutputError as error:
                yield Page(url, error=str(error)), []
            else:
                found = Page(url, page.sha256, page.title, page.language)
                yield found, list(page.occurrences)

    def open_image(self, url: str) -> bytes | None:
        """None: all images are on the web, or files in the folder that is the address."""
        return None

    def location(self, page: Page) -> str:
        """The address, "#" and the page's URL."""
        return f"{self.address}#{page.url}"

    def owns(self, location: str) -> bool:
        """Whether it is the location of a page of this address."""
        return location.startswith(f"{self.address}#")

    def open(self, location: str) -> FieldPage:
        """Read the page at a location; raises as `open_page` does."""
        return self.open_page(location.removeprefix(f"{self.address}#"))

    def clean_up(self) -> None:
        """Do nothing: a killed write leaves nothing behind."""
        return


def identity(occurrence: ImageOccurrence) -> tuple[Kind, str]:
    """What an occurrence shows: equal for two occurrences of one image in the same form."""
    return (occurrence.kind, occurrence.source)


def find_again(
    occurrence: ImageOccurrence,
    now: Sequence[ImageOccurrence],
    known: Known,
    is_same: Callable[[ImageOccurrence, ImageOccurrence], bool] | None = None,
) -> ImageOccurrence:
    """Find an occurrence in a page that may have changed since it was read.

    Args:
        occurrence: as it was when the page was read.
        now: all occurrences of the page as it is now.
        known: all of them as they were read.
        is_same: whether two occurrences of the same image are equal apart from their alts; None
            compares nothing else.

    Raises:
        OutputError: it is missing or ambiguous.
    """
    what = identity(occurrence)
    alike = [
        each
        for each in now
        if identity(each) == what and (is_same is None or is_same(occurrence, each))
    ]
    if not alike:
        raise OutputError("it changed since the scan, or is gone; scan the page again")
    near = [each for each in alike if _surroundings(each) == _surroundings(occurrence)]
    if len(near) == 1:
        return near[0]
    earlier = list(known())
    if [identity(each) for each in earlier] == [identity(each) for each in now]:
        there = now[[each.position for each in earlier].index(occurrence.position)]
        if there in alike:
            return there
    if len(alike) > 1 or [identity(each) for each in earlier].count(what) > 1:
        raise OutputError("the page changed and has several like it; scan the page again")
    return alike[0]


def inverted(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits that undo edits, with their positions in the changed parts."""
    found: list[Edit] = []
    grown: dict[str, int] = defaultdict(int)
    for each in edits:
        start = each.start + grown[each.part]
        found.append(Edit(each.occurrence, start, each.after, each.before, each.alt, each.part))
        grown[each.part] += len(each.after) - len(each.before)
    return tuple(found)


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The content of one part with all its edits.

    Raises:
        OutputError: the content at an edit's position is not its `before`.
    """
    pieces: list[bytes] = []
    position = 0
    for edit in edits:
        end = edit.start + len(edit.before)
        if edit.start < position or content[edit.start : end] != edit.before:
            raise OutputError(f"byte {edit.start} is not what it was; scan the page again")
        pieces += [content[position : edit.start], edit.after]
        position = end
    return b"".join([*pieces, content[position:]])


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _surroundings(occurrence: ImageOccurrence) -> tuple[str, ...]:
    return (
        occurrence.link_text,
        occurrence.caption,
        occurrence.heading,
        occurrence.before[-_NEAR:],
        occurrence.after[:_NEAR],
    )
