"""Calibrate a captioner's confidence on one or more captioned data sets.

    python scripts/calibrate.py MODEL DATA... [--split dev] [--context] [--docs docs]

MODEL is a bundle's name or folder, DATA a folder that `cutline data check` reads. The script
captions the split of each data set and writes docs/confidence.json with all figures,
docs/confidence.png with a reliability diagram for each data set, and the model's curve into
site/decide/confidence.json, next to the curves of other models.

Fits          a caption fits if its CIDEr-D against the references of its image is at least the
              lower quartile of human captions of the same data set, each scored against the other
              references of its image. Document frequencies come from the same split.
Confidence    P(fits | score), where the score is the mean log-probability per token: isotonic
              regression by pool-adjacent-violators (Ayer et al., 1955) on all data sets together,
              each with the same total weight, and linear interpolation between the block means.
              Laplace's rule, (fitting + 1) / (all + 2), keeps every share between 0 and 1.
Error         expected calibration error in ten bins of equal size, with five-fold
              cross-validation: each image's confidence is predicted by a curve that was fitted
              without it.
Threshold     the highest confidence, in steps of 0.05, that withholds at most a fifth of the
              captions of each data set.
Suggested     share of images that the model's classifier calls a photograph and whose caption
              reaches the threshold.
Context       with --context only: the effect of words near the image, which search favours by so
              many nats. `right`: the words are one of the image's references, which is then
              excluded from scoring. `mixed`: that reference and those of three other images.
              `wrong`: a reference of another image. `context_nats` is the last step up that gains
              with mixed words at least twice what it costs with wrong ones. Without --context the
              figures of an earlier run stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from cutline import load
from cutline.caption import Caption, CaptionOptions, InContext
from cutline.captioner import BundleCaptioner
from cutline.data import Example, digest, read
from cutline.evaluation import metrics
from cutline.image_kind import PHOTOGRAPH

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
ROOT = Path(__file__).resolve().parent.parent
CONTEXT_NATS = (0.5, 1.0, 2.0, 3.0)
KEPT = 0.8
FOLDS = 5


@dataclass(frozen=True)
class Measured:
    """One data set with the model's captions.

    Attributes:
        name, examples: the data set's split.
        scores: (I,) mean log-probability per token, nats.
        fits: (I,) whether each caption fits.
        photographs: (I,) whether the classifier calls the image a photograph.
        people: quartiles of human CIDEr-D; a caption fits from the first on.
        cider: mean CIDEr-D.
    """

    name: str
    examples: tuple[Example, ...]
    scores: Floats
    fits: Flags
    photographs: Flags
    people: Floats
    cider: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write figures, diagram and curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a bundle's name or folder")
    parser.add_argument("data", nargs="+", type=Path, help="folders of captioned images")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--context", action="store_true", help="measure words near the image")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument(
        "--package", type=Path, default=ROOT / "src" / "cutline" / "site" / "decide"
    )
    options = parser.parse_args(arguments)

    captioner = load(options.model)
    sets = [measure(captioner, data, options.split) for data in options.data]
    scores = np.concatenate([each.scores for each in sets])
    fits = np.concatenate([each.fits for each in sets])
    weights = np.concatenate(
        [np.full(len(each.fits), len(fits) / len(sets) / len(each.fits)) for each in sets]
    )
    knots, shares = isotonic(scores, fits, weights)
    predicted = cross_validated(scores, fits, weights)
    threshold = choose_threshold(np.interp(each.scores, knots, shares) for each in sets)

    earlier = options.docs / "confidence.json"
    context: dict[str, Any] = {}
    if options.context:
        context = measure_context(captioner, sets[0])
    elif earlier.is_file():
        known = json.loads(earlier.read_text("utf-8"))
        names = ("context_model", "context_nats", "context")
        context = {name: known[name] for name in names if name in known}

    places = np.cumsum([0, *(len(each.fits) for each in sets)])
    bounds = list(pairwise(places))
    figures = {
        "model": captioner.name,
        "fits": "CIDEr-D at least the lower quartile of human captions of the same data set",
        "threshold": threshold,
        "sets": [
            summary(each, np.interp(each.scores, knots, shares), predicted[first:last], threshold)
            for each, (first, last) in zip(sets, bounds, strict=True)
        ],
        **context,
    }
    options.docs.mkdir(parents=True, exist_ok=True)
    _write(options.docs / "confidence.json", figures)
    draw(
        {each.name: (predicted[a:b], each.fits) for each, (a, b) in zip(sets, bounds, strict=True)},
        options.docs / "confidence.png",
    )
    package = options.package / "confidence.json"
    models = json.loads(package.read_text("utf-8"))["models"] if package.is_file() else {}
    models[captioner.name] = {
        "scores": [round(float(score), 4) for score in knots],
        "fits": [round(float(share), 4) for share in shares],
    }
    _write(package, {"models": models})


def measure(captioner: BundleCaptioner, data: Path, split: str) -> Measured:
    """Caption one split and say which captions fit."""
    collection = read(data)
    examples = collection.split(split)
    references = [[metrics.tokenize(text) for text in example.captions] for example in examples]
    people = np.quantile(human_scores(references), (0.25, 0.5, 0.75))
    captions = run(captioner, (example.image for example in examples), 0.0)
    cider = metrics.CiderD(references).corpus(tokens(captions))
    return Measured(
        f"{collection.name} {split}",
        examples,
        np.array([caption.score for caption in captions]),
        cider >= people[0],
        np.array([each.kind is None or each.kind.name == PHOTOGRAPH for each in captions]),
        people,
        float(cider.mean()),
    )


def summary(
    measured: Measured, confidences: Floats, predicted: Floats, threshold: float
) -> dict[str, Any]:
    """The figures of one data set; `predicted` are cross-validated confidences."""
    kept = confidences >= threshold
    fits = measured.fits
    return {
        "name": measured.name,
        "images": len(fits),
        "sha256": digest(measured.examples),
        "cider_d": round(measured.cider, 4),
        "people": [round(float(value), 4) for value in measured.people],
        "fits": round(float(fits.mean()), 4),
        "error": round(calibration_error(predicted, fits), 4),
        "kept": round(float(kept.mean()), 4),
        "fits_of_kept": round(float(fits[kept].mean()), 4),
        "fits_of_withheld": round(float(fits[~kept].mean()), 4) if not kept.all() else None,
        "photographs": round(float(measured.photographs.mean()), 4),
        "suggested": round(float((kept & measured.photographs).mean()), 4),
        "curve": [
            {"threshold": round(float(step), 2), **_at(step, confidences, fits)}
            for step in np.arange(0.2, 0.96, 0.05)
        ],
    }


def measure_context(captioner: BundleCaptioner, measured: Measured) -> dict[str, Any]:
    """What words near the image do to CIDEr-D, on the first data set."""
    examples = measured.examples
    references = [[metrics.tokenize(text) for text in example.captions] for example in examples]
    held = [i % len(texts) for i, texts in enumerate(references)]
    others = metrics.CiderD(
        [
            [text for place, text in enumerate(texts) if place != held[i]]
            for i, texts in enumerate(references)
        ]
    )
    near = words_near([example.captions[h] for example, h in zip(examples, held, strict=True)])
    alone = others.corpus(tokens(run(captioner, (e.image for e in examples), 0.0)))
    table: list[dict[str, Any]] = []
    for name, words in near.items():
        table.append({"words": name, "context_nats": 0.0, **_row(alone, alone)})
        for nats in CONTEXT_NATS:
            images = [InContext(e.image, w) for e, w in zip(examples, words, strict=True)]
            scores = others.corpus(tokens(run(captioner, images, nats)))
            table.append({"words": name, "context_nats": nats, **_row(scores, alone)})
            print(table[-1], file=sys.stderr)
    return {
        "context_model": captioner.name,
        "context_nats": choose_context(table),
        "context": table,
    }


def run(captioner: BundleCaptioner, images: Iterable[Any], nats: float) -> list[Caption]:
    """Caption every image, with the words near it favoured by `nats`."""
    return list(captioner.stream(images, CaptionOptions(labels=0, context_nats=nats)))


def tokens(captions: Iterable[Caption]) -> list[list[str]]:
    """Captions as metrics read them."""
    return [metrics.tokenize(caption.text) for caption in captions]


def human_scores(references: list[list[list[str]]]) -> Floats:
    """CIDEr-D of every reference against the others of its image."""
    scores = []
    for place in range(min(map(len, references))):
        rest = [texts[:place] + texts[place + 1 :] for texts in references]
        judge = metrics.CiderD(rest, references)
        scores.append(judge.corpus([texts[place] for texts in references]))
    return np.concatenate(scores)


def words_near(own: Sequence[str]) -> dict[str, list[str]]:
    """Words near each image: its own, its own and others', or only another's."""
    count = len(own)
    return {
        "right": list(own),
        "mixed": [
            " ".join(own[(i + step * count // 4) % count] for step in range(4))
            for i in range(count)
        ],
        "wrong": [own[(i + count // 2) % count] for i in range(count)],
    }


def isotonic(scores: Floats, fits: Flags, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Fit non-decreasing shares of fitting captions: the blocks' mean scores and shares."""
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    blocks: list[tuple[float, float, float]] = []  # weighted sums of scores and of fits, weight
    for score, fit, weight in zip(scores[order], fits[order], weights[order], strict=True):
        blocks.append((float(score * weight), float(fit * weight), float(weight)))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    sums = np.array(blocks)
    shares = (sums[:, 1] + 1) / (sums[:, 2] + 2)
    return sums[:, 0] / sums[:, 2], np.maximum.accumulate(shares)


def cross_validated(scores: Floats, fits: Flags, weights: Floats) -> Floats:
    """The confidence of each image by a curve that was fitted without its fold."""
    predicted = np.empty_like(scores)
    for fold in range(FOLDS):
        out = np.arange(len(scores)) % FOLDS == fold
        predicted[out] = np.interp(scores[out], *isotonic(scores[~out], fits[~out], weights[~out]))
    return predicted


def calibration_error(predicted: Floats, fits: Flags) -> float:
    """Expected calibration error in ten bins of equal size."""
    bins = np.array_split(np.argsort(predicted, kind="stable"), 10)
    gaps = [len(each) * abs(predicted[each].mean() - fits[each].mean()) for each in bins]
    return float(sum(gaps) / len(fits))


def choose_threshold(sets: Iterable[Floats]) -> float:
    """The highest threshold, in steps of 0.05, at which every data set keeps enough captions."""
    sets = list(sets)
    steps = np.arange(0, 1.05, 0.05).round(2)
    enough = [step for step in steps if all((each >= step).mean() >= KEPT for each in sets)]
    return round(float(max(enough)), 2)


def choose_context(table: Sequence[dict[str, Any]]) -> float:
    """The last step up that gains with mixed words at least twice what it costs with wrong ones."""
    mixed, wrong = (
        np.diff([row["cider_d"] for row in table if row["words"] == words])
        for words in ("mixed", "wrong")
    )
    worthwhile = mixed >= -2 * wrong
    steps = len(worthwhile) if worthwhile.all() else int(np.argmin(worthwhile))
    return [0.0, *CONTEXT_NATS][steps]


def draw(sets: dict[str, tuple[Floats, Flags]], picture: Path) -> None:
    """Write a reliability diagram for each data set: predicted confidence against the share."""
    figure, axes = plt.subplots(
        1, len(sets), figsize=(5 * len(sets), 4.4), layout="constrained", squeeze=False
    )
    for panel, (name, (predicted, fits)) in zip(axes[0], sets.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="tab:gray", linewidth=1)
        for each in np.array_split(np.argsort(predicted, kind="stable"), 10):
            share, count = float(fits[each].mean()), len(each)
            spread = 1.96 * np.sqrt(share * (1 - share) / count)
            panel.errorbar(
                predicted[each].mean(), share, yerr=spread, fmt="o", color="tab:blue", markersize=5
            )
        error = calibration_error(predicted, fits)
        panel.set(xlabel="confidence", ylabel="share of captions that fit", xlim=(0, 1))
        panel.set_ylim(0, 1.02)
        panel.set_title(f"{name}, {len(fits)} images; error {error:.3f}", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _at(threshold: float, confidences: Floats, fits: Flags) -> dict[str, float]:
    kept = confidences >= threshold
    share = float(fits[kept].mean()) if kept.any() else 1.0
    return {"kept": round(float(kept.mean()), 4), "fits": round(share, 4)}


def _row(scores: Floats, alone: Floats) -> dict[str, float]:
    return {
        "cider_d": round(float(scores.mean()), 4),
        "better": round(float((scores > alone + 1e-9).mean()), 3),
        "worse": round(float((scores < alone - 1e-9).mean()), 3),
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
