from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cutline.data import Collection, Example
from cutline.errors import ImageError
from cutline.image import load_image
from cutline.training import features
from cutline.training.encoders import Encoder, EncoderOptions
from cutline.training.features import FeatureStore, View, extract_features, readable

OPTIONS = EncoderOptions(backbone="test_resnet")


def encoder(pooled: bool = False, seed: int = 0, side_px: int = 64) -> Encoder:
    torch.manual_seed(seed)
    net = timm.create_model("test_resnet", pretrained=False)
    return Encoder(net, "test_resnet", pooled=pooled, side_px=side_px)


@pytest.fixture
def examples(colours: Collection) -> tuple[Example, ...]:
    return colours.split("train")[:10]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH", 4)


def test_a_row_for_each_image_in_order(examples: tuple[Example, ...], tmp_path: Path) -> None:
    for pooled in (False, True):
        whole = encoder(pooled)
        counted: list[int] = []
        found = extract_features(
            OPTIONS, examples, tmp_path, progress=counted.append, encoder=whole
        )
        rows = 1 if pooled else math.prod(whole.grid)
        assert isinstance(found, np.memmap)
        assert (found.shape, found.dtype) == ((10, rows, whole.width), np.float16)
        assert counted == [0, 4, 4, 2]
        for example, row in zip(examples, found, strict=True):
            pixels = torch.from_numpy(whole.transform(load_image(example.image)))[None]
            with torch.inference_mode():
                np.testing.assert_allclose(row, whole(pixels)[0], atol=2e-3, rtol=2e-3)
        assert readable(found).all()


def test_what_was_written_is_read_and_not_seen_again(
    examples: tuple[Example, ...], tmp_path: Path
) -> None:
    whole = encoder()
    first = extract_features(OPTIONS, examples, tmp_path, encoder=whole)

    class Blind(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise AssertionError("seen again")

    whole.net = Blind()
    counted: list[int] = []
    again = extract_features(OPTIONS, examples, tmp_path, progress=counted.append, encoder=whole)
    np.testing.assert_array_equal(first, again)
    assert counted == [10]


def test_nothing_stale_is_read(examples: tuple[Example, ...], tmp_path: Path) -> None:
    whole = encoder()

    def files() -> int:
        return len(list(tmp_path.glob("*.npy")))

    extract_features(OPTIONS, examples, tmp_path, encoder=whole)
    for number, change in enumerate(
        [
            lambda: extract_features(OPTIONS, examples, tmp_path, encoder=encoder(seed=1)),
            lambda: extract_features(OPTIONS, examples, tmp_path, encoder=encoder(side_px=96)),
            lambda: extract_features(OPTIONS, examples, tmp_path, encoder=encoder(pooled=True)),
            lambda: extract_features(OPTIONS, examples, tmp_path, view=1, encoder=whole),
            lambda: extract_features(OPTIONS, examples[1:], tmp_path, encoder=whole),
        ],
        start=2,
    ):
        change()
        assert files() == number
    Image.new("RGB", (64, 64), "black").save(examples[0].image)
    changed = extract_features(OPTIONS, examples, tmp_path, encoder=whole)
    assert files() == 7
    assert (changed[0] != changed[1]).any()


def test_a_killed_run_goes_on_behind_its_last_batch(
    examples: tuple[Example, ...], tmp_path: Path
) -> None:
    looked: list[str] = []

    def look(example: Example) -> float:
        looked.append(example.name)
        return float(examples.index(example))

    def seeing(killed_in: int) -> Callable[[list[float]], NDArray[np.float32]]:
        batches: list[list[float]] = []

        def see(batch: list[float]) -> NDArray[np.float32]:
            batches.append(batch)
            if len(batches) == killed_in:
                raise KeyboardInterrupt
            return np.array(batch, np.float32)[:, None] * [1, 2]

        return see

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path, {}, examples, (2,)).fill(look, seeing(2))
    # What a kill in the middle of the second batch leaves behind besides:
    (partial,) = tmp_path.glob("*.partial.npy")
    torn = np.load(partial, mmap_mode="r+")
    torn[5] = 77
    torn.flush()
    looked.clear()
    counted: list[int] = []
    found = FeatureStore(tmp_path, {}, examples, (2,)).fill(look, seeing(0), counted.append)
    np.testing.assert_array_equal(found, np.arange(10)[:, None] * [1, 2])
    assert sorted(looked) == [each.name for each in examples[4:]]
    assert counted == [4, 4, 2]
    assert not partial.exists()


def test_pictures_that_cannot_be_read_are_named_and_their_rows_stay_empty(
    examples: tuple[Example, ...], tmp_path: Path
) -> None:
    examples[6].image.write_bytes(b"no picture")
    gone = (*examples, Example(tmp_path / "gone.jpg", ("gone",)))
    whole = encoder()
    with pytest.raises(ImageError, match=r"06\.png"):
        extract_features(OPTIONS, gone, tmp_path / "kept", encoder=whole)
    for _ in range(2):
        problems: dict[int, ImageError] = {}
        found = extract_features(
            OPTIONS, gone, tmp_path / "kept", encoder=whole, unreadable=problems.setdefault
        )
        assert problems.keys() == {6, 10}
        assert "no such file" in str(problems[10])
        assert [i for i, good in enumerate(readable(found)) if not good] == [6, 10]
        assert np.isfinite(found[readable(found)]).all()
    with pytest.raises(ImageError, match=r"06\.png"):
        extract_features(OPTIONS, gone, tmp_path / "kept", encoder=whole)
    alone = extract_features(OPTIONS, examples[5:8:2], tmp_path / "kept", encoder=whole)
    np.testing.assert_allclose(found[[5, 7]], alone, atol=2e-3, rtol=2e-3)


def test_views_are_mirrored_or_cropped_the_same_way_every_time(
    examples: tuple[Example, ...], tmp_path: Path
) -> None:
    picture = load_image(examples[0].image)
    assert View(0)(picture, "x") is picture
    assert View(1)(picture, "x").tobytes() == ImageOps.mirror(picture).tobytes()
    crops = [View(2)(picture, name).tobytes() for name in ("x", "x", "y")]
    assert crops[0] == crops[1] != crops[2]
    assert View(3)(picture, "x").tobytes() != crops[0]
    flipped = [
        replace(example, image=tmp_path / f"{example.name}.flipped.png") for example in examples
    ]
    for example, other in zip(examples, flipped, strict=True):
        ImageOps.mirror(load_image(example.image)).save(other.image)
    whole = encoder()
    seen = extract_features(OPTIONS, examples, tmp_path, view=1, encoder=whole)
    expected = extract_features(OPTIONS, flipped, tmp_path, encoder=whole)
    np.testing.assert_array_equal(seen, expected)


def test_values_beyond_half_precision_stay_finite(
    examples: tuple[Example, ...], tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path, {}, examples[:2], (2,))
    found = store.fill(lambda _: 0, lambda batch: np.array([[1e6, -1e6]] * len(batch), np.float32))
    assert found.tolist() == [[65504, -65504]] * 2


def test_a_note_says_what_is_in_the_file(examples: tuple[Example, ...], tmp_path: Path) -> None:
    whole = encoder()
    found = extract_features(OPTIONS, examples, tmp_path, view=1, encoder=whole)
    note = json.loads(Path(str(found.filename)).with_suffix(".json").read_text())
    assert (note["backbone"], note["weights"]) == ("test_resnet", whole.checksum)
    assert (note["done"], note["shape"], note["view"]["number"]) == (10, list(found.shape), 1)
