"""Which column of a crawler's or a shop's export holds what.

A column is recognised by its name, in the languages that Screaming Frog, Ahrefs, Semrush and
Sitebulb and the common shop systems use (`crawler_columns.json`), and by what its cells hold.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from cutline.site.url_words import is_picture

TAG = re.compile(r"<\s*(?:img|image|input|area|svg|object|picture|source)\b", re.IGNORECASE)
ESCAPED_TAG = re.compile(r"&(?:amp;)*lt;\s*(?:img|input|area|svg|object|picture)\b", re.IGNORECASE)
URL = re.compile(r"(?:https?:)?//[^\s\"'<>]+|data:image/", re.IGNORECASE)
_PATH = re.compile(r"[^\s\"'<>]*[./][^\s\"'<>]*")
_SEPARATORS = re.compile(r"[\s,;|]+")
_BETWEEN_URLS = re.compile(r"[\s,;|]+(?=(?:https?:)?//|data:image/)", re.IGNORECASE)
_DETAILS = re.compile(
    r"\s! ?(?:alt|title|desc|caption) ?:[^!|]*?(?=\s!|\s*[,|]\s*https?:|\s*\||\Z)"
)
_WEB_PAGE = re.compile(r"https?://\S+\Z", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[a-z]+/[\w.+-]+", re.IGNORECASE)
_NO_WORDS = re.compile(r"[\d.,%\s]*|true|false|yes|no|ja|nein", re.IGNORECASE)
_SPACED = re.compile(r"[\u0e00-\u0eff\u1100-\u11ff\u3000-\u9fff\uac00-\ud7ff]")
_SAMPLE_ROWS = 200


@dataclass(frozen=True)
class Columns:
    """Where an export's values are; None or () if it has no such column.

    Attributes:
        images: the column of image URLs, paths or tags, and that of the alt, for each image
            column.
        page: of the page on which the image is.
        type: of the link type, such as "Image" or "Hyperlink"; if it distinguishes the rows.
        media_type: of the content type, such as "image/jpeg".
        size: of the image's width and height, such as "300x200".
    """

    images: tuple[tuple[int, int | None], ...] = ()
    page: int | None = None
    type: int | None = None
    media_type: int | None = None
    size: int | None = None


_DESCRIPTOR = re.compile(r"\d+(?:\.\d+)?[wx][\s,]*")
_ADDRESS_KEYS = ("src", "url", "image_url", "imageUrl", "image", "href", "link", "path", "file")


def find_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Columns:
    """Recognise an export's columns.

    Args:
        header: their names; empty if the file has none.
        rows: the rows below.
    """
    return _Columns(header, rows).find()


def is_known_header(header: Iterable[str]) -> int:
    """How many of these names belong to a column that `find_columns` uses."""
    return sum(bool(_roles(normalise_name(name))) for name in header)


def is_image_type(value: str) -> bool:
    """Whether a link type, such as "Image", "Bild" or "IMG", is that of an image."""
    return bool(_phrases("image") & set(normalise_name(value).split())) or _holds(
        normalise_name(value), "image"
    )


def is_tagged(cell: str) -> bool:
    """Whether a cell holds an image's tag, escaped or not."""
    return bool(TAG.search(cell) or ESCAPED_TAG.search(cell))


def is_picture_path(cell: str) -> bool:
    """Whether a cell is a path or URL that ends like a picture's."""
    try:
        return bool(_PATH.fullmatch(cell) and is_picture(urlsplit(cell).path))
    except ValueError:
        return False


def is_address(cell: str) -> bool:
    """Whether a cell begins with a URL or is a picture's path."""
    return bool(URL.match(cell)) or is_picture_path(cell)


def normalise_name(name: str) -> str:
    """A column's name without case, accents and punctuation."""
    letters = unicodedata.normalize("NFKD", name.replace("\ufeff", "")).casefold()
    kept = "".join(
        one if one.isalnum() else " " for one in letters if not unicodedata.combining(one)
    )
    return " ".join(kept.split())


@cache
def _vocabulary() -> dict[str, tuple[str, ...]]:
    text = files("cutline.site.pages").joinpath("crawler_columns.json").read_text("utf-8")
    return {role: tuple(map(normalise_name, names)) for role, names in json.loads(text).items()}


@cache
def _phrases(role: str) -> frozenset[str]:
    return frozenset(_vocabulary()[role])


def _holds(name: str, role: str) -> bool:
    """Whether a name holds a phrase of a role; in scripts without spaces, as part of a word."""
    padded = f" {name} "
    return any(
        f" {phrase} " in padded or (_SPACED.match(phrase) and phrase in name)
        for phrase in _phrases(role)
    )


def _unnumbered(name: str) -> str:
    """A name without its number: "image 2 url" and "image2url" are "image url" and "imageurl"."""
    return " ".join(re.sub(r"\d+", " ", name).split())


def _roles(name: str) -> set[str]:
    """What a column of this normalised name may hold."""
    name = _unnumbered(name)
    roles = {
        role
        for role in ("target", "address", "type", "media_type", "size")
        if name in _phrases(role)
    }
    if _is_alt(name):
        return roles | {"alt"}
    if name in _phrases("source") or _holds(name, "page"):
        roles.add("page")
    if _holds(name, "image") and name not in _phrases("source"):
        roles.add("image")
    return roles or ({"page"} if set(name.split()) & _phrases("source") else set())


def _is_alt(name: str) -> bool:
    return bool(re.search(r"(?<![a-z])alt(?![a-z])", name)) or _holds(name, "alt")


class _Columns:
    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._rows = rows
        self._names = [normalise_name(one) for one in header]
        self._roles = [_roles(name) for name in self._names]
        sample = rows[:_SAMPLE_ROWS]
        width = max((len(header), *(len(row) for row in sample)))
        self._cells = [
            [row[i].strip() for row in sample if i < len(row) and row[i].strip()]
            for i in range(width)
        ]

    def find(self) -> Columns:
        images = self._images()
        main = images[0] if images else None
        page = self._page(images)
        taken = {column for column in (*images, page) if column is not None}
        alts = [
            i
            for i, roles in enumerate(self._roles)
            if "alt" in roles and i not in taken and self._share(i, _NO_WORDS.fullmatch) != 1
        ]
        pairs = tuple((column, self._alt(column, main, alts)) for column in images)
        return Columns(pairs, page, self._type(), self._media_type(), self._first("size"))

    def _images(self) -> list[int]:
        """The columns of images, the main one first."""
        columns = range(len(self._cells))
        named = [
            i
            for i in columns
            if self._has(i, "image")
            and self._share(i, is_picture_path if self._has(i, "page") else _names_image) > 0.5
        ]
        named.sort(key=lambda i: (self._share(i, _is_body) > 0, i))
        candidates = [
            *named[:1],
            *self._holding(_is_tag),
            *(i for i in columns if self._has(i, "target") and self._share(i, _names_image) > 0.5),
            *self._holding(is_picture_path),
            *(i for i in columns if self._has(i, "address") and self._share(i, URL.match) > 0.5),
            *self._holding(is_tagged),
            *self._holding(URL.match),
        ]
        if not candidates:
            return [0] if len(columns) == 1 else []
        main = candidates[0]
        further = [
            i
            for i in named
            if i != main
            and (
                _unnumbered(self._names[i]) == _unnumbered(self._names[main])
                or _unnumbered(self._names[i]) in _phrases("further_image")
            )
        ]
        return [main, *further]

    def _page(self, images: Sequence[int]) -> int | None:
        columns = [i for i in range(len(self._cells)) if i not in images]
        if not self._names:
            return next((i for i in columns if self._share(i, _WEB_PAGE.match) > 0.5), None)
        for role in ("page", "address", "target"):
            for i in columns:
                if self._has(i, role) and (not self._cells[i] or self._share(i, _is_page) > 0.5):
                    return i
        known = ("alt", "type", "media_type", "size", "image")
        rest = [i for i in columns if not any(self._has(i, role) for role in known)]
        return next((i for i in rest if self._share(i, _WEB_PAGE.match) > 0.5), None)

    def _alt(self, column: int, main: int | None, alts: Sequence[int]) -> int | None:
        """The column of the alt of an image column: by its number or stem, else the only one."""
        if len(alts) < 2 or column >= len(self._names):
            return alts[0] if alts and column == main else None
        number = re.findall(r"\d+", self._names[column])
        stem = set(_unnumbered(self._names[column]).split()) - {"url", "src", "link", "image"}
        scored = [
            (
                re.findall(r"\d+", self._names[i]) == number,
                len(stem & set(self._names[i].split())),
                -abs(i - column),
                i,
            )
            for i in alts
        ]
        best = max(scored)
        return best[-1] if column == main or (number and best[0]) or best[1] else None

    def _type(self) -> int | None:
        """The column of link types, if that is what its values are and not a product's types."""
        for i, roles in enumerate(self._roles):
            if "type" in roles:
                values = {row[i] for row in self._rows if i < len(row)}
                if any(map(is_image_type, values)) or (
                    values and {normalise_name(each) for each in values} <= _phrases("link_type")
                ):
                    return i
        return None

    def _media_type(self) -> int | None:
        for i, roles in enumerate(self._roles):
            if roles & {"media_type", "type"} and self._share(i, _MEDIA_TYPE.match) > 0.5:
                return i
        return None

    def _first(self, role: str) -> int | None:
        return next((i for i, roles in enumerate(self._roles) if role in roles), None)

    def _has(self, column: int, role: str) -> bool:
        return column < len(self._roles) and role in self._roles[column]

    def _share(self, column: int, test: Callable[[str], object]) -> float:
        """The share of a column's filled cells that pass a test."""
        cells = self._cells[column]
        return sum(bool(test(cell)) for cell in cells) / len(cells) if cells else 0.0

    def _holding(self, test: Callable[[str], object]) -> list[int]:
        """The columns of which most cells pass a test, the likeliest first."""
        shares = [(self._share(i, test), -i) for i in range(len(self._cells))]
        return [-i for share, i in sorted(shares, reverse=True) if share > 0.5]


def _is_tag(cell: str) -> bool:
    """Whether a cell is a tag, and not a text with one in it."""
    return (
        is_tagged(cell)
        and bool(re.match(r"[\[\"'\s]*(?:<|&(?:amp;)*lt;)", cell))
        and not (
            re.match(r"\s*<(?:p|div|ul|ol|h\d|table|section|article|span)\b", cell, re.IGNORECASE)
        )
    )


def _is_body(cell: str) -> bool:
    return is_tagged(cell) and not _is_tag(cell)


def _names_image(cell: str) -> bool:
    return is_tagged(cell) or any(
        URL.match(part) or _PATH.fullmatch(part) for part in split_addresses(cell)
    )


def _is_page(cell: str) -> bool:
    return bool(_PATH.fullmatch(cell)) or bool(URL.match(cell))


def split_addresses(cell: str) -> list[str]:
    """The URLs or paths that a cell lists: by separators, or as JSON writes a list."""
    cell = _DETAILS.sub("", cell.strip())  # "a.jpg ! alt : A dog", of WooCommerce's exporters
    if cell[:5].lower() == "data:":
        return [cell]
    if (listed := _listed_addresses(cell)) is not None:
        return listed
    if re.fullmatch(r"\[\s*\".*\"\s*\]", cell, re.DOTALL):
        cell = ", ".join(re.findall(r'"((?:[^"\\]|\\.)*)"', cell)).replace("\\/", "/")
    candidates = [part.rpartition(" ") for part in _BETWEEN_URLS.split(cell)]
    if all(url and _DESCRIPTOR.fullmatch(size) for url, _, size in candidates):  # a srcset
        widest = max(candidates, key=lambda one: float(one[2].strip(", ")[:-1]))
        return _strip_all([widest[0]])
    parts = _strip_all(_SEPARATORS.split(cell))
    if URL.match(cell) or not all(map(is_address, parts)):
        parts = _strip_all(_BETWEEN_URLS.split(cell))
    return parts


def _listed_addresses(cell: str) -> list[str] | None:
    """The addresses in a cell of JSON or of a Python list; None if it is neither."""
    if not (cell.startswith(("[", "{")) and cell.endswith(("]", "}"))):
        return None
    try:
        content = json.loads(cell)
    except (ValueError, RecursionError):
        quoted = re.fullmatch(r"\[\s*'[^']*'(?:\s*,\s*'[^']*')*\s*,?\s*\]", cell)
        content = re.findall(r"'([^']*)'", cell) if quoted else None
    found: list[str] = []
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and is_address(value.strip()):
            found.append(value.strip())
        elif isinstance(value, list):
            pending += reversed(value)
        elif isinstance(value, dict):
            named = [value[key] for key in _ADDRESS_KEYS if value.get(key)]
            pending += reversed(named[:1] or [*value.values()])
    return found or None


def _strip_all(parts: Iterable[str]) -> list[str]:
    return [part for part in (part.strip().strip(",;|") for part in parts) if part]
