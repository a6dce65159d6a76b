"""Measure a detector of torchvision as the encoder of a bundle: parity, speed and memory.

    python scripts/detector_bundle.py [--name NAME] IMAGE...

The weights are random, since only the architecture matters here. Prints Markdown.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from cutline.image import load_image
from cutline.training.detectors import DETECTOR, DETECTORS, DetectorEncoder, build_detector
from cutline.training.detectors import write_onnx as write_detector
from cutline.training.export import compress


def main() -> None:
    """Parse the arguments, measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--name", default=DETECTOR, choices=DETECTORS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("images", nargs="+", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    encoder = DetectorEncoder(build_detector(arguments.name)).eval()
    transform = encoder.transform
    pixels = [
        transform(load_image(path, around_px=transform.via_px))[None] for path in arguments.images
    ]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "encoder.onnx"
        began = time.perf_counter()
        write_detector(encoder, path)
        export_s = time.perf_counter() - began
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        session = onnxruntime.InferenceSession(path, options)
        same, apart, torch_s, onnx_s = [], [], 0.0, 0.0
        for each in pixels:
            began = time.perf_counter()
            with torch.inference_mode():
                features, _, boxes = (out.numpy() for out in encoder(torch.from_numpy(each)))
            torch_s += time.perf_counter() - began
            began = time.perf_counter()
            theirs, _, found = session.run(None, {"pixels": each})
            onnx_s += time.perf_counter() - began
            distances = np.abs(boxes[0][:, None] - found[0][None]).max(-1)
            near = distances.min(1) <= 1e-3
            same.append(float(near.mean()))
            nearest = theirs[0][distances.argmin(1)]
            scale = float(np.abs(features).max())
            apart.append(float(np.abs(features[0] - nearest)[near].max() / scale))
        megabytes = path.stat().st_size / 1e6
        compress(path, int8=False)
        half = path.stat().st_size / 1e6
    count = len(pixels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    parameters = sum(each.numel() for each in encoder.parameters()) / 1e6
    print(
        f"{arguments.name}, random weights, {count} images of {transform.shorter_px} px\n\n"
        "| Measure | Value |\n| --- | --: |\n"
        f"| parameters | {parameters:.1f} M |\n"
        f"| encoder.onnx, float32 and as exported | {megabytes:.0f} and {half:.0f} MB |\n"
        f"| boxes of torch that the graph finds | {100 * np.mean(same):.1f} % |\n"
        f"| largest relative difference of their features | {max(apart):.1g} |\n"
        f"| torch, {arguments.threads} threads | {torch_s / count:.2f} s per image |\n"
        f"| ONNX Runtime, {arguments.threads} threads | {onnx_s / count:.2f} s per image |\n"
        f"| export | {export_s:.0f} s |\n"
        f"| peak memory of this process, with torch | {peak:.0f} MB |"
    )


if __name__ == "__main__":
    main()
