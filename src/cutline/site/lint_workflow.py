"""Linting files without a store: for editors, pre-commit hooks and continuous integration."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cutline.atomic import write_whole
from cutline.errors import OptionError
from cutline.site.decide.lint import lint as lint_page
from cutline.site.model import Finding, Severity
from cutline.site.pages.formats import document_suffixes
from cutline.site.pages.restructured_text import RST_SUFFIXES
from cutline.site.pages.scan import HTML_SUFFIXES, MARKDOWN_SUFFIXES, read_file, scan


@dataclass(frozen=True)
class Location:
    """Where a finding is.

    Attributes:
        file: the path of the file, relative to the working directory if it is in it.
        line: from 1; 0 if the whole file is meant.
        place: where in a book or document, such as "slide 3"; "" for a page.
    """

    file: str
    line: int = 0
    place: str = ""

    def __str__(self) -> str:
        if self.place:
            return f"{self.file}, {self.place}"
        return f"{self.file}:{self.line}" if self.line else self.file


def lint_files(
    paths: Sequence[Path | str], *, root: Path | str | None = None, changed_since: str = ""
) -> Iterator[tuple[Location, Finding]]:
    """Check the alt texts of pages, books and documents as they are now.

    Args:
        paths: files and folders; a file of an unsupported format is skipped.
        root: the folder that root-relative sources such as `/logo.png` refer to. The default is
            the folder itself, or the working directory for a file.
        changed_since: a git revision, such as `origin/main`; only files that differ from it, or
            are new, are checked.

    Yields:
        A location and a finding.

    Raises:
        OptionError: a path does not exist, or git does not know the revision.
    """
    changed: dict[Path, set[Path]] = {}  # by folder
    for path in map(Path, paths):
        if not path.exists():
            raise OptionError(f"got {path}; expected an existing file or folder")
        folder = (path if path.is_dir() else path.parent).resolve()
        if changed_since and folder not in changed:
            changed[folder] = changed_files(changed_since, folder)
        for file, top in _files(path, root):
            if not changed_since or file in changed[folder]:
                yield from _lint_file(file, top)


def lint_file(root: Path, page: str) -> Iterator[tuple[str, Finding]]:
    """Check one file of a scanned folder.

    Args:
        root: the folder, absolute.
        page: the file's path in it.

    Yields:
        `page:line`, or `page, slide 3`, and a finding.
    """
    for location, finding in _lint_file(root / page, root):
        yield str(replace(location, file=page)), finding


def changed_files(revision: str, folder: Path | str = ".") -> set[Path]:
    """The files of a repository, absolute, that differ from a git revision or are untracked.

    Args:
        revision: such as `origin/main`.
        folder: a folder in the repository.

    Raises:
        OptionError: it is in no git repository, or git does not know the revision.
    """
    top = _git(folder, "rev-parse", "--show-toplevel").removesuffix("\n")
    options = ("--name-only", "-z", "--no-relative", "--diff-filter=d", "--end-of-options")
    names = _git(top, "diff", *options, revision, "--")
    names += _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    return {Path(top, name).resolve() for name in names.split("\0") if name}


class Baseline:
    """Known findings, which do not fail a run: a JSON file to commit.

    A finding is recognised by its file, rule, source and alt, not by its line or message, so that
    edits elsewhere in the file and other words in a later version do not matter.

    Args:
        known: how often each finding is known.
    """

    def __init__(self, known: dict[str, int] | None = None) -> None:
        self._left = Counter(known or {})

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Read a baseline file.

        Raises:
            OptionError: it is missing or not a baseline.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = {str(key): int(number) for key, number in content["findings"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OptionError(f"{path}: not a baseline of cutline site lint ({error})") from error
        return cls(known)

    @staticmethod
    def write(path: Path, findings: Iterable[tuple[Location, Finding]]) -> int:
        """Write a baseline file of all findings; returns their number.

        Raises:
            OutputError: it cannot be written.
        """
        known = Counter(_fingerprint(*each) for each in findings)
        content = {"version": 1, "findings": dict(sorted(known.items()))}
        write_whole(path, json.dumps(content, indent=1) + "\n")
        return known.total()

    def new(
        self, findings: Iterable[tuple[Location, Finding]]
    ) -> Iterator[tuple[Location, Finding]]:
        """Yield the findings that the baseline does not know."""
        for location, finding in findings:
            key = _fingerprint(location, finding)
            if self._left[key] > 0:
                self._left[key] -= 1
            else:
                yield location, finding


def _fingerprint(location: Location, finding: Finding) -> str:
    occurrence = finding.occurrence
    source = (occurrence.source or occurrence.markup) if occurrence else ""
    alt = (occurrence.alt or "") if occurrence else ""
    parts = (location.file, finding.rule, source, alt)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:24]


def _files(path: Path, root: Path | str | None) -> Iterator[tuple[Path, Path]]:
    if path.is_dir():
        top = Path(root or path).resolve()
        for page, _ in scan(path):
            yield (path.resolve() / page.url), top
    elif path.suffix.lower() in (
        HTML_SUFFIXES | MARKDOWN_SUFFIXES | RST_SUFFIXES | document_suffixes()
    ):
        file = path.resolve()
        top = Path(root or Path.cwd()).resolve()
        yield file, top if file.is_relative_to(top) else file.parent


def _lint_file(file: Path, top: Path) -> Iterator[tuple[Location, Finding]]:
    top = top if file.is_relative_to(top) else file.parent
    name = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    read, occurrences, text = read_file(file, top)
    if read.error:
        message = f"it cannot be read: {read.error}"
        yield Location(name.as_posix()), Finding("unreadable", Severity.ERROR, message)
    for finding in lint_page(occurrences):
        offset = finding.occurrence.offset if finding.occurrence else -1
        line = text.count("\n", 0, offset) + 1 if offset >= 0 and text else 0
        place = finding.occurrence.place if finding.occurrence else ""
        yield Location(name.as_posix(), line, place), finding


def _git(folder: Path | str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=True,
            timeout=60,
        )
    except FileNotFoundError as error:
        raise OptionError("got no git; expected it on the path for --changed-since") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise OptionError(f"git: {lines[-1] if lines else 'failed'}") from error
    return done.stdout
