"""Finding image files: files, folders and glob patterns become a list of paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cutline.errors import OptionError

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".hif"}
)
"""Endings, in lower case, by which a file inside a folder is taken for a picture."""


def find_images(paths: Iterable[str | Path], recursive: bool) -> Iterator[Path]:
    """List the pictures that paths stand for, lazily and in order.

    A file is given as it is, whatever its ending. A folder gives its visible files with a known
    picture ending in natural order (2 before 10), then, if asked, those of its subfolders; links
    that lead back are followed once. A pattern (`*`, `?`, `[`) that is no existing path is
    expanded. What does not exist or cannot be listed is given too, so that reading it says why.

    Args:
        paths: files, folders and patterns.
        recursive: also look into subfolders.
    """
    for path in paths:
        pattern = os.fspath(path)
        if not pattern:
            raise OptionError("got an empty path; expected a file, a folder or a pattern")
        if "\0" in pattern or os.path.lexists(pattern) or not glob.has_magic(pattern):
            yield from _expand(Path(pattern), recursive)
            continue
        found = sorted(set(_matches(pattern)), key=_natural)
        for match in map(Path, found or [pattern]):
            if "**" not in pattern or not _is_folder(match):
                yield from _expand(match, recursive)


def is_unmatched(path: str) -> bool:
    """Whether a path is a pattern that stands for nothing."""
    if "\0" in path or os.path.lexists(path) or not glob.has_magic(path):
        return False
    return next(_matches(path), None) is None


def _matches(pattern: str) -> Iterator[str]:
    """What a pattern stands for; `**` is any folders, where links that lead back end."""
    separator = f"[{re.escape(os.sep + (os.altsep or ''))}]"
    deep = re.search(rf"(?:^|(?<={separator}))\*\*(?:{separator}+|$)", pattern)
    if deep is None:
        yield from glob.iglob(pattern)  # noqa: PTH207
        return
    head, tail = pattern[: deep.start()], pattern[deep.end() :] or "*"
    for start in glob.iglob(head) if head else [""]:  # noqa: PTH207
        for folder in _folders(start):
            yield from _matches(glob.escape(folder) + tail)


def _folders(folder: str) -> Iterator[str]:
    """A folder ("" or ending in a separator) and the visible ones below it, each once."""
    seen = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        yield folder
        try:
            with os.scandir(folder or ".") as listing:
                inside = [entry.name for entry in listing if _is_folder(entry)]
        except OSError:
            continue
        inside.sort(reverse=True)
        waiting += (f"{folder}{name}{os.sep}" for name in inside if name[0] != ".")


def _expand(path: Path, recursive: bool) -> Iterator[Path]:
    if _is_folder(path):
        yield from _walk(path, recursive)
    else:
        yield path


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    seen = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = [(entry.name, _is_folder(entry)) for entry in listing]
        except OSError:
            yield folder
            continue
        entries = sorted((e for e in entries if e[0][0] != "."), key=lambda e: _natural(e[0]))
        for name, is_folder in entries:
            if not is_folder and Path(name).suffix.lower() in EXTENSIONS:
                yield folder / name
        if recursive:
            waiting += (folder / name for name, is_folder in reversed(entries) if is_folder)


def _is_folder(path: Path | os.DirEntry[str]) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
