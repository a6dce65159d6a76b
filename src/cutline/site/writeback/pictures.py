"""A folder of pictures as a destination: each picture is a page, its texts are in its metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cutline.atomic import check_replaceable
from cutline.discover import find_images
from cutline.errors import DataError, ImageNotFoundError, MetadataError, OutputError
from cutline.media_type import sniff
from cutline.metadata.read import (
    DESCRIPTION,
    EXIF_DESCRIPTION,
    IIM_CAPTION,
    find_sidecar,
    new_sidecar,
    read_accessible_text,
    read_file,
)
from cutline.metadata.write import (
    WRITABLE_TEXTS,
    MetadataOptions,
    prepare_text,
    prepare_values,
    remove_sidecar,
    writable_fields,
)
from cutline.site.destination import AltChange, Commit, Edit, PageBase
from cutline.site.model import ImageOccurrence, Kind, Page

_HEAD_BYTES = 1 << 16


class PicturesDestination:
    """The pictures of a folder and its subfolders, with IPTC's `AltTextAccessibility` as alt.

    `ExtDescrAccessibility` is the long description.

    Args:
        folder: the folder.
        options: how metadata is written; `overwrite` is not used, because `plan` decides that, and
            `description` never replaces a description.

    Raises:
        DataError: there is no such folder.
    """

    kind = "pictures"

    def __init__(self, folder: Path, options: MetadataOptions | None = None) -> None:
        if not folder.is_dir():
            raise DataError(f"got {folder}; expected a folder with pictures")
        self.root = folder.resolve()
        self.options = replace(options or MetadataOptions(), overwrite=True)

    @property
    def address(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    @property
    def settings(self) -> str:
        """The options as JSON, for the store."""
        return json.dumps(asdict(self.options))

    @classmethod
    def from_settings(cls, address: str, settings: str) -> PicturesDestination:
        """The destination with the options that `settings` returned."""
        options = MetadataOptions(**json.loads(settings)) if settings else None
        return cls(Path(address), options)

    def read(self) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
        """Read the alt of every picture, in natural order of their paths.

        Raises:
            MissingExtraError: exiv2 is not installed.
        """
        for file in find_images([self.root], recursive=True):
            path = file.relative_to(self.root).as_posix()
            try:
                page = PicturePage(self, file)
                language = self._language
                yield Page(path, page.sha256, language=language), list(page.occurrences)
            except (MetadataError, ImageNotFoundError) as error:
                yield Page(path, error=error.reason), []

    def open_image(self, url: str) -> bytes | None:
        """Always None: the pictures are files in the folder."""
        return None

    def location(self, page: Page) -> str:
        """The absolute path of a picture.

        Raises:
            OutputError: it does not exist.
        """
        file = self.root / page.url
        if not self.owns(str(file)) or not file.is_file():
            raise OutputError(f"there is no {page.url} in {self.root}")
        return str(file.resolve())

    def owns(self, location: str) -> bool:
        """Whether a path is within the folder, with all symbolic links followed."""
        try:
            return Path(location).resolve().is_relative_to(self.root)
        except (OSError, ValueError, RuntimeError):
            return False

    def open(self, location: str) -> PicturePage:
        """Read a picture's metadata.

        Raises:
            OutputError: it cannot be read.
        """
        file = Path(location)
        if ".." in file.parts or not file.is_absolute():
            raise OutputError("its path in the journal is not absolute; restore it by hand")
        try:
            return PicturePage(self, file.resolve())
        except (MetadataError, ImageNotFoundError) as error:
            raise OutputError(error.reason) from error

    def clean_up(self) -> None:
        """Do nothing: pictures and sidecars are replaced atomically, from copies elsewhere."""

    @property
    def _language(self) -> str:
        return "" if self.options.language == "x-default" else self.options.language


class PicturePage(PageBase):
    """One picture with its sidecar, if it has one.

    Its parts are the two files, and an edit is a change of fields: their values as JSON. An edit
    that creates a sidecar has nothing before it.

    Raises:
        MetadataError, ImageNotFoundError: the metadata cannot be read.
    """

    def __init__(self, destination: PicturesDestination, file: Path) -> None:
        self._destination, self._file = destination, file
        if not sniff(read_file(file)[:_HEAD_BYTES]).startswith("image/"):
            raise MetadataError(str(file), "it is not an image")
        self.path = file.relative_to(destination.root).as_posix()
        self._text = read_accessible_text(file, destination.options.language)
        sidecar = find_sidecar(file)
        self._fields = writable_fields(file)
        self._sidecar = None if sidecar is None else writable_fields(sidecar)
        self.sha256 = _digest(self._fields, self._sidecar)

    @cached_property
    def occurrences(self) -> Sequence[ImageOccurrence]:  # type: ignore[override]
        """The one occurrence of the picture."""
        language = self._destination._language
        return [
            ImageOccurrence(
                page=self.path,
                position=0,
                kind=Kind.IMG,
                source=self._file.name,
                url=self._file.as_uri(),
                alt=self._text.alt,
                language=language,
                long_description=self._text.long_description or "",
            )
        ]

    def check(self, change: AltChange) -> bool:
        """Whether the alt or the long description differs.

        Raises:
            OutputError: the picture should become decorative, which no field says.
        """
        if not change.alt.strip():
            raise OutputError("the metadata of an image file cannot say that it is decorative")
        return super().check(change) or change.long_description is not None

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The change of the fields of the picture, or of its sidecar.

        Raises:
            OutputError: the picture cannot be written.
        """
        found: list[Edit] = []
        options = self._destination.options
        if options.description and self._has_description():
            options = replace(options, description=False)
        for change in changes:
            try:
                prepared = prepare_text(
                    self._file,
                    change.alt,
                    long_description=change.long_description or "",
                    options=options,
                )
            except (MetadataError, ImageNotFoundError) as error:
                raise OutputError(error.reason) from error
            if prepared.values:
                check_replaceable(prepared.target)
                self.notes = (prepared.note,) if prepared.note else ()
                before = b"" if prepared.created else _encoded(prepared.earlier)
                after = _encoded(prepared.values)
                found.append(Edit(change.id, 0, before, after, change.alt, prepared.target.name))
        return tuple(found)

    def _has_description(self) -> bool:
        fields = self._fields | (self._sidecar or {})
        return any(fields.get(key) for key in (DESCRIPTION, EXIF_DESCRIPTION, IIM_CAPTION))

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether the edits belong to this picture; `write` accepts only the fields of alt text."""
        return all(edit.part in self._targets() for edit in edits)

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Replace the picture, or create, replace or delete its sidecar.

        Raises:
            OutputError: it is not what it was, or cannot be written.
        """
        try:
            for edit in edits:  # a picture has one
                self._write(edit, commit)
        except (MetadataError, ImageNotFoundError) as error:
            raise OutputError(error.reason) from error

    def _write(self, edit: Edit, commit: Commit) -> None:
        target = self._targets().get(edit.part)
        if target is None:
            raise OutputError(f"got {edit.part}; expected the picture or its sidecar")
        if not edit.after:
            commit(_digest(self._fields, None))
            remove_sidecar(target, _decoded(edit.before))
            return
        values = _decoded(edit.after)
        prepared = prepare_values(target, values, create=not edit.before)
        if edit.before and prepared.earlier != _decoded(edit.before):
            raise OutputError(f"{edit.part} is not what it was; scan the pictures again")
        commit(self._digest_with(target, values))
        prepared.write(self._destination.options)

    def _digest_with(self, target: Path, values: dict[str, Any]) -> str:
        """The digest that the picture has with these values in one of its files."""
        is_picture = target == self._file
        fields = dict((self._fields if is_picture else self._sidecar) or {}) | values
        fields = {key: value for key, value in fields.items() if value and key in WRITABLE_TEXTS}
        return _digest(*((fields, self._sidecar) if is_picture else (self._fields, fields)))

    def diff(self, edits: Sequence[Edit]) -> str:
        """The old and the new texts of the fields."""
        lines: list[str] = []
        for edit in edits:
            name = PurePosixPath(self.path).with_name(edit.part)
            lines += [f"--- a/{name}", f"+++ b/{name}"]
            for mark, content in (("-", edit.before), ("+", edit.after)):
                for key, value in (_decoded(content) if content else {}).items():
                    texts = value if isinstance(value, dict) else {"": value}
                    lines += [
                        f"{mark}{key.rpartition('.')[2]}{f' [{tag}]' if tag else ''}: {text}"
                        for tag, text in texts.items()
                        if text is not None
                    ]
        return "".join(f"{line}\n" for line in lines)

    def _targets(self) -> dict[str, Path]:
        """The files that hold the picture's metadata, by name."""
        files = [self._file, new_sidecar(self._file), find_sidecar(self._file)]
        return {each.name: each for each in files if each is not None}


def _digest(fields: dict[str, Any], sidecar: dict[str, Any] | None) -> str:
    """The SHA-256 over the fields of a picture and of its sidecar; None if there is no sidecar."""
    return hashlib.sha256(_encoded({"picture": fields, "sidecar": sidecar})).hexdigest()


def _encoded(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, ensure_ascii=False).encode()


def _decoded(content: bytes) -> dict[str, Any]:
    """The fields of an edit.

    Raises:
        OutputError: it is damaged.
    """
    try:
        found = json.loads(content)
    except ValueError as error:
        raise OutputError("its fields in the journal are damaged; restore it by hand") from error
    if not isinstance(found, dict):
        raise OutputError("its fields in the journal are damaged; restore it by hand")
    return found
