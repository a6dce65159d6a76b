"""Writing alt text into image files or XMP sidecars, and undoing it.

A write works on a copy: exiv2 or exiftool changes it, the copy is verified against the original,
and only then replaces it. The coded pixels, every trailing byte and every other metadata field
must be unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cutline.atomic import check_replaceable, replacing
from cutline.errors import MetadataError, OptionError, OutputError
from cutline.image import load_image
from cutline.metadata import container
from cutline.metadata.exiv2_client import Field, read_fields, write_fields
from cutline.metadata.read import (
    ALT,
    DEFAULT_LANGUAGE,
    DESCRIPTION,
    EXIF_DESCRIPTION,
    IIM_CAPTION,
    LONG_DESCRIPTION,
    find_sidecar,
    has_fields,
    is_camera_default,
    is_raw,
    new_sidecar,
    read_file,
    read_text,
)

_IIM_CHARSET = "Iptc.Envelope.CharacterSet"
_UTF8_ESCAPE = "\x1b%G"
_IIM_MAX_BYTES = 2000
_OFFSETS = (  # fields that hold offsets into the file, or a whole packet that is compared by field
    "StripOffsets",
    "TileOffsets",
    "ExifTag",
    "GPSTag",
    "SubIFDs",
    "InteroperabilityTag",
    "JPEGInterchangeFormat",
    "JPEGTables",
    "XMLPacket",
    "IPTCNAA",
    "ImageResources",
    "Offset",
)
Sidecar = Literal["never", "auto", "always"]


@dataclass(frozen=True)
class MetadataOptions:
    """How alt text is written into image files.

    Raises:
        OptionError: an option is out of its range.
    """

    language: str = DEFAULT_LANGUAGE
    """Language of the text, such as "de"; other languages in the file are kept."""

    overwrite: bool = False
    """Replace existing text in that language."""

    description: bool = False
    """Also write Dublin Core's description, Exif's ImageDescription and, where the file has IIM
    fields, IIM's Caption-Abstract (Metadata Working Group guidelines 2.0, section 5)."""

    sidecar: Sidecar = "auto"
    """Write an XMP sidecar: never, auto (for formats that cannot be written) or always."""

    keep_times: bool = False
    """Keep the modification time of the file."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.sidecar not in ("never", "auto", "always"):
            raise OptionError(f"got sidecar {self.sidecar!r}; expected never, auto or always")
        if not self.language or not all(
            part.isascii() and part.isalnum() for part in self.language.split("-")
        ):
            raise OptionError(f"got language {self.language!r}; expected a tag such as de or en-GB")


@dataclass(frozen=True)
class Written:
    """The result of one write.

    Attributes:
        path: the image.
        target: the file that was written: the image or its sidecar.
        changed: False if the file had this text already.
        note: what the user should know, such as why a sidecar was written; "" if nothing.
    """

    path: Path
    target: Path
    changed: bool
    note: str = ""


class MetadataJournal:
    """A file of JSON lines that records each write, so that `undo` can revert it.

    Args:
        path: the file; it is created by the first write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, entry: dict[str, Any]) -> None:
        """Append one entry, durably.

        Raises:
            OSError: the file cannot be written.
        """
        with self.path.open("ab") as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; a line that was cut short by a crash is skipped.

        Raises:
            MetadataError: there is no such journal.
        """
        entries = []
        for line in read_file(self.path).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"target", "after", "restore"} <= entry.keys():
                entries.append(entry)
        return entries


def write_text(
    path: str | Path,
    alt: str,
    *,
    long_description: str = "",
    options: MetadataOptions | None = None,
    journal: MetadataJournal | None = None,
) -> Written:
    """Write alt text into an image file, or into its XMP sidecar.

    The file is replaced atomically, and only if its pixels and all other metadata are unchanged.

    Args:
        path: the image file.
        alt: the alt text; line breaks become spaces.
        long_description: also written, as `ExtDescrAccessibility`, unless empty.
        options: see `MetadataOptions`.
        journal: records the write for `undo`.

    Raises:
        ImageNotFoundError: there is no such file.
        MetadataError: the file is refused; the message says why. It is unchanged.
        MissingExtraError: exiv2 is not installed.
    """
    options = options or MetadataOptions()
    path = Path(path)
    prepared = prepare_text(path, alt, long_description=long_description, options=options)
    if prepared.values:
        prepared.write(options)
        if journal is not None:
            journal.add(
                {
                    "path": str(path.absolute()),
                    "target": str(prepared.target.absolute()),
                    "created": prepared.created,
                    "after": hashlib.sha256(prepared.after).hexdigest(),
                    "restore": prepared.earlier,
                }
            )
    return Written(path, prepared.target, changed=bool(prepared.values), note=prepared.note)


@dataclass(frozen=True)
class Prepared:
    """A verified change of an image file or a sidecar that is not written yet.

    Attributes:
        target: the file to write: the image or its sidecar.
        created: whether the sidecar does not exist yet.
        earlier, values: the changed fields, as they are and as they will be; None for a field that
            is missing. Empty if the target has the text already.
        before, after: the content of the target; `before` is empty if it is created.
        note: what the user should know; "" if nothing.
    """

    target: Path
    created: bool
    earlier: dict[str, Any]
    values: dict[str, Any]
    before: bytes = b""
    after: bytes = b""
    note: str = ""

    def write(self, options: MetadataOptions | None = None) -> None:
        """Replace the target atomically.

        Raises:
            MetadataError: it has changed, is read-only, or has several hard links.
        """
        expected = None if self.created else self.before
        _replace(self.target, self.after, options or MetadataOptions(), expected=expected)


def prepare_text(
    path: Path,
    alt: str,
    *,
    long_description: str = "",
    options: MetadataOptions | None = None,
) -> Prepared:
    """Prepare what `write_text` writes.

    Args:
        path, alt, long_description, options: as for `write_text`.

    Raises:
        ImageNotFoundError: there is no such file.
        MetadataError: the file is refused; the message says why.
        MissingExtraError: exiv2 is not installed.
    """
    options = options or MetadataOptions()
    alt, long_description = " ".join(alt.split()), " ".join(long_description.split())
    if not alt:
        raise MetadataError(str(path), "got an empty text; expected words")
    data = read_file(path)
    target, create, note = _target(path, data, options)
    old = [] if create else read_fields(target)
    values = _values(path, old, alt, long_description, options, sidecar=target != path)
    if not values:
        return Prepared(target, create, {}, {}, note=note)
    try:
        return replace(prepare_values(target, values, create=create), note=note)
    except MetadataError as error:
        if options.sidecar == "never" or target != path:
            raise
        options = replace(options, sidecar="always")
        again = prepare_text(path, alt, long_description=long_description, options=options)
        return replace(again, note=f"{error.reason}; the text is in {again.target.name}")


def prepare_values(target: Path, values: dict[str, Any], *, create: bool = False) -> Prepared:
    """Prepare a change of the fields that Cutline writes.

    Args:
        target: an image file or a sidecar.
        values: the new values by field; None removes a field.
        create: whether the target is a sidecar that does not exist yet.

    Raises:
        MetadataError: another field is given, or the target cannot be written without changing
            something else.
    """
    if not values.keys() <= _WRITABLE:
        raise MetadataError(str(target), f"got fields {sorted(values)}; expected those of alt text")
    data = b"" if create else read_file(target)
    old = [] if create else read_fields(target)
    if target.suffix.lower() == ".xmp":
        new = _edited_sidecar(target, values, create)
    else:
        new = _edited(target, data, values, old)
    by_key = {key: value for key, _, value in old}
    earlier = {key: by_key.get(key) for key in values}
    return Prepared(target, create, earlier, values, data, new)


def writable_fields(target: Path) -> dict[str, Any]:
    """The fields of a file that Cutline may write, as they are.

    Raises:
        MetadataError: the file cannot be read.
    """
    is_sidecar = target.suffix.lower() == ".xmp"
    if not is_sidecar and not has_fields(read_file(target)):
        return {}
    return {
        key: value
        for key, _, value in read_fields(target)
        if key in WRITABLE_TEXTS and (key.startswith("Xmp.") or not is_sidecar)
    }


def remove_sidecar(target: Path, values: dict[str, Any]) -> None:
    """Delete a sidecar that holds nothing but these fields.

    Raises:
        MetadataError: it holds something else.
    """
    found = {key: value for key, _, value in read_fields(target) if key.startswith("Xmp.")}
    if found != values or not values.keys() <= _WRITABLE:
        raise MetadataError(str(target), "it has other fields than those that were written")
    target.unlink()


def undo(journal: MetadataJournal) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Revert all writes of a journal.

    A file that has changed since its last write is left as it is.

    Returns:
        the files that were restored, and those that were not, with the reason.

    Raises:
        MetadataError: there is no such journal.
    """
    by_target: dict[str, list[dict[str, Any]]] = {}
    for entry in journal.entries():
        by_target.setdefault(entry["target"], []).append(entry)
    restored: list[Path] = []
    refused: list[tuple[Path, str]] = []
    for name, entries in reversed(by_target.items()):
        target = Path(name)
        try:
            data = read_file(target)
            if hashlib.sha256(data).hexdigest() != entries[-1]["after"]:
                raise MetadataError(name, "changed since it was written")
            if entries[0].get("created"):
                target.unlink()
            else:
                _replace(target, _restored(target, data, entries), MetadataOptions(), expected=data)
            restored.append(target)
        except (MetadataError, OSError) as error:
            refused.append((target, getattr(error, "reason", str(error))))
    return restored, refused


def _restored(target: Path, data: bytes, entries: list[dict[str, Any]]) -> bytes:
    """A file's bytes with every field as it was before the first of the entries."""
    values = {
        key: value
        for entry in reversed(entries)
        for key, value in entry["restore"].items()
        if key in _WRITABLE and isinstance(value, str | dict | None)
    }
    if target.suffix == ".xmp":
        return _edited_sidecar(target, values, create=False)
    return _edited(target, data, values, read_fields(target))


WRITABLE_TEXTS = frozenset({ALT, LONG_DESCRIPTION, DESCRIPTION, EXIF_DESCRIPTION, IIM_CAPTION})
"""The fields of texts that `prepare_values` may write."""

_WRITABLE = WRITABLE_TEXTS | {_IIM_CHARSET}


def _target(path: Path, data: bytes, options: MetadataOptions) -> tuple[Path, bool, str]:
    """Which file to write, whether to create it, and a note; refuses what cannot be written."""
    existing = find_sidecar(path)
    sidecar, create = existing or new_sidecar(path), existing is None
    if options.sidecar == "always":
        return sidecar, create, ""
    reason = _refusal(path, data)
    if reason is None:
        if existing is not None:
            reading = read_text(path)
            if reading.alt_source and ALT in {key for key, _, _ in read_fields(existing)}:
                return existing, False, "the text is in the sidecar"
        return path, False, ""
    signed = reason == _SIGNED
    if signed or options.sidecar == "never":
        hint = "; write a sidecar instead" if signed else ""
        raise MetadataError(str(path), reason + hint)
    return sidecar, create, f"{reason}; the text is in {sidecar.name}"


_SIGNED = "it has Content Credentials (C2PA), whose signature a write would break"


def _refusal(path: Path, data: bytes) -> str | None:
    """Why text cannot be embedded in this file, or None."""
    found = container.kind(data)
    if is_raw(path):
        return "a raw file stays as the camera wrote it"
    if found in (None, "BigTIFF"):
        return f"{found or 'this format'} cannot hold embedded text here"
    if found == "TIFF":
        if container.tiff_has_content_credentials(data):
            return _SIGNED
        return None
    try:
        cut = container.parts(data)
        if found == "JPEG":
            container.mpf_images(data, cut)
    except ValueError as error:
        return f"the file is damaged: {error}"
    if container.has_content_credentials(data, cut):
        return _SIGNED
    if found == "HEIF":
        if container.heif_alt_text(data):
            return "it has HEIF's own alternative text, which would contradict the new one"
        if shutil.which("exiftool") is None:
            return "AVIF and HEIC need exiftool, which is not installed"
    return None


def _values(
    path: Path,
    old: list[Field],
    alt: str,
    long_description: str,
    options: MetadataOptions,
    *,
    sidecar: bool,
) -> dict[str, Any]:
    """The fields to set; empty if nothing changes.

    Raises:
        MetadataError: the file has another text in this language.
    """
    by_key = {key: value for key, _, value in old}
    wanted = {ALT: alt}
    if long_description:
        wanted[LONG_DESCRIPTION] = long_description
    if options.description:
        wanted[DESCRIPTION] = alt
    values: dict[str, Any] = {}
    for key, text in wanted.items():
        texts = dict(by_key.get(key) or {})
        present = texts.get(options.language, "").strip()
        if present == text:
            continue
        if present and not options.overwrite and not is_camera_default(present):
            name = key.rpartition(".")[2]
            raise MetadataError(
                str(path), f"{name} has a text already: {present!r}; pass overwrite to replace it"
            )
        texts[options.language] = text
        ordered = sorted(texts.items(), key=lambda item: item[0] != DEFAULT_LANGUAGE)
        values[key] = dict(ordered)
    if options.description and DESCRIPTION in values and not sidecar:
        values[EXIF_DESCRIPTION] = alt
        if any(key.startswith("Iptc.") for key in by_key):
            encoded = alt.encode()[:_IIM_MAX_BYTES]
            values[IIM_CAPTION] = encoded.decode("utf-8", "ignore")
            values[_IIM_CHARSET] = _UTF8_ESCAPE
    return values


def _edited(path: Path, data: bytes, values: dict[str, Any], old: list[Field]) -> bytes:
    """The file's new bytes, verified against the old ones.

    Raises:
        MetadataError: it cannot be written without changing something else.
    """
    with tempfile.TemporaryDirectory(prefix="cutline-") as folder:
        copy = Path(folder) / f"copy{path.suffix.lower()}"
        copy.write_bytes(data)
        if container.kind(data) == "HEIF":
            _run_exiftool(copy, values)
        else:
            write_fields(copy, values)
        new = copy.read_bytes()
        _verify_fields(path, old, read_fields(copy), values)
    _verify_content(path, data, new)
    return new


def _edited_sidecar(target: Path, values: dict[str, Any], create: bool) -> bytes:
    with tempfile.TemporaryDirectory(prefix="cutline-") as folder:
        copy = Path(folder) / "sidecar.xmp"
        old: list[Field] = []
        if not create:
            copy.write_bytes(read_file(target))
            old = read_fields(copy)
        write_fields(copy, values, create=create)
        if not create:
            _verify_fields(target, old, read_fields(copy), values)
        return copy.read_bytes()


def _run_exiftool(copy: Path, values: dict[str, Any]) -> None:
    names = {
        ALT: "XMP-iptcCore:AltTextAccessibility",
        LONG_DESCRIPTION: "XMP-iptcCore:ExtDescrAccessibility",
        DESCRIPTION: "XMP-dc:Description",
        EXIF_DESCRIPTION: "IFD0:ImageDescription",
    }
    arguments = ["-charset", "filename=utf8", "-overwrite_original"]
    for key, value in values.items():
        if key not in names:
            continue
        arguments.append(f"-{names[key]}=")
        for language, text in value.items() if isinstance(value, dict) else [("", value)]:
            suffix = "" if language in ("", DEFAULT_LANGUAGE) else f"-{language}"
            arguments.append(f"-{names[key]}{suffix}={text or ''}")
    try:
        done = subprocess.run(
            ["exiftool", "-@", "-"],
            input="\n".join([*arguments, str(copy), ""]).encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MetadataError(str(copy), f"exiftool failed: {error}") from error
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise MetadataError(str(copy), f"exiftool: {reason[-1] if reason else 'failed'}")


def _verify_fields(
    path: Path, before: list[Field], after: list[Field], values: dict[str, Any]
) -> None:
    """Refuse a write that changed another field, or did not set the wanted ones."""

    def others(fields: list[Field]) -> list[Field]:
        return sorted(
            (
                each
                for each in fields
                if each[0] not in values
                and not each[0].endswith(_OFFSETS)
                and not each[0].startswith("Xmp.x.")
            ),
            key=repr,
        )

    if others(before) != others(after):
        old, new = dict(map(_named, others(before))), dict(map(_named, others(after)))
        names = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        raise MetadataError(str(path), f"a write would change {', '.join(names[:3]) or 'a field'}")
    found = {key: value for key, _, value in after}
    for key, value in values.items():
        same = (found.get(key) or None) == (value or None)
        if not same and key not in (_IIM_CHARSET,):
            raise MetadataError(str(path), f"{key} could not be read back as written")


def _named(field: Field) -> tuple[str, Any]:
    return field[0], (field[1], repr(field[2]))


def _verify_content(path: Path, before: bytes, after: bytes) -> None:
    """Refuse a write that changed anything but metadata."""
    found = container.kind(before)
    if found in ("JPEG", "PNG", "WebP"):
        old, new = container.parts(before), container.parts(after)
        if container.content(old) != container.content(new):
            raise MetadataError(str(path), "a write would change more than metadata")
        if found == "JPEG" and _further_images(before, old) != _further_images(after, new):
            raise MetadataError(str(path), "a write would break its further images (MPF)")
    elif _frames(path, before) != _frames(path, after):
        raise MetadataError(str(path), "a write would change its pixels")


def _further_images(data: bytes, found: list[container.Part]) -> list[bytes] | None:
    try:
        return container.mpf_images(data, found)
    except ValueError:
        return None


def _frames(path: Path, data: bytes) -> list[str]:
    """A checksum of the pixels of each frame or page."""
    import io

    from PIL import Image, ImageSequence

    try:
        if container.kind(data) == "HEIF":
            return [hashlib.sha256(load_image(data).tobytes()).hexdigest()]
        with Image.open(io.BytesIO(data)) as image:
            return [
                hashlib.sha256(repr((page.mode, page.size)).encode() + page.tobytes()).hexdigest()
                for page in ImageSequence.Iterator(image)
            ]
    except Exception as error:
        raise MetadataError(str(path), f"its pixels cannot be compared: {error}") from error


def _replace(target: Path, new: bytes, options: MetadataOptions, *, expected: bytes | None) -> None:
    """Replace a file atomically, unless it changed meanwhile, is read-only or has hard links."""
    try:
        before = target.stat() if target.exists() else None
        check_replaceable(target)
        if before is not None:
            if expected is not None and target.read_bytes() != expected:
                raise MetadataError(str(target), "it changed while it was being written")
        elif expected is not None:
            raise MetadataError(str(target), "it was deleted while it was being written")
        with replacing(target) as file:
            file.write(new)
        if before is not None and options.keep_times:
            os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    except OutputError as error:
        raise MetadataError(str(target), str(error)) from error
    except OSError as error:
        if isinstance(error, MetadataError):
            raise
        raise MetadataError(str(target), f"cannot be written: {error.strerror}") from error
