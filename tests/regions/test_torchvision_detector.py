from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from conftest import scene
from typer.testing import CliRunner

pytest.importorskip("torchvision")

import torch
from torchvision.models import detection

from cutline.backends.detectors import TorchvisionDetector
from cutline.cli import app
from cutline.errors import OptionError

NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"
CAT = 17


def test_an_untrained_detector_runs_and_unknown_names_are_refused() -> None:
    found = TorchvisionDetector(NAME, weights=None, min_score=0.0)(scene(96, 64))
    assert all(each.box.x >= 0 and each.box.x + each.box.width <= 96.01 for each in found)
    with pytest.raises(OptionError, match="got detector torchvision:yolo; expected fasterrcnn_"):
        TorchvisionDetector("yolo")


def test_weights_in_torchs_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    weights = net.state_dict()
    weights["roi_heads.box_predictor.cls_score.bias"][CAT] = 9.0
    url = detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT.url
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(weights, cache / url.rsplit("/", 1)[1])
    scene(96, 64).save(tmp_path / "a.png")
    model = str(tiny.build(tmp_path / "models").folder)
    arguments = ["regions", str(tmp_path / "a.png"), "--model", model, "--format", "json"]
    done = CliRunner().invoke(app, [*arguments, "--detector", f"torchvision:{NAME}"])
    assert done.exit_code == 0, done.output
    regions = json.loads(done.stdout)["regions"]
    assert regions
    assert {region["label"] for region in regions} == {"cat"}
