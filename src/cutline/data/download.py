"""Downloads public caption sets, or says which files to put where."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from cutline.data import Collection, read
from cutline.errors import DataError, OptionError

CHUNK_BYTES = 1 << 20
Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes of it that are there, and all its bytes (0 if unknown)."""


@dataclass(frozen=True)
class Archive:
    """A .zip of a public set."""

    url: str
    checksum: str = ""
    """`md5:` or `sha1:` and digits, as published; "" if there is none."""
    members: tuple[str, ...] = ("*",)
    """Patterns of the files to unpack."""

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.url).name


@dataclass(frozen=True)
class PublicSet:
    """A public caption set."""

    name: str
    archives: tuple[Archive, ...]
    expected: tuple[str, ...]
    """Patterns of files that a complete set has."""
    by_hand: str
    """The files to put into the folder by hand if they cannot be downloaded."""


_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
_COCO = "http://images.cocodataset.org"
_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
PUBLIC = {
    each.name: each
    for each in (
        PublicSet(
            "flickr8k",
            (
                Archive(f"{_FLICKR8K}/Flickr8k_text.zip", members=("Flickr*.txt",)),
                Archive(f"{_FLICKR8K}/Flickr8k_Dataset.zip", members=("Flicker8k_Dataset/*.jpg",)),
            ),
            ("Flickr8k.token.txt", "Flickr_8k.trainImages.txt", "Flicker8k_Dataset/*.jpg"),
            "Flicker8k_Dataset/*.jpg (8,091 images), Flickr8k.token.txt and "
            "Flickr_8k.{train,dev,test}Images.txt of the release by Hodosh et al. (2013); or of "
            "Kaggle's adityajn105/flickr8k Images/*.jpg and captions.txt, with the lists beside it",
        ),
        PublicSet(
            "flickr30k",
            (Archive(_KARPATHY, members=("dataset_flickr30k.json",)),),
            ("dataset_flickr30k.json", "flickr30k-images/*.jpg"),
            "flickr30k-images/*.jpg (31,783 images, given on request by "
            "https://shannon.cs.illinois.edu/DenotationGraph/ or by Kaggle's "
            f"hsankesara/flickr-image-dataset), and dataset_flickr30k.json from {_KARPATHY}",
        ),
        PublicSet(
            "coco2014",
            (
                Archive(_KARPATHY, members=("dataset_coco.json",)),
                Archive(
                    f"{_COCO}/annotations/annotations_trainval2014.zip",
                    "md5:0a379cfc70b0e71301e0f377548639bd",
                    ("annotations/captions_*.json",),
                ),
                Archive(f"{_COCO}/zips/val2014.zip", "md5:a3d79f5ed8d289b7a7554ce06a5782b3"),
                Archive(f"{_COCO}/zips/train2014.zip", "md5:0da8c0bd3d6becc4dcb32757491aca88"),
            ),
            ("dataset_coco.json", "train2014/*.jpg", "val2014/*.jpg"),
            "train2014/*.jpg (82,783 images) and val2014/*.jpg (40,504) from "
            f"{_COCO}/zips/, and dataset_coco.json with Karpathy's splits from {_KARPATHY}",
        ),
        PublicSet(
            "coco2017",
            (
                Archive(
                    f"{_COCO}/annotations/annotations_trainval2017.zip",
                    "sha1:8551ee4bb5860311e79dace7e79cb91e432e78b3",
                    ("annotations/captions_*.json",),
                ),
                Archive(
                    f"{_COCO}/zips/val2017.zip", "sha1:4950dc9d00dbe1c933ee0170f5797584351d2a41"
                ),
                Archive(
                    f"{_COCO}/zips/train2017.zip", "sha1:10ad623668ab00c62c096f0ed636d6aff41faca5"
                ),
            ),
            ("annotations/captions_train2017.json", "train2017/*.jpg", "val2017/*.jpg"),
            "train2017/*.jpg (118,287 images) and val2017/*.jpg (5,000) from "
            f"{_COCO}/zips/, and annotations/captions_*2017.json from {_COCO}/annotations/",
        ),
    )
}


def prepare(
    name: str, folder: Path, *, progress: Progress = lambda name, done, total: None
) -> Collection:
    """Download a public caption set into a folder, and read it.

    Each archive is downloaded under another name, resumed if an earlier attempt stopped, verified,
    unpacked and removed. What was downloaded, with its SHA-256, is written to
    `prepared.json`; without a published checksum, later downloads are compared with the first one.

    Args:
        name: one of `PUBLIC`.
        folder: created if it is missing. Archives that are in there already are not downloaded.
        progress: called as downloads proceed.

    Raises:
        OptionError: there is no set of that name.
        DataError: it cannot be fetched here; the message says which files to put where.
    """
    if name not in PUBLIC:
        raise OptionError(f"got set {name!r}; expected one of {', '.join(PUBLIC)}")
    wanted = PUBLIC[name]
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "prepared.json"
    known = _read_record(record)
    if not _complete(wanted, folder):
        for archive in wanted.archives:
            if known.get(archive.url, {}).get("state") == "unpacked":
                continue
            try:
                file = _fetch(archive, folder, progress)
            except (OSError, HTTPException) as error:
                raise DataError(
                    f"got no answer for {archive.url} ({error}); to go on, run the same command, "
                    f"or put into {folder}: {wanted.by_hand}"
                ) from error
            before = known.get(archive.url, {}).get("sha256", "")
            sha256 = _verified(archive, file, before)
            known[archive.url] = {"sha256": sha256, "state": "fetched"}
            record.write_text(json.dumps(known, indent=2) + "\n")
            _unpack(file, archive, folder)
            file.unlink()
            known[archive.url]["state"] = "unpacked"
            record.write_text(json.dumps(known, indent=2) + "\n")
        if not _complete(wanted, folder):
            raise DataError(
                f"got {folder} without {' or '.join(_missing(wanted, folder))}; "
                f"expected there: {wanted.by_hand}"
            )
    return read(folder)


def _read_record(path: Path) -> dict[str, dict[str, str]]:
    """What was downloaded before; nothing if the record is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return (
        {k: v for k, v in content.items() if isinstance(v, dict)}
        if isinstance(content, dict)
        else {}
    )


def _missing(wanted: PublicSet, folder: Path) -> list[str]:
    return [each for each in wanted.expected if next(folder.glob(each), None) is None]


def _complete(wanted: PublicSet, folder: Path) -> bool:
    """Whether the set can be read as it is."""
    if _missing(wanted, folder) and not (folder / "captions.txt").exists():
        return False
    with suppress(DataError):
        read(folder)
        return True
    return False


def _fetch(archive: Archive, folder: Path, progress: Progress) -> Path:
    """Download an archive, from where an earlier attempt stopped."""
    final = folder / archive.name
    if final.is_file():
        return final
    partial = folder / f"{archive.name}.part"
    there = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "cutline"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        answer: HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(archive.url, headers=headers), timeout=30
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to fetch
            raise
        return partial.replace(final)
    with answer, partial.open("ab") as file:
        if answer.status != 206:
            there = 0
            file.truncate(0)
        total = there + int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(CHUNK_BYTES):
            file.write(chunk)
            there += len(chunk)
            progress(archive.name, there, total)
    if there < total:
        raise ConnectionError(f"got {there:,} of {total:,} bytes")
    return partial.replace(final)


def _verified(archive: Archive, file: Path, before: str) -> str:
    """SHA-256 of a verified archive; a wrong one is renamed."""
    kind, _, expected = archive.checksum.partition(":")
    sums = {"sha256": hashlib.sha256()} | ({kind: hashlib.new(kind)} if kind else {})
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            for each in sums.values():
                each.update(chunk)
    sha256 = sums["sha256"].hexdigest()
    wrong = kind and sums[kind].hexdigest() != expected
    if wrong or (before and before != sha256):
        moved = file.replace(file.with_suffix(".wrong"))
        raise DataError(
            f"got {moved}, fetched from {archive.url}, with "
            f"{kind or 'sha256'} {sums[kind or 'sha256'].hexdigest()}; expected "
            f"{expected or before}: fetch it again"
        )
    return sha256


def _unpack(file: Path, archive: Archive, folder: Path) -> None:
    """Unpack the wanted files, except those that are there in full."""
    try:
        with zipfile.ZipFile(file) as packed:
            for member in packed.infolist():
                name = PurePosixPath(member.filename)
                wanted = any(fnmatch(member.filename, each) for each in archive.members)
                outside = name.is_absolute() or ".." in name.parts
                if member.is_dir() or not wanted or outside or "__MACOSX" in name.parts:
                    continue
                target = folder / name
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f"{target.name}.part")
                with packed.open(member) as source, temporary.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                temporary.replace(target)
    except zipfile.BadZipFile as error:
        moved = file.replace(file.with_suffix(".wrong"))
        raise DataError(f"got {moved}, which is no .zip: {error}; fetch it again") from error
