"""Measure region descriptions on images with boxes in COCO's format.

    python scripts/regions.py FOLDER [--model MODEL] [--margins 0.1 0.25] [--docs docs/regions.md]

FOLDER holds `Images/` and `instances.json`. Prints Markdown: how often the words for a given box
name its class, beside the words of the whole image, with paired bootstrap intervals over images;
then the recall of proposals. Of several margins, the one with the most named classes on one half
of the images is reported on the other half. `--docs` writes the first part into that file,
between `<!-- region words -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cutline.backends import load
from cutline.boxes import suppress
from cutline.caption import CaptionOptions
from cutline.evaluation.regions import names_class, recall
from cutline.image import load_image
from cutline.regions.model import RegionOptions
from cutline.regions.proposals import propose, windows


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--margins", type=float, nargs="+", default=[0.1, 0.25])
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--no-proposals", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--limit", type=int, help="images whose regions are also described")
    parser.add_argument("--least", type=float, default=0.03, help="least area of a box")
    arguments = parser.parse_args()
    captioner: Any = load(arguments.model, threads=arguments.threads)
    boxes = read_boxes(arguments.folder, arguments.least)
    text = naming(captioner, boxes, arguments.margins)
    print(text)
    if arguments.docs:
        page = arguments.docs.read_text(encoding="utf-8")
        first, found, rest = page.partition("<!-- region words -->\n")
        if not found:
            parser.error(f"got no <!-- region words --> in {arguments.docs}")
        last = rest[rest.index("<!-- end -->") :]
        arguments.docs.write_text(f"{first}{found}\n{text}\n{last}", encoding="utf-8")
    if not arguments.no_proposals:
        proposing(captioner, boxes, arguments.limit)


def read_boxes(folder: Path, least: float) -> dict[Path, list[tuple[list[float], str]]]:
    """Boxes and class names of at least a share of their image, by image."""
    content = json.loads((folder / "instances.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    boxes: dict[Path, list[tuple[list[float], str]]] = defaultdict(list)
    for each in content["annotations"]:
        image = images[each["image_id"]]
        area = each["bbox"][2] * each["bbox"][3] / (image["width"] * image["height"])
        if not each["iscrowd"] and area >= least:
            path = folder / "Images" / image["file_name"]
            boxes[path].append((each["bbox"], names[each["category_id"]]))
    return boxes


Hits = dict[str, np.ndarray]
"""For each kind of words (B,) whether they name the class of a box."""


def naming(
    captioner: Any, boxes: dict[Path, list[tuple[list[float], str]]], margins: Sequence[float]
) -> str:
    """How often each kind of words names the class of a box, as Markdown."""
    images = np.repeat(np.arange(len(boxes)), [len(given) for given in boxes.values()])
    second = np.repeat([in_second_half(path) for path in boxes], np.bincount(images))
    wholes = [captioner.caption(path, CaptionOptions(labels=1)) for path in boxes]
    whole = hits(
        [wholes[image].text for image in images],
        [wholes[image].labels[0].name if wholes[image].labels else "" for image in images],
        boxes,
    )
    found: dict[float, Hits] = {}
    for margin in margins:
        regions = [
            region
            for path, given in boxes.items()
            for region in captioner.regions(
                path, [box for box, _ in given], RegionOptions(margin=margin)
            ).regions
        ]
        found[margin] = hits(
            [region.phrase for region in regions], [region.label for region in regions], boxes
        )
    chosen = max(margins, key=lambda margin: found[margin]["both"][~second].sum())
    everything = np.ones(len(images), bool)
    lines = [
        f"{len(images)} boxes of {len(boxes)} images, {captioner.name}:\n",
        "| Words | phrase or caption | label | either |\n| --- | --: | --: | --: |",
        row_of("of the whole image", whole),
        *(row_of(f"of the region, margin {100 * m:g} %", found[m]) for m in margins),
        "",
        "Phrase or label of the region, compared with the words of the whole image (points, paired "
        "95 % bootstrap intervals over images):\n",
        "| Margin | Images | minus caption | minus caption or label |\n| --- | --- | --: | --: |",
    ]
    for margin, name, part in (
        *((margin, "all", everything) for margin in margins),
        (chosen, "half that did not choose it", second),
    ):
        cells = " | ".join(
            points(found[margin]["both"][part], whole[which][part], images[part])
            for which in ("text", "both")
        )
        lines.append(f"| {100 * margin:g} % | {name} | {cells} |")
    return "\n".join(lines)


def hits(
    texts: Sequence[str],
    labels: Sequence[str],
    boxes: dict[Path, list[tuple[list[float], str]]],
) -> Hits:
    """Which of the texts and labels, one for each box, name the box's class."""
    names = [name for given in boxes.values() for _, name in given]
    text = np.array([names_class(each, name) for each, name in zip(texts, names, strict=True)])
    label = np.array([names_class(each, name) for each, name in zip(labels, names, strict=True)])
    return {"text": text, "label": label, "both": text | label}


def in_second_half(path: Path) -> bool:
    """Whether an image belongs to the half on which nothing is chosen."""
    return hashlib.sha256(path.name.encode()).digest()[0] % 2 == 1


def row_of(name: str, found: Hits) -> str:
    """A line of the table of shares."""
    shares = " | ".join(f"{100 * each.mean():.1f} %" for each in found.values())
    return f"| {name} | {shares} |"


def points(ours: np.ndarray, theirs: np.ndarray, images: np.ndarray) -> str:
    """The mean difference in points with its interval."""
    apart = ours.astype(float) - theirs
    low, high = interval(apart, list(images))
    return f"{100 * apart.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def interval(apart: np.ndarray, images: Sequence[int], draws: int = 2000) -> tuple[float, float]:
    """A 95 % bootstrap interval over images of a mean of paired differences, in points."""
    _, numbers = np.unique(images, return_inverse=True)
    count = numbers.max() + 1
    sums = np.bincount(numbers, apart, count)
    sizes = np.bincount(numbers, minlength=count)
    drawn = np.random.default_rng(0).integers(0, count, (draws, count))
    means = 100 * sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def proposing(
    captioner: Any, boxes: dict[Path, list[tuple[list[float], str]]], limit: int | None
) -> None:
    """Print the recall of proposals, of fixed windows and of windows by confidence."""
    references = [np.array([box for box, _ in given]) for given in boxes.values()]
    fixed, proposed = [], []
    began = time.perf_counter()
    for path in boxes:
        image = load_image(path)
        scale = np.array([*image.size, *image.size])
        features = captioner.encode(image, CaptionOptions(labels=0)).features[0]
        side = round(len(features) ** 0.5)
        proposed.append(propose(features.reshape(side, side, -1), 100) * scale)
        fixed.append(windows() * scale)
    cost = (time.perf_counter() - began) / len(boxes)
    print("| Boxes | images | recall at 10 | recall at 30 |\n| --- | --: | --: | --: |")
    row("fixed windows, large first", fixed, references)
    row("proposals from the grid features", proposed, references)
    print(f"\n{1000 * cost:.0f} ms an image for proposals alone\n", flush=True)
    chosen = list(boxes)[:limit]
    began = time.perf_counter()
    ordered, by_label, by_both = [], [], []
    for path in chosen:
        found = captioner.regions(path, None, RegionOptions(max_regions=30))
        ordered.append(np.array([region.box.xywh for region in found.regions]))
    took = time.perf_counter() - began
    few, grid = references[: len(chosen)], proposed[: len(chosen)]
    for path, given in zip(chosen, fixed, strict=False):
        candidates = given[given[:, 2] * given[:, 3] >= given[0, 2] * given[0, 3] / 12][:60]
        described = captioner.regions(path, list(candidates)).regions
        sure = np.array([each.label_probability for each in described])
        by_label.append(candidates[suppress(candidates, sure, 0.5)])
        both = sure * np.array([each.confidence for each in described])
        by_both.append(candidates[suppress(candidates, both, 0.5)])
    print("| Boxes | images | recall at 10 | recall at 30 |\n| --- | --: | --: | --: |")
    row("proposals from the grid features", grid, few)
    row("the same, described and merged, best first", ordered, few)
    row("60 windows by the encoder's confidence", by_label, few)
    row("60 windows by the encoder's and the decoder's confidence", by_both, few)
    print(f"\n{len(chosen) / took:.2f} images/s for described regions")


def row(name: str, boxes: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> None:
    """Print a line of a table."""
    values = (f"{100 * recall(boxes, references, count):.1f} %" for count in (10, 30))
    print(f"| {name} | {len(boxes)} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
