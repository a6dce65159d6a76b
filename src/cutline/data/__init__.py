"""Captioned images: in memory and split, in files of many forms, and what is wrong with them."""

from cutline.data.coco import write_coco
from cutline.data.collection import Collection, Example, digest, split_by_image
from cutline.data.inspection import (
    Fingerprint,
    Inspection,
    Pair,
    duplicates,
    fingerprint,
    fingerprints,
    inspect,
    leaks,
)
from cutline.data.readers import read, read_flickr8k

__all__ = [
    "Collection",
    "Example",
    "Fingerprint",
    "Inspection",
    "Pair",
    "digest",
    "duplicates",
    "fingerprint",
    "fingerprints",
    "inspect",
    "leaks",
    "read",
    "read_flickr8k",
    "split_by_image",
    "write_coco",
]
