"""Correlation of metrics with Flickr8k's human judgements (Hodosh et al., 2013).

The protocol is the one that papers on caption metrics report: Anderson et al. (2016, SPICE) and
Hessel et al. (2021, CLIPScore, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.errors import DataError, MissingExtraError
from cutline.evaluation import metrics
from cutline.tables import read_table

Tokens = list[str]
Metric = Callable[[Sequence[Tokens], Sequence[Sequence[Tokens]]], NDArray[np.float64]]

CAPTIONS = "Flickr8k.token.txt"
EXPERT, CROWD = "ExpertAnnotations.txt", "CrowdFlowerAnnotations.txt"
PUBLISHED: dict[str, tuple[float, float]] = {
    "BLEU-1": (32.3, 17.9),
    "BLEU-4": (30.8, 16.9),
    "ROUGE-L": (32.3, 19.9),
    "METEOR": (41.8, 22.3),
    "CIDEr-D": (43.9, 24.6),
}


@dataclass(frozen=True)
class Judgement:
    """The human ratings of one caption of an image.

    Attributes:
        image: the image's file name.
        candidate: the rated caption, written for this or another image.
        references: the captions of the image without the candidate.
        own: whether the candidate was written for this image.
        ratings: the experts' ratings, 1 to 4, or the share of yes answers of the crowd, 0 to 1.
    """

    image: str
    candidate: str
    references: tuple[str, ...]
    own: bool
    ratings: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """Kendall's rank correlation of a metric with people, -1 to 1, over so many ratings.

    `expert` is tau-c, `crowd` tau-b; None without those judgements.
    """

    metric: str
    expert: float | None
    expert_ratings: int
    crowd: float | None
    crowd_ratings: int


def read_judgements(folder: Path) -> tuple[list[Judgement], list[Judgement]]:
    """The experts' and the crowd's judgements; a list is empty where its file is missing.

    `folder` holds `Flickr8k.token.txt` and `ExpertAnnotations.txt`, `CrowdFlowerAnnotations.txt`
    or both, as in the release Flickr8k_text.

    Raises:
        DataError: the captions or both files of judgements are missing, or a line is invalid.
    """
    captions: dict[str, str] = {}
    of_image: dict[str, list[str]] = {}
    token_file = folder / CAPTIONS
    if not token_file.is_file():
        raise DataError(f"got no {CAPTIONS} in {folder}; expected the release's captions there")
    for number, (name, text) in _rows(token_file, 2):
        if "#" not in name:
            raise DataError(f"{token_file}:{number}: got {name!r}; expected IMAGE.jpg#NUMBER")
        captions[name] = text
        of_image.setdefault(name.partition("#")[0], []).append(name)

    def judgement(path: Path, number: int, image: str, name: str, *ratings: float) -> Judgement:
        if image not in of_image or name not in captions:
            raise DataError(f"{path}:{number}: got {image}, {name}; expected both in {token_file}")
        references = tuple(captions[other] for other in of_image[image] if other != name)
        return Judgement(image, captions[name], references, name in of_image[image], ratings)

    expert, crowd = [], []
    path = folder / EXPERT
    for number, (image, name, *marks) in _rows(path, 5):
        expert.append(judgement(path, number, image, name, *_numbers(path, number, marks)))
    path = folder / CROWD
    for number, (image, name, share, *_) in _rows(path, 5):
        crowd.append(judgement(path, number, image, name, *_numbers(path, number, [share])))
    if not expert and not crowd:
        raise DataError(f"got neither {EXPERT} nor {CROWD} in {folder}; expected one of them")
    return expert, crowd


def verify(
    expert: Sequence[Judgement], crowd: Sequence[Judgement], *, meteor: bool = True
) -> list[Agreement]:
    """Correlate each metric with the judgements.

    Experts: candidates written for the image itself are omitted, and each of the three ratings is
    a row; tau-c. Crowd: the share of yes, all pairs, the candidate never among its own references;
    tau-b. Document frequencies for CIDEr-D come from the references of the pairs judged.

    Raises:
        MissingExtraError: `cutline[eval]`, which brings SciPy and METEOR, is not installed.
        EngineError: METEOR failed.
    """
    fair = [each for each in expert if not each.own]
    rows: dict[str, list[float | None]] = {}
    for judgements, variant in ((fair, "c"), (list(crowd), "b")):
        for name, metric in metric_table(meteor).items():
            tau = _tau(metric, judgements, variant) if judgements else None
            rows.setdefault(name, []).append(tau)
    counts = sum(len(each.ratings) for each in fair), len(crowd)
    return [Agreement(name, e, counts[0], c, counts[1]) for name, (e, c) in rows.items()]


def metric_table(meteor: bool = True) -> Mapping[str, Metric]:
    """Functions by metric name that return the score of each candidate: (I,)."""
    table: dict[str, Metric] = {
        f"BLEU-{order}": partial(_bleu, order=order) for order in range(1, 5)
    }
    table["ROUGE-L"] = metrics.rouge_l
    if meteor:
        table["METEOR"] = lambda candidates, references: metrics.meteor(
            metrics.meteor_statistics(candidates, references)
        )
    table["CIDEr-D"] = lambda candidates, references: metrics.CiderD(references).corpus(candidates)
    return table


def to_markdown(found: Sequence[Agreement]) -> str:
    """A table with the published figures, all times 100."""
    lines = [
        "| | expert, tau-c | published | crowd, tau-b | published |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        expert, crowd = PUBLISHED.get(each.metric, (None, None))
        cells = [_percent(each.expert), _plain(expert), _percent(each.crowd), _plain(crowd)]
        lines.append(f"| {each.metric} | {' | '.join(cells)} |")
    first = found[0]
    lines += ["", f"{first.expert_ratings} expert and {first.crowd_ratings} crowd ratings."]
    return "\n".join(lines) + "\n"


def _tau(metric: Metric, judgements: Sequence[Judgement], variant: str) -> float:
    try:
        from scipy.stats import kendalltau
    except ModuleNotFoundError as error:
        raise MissingExtraError("rank correlation", "eval") from error
    scores = metric(
        [metrics.tokenize(each.candidate) for each in judgements],
        [[metrics.tokenize(text) for text in each.references] for each in judgements],
    )
    rated = np.array([rating for each in judgements for rating in each.ratings])
    repeated = np.repeat(scores, [len(each.ratings) for each in judgements])
    return float(kendalltau(repeated, rated, variant=variant).statistic)


def _bleu(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], order: int
) -> NDArray[np.float64]:
    return metrics.bleu(metrics.bleu_statistics(candidates, references), order)


def _rows(path: Path, least: int) -> list[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its number; none if there is no file."""
    rows: list[tuple[int, list[str]]] = []
    if not path.is_file():
        return rows
    for record in read_table(path, delimiter="\t", quotes=False):
        cells = [cell.strip() for cell in record.cells]
        if any(cells):
            if len(cells) < least:
                raise DataError(f"{path}:{record.line}: got {len(cells)} columns; expected {least}")
            rows.append((record.line, cells))
    return rows


def _numbers(path: Path, number: int, cells: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise DataError(f"{path}:{number}: got {cells}; expected numbers") from error


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _plain(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1f}"
