"""Calibrate how sure a captioner's captions are, and measure what words beside a picture do.

    python scripts/calibrate.py MODEL DATA [--docs docs] [--package src/cutline/site]

MODEL is a bundle's name or folder, DATA a folder in Flickr8k's Kaggle layout, whose development
split is captioned; about 14 s a run of 1,000 images on two cores, 13 runs. Written are
docs/confidence.json with all figures, docs/confidence.png, and the model's curve into the package's
confidence.json, beside those of other models.

Fits          a caption fits if its CIDEr-D against an image's references is at least the lower
              quartile of people's: of each reference against the others of its image. Those are
              sentences that people wrote of the picture, so a caption that fits is as near to what
              people say as three in four people are; below it, read one by one, most captions get
              something wrong.
Confidence    P(fits | score), the score being the mean log-probability per token: isotonic
              regression by pool-adjacent-violators (Ayer et al., 1955), straight lines between the
              means of its blocks; shares are by Laplace's rule, (those that fit + 1) / (all + 2),
              so that none is certain. `error` is the expected calibration error in ten bins of
              equal size, of curves fitted on four fifths and judged on the fifth.
Threshold     the confidence, in steps of 0.05, that comes nearest to withholding the worst fifth.
In context    words that stand beside a picture are favoured by so many nats. `right`: the words are
              one of the image's references, which is then left out of scoring; that is the best
              that a page could say. `mixed`: it stands among those of three other images. `wrong`:
              one reference of another image. The score is CIDEr-D against the other four.
              `context_nats` is the last step up that gains with mixed words at least twice what it
              costs with wrong ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from cutline import load
from cutline.caption import Caption, CaptionOptions, InContext
from cutline.captioner import BundleCaptioner
from cutline.data import digest, read_flickr8k
from cutline.evaluation import metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Floats = NDArray[np.float64]
ROOT = Path(__file__).resolve().parent.parent
CONTEXT_NATS = (0.5, 1.0, 2.0, 3.0)
WITHHELD = 0.2


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write figures, picture and curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a bundle's name or folder")
    parser.add_argument("data", type=Path, help="a folder in Flickr8k's Kaggle layout")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--package", type=Path, default=ROOT / "src" / "cutline" / "site")
    options = parser.parse_args(arguments)

    examples = read_flickr8k(options.data).split("dev")
    captioner = load(options.model)
    references = [[metrics.tokenize(text) for text in example.captions] for example in examples]
    people = peoples_scores(references)
    bar = float(np.quantile(people, 0.25))

    plain = run(captioner, (example.image for example in examples), 0.0)
    cider = metrics.CiderD(references).corpus(tokens(plain))
    scores = np.array([caption.score for caption in plain])
    fits = cider >= bar
    knots, shares = isotonic(scores, fits)
    confidences = np.interp(scores, knots, shares)
    threshold = choose_threshold(confidences)
    kept = confidences >= threshold

    held = [i % len(texts) for i, texts in enumerate(references)]
    others = metrics.CiderD(
        [
            [text for place, text in enumerate(texts) if place != held[i]]
            for i, texts in enumerate(references)
        ]
    )
    beside = words_beside([example.captions[h] for example, h in zip(examples, held, strict=True)])
    alone = others.corpus(tokens(plain))
    table: list[dict[str, Any]] = []
    for name, words in beside.items():
        table.append({"words": name, "context_nats": 0.0, **_row(alone, alone)})
        for nats in CONTEXT_NATS:
            pictures = [InContext(e.image, w) for e, w in zip(examples, words, strict=True)]
            said = run(captioner, pictures, nats)
            judged = others.corpus(tokens(said))
            sure = np.interp([caption.score for caption in said], knots, shares)
            row = _row(judged, alone) | {
                "confidence": round(float(sure.mean()), 3),
                "fits": round(float((judged >= bar).mean()), 3),
            }
            table.append({"words": name, "context_nats": nats, **row})
            print(table[-1], file=sys.stderr)

    figures = {
        "model": captioner.name,
        "data": {"name": "flickr8k dev", "images": len(examples), "sha256": digest(examples)},
        "fits": {
            "means": "CIDEr-D at least the lower quartile of people's on the same pictures",
            "cider_d": round(bar, 4),
            "people": [round(float(v), 4) for v in np.quantile(people, (0.25, 0.5, 0.75))],
            "share": round(float(fits.mean()), 4),
        },
        "error": round(cross_validated_error(scores, fits), 4),
        "threshold": threshold,
        "kept": round(float(kept.mean()), 4),
        "fits_of_kept": round(float(fits[kept].mean()), 4),
        "fits_of_withheld": round(float(fits[~kept].mean()), 4),
        "curve": [
            {"threshold": round(t, 2), **_at(t, confidences, fits)} for t in np.arange(0.2, 1, 0.05)
        ],
        "context_nats": choose_context(table),
        "context": table,
    }
    options.docs.mkdir(parents=True, exist_ok=True)
    _write(options.docs / "confidence.json", figures)
    draw(scores, fits, (knots, shares), threshold, options.docs / "confidence.png")

    package = options.package / "confidence.json"
    known = json.loads(package.read_text("utf-8")) if package.is_file() else {"models": {}}
    known["models"][captioner.name] = {
        "scores": [round(float(score), 4) for score in knots],
        "fits": [round(float(share), 4) for share in shares],
    }
    _write(package, known)


def run(captioner: BundleCaptioner, pictures: Iterable[Any], nats: float) -> list[Caption]:
    """Every picture's caption, words beside it favoured by `nats`."""
    options = CaptionOptions(labels=0, context_nats=nats)
    captions = []
    for number, caption in enumerate(captioner.stream(pictures, options), 1):
        captions.append(caption)
        if sys.stderr.isatty():
            print(f"\r{nats} nats: {number} images", end="", file=sys.stderr)
    return captions


def tokens(captions: Iterable[Caption]) -> list[list[str]]:
    """Captions as metrics read them."""
    return [metrics.tokenize(caption.text) for caption in captions]


def peoples_scores(references: list[list[list[str]]]) -> Floats:
    """CIDEr-D of every reference against the others of its image."""
    scores = []
    for place in range(min(map(len, references))):
        rest = [texts[:place] + texts[place + 1 :] for texts in references]
        judge = metrics.CiderD(rest, references)
        scores.append(judge.corpus([texts[place] for texts in references]))
    return np.concatenate(scores)


def words_beside(own: Sequence[str]) -> dict[str, list[str]]:
    """What may stand beside each picture: its own words, others' too, or only another's."""
    count = len(own)
    return {
        "right": list(own),
        "mixed": [
            " ".join(own[(i + step * count // 4) % count] for step in range(4))
            for i in range(count)
        ],
        "wrong": [own[(i + count // 2) % count] for i in range(count)],
    }


def isotonic(scores: Floats, fits: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The non-decreasing shares of what fits by score: the blocks' mean scores and shares."""
    order = np.argsort(scores, kind="stable")
    blocks: list[tuple[float, float, int]] = []  # sum of scores, sum of fits, count
    for score, fit in zip(scores[order], fits[order], strict=True):
        blocks.append((float(score), float(fit), 1))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    sums = np.array(blocks)
    shares = (sums[:, 1] + 1) / (sums[:, 2] + 2)
    return sums[:, 0] / sums[:, 2], np.maximum.accumulate(shares)


def choose_threshold(confidences: Floats) -> float:
    """The threshold, in steps of 0.05, that comes nearest to withholding a fifth."""
    steps = np.arange(0, 1.05, 0.05)
    return round(float(min(steps, key=lambda t: abs((confidences < t).mean() - WITHHELD))), 2)


def choose_context(table: Sequence[dict[str, Any]]) -> float:
    """The last step up that gains with mixed words at least twice what it costs with wrong ones."""
    mixed, wrong = (
        np.diff([row["cider_d"] for row in table if row["words"] == words])
        for words in ("mixed", "wrong")
    )
    worthwhile = mixed >= -2 * wrong
    steps = len(worthwhile) if worthwhile.all() else int(np.argmin(worthwhile))
    return [0.0, *CONTEXT_NATS][steps]


def cross_validated_error(scores: Floats, fits: NDArray[np.bool_], folds: int = 5) -> float:
    """Expected calibration error of curves on images they were not fitted on."""
    said = np.empty_like(scores)
    for fold in range(folds):
        out = np.arange(len(scores)) % folds == fold
        said[out] = np.interp(scores[out], *isotonic(scores[~out], fits[~out]))
    bins = np.array_split(np.argsort(said, kind="stable"), 10)
    gaps = [len(each) * abs(said[each].mean() - fits[each].mean()) for each in bins]
    return float(sum(gaps) / len(scores))


def draw(
    scores: Floats,
    fits: NDArray[np.bool_],
    curve: tuple[Floats, Floats],
    threshold: float,
    picture: Path,
) -> None:
    """Two curves as a PNG: confidence by score, and what thresholds keep."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for each in np.array_split(np.argsort(scores), 20):
        left.plot(scores[each].mean(), fits[each].mean(), "o", color="tab:gray", markersize=4)
    left.plot(*curve, color="tab:blue")
    left.set(xlabel="score (nats per token)", ylabel="share that fits", ylim=(0, 1))
    left.set_title("dots: 50 captions each; line: confidence", fontsize=10)
    confidences = np.interp(scores, *curve)
    steps = np.arange(0.2, 0.96, 0.01)
    rows: list[tuple[str, str, Callable[[float], float]]] = [
        ("suggested", "tab:gray", lambda t: float((confidences >= t).mean())),
        ("of these, fit", "tab:green", lambda t: _at(t, confidences, fits)["fits"]),
    ]
    for label, color, share in rows:
        right.plot(steps, [share(t) for t in steps], color=color, label=label)
    right.axvline(threshold, color="tab:red", linewidth=1, label=f"default threshold {threshold}")
    right.set(xlabel="threshold (confidence)", ylabel="share of captions", ylim=(0, 1.02))
    right.legend(frameon=False, ncols=3, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _at(threshold: float, confidences: Floats, fits: NDArray[np.bool_]) -> dict[str, float]:
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
