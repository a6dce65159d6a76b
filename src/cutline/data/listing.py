"""The content of caption files before images are located: names, captions, splits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("dev", "devel", "val", "valid", "validation", "validate", "eval"), "dev"),
    **dict.fromkeys(("evaluation", "development", "vld"), "dev"),
    **dict.fromkeys(("test", "testing", "tst", "heldout", "held-out"), "test"),
    **dict.fromkeys(("holdout", "hold-out", "test-dev", "testdev", "test-std"), "test"),
    **dict.fromkeys(("rest", "restval"), "rest"),
}


@dataclass
class Entry:
    """One image as a caption file describes it.

    Attributes:
        name: the image's name there, normalised; a path, a URL or an id.
        captions: in order; blank ones are kept.
        written_by: the author of each caption; "" if unknown.
        split: by its name here (train, dev, test, rest); "" if none is given.
        rank: the position in the list of its split, where there is a list.
        source: the split that the file's name denotes; "" if none.
    """

    name: str
    captions: list[str] = field(default_factory=list)
    written_by: list[str] = field(default_factory=list)
    split: str = ""
    rank: int = 0
    source: str = ""

    def add(self, captions: list[str], written_by: str = "") -> None:
        """Append captions of one author."""
        self.captions += captions
        self.written_by += [written_by] * len(captions)


@dataclass
class Listing:
    """The images that caption files name, in order.

    Attributes:
        name: a short name of the data.
        licence: the terms of use; "" if unknown.
        entries: by (`source`, `name`).
        notes: what could not be used or had to be repaired, one sentence each.
    """

    name: str
    licence: str = ""
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def entry(self, name: str, source: str = "") -> Entry:
        """The entry of that name, which is added if it is missing."""
        return self.entries.setdefault((source, name), Entry(name, source=source))


def split_name(value: object) -> str:
    """The name of a split here: `val`, `Validation` and `val2017` are `dev`; others are kept."""
    name = str(value if value is not None else "").strip().lower()
    usual = re.sub(r"[\s_]+", "-", name)
    return _SPLITS.get(usual) or _SPLITS.get(re.sub(r"-*(set|split|\d+)$", "", usual), name)


def is_split(value: object) -> bool:
    """Whether a value is one of the usual names of splits."""
    return split_name(value) in set(_SPLITS.values())


def split_in_name(name: str) -> str:
    """The split that a file or folder name contains as a word of its own; "" if none or several."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    return found.pop() if len(found) == 1 else ""


def normalise_name(name: str) -> str:
    """An image's name with forward slashes and without a drive, `file://` or a leading `./`.

    Flickr's caption numbers, as in `a.jpg#0`, are removed. URLs of the web are returned unchanged.
    """
    name = name.strip()
    if re.match(r"https?://", name, re.IGNORECASE):
        return name
    name = unquote(name[7:]) if name.lower().startswith("file://") else name
    name = re.sub(r"^/?[A-Za-z]:(?=[\\/])", "", name).replace("\\", "/")
    return re.sub(r"^(?:\./)+", "", re.sub(r"(\.[A-Za-z]{3,4})#(?:enc#)?\d+$", r"\1", name))
