"""Finds image files by the names that caption files give them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from cutline.data.listing import split_in_name
from cutline.discover import EXTENSIONS

_FOLDERS = (
    *("images", "Images", "image", "img", "imgs", "photos", "pictures", "pics"),
    *("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "flickr30k-images"),
    "flickr30k_images/flickr30k_images",
    *("train2014", "val2014", "train2017", "val2017", "images/train2014", "images/val2014"),
    *("images/train2017", "images/val2017", "train", "val", "test"),
    *(f"images/{split}" for split in ("train", "val", "test")),
    *(f"{split}/images" for split in ("train", "val", "test")),
)  # fmt: skip
_JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})


class ImageFinder:
    """Finds image files below a folder.

    A name is tried as it is, then without regard to case and Unicode normal form, and without its
    file ending where the name has none or has another ending of JPEG. Leading folders of a name
    that do not exist here are ignored.

    Args:
        root: the folder of the caption file.
        images: the folder of the images; by default the usual places near `root`.
    """

    def __init__(self, root: Path, images: Path | str | None = None) -> None:
        roots = [root]
        if re.search("annotation|text|caption", root.name, re.IGNORECASE):
            roots.append(root.parent)
        folders = [each / name for each in roots for name in ("", *_FOLDERS)]
        self._folders = [Path(images)] if images else [each for each in folders if each.is_dir()]
        self._last = self._folders[0] if self._folders else root
        self._listings: dict[Path, _FolderIndex] = {}

    def find(self, name: str, *, anywhere: bool = True, split: str = "") -> Path:
        """The path of an image, or where it was expected if it is missing.

        Args:
            name: as `normalise_name` returns it.
            anywhere: whether the bare file name is enough; set it if no other image has it.
            split: folders named after this split are searched first.
        """
        parts = PurePosixPath(name).parts
        tails = [parts[i:] for i in range(len(parts) if anywhere else max(1, len(parts) - 1))]
        folders = [self._last, *self._folders]
        if split:
            folders.sort(key=lambda folder: split_in_name(folder.name) != split)
        for tail in tails:
            for folder in folders:
                path = folder.joinpath(*tail)
                if path.is_file():
                    self._last = folder
                    return path
        for tail in tails:
            for folder in folders:
                found = self._similar(folder, tail)
                if found is not None:
                    self._last = folder
                    return found
        return (self._folders or [self._last])[0] / name

    def _similar(self, folder: Path, parts: tuple[str, ...]) -> Path | None:
        """The file below a folder whose name differs in case or ending only."""
        for part in parts[:-1]:
            if part == folder.anchor:
                return None
            exact = folder / part
            if not exact.is_dir():
                entry = self._listing(folder).by_name.get(_fold(part))
                if entry is None:
                    return None
                exact = folder / entry
            folder = exact
        entry = self._listing(folder).similar(parts[-1]) if parts else None
        path = folder / entry if entry else None
        return path if path and path.is_file() else None

    def _listing(self, folder: Path) -> _FolderIndex:
        if folder not in self._listings:
            self._listings[folder] = _FolderIndex(folder)
        return self._listings[folder]


class _FolderIndex:
    """The entries of a folder by their folded names and stems."""

    def __init__(self, folder: Path) -> None:
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            names = []
        self.by_name = {_fold(name): name for name in reversed(names)}
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            stem, suffix = Path(name).stem, Path(name).suffix
            if suffix.lower() in EXTENSIONS:
                self._by_stem.setdefault(_fold(stem), []).append(name)
                if number := re.search(r"(?:^|_)(\d{12})$", stem):  # COCO's files
                    self._by_stem.setdefault(f"#{int(number[1])}", []).append(name)

    def similar(self, name: str) -> str | None:
        """The only entry of that name, or of that name with another ending."""
        for each in (name, unquote(name)):
            if (entry := self.by_name.get(_fold(each))) is not None:
                return entry
        stem, suffix = Path(name).stem, Path(name).suffix
        keys = [_fold(name)]
        if suffix.lower() in _JPEG:
            keys = [_fold(stem)]
        elif name.isdigit():
            keys.append(f"#{int(name)}")
        for key in keys:
            entries = self._by_stem.get(key, [])
            if suffix.lower() in _JPEG:
                entries = [e for e in entries if Path(e).suffix.lower() in _JPEG]
            if len(entries) == 1:
                return entries[0]
        return None


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
