"""Put our captioners on the ground of a popular Flickr8k notebook; write docs/notebook.{json,md}.

    python scripts/notebook.py flickr8k/ --runs runs/notebook
    python scripts/notebook.py flickr8k/ --runs runs/notebook --only notebook-merge up-down

The notebook (DenseNet201 and an LSTM, startseq and endseq) takes Flickr8k's images in the order of
captions.txt, trains on the first 85 % and validates on the others. Its words are cleaned up as by
`CleanUp.named("notebook")`, its vocabulary is every word of every caption, and its validation loss
is the cross-entropy of each word and the end mark. It reports a validation loss of 3.6118, 5.58
images a second for its features and 245 seconds an epoch, on a machine that it does not name.

Here all that is the same but the features, EfficientNet-Lite2's: pooled for the merge model, its
9 x 9 grid for the others. A run that was stopped goes on; one that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cutline.data import Collection, Example, digest, read
from cutline.text import CleanUp, Vocabulary
from cutline.training.encoders import EncoderOptions
from cutline.training.features import extract_features
from cutline.training.recipe import Recipe
from cutline.training.trainer import Run, train

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("notebook-merge", "soft-attention-lstm", "up-down", "transformer")
IMAGES, TRAIN_SHARE = 8_091, 0.85
THEIRS = {"dev_loss": 3.6118, "images_per_s": 5.58, "epoch_s": 245.0}


def split(data: Path) -> Collection:
    """The notebook's split: images in the order of the captions, the first 85 % to train on."""
    collection = read(data, unsplit=True)
    images = collection.splits["all"]
    train_images = int(TRAIN_SHARE * len(images))
    parts = {"train": images[:train_images], "dev": images[train_images:]}
    return replace(collection, splits=parts)


def missing(data: Path, images: tuple[Example, ...]) -> str:
    """Which of Flickr8k's images are not there, in words."""
    absent = IMAGES - len(images)
    if not absent:
        return "no image is missing"
    told = f"{absent:,} of Flickr8k's {IMAGES:,} images are missing here"
    lists = {path: path.read_text().split() for path in data.glob("Flickr_8k.*Images.txt")}
    here = {example.name for example in images}
    gone = [name for names in lists.values() for name in names if name not in here]
    if gone:
        return f"{told}: {', '.join(sorted(gone))}"
    if not any("test" in path.name for path in lists):
        return f"{told}: those of its test split, whose list is not there either"
    return told


def recipe_for(name: str) -> Recipe:
    """A recipe as it comes, on the notebook's words and by its loss."""
    recipe = Recipe.find(name)
    data = replace(
        recipe.data, train=("train",), dev="dev", clean_up="notebook", min_count=1, max_tokens=40
    )
    return replace(recipe, data=data, fit=replace(recipe.fit, monitor="dev_loss"))


def measure_features(images: tuple[Example, ...], runs: Path) -> dict[str, Any]:
    """Images a second, read, looked at by Lite2 and pooled; measured once, then remembered."""
    record = runs / "features.json"
    if not record.is_file():
        runs.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        extract_features(
            EncoderOptions(features="pooled"), images, runs / f"measured-{os.getpid()}"
        )
        seconds = time.perf_counter() - began
        found = {"images": len(images), "seconds": round(seconds, 1)}
        found["images_per_s"] = round(len(images) / seconds, 1)
        record.write_text(json.dumps(found) + "\n")
    content: dict[str, Any] = json.loads(record.read_text())
    return content


def machine() -> str:
    """The processor, its cores, and how busy it was."""
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = (
            line.split(":")[1] for line in cpu.read_text().splitlines() if "model name" in line
        )
        model = next(names, model).strip()
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}, {platform.system()}"


def table(result: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = [
        "# On the notebook's own ground",
        "",
        f"Written by `scripts/notebook.py`. {result['train']:,} images to train on and "
        f"{result['dev']:,} to validate on, {result['words']:,} words; {result['missing']}. The "
        "loss is the cross-entropy of each word and the end mark, in nats. DenseNet201's weights "
        "were not at hand: the features here are EfficientNet-Lite2's, pooled for the merge model, "
        "a 9 x 9 grid for the others. The notebook does not say what machine it ran on; ours: "
        f"{result['machine']}, one thread for training.",
        "",
        "| Model | Validation loss | Best epoch | CIDEr-D | Weights | Seconds an epoch |",
        "| --- | --: | --: | --: | --: | --: |",
        f"| the notebook | {THEIRS['dev_loss']:.4f} | | | | {THEIRS['epoch_s']:.0f} |",
    ]
    for name, run in result["runs"].items():
        lines.append(
            f"| {name} | {run['dev_loss']:.4f} | {run['best_epoch']} of {run['epochs']} | "
            f"{run['dev_cider']:.3f} | {run['parameters'] / 1e6:.1f} M | {run['epoch_s']:.0f} |"
        )
    seen = result["features"]
    lines += [
        "",
        f"Features: {seen['images_per_s']} images a second ({seen['images']:,} in "
        f"{seen['seconds']} s) beside the notebook's {THEIRS['images_per_s']}. CIDEr-D is over "
        "words as the notebook cleans them, without single letters, and compares with no other "
        "table.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing, then write what all came to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="Flickr8k's folder")
    parser.add_argument("--runs", type=Path, default=Path("runs/notebook"))
    parser.add_argument("--only", nargs="+", default=RECIPES, choices=RECIPES)
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    options = parser.parse_args()

    collection = split(options.data)
    examples = collection.split("train", "dev")
    clean_up = CleanUp.named("notebook")
    words = Vocabulary.build((clean_up.words(c) for e in examples for c in e.captions), 1)
    result: dict[str, Any] = {
        "train": len(collection.splits["train"]),
        "dev": len(collection.splits["dev"]),
        "words": len(words) - 4,
        "missing": missing(options.data, examples),
        "sha256": digest(examples),
        "machine": machine(),
        "features": measure_features(examples, options.runs),
        "notebook": THEIRS,
        "runs": {},
    }
    for name in RECIPES:
        folder = options.runs / name
        if name in options.only and not (folder / "done").exists():
            features = options.runs / "features"
            resume = folder.exists()
            train(
                recipe_for(name), collection, folder,
                features=features, resume=resume, vocabulary=words,
            )  # fmt: skip
            (folder / "done").touch()
        if (folder / "done").exists():
            run = asdict(Run.read(folder))
            result["runs"][name] = {k: v for k, v in run.items() if k not in ("folder", "best")}
            (options.output / "notebook.json").write_text(json.dumps(result, indent=1) + "\n")
            (options.output / "notebook.md").write_text(table(result))
    print(table(result), end="")


if __name__ == "__main__":
    main()
