"""Writes captioned images in COCO's form."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from cutline.atomic import write_whole
from cutline.data.collection import Collection
from cutline.data.formats import CONTRIBUTOR


def write_coco(collection: Collection, folder: Path | str) -> Path:
    """Write `captions.json` in COCO's form (Chen et al., 2015), which `read(folder)` reads back.

    Every image names its split in the field `split`, and every annotation its author in
    `written_by`, if known; other readers ignore both. Image files are not copied; their paths are
    relative to `folder/images` if they are in there, else to `folder`.

    Args:
        collection: the data to write.
        folder: created if it is missing.

    Returns:
        The file's path. The file is replaced in one step.

    Raises:
        OutputError: the file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for split, examples in collection.splits.items():
        for example in examples:
            number = len(images) + 1
            name = _relative(example.image, folder)
            images.append({"id": number, "file_name": name, "license": 1, "split": split})
            images[-1] |= _size(example.image)
            authors = example.written_by or ("",) * len(example.captions)
            for caption, author in zip(example.captions, authors, strict=True):
                entry = {"id": len(annotations) + 1, "image_id": number, "caption": caption}
                annotations.append(entry | ({"written_by": author} if author else {}))
    content = {
        "info": {"description": collection.name, "contributor": CONTRIBUTOR, "version": "1"},
        "licenses": [{"id": 1, "name": collection.licence, "url": ""}],
        "images": images,
        "annotations": annotations,
    }
    path = folder / "captions.json"
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return path


def _relative(image: Path, folder: Path) -> str:
    base = folder / "images"
    inside = image.resolve().is_relative_to(base.resolve())
    return Path(os.path.relpath(image, base if inside else folder)).as_posix()


def _size(path: Path) -> dict[str, int]:
    """COCO's width and height from the file's header; {} if it is unreadable."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            return {"width": image.width, "height": image.height}
    except (OSError, ValueError, Image.DecompressionBombError):
        return {}
