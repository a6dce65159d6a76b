"""Finding image files: files, folders and glob patterns become a list of paths."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from cutline.errors import OptionError
from cutline.media_type import DECODED_ENDINGS

EXTENSIONS = frozenset(f".{ending}" for ending in DECODED_ENDINGS)
"""Extensions, in lower case, of the files in a folder that count as images."""

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".f4v"}
    | {".mpg", ".mpeg", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".3gp", ".3g2"}
    | {".ogv", ".dv", ".y4m", ".h264", ".h265", ".hevc", ".264", ".265", ".rm", ".rmvb", ".divx"}
)
"""Extensions, in lower case, of the files in a folder that count as videos."""
_URL = re.compile(r"(https?|ftps?|file|s3|gs|data):(?=/+[^/]|image/)", re.IGNORECASE)


def find_images(
    paths: Iterable[str | Path],
    recursive: bool,
    *,
    passed_over: Counter[str] | None = None,
    extensions: frozenset[str] = EXTENSIONS,
) -> Iterator[Path]:
    """List the images that paths name, lazily and in order.

    A file is yielded as it is, whatever its extension. A folder yields its visible files with a
    known image extension in natural order (2 before 10), then, if asked, those of its subfolders;
    links that lead back are followed once. A pattern (`*`, `?`, `[`) that is no existing path is
    expanded. A path that does not exist or cannot be listed is yielded too, so that reading it
    reports the reason.

    Args:
        paths: files, folders and patterns.
        recursive: also search subfolders.
        passed_over: if given, counts the visible files in folders that are not yielded, by
            extension in lower case. A `.txt` of an image's name, a sidecar, does not count.
        extensions: of the files in folders that are yielded, in lower case.

    Raises:
        OptionError: a path is empty.
    """
    for path in paths:
        pattern = os.fspath(path)
        if not pattern:
            raise OptionError("got an empty path; expected a file, a folder or a pattern")
        literal = is_literal(pattern)
        found = [] if literal else sorted(set(_matches(pattern)), key=natural_key)
        for match in map(Path, found or [pattern]):
            if not _is_folder(match):
                yield match
            elif literal or "**" not in pattern:
                yield from _walk(match, recursive, passed_over, extensions)


def is_unmatched(path: str) -> bool:
    """Whether a path is a pattern that matches no file."""
    return not is_literal(path) and next(_matches(path), None) is None


def is_literal(path: str) -> bool:
    """Whether a path names one file or folder rather than a pattern."""
    return "\0" in path or is_url(path) or os.path.lexists(path) or not glob.has_magic(path)


def is_url(path: str) -> bool:
    """Whether a path is a URL, also one that `pathlib` has taken a slash from."""
    return _URL.match(path) is not None


def _matches(pattern: str) -> Iterator[str]:
    """The paths that a pattern matches; `**` is any folders, each entered once."""
    separator = f"[{re.escape(os.sep + (os.altsep or ''))}]"
    deep = re.search(rf"(?:^|(?<={separator}))\*\*(?:{separator}+|$)", pattern)
    if deep is None:
        yield from glob.iglob(pattern)  # noqa: PTH207
        return
    head, tail = pattern[: deep.start()], pattern[deep.end() :] or "*"
    for start in glob.iglob(head) if head else [""]:  # noqa: PTH207
        for folder, _ in _listings(start):
            yield from _matches(glob.escape(folder) + tail)


def _listings(folder: str) -> Iterator[tuple[str, list[tuple[str, bool]] | None]]:
    """List a folder and the visible ones below it, each once, in natural order.

    Args:
        folder: "" for the current one, or a path that ends in a separator.

    Yields:
        A folder, in the form of the argument, and its visible entries: each name, and whether it
        is a folder; None if the folder cannot be listed.
    """
    seen = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder or ".") as listing:
                entries = [(e.name, _is_folder(e)) for e in listing if e.name[0] != "."]
        except OSError:
            yield folder, None
            continue
        entries.sort(key=lambda entry: natural_key(entry[0]))
        yield folder, entries
        waiting += (f"{folder}{name}{os.sep}" for name, is_folder in entries[::-1] if is_folder)


def _walk(
    folder: Path, recursive: bool, passed_over: Counter[str] | None, extensions: frozenset[str]
) -> Iterator[Path]:
    """The images in a folder; a folder that cannot be listed is yielded itself."""
    for inside, entries in _listings(os.path.join(folder, "")):  # noqa: PTH118
        if entries is None:
            yield Path(inside)
            continue
        files = [name for name, is_folder in entries if not is_folder]
        images = [name for name in files if Path(name).suffix.lower() in extensions]
        if passed_over is not None:
            sidecars = {f"{Path(name).stem}.txt" for name in images}
            others = set(files) - set(images) - sidecars
            passed_over.update(Path(name).suffix.lower() for name in others)
        yield from (Path(inside, name) for name in images)
        if not recursive:
            return


def _is_folder(path: Path | os.DirEntry[str]) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A sort key by which 2 goes before 10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
