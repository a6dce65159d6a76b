"""Files with drawn regions: one image to files, several to a folder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.atomic import write_whole
from cutline.errors import OptionError, OutputError
from cutline.image import load_image
from cutline.regions.picture import draw_regions, regions_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutline.regions.model import ImageRegions

_ENDINGS = (".png", ".html")


class Drawings:
    """Writes drawings of described images.

    Args:
        targets: files that end in .png or .html for one image; for several, folders in which
            each image gets NAME.regions.png and NAME.regions.html.
        several: whether there are several images.
        force: whether to replace files that exist.

    Raises:
        OptionError: a target does not fit, or exists.
    """

    def __init__(
        self, targets: Sequence[Path], *, several: bool = False, force: bool = False
    ) -> None:
        self._targets = targets
        self._force = force
        self._written: set[Path] = set()
        for target in targets:
            is_file = target.suffix.lower() in _ENDINGS and not target.is_dir()
            if several and is_file:
                raise OptionError(
                    f"got {target} for the drawings of several images; expected a folder"
                )
            if is_file and target.exists() and not force:
                raise OptionError(f"got {target}, which exists; add --force to replace it")

    def draw(self, found: ImageRegions) -> ImageRegions:
        """Draw the regions of an image file, and return them.

        Args:
            found: regions of an image whose source is a path; one with an error is not drawn.

        Returns:
            the same; with an error if a drawing could not be written.
        """
        if found.error is not None or not self._targets:
            return found
        picture = load_image(found.source)
        try:
            for target in self._targets:
                if target.suffix.lower() in _ENDINGS and not target.is_dir():
                    files = [target]
                else:
                    target.mkdir(parents=True, exist_ok=True)
                    files = self._free(target, Path(found.source).name)
                for file in files:
                    if file.suffix.lower() == ".html":
                        write_whole(file, regions_page(picture, found))
                        continue
                    png = io.BytesIO()
                    draw_regions(picture, found).save(png, "PNG")
                    write_whole(file, png.getvalue())
        except OSError as error:
            refusal = error if isinstance(error, OutputError) else OutputError(str(error))
            return replace(found, error=refusal)
        return found

    def _free(self, folder: Path, name: str) -> list[Path]:
        """Two paths that this run has not written; images of one name get numbers."""
        number = 1
        while True:
            mark = "" if number == 1 else f"-{number}"
            files = [folder / f"{name}{mark}.regions{ending}" for ending in _ENDINGS]
            if not self._written.intersection(files):
                break
            number += 1
        self._written.update(files)
        if not self._force and (taken := [file for file in files if file.exists()]):
            raise OutputError(f"{taken[0]} exists; it was left as it is: add --force")
        return files
