"""Compare captioners on the same images: an HTML page, JSON and a Markdown table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cutline import templating as page
from cutline.bundle import Manifest
from cutline.errors import DataError, ImageError
from cutline.evaluation import metrics
from cutline.evaluation.evaluate import ImageScore, Report, Result, Value
from cutline.evaluation.metrics import Comparison
from cutline.image import load_image
from cutline.run_log import METRICS, read_metrics, read_summary

FIRST = ("CIDEr-D", "BLEU-4", "METEOR", "ROUGE-L")
_PLOT_PX = (560, 240)


@dataclass(frozen=True)
class History:
    """How a captioner was trained.

    Attributes:
        parameters: number of trained parameters; None if unknown.
        seconds_per_epoch: training time; None if unknown.
        curve: (epoch, dev CIDEr-D in training), in order; empty if unknown.
    """

    parameters: int | None = None
    seconds_per_epoch: float | None = None
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Entry:
    """One captioner: its report, size and training history.

    Attributes:
        report: the evaluation, on the same images for all entries.
        parameters: the decoder's parameters, else all trained parameters; None if unknown.
        seconds_per_epoch, curve: see `History`.
    """

    report: Report
    parameters: int | None = None
    seconds_per_epoch: float | None = None
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def name(self) -> str:
        """The captioner's name."""
        return self.report.captioner.name


@dataclass(frozen=True)
class Pair:
    """The paired bootstrap test (Koehn, 2004) of two captioners' CIDEr-D."""

    first: str
    second: str
    cider_d: Comparison


@dataclass(frozen=True)
class Compared:
    """A comparison of captioners, best CIDEr-D first.

    Attributes:
        entries: the captioners.
        baselines: from the first report with baselines.
        pairs: all pairs of captioners, the better one first.
    """

    entries: tuple[Entry, ...]
    baselines: tuple[Result, ...]
    pairs: tuple[Pair, ...]

    def to_json(self) -> str:
        """The comparison as one JSON object, without the captions."""
        captioners = [
            {
                "name": entry.name,
                "scores": {m: asdict(v) for m, v in entry.report.captioner.scores.items()},
                "diversity": asdict(entry.report.captioner.diversity),
                "parameters": entry.parameters,
                "images_per_s": entry.report.images_per_s,
                "seconds_per_epoch": entry.seconds_per_epoch,
                "failed": len(entry.report.failed),
                "curve": entry.curve,
            }
            for entry in self.entries
        ]
        first = self.entries[0].report
        return json.dumps(
            {
                "images": len(first.images),
                "data_sha256": first.data_sha256,
                "captioners": captioners,
                "baselines": [asdict(each) for each in self.baselines],
                "pairs": [asdict(pair) for pair in self.pairs],
            },
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )

    def to_markdown(self) -> str:
        """A table with one captioner per line, then the baselines."""
        lines = [
            "| | CIDEr-D | BLEU-4 | METEOR | ROUGE-L | different words | decoder "
            "| s per epoch | images/s |",
            "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
        ]
        for row in self._rows():
            lines.append(f"| {' | '.join([row['name'], *row['cells']])} |")
        return "\n".join(lines) + "\n"

    def to_html(self, picture: Callable[[str], Path | None], *, examples: int = 4) -> str:
        """A self-contained HTML page.

        Args:
            picture: returns the file of an image by name, for the gallery; None omits the image.
            examples: number of examples in each part of the gallery.
        """
        return page.render(
            "compare.html",
            compared=self,
            rows=list(self._rows()),
            intervals=list(_intervals([e.report.captioner for e in self.entries], self.baselines)),
            curves=_curves(self.entries),
            significance=self._significance(),
            gallery=self._gallery(picture, examples),
            images=len(self.entries[0].report.images),
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        for entry in self.entries:
            scores = entry.report.captioner.scores
            cells = [_interval(scores[m]) if m in scores else "-" for m in FIRST]
            cells.append(str(entry.report.captioner.diversity.words))
            cells.append("-" if entry.parameters is None else f"{entry.parameters / 1e6:.1f} M")
            seconds = entry.seconds_per_epoch
            cells.append("-" if seconds is None else f"{seconds:.0f}")
            cells.append(f"{entry.report.images_per_s:.1f}")
            yield {"name": entry.name, "cells": cells, "baseline": False}
        for result in self.baselines:
            cells = [f"{result.scores[m].value:.3f}" if m in result.scores else "-" for m in FIRST]
            cells += [str(result.diversity.words), "-", "-", "-"]
            yield {"name": result.name, "cells": cells, "baseline": True}

    def _significance(self) -> list[list[Comparison | None]]:
        found = {(pair.first, pair.second): pair.cider_d for pair in self.pairs}
        names = [entry.name for entry in self.entries]
        return [[found.get((one, other)) for other in names] for one in names]

    def _gallery(
        self, picture: Callable[[str], Path | None], examples: int
    ) -> dict[str, list[dict[str, Any]]]:
        """The images with the best, worst and most different captions, each image once."""
        scores = np.array([[i.cider_d for i in e.report.images] for e in self.entries])  # (C, I)
        orders = {
            "Captioned best": np.argsort(-scores.mean(axis=0), kind="stable"),
            "Captioned worst": np.argsort(scores.mean(axis=0), kind="stable"),
        }
        if len(self.entries) > 1:
            orders["Where they differ most"] = np.argsort(-scores.std(axis=0), kind="stable")
        shown: set[int] = set()
        gallery = {}
        for title, order in orders.items():
            chosen = [int(i) for i in order if i not in shown][:examples]
            shown.update(chosen)
            if chosen:
                gallery[title] = [self._example(number, picture) for number in chosen]
        return gallery

    def _example(self, number: int, picture: Callable[[str], Path | None]) -> dict[str, Any]:
        captions: list[tuple[str, ImageScore]] = [
            (e.name, e.report.images[number]) for e in self.entries
        ]
        image = captions[0][1]
        return {
            "name": image.image,
            "picture": _thumbnail(picture(image.image)),
            "references": image.references,
            "captions": captions,
        }


def compare(entries: Sequence[Entry]) -> Compared:
    """Compare captioners that were evaluated on the same images.

    Raises:
        DataError: there are no entries, two have the same name, or the images differ.
    """
    names = [entry.name for entry in entries]
    check_names(names)
    if len({entry.report.data_sha256 for entry in entries}) > 1:
        raise DataError("got reports on different images; expected the same for all")
    ranked = sorted(entries, key=lambda e: -e.report.captioner.scores["CIDEr-D"].value)
    weights = metrics.resamples(len(ranked[0].report.images), seed=ranked[0].report.seed)
    scores = {
        entry.name: metrics.mean_score(
            np.array([image.cider_d for image in entry.report.images]), weights
        )
        for entry in ranked
    }
    pairs = tuple(
        Pair(one.name, other.name, metrics.compare(scores[one.name], scores[other.name]))
        for one, other in itertools.combinations(ranked, 2)
    )
    baselines = next((e.report.baselines for e in entries if e.report.baselines), ())
    return Compared(tuple(ranked), baselines, pairs)


def check_names(names: Sequence[str]) -> None:
    """Check that there is a captioner and that all names differ.

    Raises:
        DataError: there is no captioner, or two have the same name.
    """
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"got captioners {names}; expected at least one, each with a different name"
        )


def history(run: Path) -> History:
    """The parameters, speed and learning curve of a training run.

    Raises:
        DataError: the folder has no `metrics.csv`.
    """
    curve = read_metrics(run / METRICS).get("dev_cider", [])
    summary = read_summary(run)
    return History(summary.get("parameters"), summary.get("seconds_per_epoch"), (*curve,))


def entry(report: Report, manifest: Manifest | None = None, run: History = History()) -> Entry:
    """An entry from a report, the captioner's manifest and its training history."""
    known = None if manifest is None else manifest.parameters.get("decoder")
    return Entry(report, known or run.parameters, run.seconds_per_epoch, run.curve)


def _interval(value: Value) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _intervals(results: Sequence[Result], baselines: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """CIDEr-D and its interval as percentages of the largest, for bars."""
    everyone = [(r, False) for r in results] + [(r, True) for r in baselines]
    most = max(result.scores["CIDEr-D"].high for result, _ in everyone) or 1.0
    for result, baseline in everyone:
        value = result.scores["CIDEr-D"]
        yield {
            "name": result.name,
            "baseline": baseline,
            "value": value.value,
            "at": 100 * value.value / most,
            "low": 100 * value.low / most,
            "wide": 100 * (value.high - value.low) / most,
        }


def _curves(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Learning curves as points of an SVG; None if there is no curve."""
    known = [entry for entry in entries if entry.curve]
    if not known:
        return None
    width, height = _PLOT_PX
    last = max(epoch for entry in known for epoch, _ in entry.curve)
    top = max(score for entry in known for _, score in entry.curve) or 1.0
    x = [width * (epoch - 1) / max(1, last - 1) for epoch in range(1, last + 1)]
    lines = []
    for number, entry in enumerate(known):
        points = [(x[epoch - 1], height * (1 - score / top)) for epoch, score in entry.curve]
        lines.append(
            {
                "name": entry.name,
                "hue": round(360 * number / len(known)),
                "points": " ".join(f"{a:.1f},{b:.1f}" for a, b in points),
                "end": points[-1],
            }
        )
    return {"lines": lines, "width": width, "height": height, "epochs": last, "top": top}


def _thumbnail(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        picture = load_image(path, around_px=320)
    except ImageError:
        return ""
    content, _ = page.thumbnail(picture, 320, quality=80)
    return page.data_uri(content, "image/jpeg")
