from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cutline.data import Collection, Example
from cutline.data.contact_sheet import contact_sheet, show
from cutline.errors import DataError


def test_pictures_stand_in_rows_of_four_whatever_their_captions(
    colours: Collection, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    odd = [
        Example(tmp_path / "broken.jpg", ("word " * 200, "W" * 500)),
        Example(tmp_path / "absent.jpg", ()),
    ]
    members = [("train", each) for each in (*odd, *colours.split("dev"))]
    sheets = [contact_sheet(members[-count:], "some") for count in (1, 2, 4, 5)]
    widths = [sheet.width for sheet in sheets]
    assert widths[0] < widths[1] < widths[2] == widths[3]
    assert sheets[2].height == sheets[0].height < sheets[3].height
    assert contact_sheet(members, "all").height > sheets[3].height


def test_each_picture_is_on_the_sheet_in_its_colours(colours: Collection) -> None:
    red, green, blue = colours.split("dev")[:3]
    sheet = np.asarray(contact_sheet([("dev", each) for each in (red, green, blue)], "three"))
    thirds = [part[90:300].mean((0, 1)) for part in np.array_split(sheet, 3, axis=1)]
    assert [int(third.argmax()) for third in thirds] == [0, 1, 2]


def test_files_are_written_and_drawn_by_seed(colours: Collection, tmp_path: Path) -> None:
    files = show(colours, tmp_path / "look", count=4)
    assert [file.name for file in files] == [
        "contact-sheet.jpg",
        "caption-lengths.png",
        "words.png",
    ]
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) > 400
    first = files[0].read_bytes()
    assert show(colours, tmp_path / "again", count=4)[0].read_bytes() == first
    assert show(colours, tmp_path / "other", count=4, seed=1)[0].read_bytes() != first
    with pytest.raises(DataError, match="without images"):
        show(Collection("empty", "none", {"train": ()}), tmp_path / "none")


def test_captions_in_other_scripts_are_counted(colours: Collection, tmp_path: Path) -> None:
    chinese = tuple(replace(each, captions=("红色的墙",)) for each in colours.splits["dev"])
    files = show(replace(colours, splits={"train": chinese}), tmp_path / "look", count=1)
    assert all(file.stat().st_size for file in files)
