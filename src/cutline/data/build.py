"""Builds a caption set in COCO's form from the images that a table or a list names."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cutline.atomic import write_whole
from cutline.data.build_journal import Edits, Journal, Made, write_baseline
from cutline.data.build_plan import DEFAULTS, BuildOptions, Dropped, Plan, Planned, plan
from cutline.data.coco import write_coco
from cutline.data.collection import Collection, Example, split_by_image
from cutline.data.image_finder import ImageFinder
from cutline.errors import (
    CutlineError,
    DataError,
    ImageError,
    ImageUnreadableError,
)
from cutline.image import load_image, open_file
from cutline.parallel import map_in_order
from cutline.similarity import duplicates, fingerprint
from cutline.tables import escape_formula

if TYPE_CHECKING:
    from cutline.fetch import Fetcher

__all__ = ["BuildOptions", "BuildReport", "Dropped", "Fetch", "Plan", "Planned", "build", "plan"]

Fetch = Callable[[str], bytes]


@dataclass(frozen=True)
class BuildReport:
    """The result of `build`."""

    images: int
    captions: int
    uncaptioned: int
    """Images without a caption: write some into captions.json."""
    splits: dict[str, int]
    dropped: tuple[Dropped, ...]
    edited: int = 0
    """Images that were added to captions.json, or whose captions or split were edited there."""
    repaired: int = 0
    """Images and journal lines of an earlier build that were damaged, and were made again."""
    given_splits: bool = False
    """Whether the splits are those of the source."""
    notes: tuple[str, ...] = ()
    """What the reader could not use, one sentence each."""

    @property
    def reasons(self) -> dict[str, int]:
        """How many images and captions were dropped for each reason, most first."""
        counts = Counter(f"{each.what}: {each.reason}" for each in self.dropped)
        return dict(counts.most_common())

    @property
    def failed(self) -> bool:
        """Whether an image could not be fetched or read."""
        return any(each.reason == "cannot be had or read" for each in self.dropped)

    def lines(self, output: Path) -> list[str]:
        """The report as text, for the set in that folder."""
        splits = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        given = " as the source gives them" if self.given_splits else ""
        lines = [f"{output}: {self.images} images ({splits}{given}), {self.captions} captions"]
        lines += [f"  note: {note}" for note in self.notes]
        if self.given_splits and not self.splits.get("dev"):
            lines.append("  no dev split: training needs one; call some images dev in the source")
        elif self.splits.get("dev", 0) < 10:
            lines.append(
                "  too few in dev to tell models apart: good for a try; a hundred images give "
                "about 10"
            )
        if self.edited:
            lines.append(f"  kept your edits of {self.edited} images in captions.json")
        if self.repaired:
            lines.append(f"  made {self.repaired} damaged images or journal lines again")
        if self.uncaptioned:
            lines.append(
                f"  {self.uncaptioned} images have no caption yet; write them into captions.json"
            )
        lines += [f"  dropped {count} x {reason}" for reason, count in self.reasons.items()]
        if self.dropped:
            lines.append(f"  see {output / 'dropped.csv'}")
        return lines


def build(
    planned: Plan,
    output: Path,
    options: BuildOptions = DEFAULTS,
    *,
    fetch: Fetch | None = None,
    workers: int = 8,
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> BuildReport:
    """Fetch, verify, resize and deduplicate images, and write them with their captions.

    `output` gets `images/`, `captions.json` (see `write_coco`), `report.json`, `dropped.csv`,
    `built.json` and `build.jsonl`, by which an interrupted build resumes: images that are there
    and sound are not fetched again, those that failed are. Captions and splits that were edited
    by hand in `captions.json` are kept, and images that were deleted from it stay out.

    Args:
        planned: from `plan`.
        output: a new folder, or that of an earlier build of the same source.
        options: what is kept, and how it is written.
        fetch: gives the bytes of a URL; by default `cutline.fetch`.
        workers: images processed in parallel.
        force: whether a set of another source, or with other options, is replaced.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: no image is left, or the folder holds something else.
        OutputError: a file cannot be written.
    """
    edits = Edits.read(output) if output.is_dir() else Edits({}, {}, frozenset(), {})
    journal = Journal(output, planned.source, options, names=planned.images, force=force)
    known = {key: made for key, made in journal.made.items() if key in planned.images}
    progress(len(known))
    maker = _ImageMaker(planned, output / "images", options, fetch)
    dropped = list(planned.dropped)
    waiting = [key for key in planned.images if key not in known]
    results = map_in_order(maker.make, waiting, threads=workers, ahead=8 * workers)
    try:
        for key, made in zip(waiting, results, strict=True):
            if isinstance(made, CutlineError):
                dropped.append(Dropped(key, "image", "cannot be had or read", made.message))
            else:
                known[key] = made
                journal.write(key, made)
            progress(1)
    finally:
        results.close()
        maker.close()
        journal.close()
    kept = _distinct(planned, known, options, dropped)
    if not kept:
        raise DataError(
            f"got no image out of {len(planned.images)}; "
            + (f"{dropped[0].source}: {dropped[0].detail}" if dropped else "expected some")
            + ("; name their folder with --images" if _all_missing(dropped) else "")
        )
    given = any(each.split for each in kept.values())
    original = _collection(kept, known, output, options, given)
    made_files = journal.earlier | {made.file_name for made in known.values()}
    for name in made_files & edits.added.keys():  # a build that was interrupted wrote them
        del edits.added[name]
    collection = _edited(original, edits, dropped)
    write_coco(collection, output)
    write_baseline(original, edits, output)
    _remove_unused(made_files, collection, output)
    edited = edits.captions.keys() | edits.splits.keys() | edits.added.keys()
    report = BuildReport(
        images=sum(map(len, collection.splits.values())),
        captions=sum(len(each.captions) for some in collection.splits.values() for each in some),
        uncaptioned=sum(not each.captions for some in collection.splits.values() for each in some),
        splits={name: len(some) for name, some in collection.splits.items()},
        dropped=tuple(dropped),
        edited=len(edited & _file_names(collection)),
        repaired=journal.damaged,
        given_splits=given,
        notes=tuple(planned.notes),
    )
    _write_report(report, output)
    return report


def _all_missing(dropped: list[Dropped]) -> bool:
    return bool(dropped) and all(each.detail == "no such file" for each in dropped)


def _collection(
    kept: Mapping[str, Planned],
    known: Mapping[str, Made],
    output: Path,
    options: BuildOptions,
    given: bool,
) -> Collection:
    """The images with the splits of the source, or else with seeded ones."""
    splits: dict[str, list[Example]] = {}
    for key, planned in kept.items():
        authors = tuple(planned.written_by) if any(planned.written_by) else ()
        path = output / "images" / known[key].file_name
        example = Example(path, tuple(planned.captions), written_by=authors)
        split = (planned.split or "rest") if given else "all"
        splits.setdefault(split, []).append(example)
    collection = Collection(
        output.resolve().name, options.licence, {k: tuple(v) for k, v in splits.items()}
    )
    return collection if given else split_by_image(collection, seed=options.seed)


def _edited(collection: Collection, edits: Edits, dropped: list[Dropped]) -> Collection:
    """The collection with what a person changed in `captions.json`."""
    splits: dict[str, list[Example]] = {split: [] for split in collection.splits}
    for split, examples in collection.splits.items():
        for example in examples:
            name = example.image.name
            if name in edits.removed:
                dropped.append(Dropped(name, "image", "deleted from captions.json by hand"))
                continue
            if name in edits.captions:
                edited = edits.captions[name]
                example = Example(example.image, edited.captions, written_by=edited.written_by)
            splits.setdefault(edits.splits.get(name, split), []).append(example)
    for name, (split, example) in edits.added.items():
        if example.image.is_file():
            splits.setdefault(split, []).append(example)
        else:
            dropped.append(Dropped(name, "image", "cannot be had or read", "no such file"))
    return Collection(collection.name, collection.licence, {k: tuple(v) for k, v in splits.items()})


def _file_names(collection: Collection) -> set[str]:
    return {example.image.name for some in collection.splits.values() for example in some}


def _remove_unused(made: set[str], collection: Collection, output: Path) -> None:
    """Delete image files that builds made and this one does not use; no other files."""
    for name in made - _file_names(collection):
        (output / "images" / name).unlink(missing_ok=True)


def _distinct(
    planned: Plan, known: Mapping[str, Made], options: BuildOptions, dropped: list[Dropped]
) -> dict[str, Planned]:
    """Each image once, with at most so many different captions.

    Of images that are the same, the first one is kept; but one of a test or dev split goes before
    one of training. Captions of identical images of one split are joined.
    """
    order = {"test": 0, "dev": 0}
    keys = sorted(
        (key for key in planned.images if key in known),
        key=lambda key: order.get(planned.images[key].split, 1),
    )
    same: dict[str, str] = {}
    images = {key: Planned(**asdict(planned.images[key])) for key in planned.images if key in known}
    prints = [known[key].print for key in keys]
    for i, j, distance in duplicates(prints, max(0, options.max_distance)):
        first, second = keys[i], keys[j]
        identical = known[first].print.sha256 == known[second].print.sha256
        if first in same or second in same or (not identical and options.max_distance < 0):
            continue
        same[second] = first
        if identical and images[first].split == images[second].split:
            images[first].captions += images[second].captions
            images[first].written_by += images[second].written_by
        reason = "identical to another" if identical else f"nearly another, {distance} bits apart"
        kind = reason.partition(",")[0]
        dropped.append(Dropped(second, "image", kind, f"{first}: {reason}"))
    for key, image in images.items():
        if key in same:
            continue
        unique = {text.casefold(): i for i, text in reversed([*enumerate(image.captions)])}
        positions = sorted(unique.values())
        for i in positions[options.captions :]:
            reason = f"beyond the first {options.captions}"
            dropped.append(Dropped(key, "caption", reason, image.captions[i]))
        chosen = positions[: options.captions]
        image.captions = [image.captions[i] for i in chosen]
        image.written_by = [image.written_by[i] for i in chosen]
    return {key: image for key, image in images.items() if key not in same}


class _ImageMaker:
    """Writes the images of a plan into the set's folder."""

    def __init__(
        self, planned: Plan, folder: Path, options: BuildOptions, fetch: Fetch | None
    ) -> None:
        self._planned = planned
        self._finder = ImageFinder(planned.root, planned.images_folder)
        self._folder, self._options = folder, options
        self._fetch = fetch
        self._fetcher: Fetcher | None = None
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def make(self, key: str) -> Made | CutlineError:
        """Write one image and return its fingerprint, or why it cannot be written."""
        try:
            content = self._bytes(self._planned.images[key])
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
        made = Made(seen, hashlib.sha256(jpeg.getvalue()).hexdigest())
        write_whole(self._folder / made.file_name, jpeg.getvalue(), synced=False)
        return made

    def _bytes(self, planned: Planned) -> bytes:
        if re.match(r"https?://", planned.name, re.IGNORECASE):
            return self._fetched(planned.name)
        with self._lock:
            path = self._finder.find(planned.name, anywhere=planned.unique, split=planned.source)
        try:
            with open_file(str(path)) as file:
                return file.read()
        except ImageError:
            raise
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
        """Close connections."""
        if self._fetcher is not None:
            self._fetcher.close()


def _write_report(report: BuildReport, output: Path) -> None:
    content = asdict(report) | {"dropped": report.reasons}
    write_whole(output / "report.json", json.dumps(content, indent=2) + "\n")
    table = io.StringIO(newline="")
    rows = csv.DictWriter(table, ["source", "what", "reason", "detail"])
    rows.writeheader()
    for each in report.dropped:
        rows.writerow({key: escape_formula(str(value)) for key, value in asdict(each).items()})
    write_whole(output / "dropped.csv", table.getvalue())
