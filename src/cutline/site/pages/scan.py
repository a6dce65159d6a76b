"""Finding images in a folder of pages, and in any one page.

`uses_in_html` and `uses_in_markdown` read one page, `scan` a folder of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from w3lib.encoding import html_body_declared_encoding, read_bom, resolve_encoding

from cutline.errors import DataError
from cutline.site.model import ImageUse, Page
from cutline.site.pages.html import uses_in_html
from cutline.site.pages.markdown import uses_in_markdown
from cutline.site.urls import normalise_url

__all__ = ["decode", "normalise_url", "read_file", "scan", "uses_in_html", "uses_in_markdown"]

HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
_LARGEST_FILE_BYTES = 64 << 20


def decode(content: bytes, declared: str = "") -> tuple[str, str]:
    """A page's bytes as text that encodes back into the very same bytes.

    A byte order mark (kept in the text) wins, then what was declared, then the page's own word,
    then UTF-8 if it is that, else Windows-1252 (HTML Standard, 13.2.3).

    Args:
        content: the page.
        declared: the charset of its Content-Type; "" if there was none.

    Returns:
        text and encoding, such that `text.encode(encoding, "surrogateescape") == content`.
    """
    marked, _ = read_bom(content)
    own = html_body_declared_encoding(content)
    own = "utf-8" if own and own.startswith("utf-16") else own  # it could not have been read
    for encoding in (marked, resolve_encoding(declared) if declared else None, own):
        if encoding and (text := _exactly(content, encoding)) is not None:
            return text, encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", "surrogateescape"), "cp1252"


def _exactly(content: bytes, encoding: str) -> str | None:
    if encoding in ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf-7"):
        return None  # no browser reads these
    try:
        text = content.decode(encoding, "surrogateescape")
        return text if text.encode(encoding, "surrogateescape") == content else None
    except (LookupError, UnicodeError):
        return None


def scan(
    folder: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[tuple[Page, list[ImageUse]]]:
    """Every HTML and Markdown file in a folder and the folders in it, by name, with its image uses.

    Args:
        folder: the site's root: a source such as "/logo.png" is looked for from here.
        include: patterns of paths relative to the folder, such as "blog/*"; none means all.
        exclude: patterns of what to leave out; they win. Hidden folders and node_modules are
            left out anyhow.

    Returns:
        A page and its uses at a time. `page` is the path relative to the folder, with slashes;
        `url` of a local source is a file URL. A file that cannot be read is a page with an error.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"got {folder}; expected a folder with HTML or Markdown files")
    top = folder.resolve()
    for path in _files(top):
        page = path.relative_to(top).as_posix()
        if (include and not _matches(page, include)) or _matches(page, exclude):
            continue
        found, uses, _ = read_file(path, top)
        yield found, uses


def read_file(path: Path, top: Path) -> tuple[Page, list[ImageUse], str]:
    """One HTML or Markdown file as it is now.

    Args:
        path: the file, in `top`.
        top: the site's root, absolute.

    Returns:
        The page, its uses as `scan` gives them, and its text. A file that cannot be read is a page
        with an error.
    """
    page = path.relative_to(top).as_posix()
    try:
        if (size := path.stat().st_size) > _LARGEST_FILE_BYTES:
            wrong = f"got {size} bytes; expected at most {_LARGEST_FILE_BYTES}"
            return Page(page, error=wrong), [], ""
        content = path.read_bytes()
    except OSError as error:
        return Page(page, error=error.strerror or str(error)), [], ""
    markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    text, _ = decode(content, "utf-8" if markdown else "")
    read = uses_in_markdown if markdown else uses_in_html
    found, uses = read(text, page=page, base=path.as_uri(), root=f"{top.as_uri()}/")
    return replace(found, sha256=hashlib.sha256(content).hexdigest()), uses, text


def _files(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "node_modules")
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in HTML_SUFFIXES | MARKDOWN_SUFFIXES:
                yield path


def _matches(page: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(page, pattern) or fnmatchcase(page, f"{pattern.rstrip('/')}/*")
        for pattern in patterns
    )
