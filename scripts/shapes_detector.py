"""Train a small detector on synthetic images of shapes, and write the data to train over it.

    python scripts/shapes_detector.py FOLDER [--steps 600] [--scenes 500]

FOLDER gets detector.pt (a state dict for a recipe with encoder.backbone = "fasterrcnn_small"),
detector.onnx (for `cutline regions --detector`), scenes/ with captions.csv and
region_descriptions.json, and the recipe up-down.toml. Then:

    cutline train FOLDER/up-down.toml --run FOLDER/run
    cutline export FOLDER/run -o FOLDER/shapes-v1
    cutline caption FOLDER/scenes/1.jpg --model FOLDER/shapes-v1
    cutline regions FOLDER/scenes/1.jpg --detector FOLDER/detector.onnx
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cutline.boxes import overlaps
from cutline.data.shape_scenes import CLASSES, Scene, scenes, write_scenes
from cutline.training.detectors import SMALL, build_detector, write_plain_onnx

RECIPE = """\
[data]
sources = ["{folder}/scenes/captions.csv"]
clean_up = "cutline"
min_count = 1

[encoder]
features = "regions"
backbone = "{detector}"
weights = "{folder}/detector.pt"
side_px = 128
views = 1

[decoder]
kind = "up-down"
width = 128
embedding = 128
attention = 64

[fit]
epochs = 15
learning_rate = 3e-3
warmup_steps = 50
encoder_learning_rate = 0.0
ema_decay = 0.9
dev_beam = 1
"""


def main() -> None:
    """Parse the arguments, train, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    folder: Path = arguments.folder
    write_scenes(folder / "scenes", arguments.scenes)
    began = time.perf_counter()
    net = build_detector(SMALL, len(CLASSES))
    fit(net, [*scenes(1000, seed=7)], arguments.steps)
    torch.save(net.state_dict(), folder / "detector.pt")
    write_plain_onnx(net, folder / "detector.onnx", [*CLASSES])
    recipe = RECIPE.format(folder=folder.resolve(), detector=SMALL)
    (folder / "up-down.toml").write_text(recipe, encoding="utf-8")
    print(f"{arguments.steps} steps in {time.perf_counter() - began:.0f} s")
    print(report(net, [*scenes(100, seed=8)]))


def pixels(image: Image.Image) -> Tensor:
    """(3,H,W), 0 to 1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def target(scene: Scene) -> dict[str, Tensor]:
    """Boxes (N,4) and labels (N,) as torchvision's detectors take them."""
    boxes = torch.tensor([each.box for each in scene.shapes], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    return {"boxes": boxes, "labels": torch.tensor([CLASSES.index(s.kind) for s in scene.shapes])}


def fit(net: torch.nn.Module, data: list[Scene], steps: int, batch: int = 8) -> None:
    """Adam on torchvision's own losses."""
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    rng = np.random.default_rng(0)
    net.train()
    for step in range(steps):
        chosen = [data[i] for i in rng.integers(len(data), size=batch)]
        losses = net([pixels(s.image) for s in chosen], [target(s) for s in chosen])
        loss = torch.stack([*losses.values()]).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)
    net.eval()


@torch.inference_mode()
def report(net: torch.nn.Module, data: list[Scene]) -> str:
    """The share of shapes found among boxes with a score of 0.5 or more, and of correct boxes."""
    found = correct = total = named = 0
    for scene in data:
        [result] = net([pixels(scene.image)])
        keep = result["scores"] >= 0.5
        boxes = result["boxes"][keep].numpy().astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        expected = np.array([each.box for each in scene.shapes], np.float64)
        total += len(expected)
        found += len(boxes)
        if len(boxes):
            shared = overlaps(expected, boxes)
            hits = shared.max(1) >= 0.5
            correct += int(hits.sum())
            labels = result["labels"][keep].numpy()[shared.argmax(1)]
            kinds = np.array([CLASSES.index(each.kind) for each in scene.shapes])
            named += int((hits & (labels == kinds)).sum())
    return (
        f"{total} shapes: {100 * correct / total:.1f} % found, {100 * named / total:.1f} % with "
        f"the right class; {found} boxes"
    )


if __name__ == "__main__":
    main()
