"""Captioned images: collections and splits, file formats, checks."""

from cutline.data.coco import write_coco
from cutline.data.collection import Collection, Example, digest, merge, split_by_image
from cutline.data.combine import Combined, combine
from cutline.data.inspection import Inspection, Pair, inspect, leaks
from cutline.data.readers import read, read_flickr8k
from cutline.similarity import Fingerprint, duplicates, fingerprint, fingerprints

__all__ = [
    "Collection",
    "Combined",
    "Example",
    "Fingerprint",
    "Inspection",
    "Pair",
    "combine",
    "digest",
    "duplicates",
    "fingerprint",
    "fingerprints",
    "inspect",
    "leaks",
    "merge",
    "read",
    "read_flickr8k",
    "split_by_image",
    "write_coco",
]
