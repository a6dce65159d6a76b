"""Readers of captioned videos: MSVD and MSR-VTT, in the files as they were published."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from cutline.data.collection import Collection, Example
from cutline.discover import VIDEO_EXTENSIONS
from cutline.errors import DataError

_MSVD_TRAIN, _MSVD_DEV = 1200, 100  # the order of clips that Venugopalan et al. (2015) introduced


def read_videos(path: Path, videos: Path | None = None) -> Collection:
    """Read captioned videos; `Example.image` is the video's file.

    Args:
        path: MSR-VTT's `videodatainfo.json` (or another file of its form), or MSVD's
            `video_corpus.csv`.
        videos: where the videos are, in any subfolder; by default beside the file.

    Raises:
        DataError: the file is missing or of another form, or none of its videos is found.
    """
    files = {
        file.stem: file
        for file in (videos or path.parent).rglob("*")
        if file.suffix.lower() in VIDEO_EXTENSIONS
    }
    try:
        collection = _msvd(path, files) if path.suffix.lower() == ".csv" else _msr_vtt(path, files)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file that can be read") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: got another form ({error}); expected videodatainfo.json or video_corpus.csv"
        ) from error
    if not any(collection.splits.values()):
        raise DataError(f"got no video of {path} in {videos or path.parent}; expected at least one")
    return collection


def _msr_vtt(path: Path, files: dict[str, Path]) -> Collection:
    """MSR-VTT (Xu et al., 2016)."""
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    captions: dict[str, list[str]] = {}
    for sentence in content["sentences"]:
        captions.setdefault(sentence["video_id"], []).append(str(sentence["caption"]))
    splits: dict[str, list[Example]] = {}
    for video in content["videos"]:
        name = video["video_id"]
        if name in files and name in captions:
            split = {"validate": "dev", "val": "dev"}.get(video["split"], video["split"])
            splits.setdefault(split, []).append(Example(files[name], tuple(captions[name]), name))
    return _collection("msr-vtt", splits)


def _msvd(path: Path, files: dict[str, Path]) -> Collection:
    """MSVD (Chen and Dolan, 2011): English descriptions of clips ID_START_END."""
    captions: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            if row["Language"] == "English" and row["Description"].strip():
                name = f"{row['VideoID']}_{row['Start']}_{row['End']}"
                captions.setdefault(name, []).append(row["Description"].strip())
    splits: dict[str, list[Example]] = {}
    for number, (name, texts) in enumerate(sorted(captions.items())):
        train = number < _MSVD_TRAIN
        split = "train" if train else "dev" if number < _MSVD_TRAIN + _MSVD_DEV else "test"
        if name in files:
            splits.setdefault(split, []).append(Example(files[name], tuple(texts), name))
    return _collection("msvd", splits)


def _collection(name: str, splits: dict[str, list[Example]]) -> Collection:
    return Collection(name, "research use", {key: tuple(value) for key, value in splits.items()})
