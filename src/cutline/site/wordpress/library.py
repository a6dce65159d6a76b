"""Images of the media library: what is read of them, and how WordPress changes an alt it saves."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlsplit

from cutline.site.model import ImageOccurrence, Kind, Page

_IMAGE_ID = re.compile(r"(?:\A|\s)wp-image-(\d+)(?=\s|\Z)")
_SIZE = re.compile(r"-(?:\d+x\d+|scaled|rotated|e\d{10,})(?=\.\w+\Z)")
_OCTET = re.compile(r"%[a-f0-9]{2}", re.IGNORECASE)
_SHORTCODE = re.compile(r"\[/?[\w-]+[^\[\]]*\]")


@dataclass(frozen=True)
class Usage:
    """Where an image of the library is used, as far as the API shows it.

    Attributes:
        parent: the title of the post that it was uploaded to; "" if there is none.
        product: the name of a WooCommerce product that shows it; "" if there is none.
    """

    parent: str = ""
    product: str = ""


@dataclass(frozen=True)
class Attachment:
    """One image of the media library.

    Attributes:
        id: its number.
        alt: its alt as it is stored; "" if it has none, which WordPress does not distinguish.
        title, caption, description: as they are stored, with HTML.
        source: the address of the file that is shown.
        files: the names of all its files in lower case: sizes, and the file as it was uploaded.
        parent: the number of the post that it was uploaded to; 0 if there is none.
        modified: when it was changed, ISO 8601 in UTC.
    """

    id: int
    alt: str = ""
    title: str = ""
    caption: str = ""
    description: str = ""
    source: str = ""
    files: tuple[str, ...] = ()
    parent: int = 0
    modified: str = ""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Attachment:
        """An attachment from the API's answer with `context=edit`; other fields are ignored."""
        details = record.get("media_details")
        details = details if isinstance(details, dict) else {}
        sizes = details.get("sizes")
        sizes = sizes if isinstance(sizes, dict) else {}
        names = [record.get("source_url"), details.get("file"), details.get("original_image")]
        for size in sizes.values():
            if isinstance(size, dict):
                names += [size.get("file"), size.get("source_url")]
        return cls(
            id=int(record["id"]),
            alt=str(record.get("alt_text") or ""),
            title=raw(record.get("title")),
            caption=raw(record.get("caption")),
            description=raw(record.get("description")),
            source=str(record.get("source_url") or ""),
            files=tuple(dict.fromkeys(file_name(name) for name in names if isinstance(name, str))),
            parent=int(record.get("post") or 0),
            modified=str(record.get("modified_gmt") or ""),
        )

    @property
    def sha256(self) -> str:
        """The SHA-256 of the texts that saving could change."""
        texts = [self.alt, self.title, self.caption, self.description]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()

    def read(
        self, url: str, usage: Usage = Usage(), language: str = ""
    ) -> tuple[Page, list[ImageOccurrence]]:
        """The page of an image in the record of the site, and its one occurrence.

        Args:
            url: the page's URL.
            usage: where the image is used.
            language: of the site.
        """
        title = plain_text(self.title)
        if is_file_title(title, self.files):
            title = ""
        where = usage.product or usage.parent
        page = Page(url, self.sha256, title=title or where, language=language)
        markup = f'<img src="{html.escape(self.source)}"'
        if self.alt:
            markup += f' alt="{html.escape(self.alt)}"'
        occurrence = ImageOccurrence(
            page=url,
            position=0,
            kind=Kind.IMG,
            source=self.source,
            url=self.source,
            alt=self.alt or None,
            caption=plain_text(self.caption),
            heading=where,
            before=title,
            after=plain_text(self.description)[:200],
            page_title=where or title,
            language=language,
            markup=markup + ">",
        )
        return page, [occurrence]


def image_id(markup: str) -> int | None:
    """The number in the class `wp-image-3` of an image's tag; None if it has none.

    It can be the number of another site from which the content was copied: compare the file.
    """
    classes = re.search(r"\bclass\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", markup, re.IGNORECASE)
    found = _IMAGE_ID.search(classes[1] or classes[2] or "") if classes else None
    return int(found[1]) if found else None


def file_name(url: str) -> str:
    """The name of the file at a URL or path, in lower case."""
    return unquote(urlsplit(url).path).rpartition("/")[2].lower()


def without_size(name: str) -> str:
    """A file's name without the additions of WordPress: "-300x200", "-scaled", "-e1700000000"."""
    while (shorter := _SIZE.sub("", name)) != name:
        name = shorter
    return name


def sanitized(alt: str) -> str:
    """What WordPress keeps of an alt that it saves in the library.

    As `sanitize_text_field` and `update_post_meta` do: tags, percent signs followed by two
    hexadecimal digits, and backslashes vanish, and white space is collapsed.
    """
    text = alt
    if "<" in text:
        # wp_pre_kses_less_than escapes an angle bracket that no other one closes
        text = re.sub(r"<[^>]*?((?=<)|>|\Z)", _escape_open_tag, text)
        text = re.sub(r"<(script|style)[^>]*?>.*?</\1>", "", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.sub(r"<[^>]*>", "", text).strip()
        text = text.replace("<\n", "&lt;\n")
    text = re.sub(r"[\r\n\t ]+", " ", text).strip(" \t\n\r\0\x0b")
    if _OCTET.search(text):
        while found := _OCTET.search(text):
            text = text.replace(found[0], "")
        text = re.sub(r" +", " ", text).strip()
    return re.sub(r"\\(.?)", r"\1", text, flags=re.DOTALL)


def runs_shortcode(alt: str) -> bool:
    """Whether brackets in an alt of the library could run as a shortcode where it is shown."""
    return _SHORTCODE.search(alt) is not None


def is_file_title(title: str, files: tuple[str, ...]) -> bool:
    """Whether a title is only the file's name, which WordPress takes at the upload."""
    bare = re.sub(r"[\W_]+", "", title.lower())
    return any(re.sub(r"[\W_]+", "", name.rpartition(".")[0]) == bare for name in files)


def raw(value: Any) -> str:
    """A field as it is stored, in any of the forms in which the API gives it."""
    if isinstance(value, dict):
        value = value.get("raw", value.get("rendered", ""))
    return value if isinstance(value, str) else ""


def plain_text(markup: str) -> str:
    """The text of a piece of HTML, on one line."""
    return " ".join("".join(_texts(markup)).split())


def _texts(markup: str) -> Iterator[str]:
    pieces: list[str] = []

    class _Parser(HTMLParser):
        def handle_data(self, data: str) -> None:
            pieces.append(data)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pieces.append(" ")

    parser = _Parser(convert_charrefs=True)
    parser.feed(markup)
    parser.close()
    yield from pieces


def _escape_open_tag(found: re.Match[str]) -> str:
    return found[0] if ">" in found[0] else html.escape(found[0], quote=True)
