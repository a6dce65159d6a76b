"""A run's figures by epoch, and learning curves as a picture of them."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Series = dict[str, list[tuple[int, float]]]
"""(epoch from 1, value) by the metric's name."""


def add_metrics(metrics: Path, epoch: int, figures: dict[str, float]) -> None:
    """Add an epoch's figures to a run's `metrics.csv`, where epochs count from 0."""
    new = not metrics.exists()
    with metrics.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["epoch", *figures])
        if new:
            writer.writeheader()
        writer.writerow({"epoch": epoch, **figures})


def read_metrics(metrics: Path) -> Series:
    """The figures in a run's `metrics.csv`; of an epoch that was begun twice, the later ones."""
    series: dict[str, dict[int, float]] = {}
    with metrics.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            epoch = int(row.pop("epoch")) + 1
            for name, value in row.items():
                series.setdefault(name, {})[epoch] = float(value)
    return {name: sorted(values.items()) for name, values in series.items()}


def plot_curves(metrics: Path, picture: Path) -> None:
    """Draw loss and dev CIDEr-D by epoch from a run's `metrics.csv` into a PNG."""
    series = read_metrics(metrics)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
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
    plt.close(figure)
