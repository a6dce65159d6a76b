"""Measure region descriptions on images with boxes in COCO's format.

    python scripts/regions.py FOLDER [--model MODEL] [--margin 0.1] [--proposals]

FOLDER holds `Images/` and `instances.json`. Prints Markdown: how often the words for a given box
name its class, beside the words of the whole image, with paired bootstrap intervals over images;
then the recall of proposals.
"""

from __future__ import annotations

import argparse
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
    parser.add_argument("--margin", type=float, default=0.1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--limit", type=int, help="images whose regions are also described")
    parser.add_argument("--least", type=float, default=0.03, help="least area of a box")
    arguments = parser.parse_args()
    captioner: Any = load(arguments.model, threads=arguments.threads)
    boxes = read_boxes(arguments.folder, arguments.least)
    print(f"{sum(map(len, boxes.values()))} boxes of {len(boxes)} images, {captioner.name}\n")
    naming(captioner, boxes, arguments.margin)
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


def naming(captioner: Any, boxes: dict[Path, list[tuple[list[float], str]]], margin: float) -> None:
    """Print how often each kind of words names the class of a box."""
    options = RegionOptions(margin=margin)
    hits: dict[str, list[bool]] = defaultdict(list)
    images: list[int] = []
    began = time.perf_counter()
    for number, (path, given) in enumerate(boxes.items()):
        whole = captioner.caption(path, CaptionOptions(labels=1))
        label = whole.labels[0].name if whole.labels else ""
        found = captioner.regions(path, [box for box, _ in given], options)
        for region, (_, name) in zip(found.regions, given, strict=True):
            row = {
                "region: phrase": names_class(region.phrase, name),
                "region: label": names_class(region.label, name),
                "whole image: caption": names_class(whole.text, name),
                "whole image: label": names_class(label, name),
            }
            row["region: phrase or label"] = row["region: phrase"] or row["region: label"]
            row["whole image: caption or label"] = (
                row["whole image: caption"] or row["whole image: label"]
            )
            for words, hit in row.items():
                hits[words].append(hit)
            images.append(number)
    took = time.perf_counter() - began
    print("| Words | Name the class |\n| --- | --: |")
    for words in sorted(hits):
        print(f"| {words} | {100 * np.mean(hits[words]):.1f} % |")
    print()
    for ours, theirs in (
        ("region: phrase", "whole image: caption"),
        ("region: phrase or label", "whole image: caption"),
        ("region: phrase or label", "whole image: caption or label"),
    ):
        apart = np.array(hits[ours], float) - np.array(hits[theirs], float)
        low, high = interval(apart, images)
        print(
            f"- {ours} minus {theirs}: {100 * apart.mean():+.1f} [{low:+.1f}, {high:+.1f}] points"
        )
    print(f"\n{len(images) / took:.1f} boxes/s\n")


def interval(apart: np.ndarray, images: Sequence[int], draws: int = 2000) -> tuple[float, float]:
    """A 95 % bootstrap interval over images of a mean of paired differences, in points."""
    numbers = np.array(images)
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
