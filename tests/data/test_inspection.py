from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cutline.data import (
    Collection,
    Example,
    Fingerprint,
    duplicates,
    fingerprint,
    fingerprints,
    inspect,
    leaks,
)
from cutline.errors import ImageError


def collection(**splits: list[Path]) -> Collection:
    return Collection(
        "made", "none", {k: tuple(Example(p, ("a caption",)) for p in v) for k, v in splits.items()}
    )


@pytest.fixture
def copies(pictures: Path) -> dict[str, Path]:
    """Of a.jpg: a copy, a smaller one of low quality, one with its colours turned."""
    folder = pictures / "Images"
    original = Image.open(folder / "a.jpg")
    (folder / "copy.jpg").write_bytes((folder / "a.jpg").read_bytes())
    original.resize((40, 32)).save(folder / "small.jpg", quality=40)
    Image.merge("RGB", original.split()[::-1]).save(folder / "turned.png")
    return {path.stem: path for path in folder.iterdir()}


def test_copies_are_found_and_other_pictures_are_not(copies: dict[str, Path]) -> None:
    names = sorted(copies)
    prints = [fingerprint(copies[name]) for name in names]
    found = {(names[i], names[j]): distance for i, j, distance in duplicates(prints)}
    assert found.keys() == {("a", "copy"), ("a", "small"), ("copy", "small")}
    assert found["a", "copy"] == 0
    bare = fingerprint(copies["a"].read_bytes())
    assert bare.sha256 == prints[0].sha256 == prints[names.index("copy")].sha256


def test_the_same_thing_in_another_colour_is_another_picture(tmp_path: Path) -> None:
    grey = np.zeros((48, 48, 3), np.uint8)
    grey[8:40, 8:40] = (200, 30, 30)
    Image.fromarray(grey).save(tmp_path / "red.png")
    Image.fromarray(grey[..., ::-1]).save(tmp_path / "blue.png")
    prints = [fingerprint(tmp_path / name) for name in ("red.png", "blue.png")]
    assert np.count_nonzero(prints[0].bits != prints[1].bits) <= 16
    assert list(duplicates(prints)) == []


def test_pairs_are_found_across_blocks_of_the_comparison() -> None:
    rng = np.random.default_rng(0)
    prints = [
        Fingerprint(str(i), rng.random(128) < 0.5, np.zeros((8, 8, 3), np.uint8))
        for i in range(2100)
    ]
    prints[2090] = prints[3]
    prints[1030] = prints[1029]
    assert [(i, j) for i, j, _ in duplicates(prints)] == [(3, 2090), (1029, 1030)]
    assert list(duplicates([])) == []


def test_leaks_are_pairs_in_two_splits_but_train_and_rest_are_one(copies: dict[str, Path]) -> None:
    apart = collection(
        train=[copies["a"], copies["b"]], rest=[copies["copy"]], dev=[copies["small"]]
    )
    found = leaks(apart)
    assert {(each.first, each.second, each.splits, each.identical) for each in found} == {
        ("a.jpg", "small.jpg", ("train", "dev"), False),
        ("copy.jpg", "small.jpg", ("rest", "dev"), False),
    }
    inspected = inspect(apart)
    assert [(each.first, each.second) for each in inspected.duplicates] == [("a.jpg", "copy.jpg")]
    assert inspected.duplicates[0].identical


def test_everything_wrong_is_named(copies: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(copies["b"].read_bytes()[:300])
    examples = (
        Example(copies["c"], ("fine",)),
        Example(broken, ("cut short",)),
        Example(tmp_path / "absent.jpg", ("gone",)),
        Example(copies["d"], ()),
        Example(copies["e"], ("fine", "")),
    )
    counted: list[int] = []
    found = inspect(Collection("made", "none", {"train": examples}), progress=counted.append)
    assert (found.images, found.captions, found.sound) == (5, 5, False)
    assert found.missing == ("absent.jpg",)
    assert found.corrupt.keys() == {"broken.jpg"}
    assert "cut short" in found.corrupt["broken.jpg"]
    assert found.uncaptioned == ("d.jpg", "e.jpg")
    assert (found.duplicates, found.leaks) == ((), ())
    assert sum(counted) == 5
    assert inspect(collection(train=[copies["c"], copies["f"]])).sound


def test_a_picture_that_cannot_be_read_gives_its_error(copies: dict[str, Path]) -> None:
    good, bad = fingerprints([copies["a"], Path("absent.jpg")])
    assert isinstance(good, Fingerprint)
    assert isinstance(bad, ImageError)
