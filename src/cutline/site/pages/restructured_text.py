"""Reading reStructuredText: the directives `image` and `figure`, with the text around them.

A small reader instead of docutils, which knows none of Sphinx's directives and records no offsets.
Literal blocks, comments and code hold no images. An option is raw text (docutils parses no markup
in it), so an alt can be written on one line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cutline.errors import OutputError
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.unread import UnreadCounter
from cutline.site.urls import normalise_url, without_surrogates

RST_SUFFIXES = frozenset({".rst", ".rest"})
"""File name extensions of pages that are read as reStructuredText."""

_CONTEXT = 200
_IMAGES = frozenset({"image", "figure"})
_LITERAL = frozenset(
    "code code-block sourcecode literalinclude parsed-literal raw math highlight doctest testcode"
    " testoutput testsetup prompt ipython graphviz digraph graph uml mermaid plot csv-table"
    " productionlist".split()
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)?")
_DIRECTIVE = re.compile(
    r"(?P<indent>[ \t]*)\.\.[ \t]+(?:\|(?P<name>[^|]+)\|[ \t]+)?(?P<type>[\w:+.-]+?)::(?:[ \t]+|$)"
    r"(?P<argument>.*)$"
)
_EXPLICIT = re.compile(r"[ \t]*\.\.(?:[ \t]|$)")
_TARGET = re.compile(r"[ \t]*\.\.[ \t]+(?:_|\[[^\]]+\]|__)")
_OPTION = re.compile(r"(?P<indent>[ \t]+):(?P<name>[\w-]+):(?:[ \t]+(?P<value>.*))?$")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_ROLE = re.compile(r":[\w:+.-]+:`([^`<]*?)(?:[ \t]*<[^`>]*>)?`")
_LINKED = re.compile(r"`([^`<]*?)(?:[ \t]*<[^`>]*>)?`_{0,2}")
_MARKS = re.compile(r"\*{1,2}|``?|\||(?<=\w)_{1,2}(?=\W|$)")
_RAW_IMAGE = re.compile(r"<img[\s/>]", re.IGNORECASE)
_PIXELS = re.compile(r"(\d{1,6})(?:\.\d*)?(?:px)?\Z")


@dataclass(frozen=True)
class _Line:
    start: int
    end: int  # with its line ending
    text: str  # without it

    @property
    def indent(self) -> int:
        return len(self.text.expandtabs(8)) - len(self.text.expandtabs(8).lstrip())

    @property
    def blank(self) -> bool:
        return not self.text.strip()


@dataclass
class _Found:
    start: int
    end: int
    source: str
    name: str  # of a substitution
    options: dict[str, str]
    caption: str
    heading: str
    at: int  # in the page's text


def occurrences_in_restructured_text(
    text: str, *, page: str, base: str | None = None, root: str = ""
) -> tuple[Page, list[ImageOccurrence]]:
    """Every image and figure directive in a page, in order.

    `alt` is the option `:alt:`; for the definition of a substitution without one it is the
    substitution's name, which docutils uses. Images in raw HTML are counted as not read.

    Args:
        text, page, base, root: as for `occurrences_in_html`.

    Returns:
        As `occurrences_in_html`; `markup` is the directive with its options.
    """
    reader = _Reader(text)
    base = page if base is None else base
    occurrences = []
    prose = reader.text
    for position, found in enumerate(reader.found):
        source, own_base = found.source, base
        if root and source.startswith("/") and not source.startswith("//"):
            source, own_base = source[1:], root
        target = found.options.get("target", "")
        occurrences.append(
            ImageOccurrence(
                page=page,
                position=position,
                kind=Kind.RST,
                source=without_surrogates(found.source),
                url=normalise_url(source, own_base),
                alt=found.options.get("alt", found.name or None),
                link="" if target.endswith("_") else target,
                width_px=_pixels(found.options.get("width", "")),
                height_px=_pixels(found.options.get("height", "")),
                caption=found.caption,
                heading=found.heading,
                before=_last(prose[max(0, found.at - 2 * _CONTEXT) : found.at]),
                after=_first(prose[found.at : found.at + 2 * _CONTEXT]),
                page_title=reader.title,
                markup=text[found.start : found.end],
                offset=found.start,
            )
        )
    checksum = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return Page(page, checksum, reader.title, unread=reader.unread.counts()), occurrences


def with_alt_in_directive(markup: str, alt: str) -> str:
    """A directive with another `:alt:`, on one line.

    Args:
        markup: the directive with its options.
        alt: on one line; "" for a decorative image.

    Raises:
        OutputError: the directive cannot be read safely.
    """
    lines = list(_lines(markup))
    if not lines or _DIRECTIVE.match(lines[0].text) is None:
        raise OutputError(f"got {markup[:40]!r}; expected an image or figure directive")
    ending = markup[lines[0].start + len(lines[0].text) : lines[0].end]
    options = [(each, found) for each in lines[1:] if (found := _OPTION.match(each.text))]
    line = f":alt: {alt}".rstrip()
    for number, (own, option) in enumerate(options):
        if option["name"].lower() == "alt":
            end = options[number + 1][0].start if number + 1 < len(options) else len(markup)
            closing = ending if markup[own.start : end].endswith(("\n", "\r")) else ""
            return f"{markup[: own.start]}{option['indent']}{line}{closing}{markup[end:]}"
    at = options[0][0].start if options else len(markup)
    own_indent = lines[0].text[: len(lines[0].text) - len(lines[0].text.lstrip())]
    indent = options[0][1]["indent"] if options else f"{own_indent}   "
    before = markup[:at]
    if not before.endswith(("\n", "\r")):
        return f"{before}\n{indent}{line}"
    return f"{before}{indent}{line}{ending or chr(10)}{markup[at:]}"


def without_alt_in_directive(markup: str) -> str:
    """A directive without its `:alt:`, for comparison."""
    kept, skipping = [], False
    for line in _lines(markup):
        option = _OPTION.match(line.text)
        if option is not None:
            skipping = option["name"].lower() == "alt"
        if not skipping:
            kept.append(line.text)
    return "\n".join(kept)


def _lines(text: str) -> Iterator[_Line]:
    position = 0
    while position < len(text):
        found = _LINE.match(text, position)
        assert found is not None  # it matches everywhere
        yield _Line(position, found.end(), found[0].rstrip("\r\n"))
        position = found.end()


class _Reader:
    """Reads a page line by line.

    Attributes:
        title: the first heading.
        text: the prose, for the context of images.
        found: the directives, in order.
        unread: images in raw HTML.
    """

    def __init__(self, text: str) -> None:
        self._lines = list(_lines(text))
        self.title = self._heading = ""
        self.found: list[_Found] = []
        self.unread = UnreadCounter()
        self._pieces: list[str] = []
        self._length = 0
        self._read()
        self.text = "".join(self._pieces)

    def _read(self) -> None:
        number = 0
        while number < len(self._lines):
            line = self._lines[number]
            directive = _DIRECTIVE.match(line.text)
            if directive is not None:
                number = self._directive(number, directive)
            elif _TARGET.match(line.text):
                number += 1
            elif _EXPLICIT.match(line.text):
                number = self._behind_block(number)
            elif heading := self._heading_at(number):
                self._heading, number = heading
                self.title = self.title or self._heading
                self._add(self._heading)
            else:
                self._add(_plain(line.text))
                number += 1
                if line.text.rstrip().endswith("::") and not line.blank:
                    number = self._behind_literal(number, line.indent)

    def _directive(self, number: int, directive: re.Match[str]) -> int:
        """Read a directive; returns the number of the line to go on with."""
        kind = directive["type"].lower().rpartition(":")[2]
        if kind in _LITERAL or directive["type"].lower() in _LITERAL:
            end = self._behind_block(number)
            if kind == "raw":
                body = "\n".join(each.text for each in self._lines[number:end])
                self.unread.add("image in raw HTML", len(_RAW_IMAGE.findall(body)))
            return end
        if kind not in _IMAGES:
            return number + 1  # its content is content of the page
        line = self._lines[number]
        source, options, last = [directive["argument"].strip()], {}, number
        name = ""
        for at in range(number + 1, len(self._lines)):
            each = self._lines[at]
            if each.blank or each.indent <= line.indent:
                break
            option = _OPTION.match(each.text)
            if option is not None:
                name = option["name"].lower()
                options[name] = (option["value"] or "").strip()
            elif name:
                options[name] = f"{options[name]} {each.text.strip()}".strip()
            else:
                source.append(each.text.strip())
            last = at
        caption = self._caption(last + 1, line.indent) if kind == "figure" else ""
        address = "".join(source)
        if address:
            where = (line.start, self._lines[last].end)
            known = (directive["name"] or "").strip()
            self.found.append(
                _Found(*where, address, known, options, caption, self._heading, self._length)
            )
        return last + 1

    def _caption(self, number: int, indent: int) -> str:
        """The first paragraph in a figure's content."""
        while number < len(self._lines) and self._lines[number].blank:
            number += 1
        words = []
        for line in self._lines[number:]:
            if line.blank or line.indent <= indent or _EXPLICIT.match(line.text):
                break
            words.append(_plain(line.text).strip())
        return " ".join(words)[:500]

    def _behind_block(self, number: int) -> int:
        """The first line behind an explicit markup block and its indented content."""
        return self._behind_literal(number + 1, self._lines[number].indent)

    def _behind_literal(self, number: int, indent: int) -> int:
        while number < len(self._lines) and (
            self._lines[number].blank or self._lines[number].indent > indent
        ):
            number += 1
        return number

    def _heading_at(self, number: int) -> tuple[str, int] | None:
        """A heading that begins at a line, and the number of the line behind it."""
        lines = self._lines[number : number + 3]
        texts = [each.text.rstrip() for each in lines]
        if len(texts) == 3 and _ADORNMENT.match(texts[0]) and texts[2] == texts[0] and texts[1]:
            return _plain(texts[1]).strip(), number + 3
        if len(texts) >= 2 and texts[0].strip() and not lines[0].indent:
            fits = _ADORNMENT.match(texts[1]) and len(texts[1]) >= len(texts[0])
            if fits and not _ADORNMENT.match(texts[0]):
                return _plain(texts[0]), number + 2
        return None

    def _add(self, text: str) -> None:
        if piece := " ".join(text.split()):
            self._pieces.append(f"{piece} ")
            self._length += len(piece) + 1


def _plain(text: str) -> str:
    """A line without its inline markup."""
    text = _LINKED.sub(r"\1", _ROLE.sub(r"\1", text))
    return without_surrogates(_MARKS.sub("", re.sub(r"\\(\S)", r"\1", text)))


def _pixels(value: str) -> int | None:
    found = _PIXELS.match(value.strip())
    return int(found[1]) if found else None


def _last(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[-_CONTEXT - 1 :].partition(" ")[2]


def _first(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _CONTEXT else text[: _CONTEXT + 1].rpartition(" ")[0]
