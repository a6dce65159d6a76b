"""A caption set of one's own, in COCO's form, from pictures named in a table or a list."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cutline.atomic import write_whole
from cutline.data import (
    Collection,
    Example,
    Fingerprint,
    duplicates,
    fingerprint,
    read,
    split_by_image,
    write_coco,
)
from cutline.data.inspection import MAX_DISTANCE
from cutline.data.readers import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    Pictures,
    column_named,
    header,
    json_lines,
    table,
)
from cutline.errors import (
    CutlineError,
    DataError,
    ImageError,
    ImageNotFoundError,
    ImageUnreadableError,
)
from cutline.image import load_image

if TYPE_CHECKING:
    from cutline.fetch import Fetcher

RATING_COLUMNS = ("rating", "stars", "star_rating", "overall", "score")
TITLE_COLUMNS = ("title", "review_title", "summary", "headline")
REVIEW_COLUMNS = ("review", "review_text", "review_body", "reviewtext", "text", "body", "content")

Fetch = Callable[[str], bytes]


@dataclass(frozen=True)
class BuildOptions:
    """What is kept, and how it is written."""

    side_px: int = 640
    """The longest side of a picture; smaller ones stay as they are."""

    captions: int = 5
    """The most captions of an image; the first ones are kept."""

    min_stars: float = 3.0
    """Reviews with fewer stars are left out."""

    max_stars: float = 5.0
    """Reviews with more stars, which cannot be, are left out."""

    min_words: int = 3
    """A review's title or sentence with fewer words says nothing of a picture."""

    max_words: int = 40
    """One with more is no caption."""

    max_distance: int = MAX_DISTANCE
    """Pictures that differ in so many of 128 bits count as the same; -1 keeps all but identical."""

    quality: int = 90
    """Of the JPEG files, 1 to 95."""

    seed: int = 0
    """Of the split into train, dev and test, by image."""

    licence: str = "unknown"
    """Under which terms pictures and captions may be used."""


@dataclass(frozen=True)
class Dropped:
    """Something that is not in the set, and why."""

    source: str
    what: str
    """`image` or `caption`."""
    reason: str
    """One of few, to be counted."""
    detail: str = ""


@dataclass
class Plan:
    """What a source asks for: pictures by where they are, each with its captions."""

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(frozen=True)
class BuildReport:
    """What became of a source."""

    images: int
    captions: int
    uncaptioned: int
    """Images without a caption: write some into captions.json."""
    splits: dict[str, int]
    dropped: tuple[Dropped, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """How many images and captions were dropped for each reason, most first."""
        counts = Counter(f"{each.what}: {each.reason}" for each in self.dropped)
        return dict(counts.most_common())


def plan(source: Path, options: BuildOptions) -> Plan:
    """Read which pictures and captions a source names.

    Args:
        source: a table or JSONL with an image and a caption column, or with an image, a rating and
            a title or review column; a list of URLs or paths, each with a TAB and a caption or
            alone; or whatever `cutline.data.read` reads. Paths are relative to the source.
        options: which reviews are kept.

    Raises:
        DataError: it is none of these.
    """
    if source.is_dir() or source.suffix.lower() == ".json":
        collection = read(source, unsplit=True, faults="keep")
        examples = collection.split(*collection.splits)
        return _settled(Plan(Path(), {str(each.image): [*each.captions] for each in examples}))
    if not source.is_file():
        raise DataError(f"got {source}, which does not exist; expected a table or a list of images")
    found = Plan(source.parent)
    lines = source.suffix.lower() in (".jsonl", ".ndjson")
    if lines or column_named(dict.fromkeys(header(source)), IMAGE_COLUMNS) is not None:
        for row in json_lines(source) if lines else table(source):
            _add_row(found, row, source, options)
    else:
        for line in source.read_text(encoding="utf-8-sig").splitlines():
            name, _, caption = line.partition("\t")
            if name.strip() and not name.startswith("#"):
                _add(found, name.strip(), [caption])
    return _settled(found)


def _settled(found: Plan) -> Plan:
    """Without images that have no caption, unless none has any: then someone will write them."""
    if any(found.images.values()):
        for name in [name for name, captions in found.images.items() if not captions]:
            del found.images[name]
            found.dropped.append(Dropped(name, "image", "no caption"))
    return found


def _add_row(found: Plan, row: Mapping[str, Any], source: Path, options: BuildOptions) -> None:
    image, caption = column_named(row, IMAGE_COLUMNS), column_named(row, ("caption", "captions"))
    rating = column_named(row, RATING_COLUMNS)
    title, review = column_named(row, TITLE_COLUMNS), column_named(row, REVIEW_COLUMNS)
    name = str(row.get(image or "") or "").strip()
    if not name:
        found.dropped.append(Dropped(str(dict(row))[:80], "image", "no image in its row"))
    elif caption is None and rating is not None and (title or review):
        try:
            stars = float(row[rating])
        except (TypeError, ValueError):
            stars = float("nan")
        if not options.min_stars <= stars <= options.max_stars:
            kept = f"{options.min_stars:g} to {options.max_stars:g} stars"
            found.images.setdefault(name, [])
            found.dropped.append(Dropped(name, "caption", f"not {kept}", str(row[rating])))
            return
        texts = [_plain(row.get(title or "")), _first_sentence(_plain(row.get(review or "")))]
        fitting = [
            text for text in texts if options.min_words <= len(text.split()) <= options.max_words
        ]
        if not fitting:
            reason = f"title and sentence not of {options.min_words} to {options.max_words} words"
            found.dropped.append(Dropped(name, "caption", reason, texts[0] or texts[1][:80]))
        _add(found, name, fitting[:1])
    else:
        column = caption or column_named(row, CAPTION_COLUMNS)
        if column is None:
            raise DataError(
                f"got columns {', '.join(map(str, row))} in {source}; expected one for the caption,"
                " or a rating with a title or a review"
            )
        cell = row.get(column)
        _add(found, name, cell if isinstance(cell, list) else [cell])


def _add(found: Plan, name: str, captions: Iterable[Any]) -> None:
    found.images.setdefault(name, []).extend(filter(None, map(_plain, captions)))


def _plain(cell: Any) -> str:
    """A text without markup and on one line."""
    text = re.sub(r"<[^>]{0,200}>", " ", str(cell if cell is not None else ""))
    return " ".join(html.unescape(text).split())


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def build(
    planned: Plan,
    output: Path,
    options: BuildOptions = BuildOptions(),
    *,
    fetch: Fetch | None = None,
    workers: int = 8,
    progress: Callable[[int], None] = lambda _: None,
) -> BuildReport:
    """Fetch, verify, resize and dedupe pictures, and write them with their captions.

    `output` gets `images/`, `captions.json` (see `write_coco`), `report.json`, `dropped.csv` and
    `build.jsonl`, by which an interrupted build goes on: pictures that are there are not fetched
    again, those that failed are. Of a picture that the source says nothing of, what someone wrote
    into `captions.json` stays.

    Args:
        planned: from `plan`.
        output: a folder, new or of an interrupted build with the same picture options.
        options: what is kept, and how it is written.
        fetch: gives the bytes of a URL; by default `cutline.fetch`.
        workers: pictures worked on at a time.
        progress: called with the number of pictures done since the last call.

    Raises:
        DataError: no picture is left, or the folder holds a build with other options.
    """
    journal = _Journal(output, options)
    known = {name: seen for name, seen in journal.seen.items() if name in planned.images}
    progress(len(known))
    maker = _Maker(planned.root, output / "images", options, fetch)
    dropped = list(planned.dropped)
    waiting = [name for name in planned.images if name not in known]
    pool = ThreadPoolExecutor(workers)
    try:
        for name, made in zip(waiting, pool.map(maker.make, waiting), strict=True):
            if isinstance(made, CutlineError):
                reason = made.reason if isinstance(made, ImageError) else str(made)
                dropped.append(Dropped(name, "image", "cannot be had or read", reason))
            else:
                known[name] = made
                journal.write(name, made)
            progress(1)
    finally:
        pool.shutdown(cancel_futures=True)
        maker.close()
        journal.close()
    kept = _distinct(planned, known, options, dropped)
    if not kept:
        raise DataError(
            f"got no picture out of {len(planned.images)}; "
            + (f"{dropped[0].source}: {dropped[0].detail}" if dropped else "expected some")
        )
    paths, written = {name: maker.path(known[name]) for name in kept}, _written(output)
    examples = tuple(
        Example(paths[name], tuple(captions) or written.get(paths[name].name, ()))
        for name, captions in kept.items()
    )
    collection = split_by_image(
        Collection(output.resolve().name, options.licence, {"all": examples}), seed=options.seed
    )
    write_coco(collection, output)
    wanted = {example.image.name for example in examples}
    for file in (output / "images").iterdir():
        if file.name not in wanted:
            file.unlink()
    report = BuildReport(
        images=len(examples),
        captions=sum(len(example.captions) for example in examples),
        uncaptioned=sum(not example.captions for example in examples),
        splits={name: len(some) for name, some in collection.splits.items()},
        dropped=tuple(dropped),
    )
    _write_report(report, output)
    return report


def _written(output: Path) -> dict[str, tuple[str, ...]]:
    """The captions in a set that was built before, by the picture's file name."""
    path = output / "captions.json"
    if not path.is_file():
        return {}
    before = read(path, unsplit=True, faults="keep").split("all")
    return {example.image.name: tuple(filter(None, example.captions)) for example in before}


def _distinct(
    planned: Plan, known: Mapping[str, Fingerprint], options: BuildOptions, dropped: list[Dropped]
) -> dict[str, list[str]]:
    """Each picture once, the first of its kind, with at most so many different captions."""
    names = [name for name in planned.images if name in known]
    captions = {name: list(planned.images[name]) for name in names}
    same: dict[str, str] = {}
    for i, j, distance in duplicates([known[name] for name in names], max(0, options.max_distance)):
        first, second = names[i], names[j]
        identical = known[first].sha256 == known[second].sha256
        if first in same or second in same or (not identical and options.max_distance < 0):
            continue
        same[second] = first
        if identical:
            captions[first] += captions[second]
        reason = "identical to another" if identical else f"nearly another, {distance} bits apart"
        kind = reason.partition(",")[0]
        dropped.append(Dropped(second, "image", kind, f"{first}: {reason}"))
    kept = {}
    for name in names:
        if name not in same:
            different = list({text.casefold(): text for text in reversed(captions[name])}.values())
            different.reverse()
            kept[name] = different[: options.captions]
            for text in different[options.captions :]:
                reason = f"beyond the first {options.captions}"
                dropped.append(Dropped(name, "caption", reason, text))
    return kept


class _Maker:
    """Turns the name of a picture into a file of the set."""

    def __init__(
        self, root: Path, folder: Path, options: BuildOptions, fetch: Fetch | None
    ) -> None:
        self._pictures = Pictures(root, None)
        self._folder, self._options = folder, options
        self._fetch = fetch
        self._fetcher: Fetcher | None = None
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, seen: Fingerprint) -> Path:
        """Where the picture of that fingerprint is."""
        return self._folder / f"{seen.sha256[:20]}.jpg"

    def make(self, name: str) -> Fingerprint | CutlineError:
        """Write one picture, and say what it looks like; or why it cannot be."""
        try:
            content = self._bytes(name)
            seen = fingerprint(content)
            image = load_image(content, around_px=self._options.side_px)
        except CutlineError as error:
            return error
        side = self._options.side_px
        if max(image.size) > side:
            image = image.copy()
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=self._options.quality, optimize=True)
        write_whole(self.path(seen), jpeg.getvalue(), synced=False)
        return seen

    def _bytes(self, name: str) -> bytes:
        if re.match(r"https?://", name, re.IGNORECASE):
            return self._fetched(name)
        path = self._pictures.find(name, anywhere=False)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ImageNotFoundError(str(path), "no such file") from error
        except OSError as error:
            raise ImageUnreadableError(str(path), error.strerror or "cannot be read") from error

    def _fetched(self, url: str) -> bytes:
        with self._lock:
            if self._fetch is None:
                from cutline.fetch import Fetcher

                self._fetcher = fetcher = Fetcher()
                self._fetch = lambda each: fetcher.fetch(each).content
        return self._fetch(url)

    def close(self) -> None:
        """Let go of connections."""
        if self._fetcher is not None:
            self._fetcher.close()


class _Journal:
    """Which pictures were made, line by line, so that an interrupted build goes on."""

    def __init__(self, output: Path, options: BuildOptions) -> None:
        output.mkdir(parents=True, exist_ok=True)
        path = output / "build.jsonl"
        header = {"side_px": options.side_px, "quality": options.quality}
        self.seen: dict[str, Fingerprint] = {}
        whole = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                self._take(json.loads(line), header, output)
        elif any(output.iterdir()):
            raise DataError(f"got {output}, which holds something else; expected a new folder")
        self._file = path.open("ab")
        self._file.truncate(whole)
        if not whole:
            self._append(header)

    def _take(self, row: dict[str, Any], header: dict[str, int], output: Path) -> None:
        if "source" not in row:
            if row != header:
                raise DataError(f"got {header} for {output}, begun with {row}; expected the same")
            return
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["bits"]), np.uint8)).astype(np.bool_)
        colours = np.frombuffer(bytes.fromhex(row["colours"]), np.uint8).reshape(8, 8, 3)
        if (output / "images" / f"{row['sha256'][:20]}.jpg").is_file():
            self.seen[row["source"]] = Fingerprint(row["sha256"], bits, colours)

    def write(self, name: str, seen: Fingerprint) -> None:
        """One picture is made."""
        bits, colours = np.packbits(seen.bits).tobytes(), seen.colours.tobytes()
        self._append(
            {
                "source": name,
                "sha256": seen.sha256,
                "bits": bits.hex(),
                "colours": colours.hex(),
            }
        )

    def _append(self, row: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        self._file.flush()

    def close(self) -> None:
        """Bring it to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def _write_report(report: BuildReport, output: Path) -> None:
    content = asdict(report) | {"dropped": report.reasons}
    (output / "report.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with (output / "dropped.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["source", "what", "reason", "detail"])
        rows.writeheader()
        rows.writerows(asdict(each) for each in report.dropped)
