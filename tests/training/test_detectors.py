"""Runs over a detector's boxes, from training to a bundle that captions a JPEG."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from cutline.backends.detectors import OnnxDetector
from cutline.bundle import Bundle, Manifest
from cutline.caption import CaptionOptions
from cutline.captioner import load
from cutline.cli import app
from cutline.data import read
from cutline.data.shape_scenes import CLASSES, scenes, write_scenes
from cutline.errors import BundleError, ParityError, RecipeError, WeightsError
from cutline.image import load_image
from cutline.options import SearchOptions
from cutline.regions.model import RegionOptions
from cutline.run_log import DETECTOR_FILE
from cutline.training.checkpoint import Trained
from cutline.training.decoders import DecoderOptions
from cutline.training.detectors import SMALL, DetectorEncoder, build_detector, write_plain_onnx
from cutline.training.export import export
from cutline.training.parity import check_detector
from cutline.training.recipe import DataOptions, EncoderOptions, FitOptions, Recipe
from cutline.training.trainer import train

NO_LABELS = CaptionOptions(labels=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, a detector with random weights, a run over its boxes, and the run's bundle."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    torch.save(build_detector(SMALL, 4).state_dict(), folder / "detector.pt")
    collection = read(write_scenes(folder / "scenes", 15))
    recipe = Recipe(
        name="boxes",
        data=DataOptions(train=("train",), min_count=1),
        encoder=EncoderOptions(
            SMALL, "regions", views=1, weights=str(folder / "detector.pt"), side_px=64
        ),
        decoder=DecoderOptions(kind="up-down", width=16, embedding=16),
        fit=FitOptions(epochs=1, batch_images=6, captions_per_image=1, warmup_steps=1),
    )
    train(recipe, collection, folder / "run", features=folder / "features")
    export(
        folder / "run",
        collection,
        folder / "boxes-v1",
        summary="Describes shapes.",
        options=SearchOptions(beam_size=2, max_tokens=8),
    )
    return folder


def test_a_bundle_with_a_detector_captions_files_like_any_other(folder: Path) -> None:
    bundle = Bundle.open(folder / "boxes-v1")
    assert bundle.manifest.input == "detector"
    assert json.loads((bundle.folder / "manifest.json").read_text())["format"] == 3
    images = sorted((folder / "scenes").glob("*.jpg"))[:2]
    done = CliRunner().invoke(
        app, ["caption", *map(str, images), "--model", str(bundle.folder), "--format", "jsonl"]
    )
    assert done.exit_code == 0, done.output
    texts = [json.loads(line)["caption"] for line in done.stdout.splitlines()]
    assert len(texts) == 2
    assert all(texts)


def test_the_bundle_repeats_what_torch_computes(folder: Path) -> None:
    trained = Trained.read(folder / "run")
    captioner = load(folder / "boxes-v1", engine="onnxruntime", threads=1)
    image = load_image(folder / "scenes" / "3.jpg")
    encoded = captioner.encode(image, NO_LABELS)
    pixels = trained.transform(image)
    with torch.no_grad():
        features, embedding, boxes = trained.encoder(torch.from_numpy(pixels)[None])
    assert encoded.boxes is not None
    near = nearest(encoded.boxes, boxes[0].numpy())
    scale = float(features.abs().max())
    found = encoded.features[0] / scale
    np.testing.assert_allclose(found, features[0].numpy()[near] / scale, atol=5e-3)
    np.testing.assert_allclose(encoded.embedding / scale, embedding[0] / scale, atol=5e-3)


def nearest(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the other boxes each box is; float16 weights can exchange two of them."""
    distances = np.abs(boxes[:, None] - others[None]).max(-1)
    assert distances.min(1).max() < 2e-3
    return distances.argmin(1)


def test_attention_over_boxes_becomes_a_map_of_the_image(folder: Path) -> None:
    captioner = load(folder / "boxes-v1", threads=1)
    attention = captioner.caption(folder / "scenes" / "1.jpg").attention
    assert attention is not None
    assert attention.grid == (14, 14)
    np.testing.assert_allclose(attention.weights.sum(axis=1), 1, atol=1e-3)


def test_regions_are_the_boxes_of_the_bundles_detector(folder: Path) -> None:
    captioner = load(folder / "boxes-v1", threads=1)
    image = load_image(folder / "scenes" / "1.jpg")
    found = captioner.regions(image, options=RegionOptions(max_overlap=1.0, proposals=36))
    encoded = captioner.encode(image, NO_LABELS)
    assert encoded.boxes is not None
    left, top, right, bottom = (encoded.boxes * [*image.size, *image.size]).T
    boxes = np.stack([left, top, right - left, bottom - top], 1)
    for region in found.regions:
        assert np.abs(boxes - region.box.xywh).max(1).min() < 1e-2


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (160, 64)])
def test_the_graph_takes_any_aspect_ratio(folder: Path, size: tuple[int, int]) -> None:
    trained = Trained.read(folder / "run")
    captioner = load(folder / "boxes-v1", engine="onnxruntime", threads=1)
    pixels = np.random.default_rng(0).random((1, 3, *size), np.float32)
    encoded = captioner.runtime.encode(pixels)
    with torch.no_grad():
        _, _, boxes = trained.encoder(torch.from_numpy(pixels))
    assert encoded.boxes is not None
    assert sorted(nearest(encoded.boxes[0], boxes[0].numpy())) == list(range(36))


def test_a_graph_with_other_boxes_is_refused(folder: Path) -> None:
    trained = Trained.read(folder / "run")
    torch.manual_seed(1)
    other = replace(trained, encoder=DetectorEncoder(build_detector(SMALL, 4)).eval())
    runtime = load(folder / "boxes-v1", threads=1).runtime
    pixels = trained.transform(load_image(folder / "scenes" / "1.jpg"))[None]
    with pytest.raises(ParityError, match="of 36 boxes of torch in the graph"):
        check_detector(other, runtime, pixels)


def test_a_run_whose_detector_changed_or_is_missing_is_not_exported(
    folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / DETECTOR_FILE).write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(RecipeError, match=r"detector\.pt, which has changed since"):
        Trained.read(run)
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["encoder"]["weights"] = str(tmp_path / "absent.pt")
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(WeightsError, match=r"absent\.pt: No such file"):
        Trained.read(run)


def test_a_run_over_feature_files_is_not_exported(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / DETECTOR_FILE).unlink()
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["encoder"] |= {"regions": "bottom-up.tsv", "weights": ""}
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match=r"features from bottom-up\.tsv, whose detector is unkn"):
        Trained.read(run)


def test_an_encoder_without_boxes_does_not_fit_a_detectors_manifest(
    folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder / "boxes-v1", tmp_path / "boxes-v1")
    manifest = Manifest.read(copy / "manifest.json")
    replace(manifest, input="image").write(copy / "manifest.json")
    with pytest.raises(BundleError, match="got an encoder with boxes; expected one that fits"):
        load(copy).caption(folder / "scenes" / "1.jpg")
    replace(manifest, input="sound").write(copy / "manifest.json")
    with pytest.raises(BundleError, match="got input 'sound'; expected image, detector, box"):
        load(copy)


def test_a_detector_file_finds_the_boxes_that_torch_finds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_detector(SMALL, len(CLASSES), count=5)
    write_plain_onnx(net.eval(), tmp_path / "detector.onnx", [*CLASSES])
    graph = onnx.load(tmp_path / "detector.onnx")
    assert [each.name for each in graph.graph.output] == ["boxes", "labels", "scores"]
    [scene] = scenes(1)
    found = OnnxDetector(tmp_path / "detector.onnx", threads=1, min_score=0.0)(scene.image)
    pixels = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        [expected] = net([pixels])
    corners = expected["boxes"].numpy()
    for each, box, label in zip(found, corners, expected["labels"].tolist(), strict=True):
        x, y, width, height = each.box.xywh
        np.testing.assert_allclose([x, y, x + width, y + height], box, atol=0.05)
        assert each.label == CLASSES[label]
