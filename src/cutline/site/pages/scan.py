"""Reading a folder of HTML, Markdown and reStructuredText files and documents, or one of them.

`occurrences_in_html`, `occurrences_in_markdown` and `occurrences_in_restructured_text` read the
text of a page.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cutline.atomic import read_regular
from cutline.discover import EXTENSIONS
from cutline.errors import DataError
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.encoding import decode
from cutline.site.pages.formats import document_format, document_suffixes
from cutline.site.pages.html import occurrences_in_html
from cutline.site.pages.markdown import occurrences_in_markdown
from cutline.site.pages.markdown_dialects import MARKDOWN_SUFFIXES
from cutline.site.pages.restructured_text import (
    RST_SUFFIXES,
    occurrences_in_restructured_text,
)
from cutline.site.pages.unread import OTHER_SUFFIXES, in_other_format
from cutline.site.urls import normalise_url

__all__ = [
    "MARKDOWN_SUFFIXES",
    "decode",
    "normalise_url",
    "occurrences_in_html",
    "occurrences_in_markdown",
    "read_file",
    "scan",
]

HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
_SPHINX_SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".gif", ".webp")
_LARGEST_FILE_BYTES = 64 << 20
_LARGEST_DOCUMENT_BYTES = 1 << 30
_STATIC = (
    "static public source assets src content docs site www web website htdocs resources theme"
    " src/assets src/static src/public static/public assets/static overrides theme/static"
).split()


def scan(
    folder: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
    """Read every page and document in a folder and its subfolders, ordered by name.

    Args:
        folder: the site's root: a source such as "/logo.png" is sought here, else in the folders
            for static files of site generators ("static", "public", "source", ...).
        include: patterns of paths relative to the folder, such as "blog/*"; none means all.
        exclude: patterns of what to leave out; they win. Hidden folders and node_modules are
            always left out.

    Yields:
        A page and its occurrences. `page` is the path relative to the folder, with slashes; the
        `url` of a local source is a file URL. A file that cannot be read is a page with an error.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"got {folder}; expected a folder with pages or documents")
    top = folder.resolve()
    suffixes = HTML_SUFFIXES | MARKDOWN_SUFFIXES | RST_SUFFIXES | document_suffixes()
    for path, page in _files(top, suffixes, include, exclude):
        found, occurrences, _ = read_file(path, top, page=page)
        yield found, occurrences


def scan_unread(
    folder: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, int]:
    """The number of apparent images in files of unsupported formats, by format.

    Args:
        folder, include, exclude: as for `scan`.
    """
    counts: Counter[str] = Counter()
    for path, _ in _files(folder.resolve(), OTHER_SUFFIXES, include, exclude):
        with suppress(OSError):
            content = read_regular(path, max_bytes=_LARGEST_FILE_BYTES)
            for what, number in in_other_format(decode(content, "utf-8")[0], path.suffix):
                counts[what] += number
    if ".pdf" not in document_suffixes():
        for _ in _files(folder.resolve(), {".pdf"}, include, exclude):
            counts["PDF file (install cutline[documents])"] += 1
    return dict(counts.most_common())


def read_file(
    path: Path, top: Path, *, page: str | None = None
) -> tuple[Page, list[ImageOccurrence], str]:
    """Read one HTML or Markdown file, or a document of another format.

    Args:
        path: the file, in `top`.
        top: the site's root, absolute.
        page: its name; None for the path relative to `top`.

    Returns:
        The page, its occurrences as in `scan`, and its text ("" for a document). A file that
        cannot be read is a page with an error.
    """
    if page is None:
        page = path.relative_to(top).as_posix()
    document = document_format(path)
    try:
        largest = _LARGEST_DOCUMENT_BYTES if document else _LARGEST_FILE_BYTES
        content = read_regular(path, max_bytes=largest)
    except OSError as error:
        return Page(page, error=error.strerror or str(error)), [], ""
    sha256 = hashlib.sha256(content).hexdigest()
    if document is not None:
        found, occurrences = document.read(content, path, page)
        return replace(found, sha256="" if found.error else sha256), occurrences, ""
    markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    restructured = path.suffix.lower() in RST_SUFFIXES
    text, _ = decode(content, "utf-8" if markdown or restructured else "")
    read = occurrences_in_markdown if markdown else occurrences_in_html
    read = occurrences_in_restructured_text if restructured else read
    found, occurrences = read(text, page=page, base=path.as_uri(), root=f"{top.as_uri()}/")
    static = StaticFolders(path, top, markdown)
    occurrences = [
        replace(
            occurrence, url=static.locate(occurrence.url, anywhere=occurrence.kind is Kind.EMBED)
        )
        for occurrence in occurrences
    ]
    return replace(found, sha256=sha256), occurrences, text


class StaticFolders:
    """Where site generators keep the files that pages name by root-relative paths.

    Args:
        path: the page's file.
        top: the site's root.
        markdown: whether the page is Markdown, which a generator may publish as a folder.
    """

    def __init__(self, path: Path, top: Path, markdown: bool) -> None:
        self._path, self._top, self._markdown = path, top, markdown

    def locate(self, url: str, *, anywhere: bool = False) -> str:
        """The URL of the file that a file URL means: itself, unless only another one exists.

        Args:
            url: of any scheme.
            anywhere: whether a file of the same name in another folder is meant, too, as in
                Obsidian's wiki links.
        """
        if not url.startswith("file:"):
            return url
        target = _path_of(url)
        if target is None or _exists(target):
            return url
        if target.name.endswith(".*"):  # Sphinx takes the format that the output needs
            for suffix in _SPHINX_SUFFIXES:
                if _exists(file := target.with_suffix(suffix)):
                    return file.as_uri()
        if target.is_relative_to(self._top):
            for folder in _static_folders(self._path.parent, self._top):
                if _exists(file := folder / target.relative_to(self._top)):
                    return file.as_uri()
        if self._markdown:  # "a.md" is published as "a/index.html"
            rest = os.path.relpath(target, self._path.parent)
            file = Path(os.path.normpath(self._path.with_suffix("") / rest))
            if file.is_relative_to(self._top) and _exists(file):
                return file.as_uri()
        if anywhere and (known := _files_by_name(self._top).get(target.name)):
            return known.as_uri()
        return url


def _path_of(url: str) -> Path | None:
    path = unquote(urlsplit(url).path, errors="surrogateescape")
    return None if "\0" in path else Path(path)


def _exists(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=4)
def _files_by_name(top: Path) -> dict[str, Path]:
    """The first image file of each name in a folder and its subfolders."""
    found: dict[str, Path] = {}
    for path, _ in _files(top, frozenset(EXTENSIONS), (), ()):
        found.setdefault(path.name, path)
    return found


@lru_cache(maxsize=4096)
def _static_folders(folder: Path, top: Path) -> tuple[Path, ...]:
    """The folders for static files: next to a folder or its ancestors, then one level below top."""
    near = [folder, *folder.parents]
    near = near[: near.index(top) + 1] if top in near else [top]
    found = [each / name for each in near for name in _STATIC] + near[:-1]
    with suppress(OSError):
        for child in sorted(top.iterdir()):
            if child.is_dir() and not child.name.startswith(".") and child.name != "node_modules":
                found += [child, *(child / name for name in _STATIC)]
    return tuple(each for each in dict.fromkeys(found) if each.is_dir())


def _files(
    top: Path, suffixes: Set[str], include: Sequence[str], exclude: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    """The files with these suffixes, and their paths relative to the root."""
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "node_modules")
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() not in suffixes or name.startswith("~$"):
                continue  # "~$" begins the name of Word's lock files
            page = path.relative_to(top).as_posix()
            if (not include or _matches(page, include)) and not _matches(page, exclude):
                yield path, page


def _matches(page: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(page, pattern) or fnmatchcase(page, f"{pattern.rstrip('/')}/*")
        for pattern in patterns
    )
