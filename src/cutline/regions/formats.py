"""Records of described regions: text, JSON lines, JSON and CSV."""

from __future__ import annotations

from typing import Any

from cutline.regions.model import ImageRegions

COLUMNS = (
    "source", "status", "region", "regions", "x", "y", "width", "height", "phrase", "label",
    "confidence", "label_probability", "image_width", "image_height", "caption", "model",
    "error_type", "error_message",
)  # fmt: skip
"""Columns of the CSV format; `region` counts from 1 to `regions`."""


def csv_rows(found: ImageRegions) -> list[list[Any]]:
    """The CSV cells of one image: a row for each region, or one row without a region.

    Args:
        found: described regions, or an error.
    """
    error = found.error
    size: list[Any] = [found.width, found.height, found.caption, found.model]
    if error is not None:
        message = error.message
        blank: list[Any] = [""] * 8
        return [[found.source, "error", 0, 0, *blank, *size, type(error).__name__, message]]
    count = len(found.regions)
    if not count:
        return [[found.source, "ok", 0, 0, *[""] * 8, *size, "", ""]]
    return [
        [
            found.source,
            "ok",
            number,
            count,
            *(round(value, 1) for value in region.box.xywh),
            region.phrase,
            region.label,
            round(region.confidence, 4),
            round(region.label_probability, 4),
            *size,
            "",
            "",
        ]
        for number, region in enumerate(found.regions, 1)
    ]


def text_lines(found: ImageRegions) -> list[str]:
    """One line for each region: the box, the confidence, the label and the phrase, by tabs."""
    return [
        "\t".join(
            [
                found.source,
                ",".join(f"{value:.0f}" for value in region.box.xywh),
                f"{region.confidence:.2f}",
                region.label,
                region.phrase,
            ]
        )
        for region in found.regions
    ]
