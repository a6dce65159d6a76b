"""The files of a training run: their names, metrics by epoch, learning curves, the summary.

This module owns their format. It needs no torch, so that comparing runs does not either.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cutline.atomic import write_whole
from cutline.errors import DataError, RecipeError

Series = dict[str, list[tuple[int, float]]]
"""(epoch from 1, value) by the metric's name."""

RECIPE = "recipe.json"
"""All options of the run, with defaults filled in."""
DATA = "data.json"
"""Name, licence, size and digest of the training data, as a bundle's manifest has them."""
INPUTS = "inputs.json"
"""Digests of the training and the dev data, by which a resumed run is checked."""
DETECTOR_FILE = "detector.json"
"""SHA-256 of the weights of the detector whose regions the run was trained on."""
SCHEDULE = "schedule.json"
"""The number of steps that the time budget was converted to."""
METRICS = "metrics.csv"
SAMPLES = "samples.txt"
"""Captions of the first dev images after each epoch."""
CURVES = "curves.png"
SUMMARY = "summary.json"
BEST = "best.ckpt"
LAST = "last.ckpt"
SOURCE = "source.txt"
"""The paths of the data, one per line."""
PICTURES = "pictures"
"""Folder of synthetic images."""


@dataclass(frozen=True)
class Run:
    """The result of a run, by its best epoch.

    Attributes:
        folder: the run's folder.
        best: the checkpoint of the best epoch.
        epochs: how many there were.
        best_epoch: the best one, from 1.
        dev_loss: its mean negative log-likelihood per token on the dev split, nats.
        dev_cider: its CIDEr-D there.
        parameters: trained weights.
        epoch_s: median wall time per epoch, in seconds, without validation.
    """

    folder: Path
    best: Path
    epochs: int
    best_epoch: int
    dev_loss: float
    dev_cider: float
    parameters: int
    epoch_s: float

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run that `train` wrote.

        Raises:
            RecipeError: `recipe.json` is missing or damaged.
            DataError: `metrics.csv` is missing or has no whole epoch.
        """
        fit = read_recipe(folder).get("fit", {})
        series = read_metrics(folder / METRICS)
        if not series.get("dev_cider") or not series.get("dev_loss"):
            raise DataError(f"got {folder} without a whole epoch; expected one: resume the run")
        loss, cider = dict(series["dev_loss"]), dict(series["dev_cider"])
        if fit.get("monitor", "dev_cider") == "dev_cider":
            best = max(cider, key=lambda epoch: cider[epoch])
        else:
            best = min(loss, key=lambda epoch: loss[epoch])
        return cls(
            folder,
            folder / BEST,
            len(loss),
            best,
            loss[best],
            cider[best],
            int(series["parameters"][0][1]),
            float(median(seconds for _, seconds in series["epoch_s"])),
        )

    def write(self) -> None:
        """Write `summary.json` into the run's folder."""
        content = {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "dev_loss": self.dev_loss,
            "dev_cider": self.dev_cider,
            "parameters": self.parameters,
            "seconds_per_epoch": self.epoch_s,
        }
        write_json(self.folder / SUMMARY, content)


def read_recipe(folder: Path) -> dict[str, Any]:
    """The options of a run, as nested tables.

    Raises:
        RecipeError: there is no run in that folder, or its `recipe.json` is damaged.
    """
    path = folder / RECIPE
    if not path.is_file():
        raise RecipeError(f"got {folder} without {RECIPE}; expected a folder of `train`")
    content = read_json(path)
    if content is None:
        raise RecipeError(
            f"got {path}, which is damaged; expected the recipe of the run: restore it, or train "
            "again in another folder"
        )
    return content


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of `summary.json`; {} if it is missing or damaged."""
    return read_json(folder / SUMMARY) or {}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is missing, damaged or something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object in one step.

    Raises:
        OutputError: the folder is missing or the disk refuses.
    """
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_sources(folder: Path, sources: Sequence[Path]) -> None:
    """Record where a run's data is, for `export`; nothing if the folder is missing."""
    if sources and folder.is_dir():
        write_whole(folder / SOURCE, "".join(f"{path.resolve()}\n" for path in sources))


def read_sources(folder: Path) -> list[Path]:
    """Where a run's data was; empty if that is unknown."""
    try:
        lines = (folder / SOURCE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return []
    return [Path(line.strip()) for line in lines if line.strip()]


def add_metrics(metrics: Path, epoch: int, figures: Mapping[str, float]) -> None:
    """Add an epoch's figures to `metrics.csv`, where epochs count from 0; it is replaced if there.

    Raises:
        OutputError: the disk refuses.
    """
    rows = {number: row for number, row in _rows(metrics).items() if number != epoch}
    rows[epoch] = {name: repr(float(value)) for name, value in figures.items()}
    _write_rows(metrics, rows)


def read_metrics(metrics: Path) -> Series:
    """The figures in `metrics.csv`, by metric.

    Raises:
        DataError: the file is missing.
    """
    if not metrics.is_file():
        raise DataError(
            f"got {metrics.parent} without {metrics.name}; expected a training run's folder"
        )
    series: Series = {}
    for epoch, row in sorted(_rows(metrics).items()):
        for name, value in row.items():
            series.setdefault(name, []).append((epoch + 1, float(value)))
    return series


def rewind(folder: Path, epochs: int) -> None:
    """Remove the records of all epochs but the first so many, before a run resumes after them."""
    metrics, samples = folder / METRICS, folder / SAMPLES
    if metrics.is_file():
        rows = _rows(metrics)
        _write_rows(metrics, {epoch: row for epoch, row in rows.items() if epoch < epochs})
    if samples.is_file():
        kept: dict[int, list[str]] = {}
        number = 0
        for line in samples.read_text(encoding="utf-8", errors="replace").splitlines():
            word, _, count = line.partition(" ")
            if word == "epoch" and count.isdigit():
                number = int(count)
                kept[number] = []
            kept.setdefault(number, []).append(line)
        lines = [line for epoch, each in kept.items() if epoch <= epochs for line in each]
        write_whole(samples, "".join(f"{line}\n" for line in lines))


def add_samples(folder: Path, epoch: int, captions: Mapping[str, str]) -> None:
    """Append captions by image to `samples.txt`, under the epoch's number from 1."""
    lines = [f"epoch {epoch}", *(f"  {image}: {text}" for image, text in captions.items())]
    with (folder / SAMPLES).open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def plot_curves(metrics: Path, picture: Path) -> None:
    """Draw loss and dev CIDEr-D by epoch from a run's `metrics.csv` into a PNG."""
    from matplotlib.figure import Figure

    series = read_metrics(metrics)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("train_loss", "train"), ("dev_loss", "dev")):
        points = series.get(name, [(1, float("nan"))])
        left.plot(*zip(*points, strict=True), marker=".", label=label)
    left.set(xlabel="epoch", ylabel="loss (nats per token)")
    left.legend(frameon=False)
    points = series.get("dev_cider", [(1, float("nan"))])
    right.plot(*zip(*points, strict=True), marker=".", color="tab:green")
    right.set(xlabel="epoch", ylabel="dev CIDEr-D")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(picture, dpi=110)


def _rows(metrics: Path) -> dict[int, dict[str, str]]:
    """The rows by epoch from 0; of an epoch that is there twice, the later values.

    A row that a killed process left unfinished is left out.
    """
    rows: dict[int, dict[str, str]] = {}
    if not metrics.is_file():
        return rows
    with metrics.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                epoch = int(row.pop("epoch"))
                values = {k: v for k, v in row.items() if v != "" and float(v) is not None}
            except (KeyError, TypeError, ValueError):
                continue
            rows.setdefault(epoch, {}).update(values)
    return rows


def _write_rows(metrics: Path, rows: Mapping[int, Mapping[str, str]]) -> None:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["epoch", *names], restval="", lineterminator="\n")
    writer.writeheader()
    for epoch, row in sorted(rows.items()):
        writer.writerow({"epoch": str(epoch), **row})
    write_whole(metrics, text.getvalue(), synced=False)
