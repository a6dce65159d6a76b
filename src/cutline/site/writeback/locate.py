"""Finds a page's file and the image occurrences in it, and makes the edits of their alts."""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_left
from codecs import getincrementalencoder
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from cutline.errors import OutputError
from cutline.site.destination import AltChange, Edit, Known, find_again, identity
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.alt_markup import clean, has_alt, with_alt
from cutline.site.pages.markdown_dialects import attribute_list_at, is_mdx, is_quarto
from cutline.site.pages.restructured_text import (
    RST_SUFFIXES,
    occurrences_in_restructured_text,
)
from cutline.site.pages.scan import (
    MARKDOWN_SUFFIXES,
    decode,
    occurrences_in_html,
    occurrences_in_markdown,
)
from cutline.site.pages.templates import SpanKind, template_spans
from cutline.site.pages.translations import translated_spans
from cutline.site.store.store import Store

_INDEXES = ("index.html", "index.htm", "index.xhtml", "index.md")
_SAMPLE = 100  # pages used to detect the layout of a mirror
_BLOCK_END = re.compile(
    r"(?:\?>|%>|-->|\]\]>|<hr[ \t/]*>"
    r"|</(?:address|article|aside|blockquote|body|canvas|center|colgroup|dd|details|dialog|dir|div"
    r"|dl|dt|fieldset|figcaption|figure|footer|form|group|h[1-6]|header|hgroup|hr|html|iframe"
    r"|legend|li|main|map|math|menu|nav|noscript|object|ol|option|output|p|pre|progress|script"
    r"|section|style|summary|table|tbody|td|template|textarea|tfoot|th|thead|tr|ul|video)"
    r"[ \t]*>)[^\r\n]*\Z",
    re.IGNORECASE,
)
_EMPTY_DEFINITION = re.compile(r"^[ \t>]*\[[^\[\]\n]+\]:[ \t]*\r?\n[ \t>]*\Z", re.MULTILINE)
_CHARSET = re.compile(r"""(?:charset|\A\s*<\?xml[^>]*\sencoding)\s*=\s*["']?\s*([\w.:-]+)""")
_UNICODE_LABELS = ("utf-8", "utf8", "unicode-1-1-utf-8", "x-unicode20utf8", "unicode11utf8")
_PRINTABLE = "".join(map(chr, range(32, 127)))  # what wget leaves with --restrict-file-names=ascii
_NOT_ON_WINDOWS = re.compile(r"""[\\|:?"*<>]""")
_LINE_END = re.compile(r"\r\n|\r|\n")
_REFERENCE = re.compile(r"&#?\w+;")


def is_url(page: str) -> bool:
    """Whether a page was crawled; otherwise it is a path in the scanned folder."""
    return urlsplit(page).scheme in ("http", "https")


class PageFiles:
    """Finds the files of pages under a root: a scanned folder or a mirror of the site."""

    def __init__(self, root: Path, urls: Sequence[str]) -> None:
        self._root = root
        sites = [url for url in urls if is_url(url)]
        folders = [PurePosixPath(_path(url)).parent for url in sites]
        common = PurePosixPath(os.path.commonpath(folders)) if folders else PurePosixPath()
        layouts = [(PurePosixPath(), False), (PurePosixPath(), True)]
        layouts += [(each, False) for each in (common, *common.parents) if each.parts]
        sample = sites[:: max(1, len(sites) // _SAMPLE)]
        self._layout = max(layouts, key=lambda layout: self._hits(sample, layout))

    def files(self, url: str) -> list[Path]:
        """The candidate files of a page, most likely first; follows symbolic links.

        Raises:
            OutputError: there is none, or it is outside of the root.
        """
        names = list(dict.fromkeys(self._names(url, self._layout)))
        found: list[Path] = []
        for name in names:
            try:
                file = (self._root / name).resolve(strict=True)
            except (OSError, ValueError, RuntimeError):
                continue
            if file.is_file() and not file.is_relative_to(self._root):
                raise OutputError(f"{name} leads out of {self._root}")
            if file.is_file() and file not in found:
                found.append(file)
        if not found:
            raise OutputError(f"there is no {names[0] if names else url} in {self._root}")
        return found

    def _hits(self, urls: Sequence[str], layout: tuple[PurePosixPath, bool]) -> int:
        hits = 0
        for url in urls:
            with suppress(ValueError, OSError):
                hits += any((self._root / name).is_file() for name in self._names(url, layout))
        return hits

    def _names(self, url: str, layout: tuple[PurePosixPath, bool]) -> list[str]:
        """The candidate names of a page under the root, most likely first."""
        parts = urlsplit(url)
        if not is_url(url):
            return [url]
        left_out, with_host = layout
        path = _path(url)
        if left_out.parts:
            if not path.startswith(f"{left_out}/"):
                return []
            path = path[len(f"{left_out}/") :]
        if not with_host:
            return _names_of(path, parts.query)
        # wget writes the port behind ":", on Windows behind "+"; HTTrack behind "_".
        hosts = dict.fromkeys(parts.netloc.replace(":", mark) for mark in ":+_")
        return [name for host in hosts for name in _names_of(f"{host}/{path}", parts.query)]


def _names_of(path: str, query: str) -> list[str]:
    """The candidate names of a page with this path, most likely first."""
    names = list(_names_with_query(path, query)) if query else []
    if path and not path.endswith("/"):
        names += [path, f"{path}.html"]
    folder = f"{path.rstrip('/')}/" if path else ""
    names += [folder + index for index in _INDEXES]
    restricted = (quote(name, safe=_PRINTABLE) for name in names)
    return list(dict.fromkeys([*names, *map(_on_windows, names), *restricted]))


def _on_windows(name: str) -> str:
    """A name as wget writes it on Windows, with the characters replaced that a name cannot have."""
    return _NOT_ON_WINDOWS.sub(lambda found: f"%{ord(found[0]):02X}", name)


def _names_with_query(path: str, query: str) -> Iterator[str]:
    """The names that mirroring tools give a page with a query string.

    wget writes "list?page=2", with --adjust-extension "list?page=2.html", on Windows "list@page=2";
    HTTrack adds four digits of the query's MD5 to the name; static exports write "?" as "%3F", "_"
    or "-".
    """
    folder, slash, name = path.rpartition("/")
    decoded = unquote(query, errors="surrogateescape")
    names = [path] if name else [f"{path}index.html", path]
    for base in names:
        for text in dict.fromkeys((decoded.replace("/", "%2F"), query)):
            for mark in ("?", "@", "%3F", "_", "-"):
                yield f"{base}{mark}{text}"
                yield f"{base}{mark}{text}.html"
        yield f"{base}{quote(f'?{query}', safe='')}.html"
    stem, dot, extension = (name or "index.html").rpartition(".")
    stem, extension = (stem, extension) if dot else (name, "html")
    if extension not in ("html", "htm", "xhtml"):
        extension = "html"
    for text in (query, f"?{query}"):
        digest = hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False)
        yield f"{folder}{slash}{stem}{digest.hexdigest()[:4]}.{extension}"


def _path(url: str) -> str:
    return unquote(urlsplit(url).path, errors="surrogateescape").lstrip("/")


def _breaks(line: str) -> bool:
    """Whether two spaces end a line, where tabs are spaces up to a column as in Python-Markdown."""
    return line.expandtabs(4).endswith("  ")


class PageText:
    """A file's text with its image occurrences.

    Args:
        content: the file's bytes.
        file: its path, for its format.

    Raises:
        OutputError: its encoding cannot be written back unchanged.
    """

    def __init__(self, content: bytes, file: Path) -> None:
        self.is_markdown = file.suffix.lower() in MARKDOWN_SUFFIXES
        self._is_restructured = file.suffix.lower() in RST_SUFFIXES
        text_format = self.is_markdown or self._is_restructured
        self.text, self.encoding = decode(content, "utf-8" if text_format else "")
        if self.text.encode(self.encoding, "surrogateescape") != content:
            raise OutputError(f"its encoding ({self.encoding}) cannot be written back unchanged")
        known_by = (content, self.text.encode("utf-8", "surrogateescape"))
        self.digests = tuple(hashlib.sha256(each).hexdigest() for each in known_by)
        self._name = file.name
        self._ascii_only = not self._is_unicode(file)
        spans = template_spans(
            self.text, markdown=self.is_markdown, mdx=is_mdx(file.name), front_matter=True
        )
        self._code = [each for each in spans if each.kind is not SpanKind.MARKDOWN_CODE]
        self._translated = translated_spans(self.text, spans)
        self._now: dict[str, list[ImageOccurrence]] = {}

    def _is_unicode(self, file: Path) -> bool:
        """Whether all programs read the file as Unicode; browsers may not if it is undeclared."""
        if not self.encoding.startswith("utf"):
            return False
        try:
            self.text.encode()
        except UnicodeEncodeError:
            return False
        if self.is_markdown or self._is_restructured:
            return True
        head = self.text[:1024].lower()
        label = _CHARSET.search(head)
        if label is not None and not head.startswith("\ufeff"):
            return label[1] in _UNICODE_LABELS or label[1].startswith("utf-16")
        if head.startswith(("\ufeff", "<?xml")) or file.suffix.lower() == ".xhtml":
            return True
        return not self.text.isascii()

    def occurrences(self, text: str, page: str) -> list[ImageOccurrence]:
        """The occurrences in a text of this file's format."""
        if self._is_restructured:
            return occurrences_in_restructured_text(text, page=page)[1]
        if not self.is_markdown:
            return occurrences_in_html(text, page=page)[1]
        return occurrences_in_markdown(text, page=page if not is_url(page) else self._name)[1]

    def current_occurrences(self, page: str) -> list[ImageOccurrence]:
        """The occurrences in the current file, with this page's name."""
        if page not in self._now:
            self._now[page] = self.occurrences(self.text, page)
        return self._now[page]

    def is_page(self, page: Page, store: Store) -> bool:
        """Whether the file has the content of a page as read, apart from alts that Cutline wrote.

        Args:
            page: as it was read.
            store: has the page's occurrences and their reviews.
        """
        if not page.sha256 or page.sha256 in self.digests:
            return bool(page.sha256)
        current = self.current_occurrences(page.url)
        known = (each for each in store.occurrences(page=page.url) if not each.origin)
        earlier = sorted(known, key=lambda stored: stored.occurrence.position)
        if [identity(each) for each in current] != [identity(each.occurrence) for each in earlier]:
            return False
        pieces, position = [], 0
        for now, stored in zip(current, earlier, strict=True):
            if now.offset < position:
                return False
            alts = (review.alt for review in store.history(stored.id))
            ours = any(alt is not None and has_alt(now, alt) for alt in alts)
            markup = stored.occurrence.markup if ours else now.markup
            pieces += [self.text[position : now.offset], markup]
            position = now.offset + len(now.markup)
        text = "".join([*pieces, self.text[position:]])
        for encoding in (self.encoding, "utf-8"):
            with suppress(UnicodeError):
                content = text.encode(encoding, "surrogateescape")
                if hashlib.sha256(content).hexdigest() == page.sha256:
                    return True
        return False

    def with_alt(self, markup: str, kind: Kind, alt: str) -> str:
        """`alt_markup.with_alt` with the options of this file's format."""
        if self._is_restructured and self._ascii_only and not alt.isascii():
            raise OutputError(
                "the file is not in UTF-8, and its format has no references to characters; save "
                "it in UTF-8"
            )
        return with_alt(
            markup,
            kind,
            alt,
            ascii_only=self._ascii_only,
            in_markdown=self.is_markdown,
            in_quarto=is_quarto(self._name),
        )

    def locate(self, occurrence: ImageOccurrence, same: bool, known: Known) -> ImageOccurrence:
        """The current occurrence in the file: the same tag, with any alt.

        Args:
            occurrence: as it was when the page was read.
            same: whether the file is unchanged since then.
            known: all occurrences of the page as they were read.

        Raises:
            OutputError: it is missing, ambiguous, or within template code.
        """
        if occurrence.kind is Kind.ROW:
            raise OutputError("only an export names it; write it back as a table")
        if not occurrence.markup:
            raise OutputError("its place in the file is not known; change it by hand")
        there = (
            same
            and occurrence.offset >= 0
            and self.text.startswith(occurrence.markup, occurrence.offset)
        )
        if not there or self._has_list(occurrence):
            now = self.current_occurrences(occurrence.page)
            occurrence = find_again(occurrence, now, known, self._is_but_for_alt)
        self._refuse_code(occurrence)
        return occurrence

    def _has_list(self, occurrence: ImageOccurrence) -> bool:
        """Whether an attribute list follows that is not in the markup: version 0.1 left it out."""
        if occurrence.kind is not Kind.MARKDOWN or is_mdx(self._name):
            return False
        return attribute_list_at(self.text, occurrence.offset + len(occurrence.markup)) > 0

    def _refuse_code(self, occurrence: ImageOccurrence) -> None:
        """Refuse an occurrence that is not part of the page content."""
        if not is_url(occurrence.page) and any(
            start < occurrence.offset < end for start, end in self._translated
        ):
            raise OutputError(
                "it is in a text for translation, whose translations would no longer be found; "
                "change it by hand in all languages"
            )
        at = bisect_left(self._code, occurrence.offset + 1, key=lambda span: span.start) - 1
        if (
            at < 0
            or self._code[at].end <= occurrence.offset
            or self._code[at].start == occurrence.offset
        ):
            self._refuse_string(occurrence)
            return
        kind = self._code[at].kind
        if kind is SpanKind.CODE:
            raise OutputError("it is within template code, which a quote could break")
        if is_url(occurrence.page):
            return  # the response of a server is not a source file
        what = kind if kind is SpanKind.FRONT_MATTER else f"a {kind}"
        raise OutputError(f"it is in {what}, which is not page content; scan the page again")

    def _refuse_string(self, occurrence: ImageOccurrence) -> None:
        """Refuse an occurrence that is all of a string in a program of unknown syntax."""
        end = occurrence.offset + len(occurrence.markup)
        quote = self.text[max(0, occurrence.offset - 1) : occurrence.offset]
        if is_url(occurrence.page) or quote not in ("'", '"', "`"):
            return
        if self.text.startswith(quote, end):
            raise OutputError("it is between quotes, like a string of program code")

    def _is_but_for_alt(self, occurrence: ImageOccurrence, other: ImageOccurrence) -> bool:
        """Whether both have the same markup apart from the alt."""
        if other.markup == occurrence.markup:  # also of a tag that cannot be read safely
            return True
        for alt in ("-", ""):
            with suppress(OutputError):
                named = self.with_alt(occurrence.markup, occurrence.kind, alt)
                if self.with_alt(other.markup, other.kind, alt) == named:
                    return True
        return False

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The changes as byte edits that do not affect each other.

        Raises:
            OutputError: the file's encoding or its Markdown does not allow one of them.
        """
        old, new = (getincrementalencoder(self.encoding)("surrogateescape") for _ in range(2))
        edits: list[Edit] = []
        text, position, start = "", 0, 0
        try:
            for change in sorted(changes, key=lambda each: each.occurrence.offset):
                markup, offset = change.occurrence.markup, change.occurrence.offset
                changed = self.with_alt(markup, change.occurrence.kind, clean(change.alt))
                if self.is_markdown:
                    self._refuse_references(offset, changed)
                gap = self.text[position:offset]
                text += gap + changed
                between = old.encode(gap)
                if new.encode(gap) != between:
                    raise OutputError(f"its encoding ({self.encoding}) allows no change here")
                start += len(between)
                before = old.encode(markup)
                edits.append(Edit(change.id, start, before, new.encode(changed), change.alt))
                start += len(before)
                position = offset + len(markup)
        except UnicodeError as error:
            raise OutputError(
                f"its encoding ({self.encoding}) lacks a character of the alt"
            ) from error
        if (self.is_markdown or self._is_restructured) and edits:
            self._check(text + self.text[position:], changes)
        return tuple(edits)

    def _refuse_references(self, offset: int, after: str) -> None:
        """Refuse a character reference in a label in a line in which a block of HTML ends.

        Python-Markdown moves the reference out of its paragraph.
        """
        if not after.startswith("!["):
            return
        if not re.search(r"\s", after) and _EMPTY_DEFINITION.search(
            self.text[max(0, offset - 500) : offset]
        ):
            raise OutputError(
                "the line above would read it as the target of a link; move the image"
            )
        if not _REFERENCE.search(after):
            return
        if _BLOCK_END.search(self.text[max(0, offset - 5000) : offset]):
            raise OutputError(
                "the end of a block is in front of it in its line, where Python-Markdown would "
                "misplace a character reference; move the image to a line of its own"
            )

    def _check(self, text: str, changes: Sequence[AltChange]) -> None:
        """Parse the new Markdown: the meaning of its markup depends on the context."""
        lines = zip(_LINE_END.split(self.text), _LINE_END.split(text), strict=False)
        if any(was != is_ and _breaks(was) != _breaks(is_) for was, is_ in lines):
            raise OutputError(
                "a tab ends its line, which would make or end a line break; remove the tab"
            )
        before = self.current_occurrences(self._name)
        alts = {each.occurrence.offset: clean(each.alt) for each in changes}
        expected = [alts.get(each.offset, each.alt or "") for each in before]
        after = self.occurrences(text, self._name)
        ours = [
            has_alt(each, alt) if was.offset in alts else (each.alt or "") == alt
            for each, was, alt in zip(after, before, expected, strict=False)
        ]
        if len(after) != len(before) or not all(ours):
            what = "Markdown" if self.is_markdown else "markup"
            raise OutputError(f"its {what} would not read as approved; change it by hand")
