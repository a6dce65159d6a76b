"""A page's file: where it is, where the uses of images stand in it, and how they are written."""

from __future__ import annotations

import hashlib
import os
from codecs import getincrementalencoder
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from cutline.errors import OutputError
from cutline.site.model import ImageUse, Kind
from cutline.site.pages.alt_markup import NAMED, TEMPLATE, alt_in, clean, with_alt
from cutline.site.pages.scan import MARKDOWN_SUFFIXES, decode, uses_in_html, uses_in_markdown
from cutline.site.store.store import Store
from cutline.site.writeback.patch import Edit

_NEAR = 30  # so many characters on either side tell twins apart
_INDEXES = ("index.html", "index.htm", "index.xhtml", "index.md")


@dataclass(frozen=True)
class Wish:
    """What is to become of one use's markup.

    Attributes:
        use: its id in the store.
        alt: as it was approved.
        markup, after: as it stands in the text, and as it is to be.
    """

    use: int
    alt: str
    markup: str
    after: str


class PageFiles:
    """The file of a page: a path under the root, or a URL's path under a copy of its site."""

    def __init__(self, root: Path, urls: Sequence[str]) -> None:
        self._root = root
        sites = [url for url in urls if urlsplit(url).scheme in ("http", "https")]
        folders = [PurePosixPath(_path(url)).parent for url in sites]
        common = PurePosixPath(os.path.commonpath(folders)) if folders else PurePosixPath()
        layouts = [(PurePosixPath(), False), (PurePosixPath(), True)]
        layouts += [(each, False) for each in (common, *common.parents) if each.parts]
        sample = sites[:: max(1, len(sites) // 100)]
        self._layout = max(layouts, key=lambda layout: self._hits(sample, layout))

    def file(self, url: str) -> Path:
        """Where a page's file is, links followed.

        Raises:
            OutputError: it is nowhere, or outside the root.
        """
        names = self._names(url, self._layout)
        for name in names:
            try:
                file = (self._root / name).resolve(strict=True)
            except (OSError, ValueError):
                continue
            if file.is_file() and not file.is_relative_to(self._root):
                raise OutputError(f"{name} leads out of {self._root}")
            if file.is_file():
                return file
        raise OutputError(f"there is no {names[0] if names else url} in {self._root}")

    def _hits(self, urls: Sequence[str], layout: tuple[PurePosixPath, bool]) -> int:
        hits = 0
        for url in urls:
            with suppress(ValueError, OSError):
                hits += any((self._root / name).is_file() for name in self._names(url, layout))
        return hits

    def _names(self, url: str, layout: tuple[PurePosixPath, bool]) -> list[str]:
        """The names a page may have under the root, likeliest first."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return [url]
        left_out, with_host = layout
        path = _path(url)
        if left_out.parts:
            if not path.startswith(f"{left_out}/"):
                return []
            path = path[len(f"{left_out}/") :]
        if with_host:
            path = f"{parts.netloc}/{path}"
        names = [f"{path}?{parts.query}"] if parts.query else []
        if path and not path.endswith("/"):
            names += [path, f"{path}.html"]
        folder = f"{path.rstrip('/')}/" if path else ""
        return names + [folder + index for index in _INDEXES]


def _path(url: str) -> str:
    return unquote(urlsplit(url).path, errors="surrogateescape").lstrip("/")


class PageText:
    """A file's text, where its images stand in it, and how they are written there."""

    def __init__(self, content: bytes, file: Path) -> None:
        self.is_markdown = file.suffix.lower() in MARKDOWN_SUFFIXES
        self.text, self.encoding = decode(content, "utf-8" if self.is_markdown else "")
        if self.text.encode(self.encoding, "surrogateescape") != content:
            raise OutputError(f"its encoding ({self.encoding}) cannot be written back unchanged")
        known_by = (content, self.text.encode("utf-8", "surrogateescape"))
        self.digests = tuple(hashlib.sha256(each).hexdigest() for each in known_by)
        self._ascii_only = not self._is_unicode(file)
        self._code = [] if self.is_markdown else [m.span() for m in TEMPLATE.finditer(self.text)]
        self._now: list[ImageUse] | None = None

    def _is_unicode(self, file: Path) -> bool:
        """Whether others, too, will read it as Unicode: a browser may not, without a word on it."""
        try:
            self.text.encode()
        except UnicodeEncodeError:
            return False
        if self.is_markdown or file.suffix.lower() == ".xhtml":
            return True
        head = self.text[:1024].lower()
        told = head.startswith(("\ufeff", "<?xml")) or "charset" in head
        return self.encoding.startswith("utf") and (told or not self.text.isascii())

    def uses(self, text: str, page: str) -> list[ImageUse]:
        """The uses in a text of this file's kind."""
        return (uses_in_markdown if self.is_markdown else uses_in_html)(text, page=page)[1]

    def with_alt(self, markup: str, kind: Kind, alt: str) -> str:
        """`markup.with_alt`, as this file needs it."""
        return with_alt(
            markup, kind, alt, ascii_only=self._ascii_only, in_markdown=self.is_markdown
        )

    def alt(self, use: ImageUse) -> str | None:
        """The words that stand for a use of this file; None if there are none."""
        if use.kind is Kind.MARKDOWN:
            return use.alt or None  # Markdown has no way to leave it out
        there = alt_in(use.markup, use.kind)
        return use.name or None if there is None and use.kind in NAMED else there

    def locate(self, store: Store, use: ImageUse, same: bool) -> ImageUse:
        """A use as it stands here now: in the same tag, whatever its alt has become.

        Args:
            store: knows the page's other uses.
            use: as it was when the page was read.
            same: the file is as it was then.

        Raises:
            OutputError: it is not there, or might be one of several.
        """
        if use.kind is Kind.ROW:
            raise OutputError("only an export names it; write it back as a table")
        if not use.markup:
            raise OutputError("where it stands in the file is not known; change it by hand")
        if not (same and self.text.startswith(use.markup, use.offset)) or use.offset < 0:
            use = self._moved(store, use)
        if any(start < use.offset < end for start, end in self._code):
            raise OutputError("it stands within template code, which a quote could break")
        return use

    def _moved(self, store: Store, use: ImageUse) -> ImageUse:
        if self._now is None:
            self._now = self.uses(self.text, use.page)
        alike = [each for each in self._now if self._is_but_for_alt(use, each)]
        if not alike:
            raise OutputError("it changed since the scan, or is gone; scan the page again")
        near = [each for each in alike if _surroundings(each) == _surroundings(use)]
        if len(near) == 1:
            return near[0]
        known = [stored.use for stored in store.uses(page=use.page)]
        if [_what(each) for each in known] == [_what(each) for each in self._now]:
            there = self._now[[each.position for each in known].index(use.position)]
            if there in alike:
                return there
        if len(alike) > 1 or [_what(each) for each in known].count(_what(use)) > 1:
            raise OutputError("the page changed and shows several like it; scan the page again")
        return alike[0]

    def _is_but_for_alt(self, use: ImageUse, other: ImageUse) -> bool:
        """Whether both are the same once they are named alike, or marked as decorative alike."""
        if _what(other) != _what(use):
            return False
        for alt in ("-", ""):
            with suppress(OutputError):
                named = self.with_alt(use.markup, use.kind, alt)
                if self.with_alt(other.markup, other.kind, alt) == named:
                    return True
        return False

    def edits(self, wishes: Mapping[int, Wish]) -> tuple[Edit, ...]:
        """The changes in bytes, each such that it leaves all others as they are."""
        old, new = (getincrementalencoder(self.encoding)("surrogateescape") for _ in range(2))
        edits: list[Edit] = []
        text, position, start = "", 0, 0
        for offset, wish in sorted(wishes.items()):
            gap = self.text[position:offset]
            text += gap + wish.after
            between = old.encode(gap)
            if new.encode(gap) != between:
                raise OutputError(f"its encoding ({self.encoding}) does not allow a change here")
            start += len(between)
            before = old.encode(wish.markup)
            edits.append(Edit(wish.use, start, before, new.encode(wish.after), wish.alt))
            start += len(before)
            position = offset + len(wish.markup)
        if self.is_markdown and edits:
            self._check(text + self.text[position:], wishes)
        return tuple(edits)

    def _check(self, text: str, wishes: Mapping[int, Wish]) -> None:
        """Read the Markdown again: what it means hangs on what stands around it."""
        before = self.uses(self.text, "")
        expected = [
            clean(wishes[each.offset].alt) if each.offset in wishes else each.alt or ""
            for each in before
        ]
        if [each.alt or "" for each in self.uses(text, "")] != expected:
            raise OutputError("its Markdown would not read as approved; change it by hand")


def _surroundings(use: ImageUse) -> tuple[str, ...]:
    return (use.link_text, use.caption, use.heading, use.before[-_NEAR:], use.after[:_NEAR])


def _what(use: ImageUse) -> tuple[Kind, str]:
    return (use.kind, use.source)
