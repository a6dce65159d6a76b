"""The record of a build: which images are done, and what was written, so that it can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cutline.atomic import write_whole
from cutline.data.build_plan import BuildOptions
from cutline.data.collection import Collection, Example
from cutline.data.readers import read
from cutline.errors import CutlineError, DataError
from cutline.jsonl import RecordFile
from cutline.similarity import Fingerprint, fingerprint

JOURNAL = "build.jsonl"
BASELINE = "built.json"
"""The captions as `build` wrote them, by which edits made by hand are recognised."""


@dataclass(frozen=True)
class Made:
    """An image that is in the set."""

    print: Fingerprint
    """Of the source image."""
    jpeg_sha256: str
    """Of the file in the set; "" if a version before 0.2 wrote it."""

    @property
    def file_name(self) -> str:
        """The file's name in the set."""
        return f"{self.print.sha256[:20]}.jpg"


class Journal:
    """Appends a line for each image that is done; damaged lines are ignored.

    Args:
        output: the set's folder.
        source: what the set is built from.
        options: how images are written.
        names: identifiers of the images to build.
        force: whether a set of another source, or with other options, is replaced.

    Attributes:
        made: the images that an earlier, interrupted build made and that are still sound.
        damaged: how many lines or images were damaged, and are made again.

    Raises:
        DataError: the folder holds something else, a set of another source, or one that was
            begun with other picture options; `force` allows the latter two.
    """

    def __init__(
        self,
        output: Path,
        source: Path,
        options: BuildOptions,
        *,
        names: Container[str] = (),
        force: bool = False,
    ) -> None:
        self.made: dict[str, Made] = {}
        self.damaged = 0
        self.earlier: set[str] = set()
        """File names of all images that earlier builds made."""
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"got {output}: {error.strerror}; expected a new folder") from error
        self._path = output / JOURNAL
        header = {"side_px": options.side_px, "quality": options.quality}
        header_now = header | {"from": str(source.resolve())}
        if self._path.is_file():
            header_then, rows = self._read()
            if not force and header_then is not None:
                _refuse_other(output, header_then, header_now)
                known = [row for row in rows if row.get("source") in names]
                if "from" not in header_then and rows and not known:
                    raise DataError(
                        f"got {output}, which an earlier version built from another source; "
                        "expected the same source, another folder, or --force, which replaces its "
                        "images"
                    )
            if header_then is not None and {k: header_then.get(k) for k in header} == header:
                self._take(rows, output)
        elif any(output.iterdir()):
            raise DataError(f"got {output}, which holds something else; expected a new folder")
        lines = [header_now, *(_row(name, made) for name, made in self.made.items())]
        write_whole(self._path, "".join(_line(line) for line in lines))
        self._file = RecordFile(self._path)

    def _read(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        header, rows = None, []
        for line in self._path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                self.damaged += 1
            elif "side_px" in row:
                header = row
            else:
                rows.append(row)
        return header, rows

    def _take(self, rows: list[dict[str, Any]], output: Path) -> None:
        for row in rows:
            try:
                name, made = _made(row)
            except (KeyError, TypeError, ValueError, AttributeError):
                self.damaged += 1
                continue
            self.earlier.add(made.file_name)
            path = output / "images" / made.file_name
            if _sound(path, made.jpeg_sha256):
                self.made[name] = made
            else:
                self.made.pop(name, None)
                self.damaged += path.exists()

    def write(self, name: str, made: Made) -> None:
        """Note that an image is done."""
        self._file.append(_row(name, made))

    def close(self) -> None:
        """Bring the journal to the disk."""
        self._file.close()


def _refuse_other(output: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue a set that was begun with other options or from another source.

    Raises:
        DataError: it was.
    """
    before = {name: then.get(name) for name in ("side_px", "quality")}
    wanted = {name: now[name] for name in before}
    if before != wanted:
        raise DataError(
            f"got {wanted} for {output}, begun with {before}; expected the same, another folder, "
            "or --force to build it again"
        )
    if "from" in then and then["from"] != now["from"]:
        raise DataError(
            f"got {output}, which was built from {then['from']}; expected the same source, another "
            "folder, or --force, which replaces its images"
        )


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _row(name: str, made: Made) -> dict[str, Any]:
    bits, colours = np.packbits(made.print.bits).tobytes(), made.print.colours.tobytes()
    return {
        "source": name,
        "sha256": made.print.sha256,
        "bits": bits.hex(),
        "colours": colours.hex(),
        "jpeg": made.jpeg_sha256,
    }


def _made(row: dict[str, Any]) -> tuple[str, Made]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["bits"]), np.uint8)).astype(np.bool_)
    colours = np.frombuffer(bytes.fromhex(row["colours"]), np.uint8).reshape(8, 8, 3)
    sha256 = row["sha256"]
    if len(bits) != 128 or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(sha256)
    return str(row["source"]), Made(Fingerprint(sha256, bits, colours), str(row.get("jpeg", "")))


def _sound(path: Path, sha256: str) -> bool:
    """Whether an image file of the set is there and undamaged."""
    try:
        content = path.read_bytes()
        if sha256:
            return hashlib.sha256(content).hexdigest() == sha256
        fingerprint(content)
    except (OSError, CutlineError):
        return False
    return True


@dataclass(frozen=True)
class Edits:
    """What a person changed in `captions.json` since the last build.

    Attributes:
        captions: by file name; images whose captions or authors were changed, with the new ones.
        splits: by file name; images that were moved to another split.
        removed: file names of images that were deleted from the file.
        added: by file name; images that were added to the file, with their split.
    """

    captions: dict[str, Example]
    splits: dict[str, str]
    removed: frozenset[str]
    added: dict[str, tuple[str, Example]]

    @classmethod
    def read(cls, output: Path) -> Edits:
        """Compare `captions.json` with what the last build wrote.

        Without a record of the last build, all captions in the file count as edited.

        Raises:
            DataError: `captions.json` is damaged.
        """
        path, baseline = output / "captions.json", output / BASELINE
        if not path.is_file():
            return cls({}, {}, frozenset(), {})
        collection = read(path, faults="keep")
        now = {
            example.image.name: (split, _without_blanks(example))
            for split, examples in collection.splits.items()
            for example in examples
        }
        try:
            then = {
                k: (v[0], list(v[1]), v[2:]) for k, v in json.loads(baseline.read_bytes()).items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            captioned = {name: each for name, (_, each) in now.items() if each.captions}
            return cls(captioned, {}, frozenset(), {})
        changed = {
            name: each
            for name, (_, each) in now.items()
            if name in then
            and (
                then[name][1] != list(each.captions)
                or (then[name][2] or [list(each.written_by)]) != [list(each.written_by)]
            )
        }
        return cls(
            changed,
            {k: split for k, (split, _) in now.items() if k in then and then[k][0] != split},
            frozenset(then.keys() - now.keys()),
            {name: each for name, each in now.items() if name not in then},
        )


def _without_blanks(example: Example) -> Example:
    authors = example.written_by or ("",) * len(example.captions)
    pairs = [pair for pair in zip(example.captions, authors, strict=True) if pair[0]]
    texts, authors = tuple(text for text, _ in pairs), tuple(author for _, author in pairs)
    return Example(example.image, texts, written_by=authors if any(authors) else ())


def write_baseline(collection: Collection, edits: Edits, output: Path) -> None:
    """Record what this build wrote, without the edits, so that they count as such again."""
    content = {
        example.image.name: [split, example.captions, example.written_by]
        for split, examples in collection.splits.items()
        for example in examples
    }
    for name in edits.removed:
        content[name] = ["", ()]
    write_whole(output / BASELINE, json.dumps(content, ensure_ascii=False) + "\n")
