"""Training on phrases of boxes, with the box's features beside the image's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

from cutline.bundle import Bundle
from cutline.caption import CaptionOptions
from cutline.captioner import load
from cutline.cli import app
from cutline.data import Example
from cutline.data.region_readers import region_collection
from cutline.data.shape_scenes import write_scenes
from cutline.errors import DataError, RecipeError
from cutline.image import load_image
from cutline.options import SearchOptions
from cutline.training.decoders import DecoderOptions
from cutline.training.encoders import EncoderOptions
from cutline.training.export import export
from cutline.training.recipe import DataOptions, FitOptions, Recipe
from cutline.training.region_inputs import box_features
from cutline.training.sources import load_collection
from cutline.training.trainer import train

RECIPE = Recipe(
    name="phrases",
    data=DataOptions(train=("train",), min_count=1),
    encoder=EncoderOptions("test_resnet", "box", views=1, side_px=64),
    decoder=DecoderOptions(kind="global-attention", width=32, embedding=16, heads=2),
    fit=FitOptions(epochs=1, batch_images=8, captions_per_image=1, warmup_steps=1),
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The recipe with the random weights of a tiny backbone."""
    weights = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    return replace(RECIPE, encoder=replace(RECIPE.encoder, weights=str(weights)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """Scenes with described boxes, a run on them and its bundle."""
    folder = tmp_path_factory.mktemp("phrases")
    write_scenes(folder / "scenes", 12)
    source = folder / "scenes" / "region_descriptions.json"
    collection, _ = load_collection(recipe, folder / "run", [source])
    train(recipe, collection, folder / "run", features=folder / "features")
    export(
        folder / "run",
        collection,
        folder / "phrases-v1",
        summary="Describes boxes.",
        options=SearchOptions(beam_size=2, max_tokens=8),
    )
    return folder


def test_regions_become_examples_and_no_image_is_in_two_splits(folder: Path) -> None:
    collection = region_collection(folder / "scenes" / "region_descriptions.json")
    content = json.loads((folder / "scenes" / "region_descriptions.json").read_text())
    examples = [each for some in collection.splits.values() for each in some]
    assert len(examples) == sum(len(image["regions"]) for image in content)
    assert all(each.box is not None for each in examples)
    assert len({each.name for each in examples}) == len(examples)
    images = [{each.image for each in some} for some in collection.splits.values()]
    assert len(set.union(*images)) == sum(map(len, images)) == 12


def test_the_image_and_the_place_follow_the_cells(
    folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    collection = region_collection(folder / "scenes" / "region_descriptions.json")
    first = collection.split("train")[0]
    others = [each for each in collection.split("train") if each.image == first.image]
    rows = box_features(recipe.encoder, others, tmp_path)
    assert rows.shape[:2] == (len(others), 6)  # 2 x 2 cells, the image and the place
    assert (rows[0, -2] == rows[1, -2]).all()
    assert (rows[0, :-2] != rows[1, :-2]).any()
    assert others[0].box is not None
    x, y, width, height = np.array(others[0].box.xywh) / [160, 128, 160, 128]
    expected = [10 * x, 10 * y, 10 * (x + width), 10 * (y + height), 10 * width * height]
    np.testing.assert_allclose(rows[0, -1, :5], expected, rtol=1e-2)
    moved = replace(others[0], box=others[1].box)
    again = box_features(recipe.encoder, [moved], tmp_path)
    np.testing.assert_allclose(again[0], rows[1], atol=1e-2)


def test_the_bundle_describes_boxes_by_their_features_and_the_images(folder: Path) -> None:
    bundle = Bundle.open(folder / "phrases-v1")
    assert bundle.manifest.input == "box"
    captioner = load(bundle.folder, threads=1)
    options = CaptionOptions(labels=0)
    whole = captioner.encode(folder / "scenes" / "1.jpg", options)
    assert whole.features.shape[1] == 6
    np.testing.assert_allclose(whole.features[0, -2], whole.features[0, :-2].mean(0), atol=1e-3)
    np.testing.assert_allclose(whole.features[0, -1, :5], [0, 0, 10, 10, 10])
    found = captioner.regions(folder / "scenes" / "1.jpg", [(0, 0, 80, 128)])
    elsewhere = load_image(folder / "scenes" / "1.jpg")
    elsewhere.paste((0, 0, 0), (100, 0, 160, 128))
    changed = captioner.regions(elsewhere, [(0, 0, 80, 128)])
    assert found.regions[0].score != changed.regions[0].score


def test_it_captions_and_evaluates_on_the_command_line(folder: Path) -> None:
    model = str(folder / "phrases-v1")
    image = str(folder / "scenes" / "1.jpg")
    done = CliRunner().invoke(app, ["caption", image, "--model", model])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["regions", image, "--model", model, "--box", "0,0,80,128"])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 1


def test_images_without_boxes_and_unfit_starts_are_refused(folder: Path, tmp_path: Path) -> None:
    plain = [Example(folder / "scenes" / "1.jpg", ("a dog",))]
    with pytest.raises(DataError, match=r"got 1\.jpg without a box"):
        box_features(RECIPE.encoder, plain, tmp_path)
    with pytest.raises(RecipeError, match="a model with grid features for a run with box features"):
        train(
            RECIPE.with_fit(start_from="everyday-lite2-v2"),
            region_collection(folder / "scenes" / "region_descriptions.json"),
            tmp_path / "run",
            features=tmp_path,
        )
    with pytest.raises(RecipeError, match="got 2 views of regions"):
        replace(RECIPE, encoder=replace(RECIPE.encoder, views=2)).check()
