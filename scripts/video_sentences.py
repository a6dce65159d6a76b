"""Compare ways to describe a shot in one sentence, on shots made from captioned photographs.

    python scripts/video_sentences.py DATA [--split dev] [--frames 4] [--limit 300]

DATA is a caption set as for `cutline data check`, with captions by people. Each photograph becomes
a shot: the camera pans over it and zooms, and a third of the frames have motion blur or are dark.
Prints Markdown: CIDEr-D of the sentences against the photograph's captions, with paired 95 %
bootstrap intervals of the differences to `average`.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from cutline.caption import CaptionOptions
from cutline.captioner import load
from cutline.data import read
from cutline.evaluation.metrics import CiderD, tokenize
from cutline.image import load_image
from cutline.video.describe import agreed

METHODS = ("average", "agreement", "middle")


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    captioner = load(arguments.model, threads=1)
    options = CaptionOptions(labels=0)
    examples = read(arguments.data).split(arguments.split)[: arguments.limit]
    sentences: dict[str, list[list[str]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    for number, example in enumerate(examples):
        shot = frames(load_image(example.image), arguments.frames, np.random.default_rng(number))
        encoded = [captioner.encode(image, options) for image in shot]
        middle = encoded[len(encoded) // 2]
        mean = np.mean([each.features for each in encoded], axis=0, dtype=np.float32)
        for method in METHODS:
            began = time.perf_counter()
            if method == "agreement":
                caption = agreed(captioner.decode(encoded, options))
            else:
                chosen = replace(middle, features=mean) if method == "average" else middle
                [caption] = captioner.decode([chosen], options)
            seconds[method] += time.perf_counter() - began
            sentences[method].append(tokenize(caption.text))
        [still] = captioner.decode([captioner.encode(example.image, options)], options)
        sentences["the photograph itself"].append(tokenize(still.text))
    cider = CiderD([[tokenize(text) for text in each.captions] for each in examples])
    scores = {name: cider.corpus(each) for name, each in sentences.items()}
    print(f"{len(examples)} shots of {arguments.frames} frames, {captioner.name}\n")
    print("| Method | CIDEr-D | minus average | ms per shot for decoding |")
    print("| --- | --: | --: | --: |")
    for name, each in scores.items():
        low, high = interval(each - scores["average"])
        apart = float((each - scores["average"]).mean())
        cost = f"{1000 * seconds[name] / len(examples):.0f}" if name in seconds else ""
        print(f"| {name} | {each.mean():.3f} | {apart:+.3f} [{low:+.3f}, {high:+.3f}] | {cost} |")


def frames(image: Image.Image, count: int, rng: np.random.Generator) -> Sequence[Image.Image]:
    """Frames of a camera that pans and zooms over an image, some of them blurred or dark."""
    starts, ends = rng.uniform(0, 1, 2), rng.uniform(0, 1, 2)
    sizes = rng.uniform(0.6, 1.0, 2)
    found = []
    for share in np.linspace(0, 1, count):
        size = sizes[0] + (sizes[1] - sizes[0]) * share
        across, down = starts + (ends - starts) * share
        width, height = image.width * size, image.height * size
        left, top = (image.width - width) * across, (image.height - height) * down
        box = (left, top, left + width, top + height)
        frame = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
        fault = rng.uniform()
        if fault < 1 / 6:
            frame = frame.filter(ImageFilter.BoxBlur(image.width / 40))
        elif fault < 1 / 3:
            frame = ImageEnhance.Brightness(frame).enhance(0.2)
        found.append(frame)
    return found


def interval(apart: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """A 95 % bootstrap interval of a mean."""
    drawn = np.random.default_rng(0).integers(0, len(apart), (draws, len(apart)))
    low, high = np.percentile(apart[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
