"""Evaluate a captioner on captioned images, with baselines on the same images."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutline.caption import Caption, Captioner, CaptionOptions
from cutline.data import Example, digest
from cutline.errors import DataError, EngineError, ImageError, MissingExtraError, OptionError
from cutline.evaluation import metrics
from cutline.evaluation.baselines import Neighbours
from cutline.evaluation.metrics import Comparison, Diversity, Score
from cutline.evaluation.partial import PartialCaptions
from cutline.jsonl import finite
from cutline.progress import OnProgress, Progress, ignore
from cutline.text import ENGLISH, choose_clean_up

Embed = Callable[[Sequence[Path]], NDArray[np.floating[Any]]]
Tokens = list[str]

HUMAN, NEAREST, COMMON, RANDOM = "human", "nearest neighbour", "most common", "random"


@dataclass(frozen=True)
class Value:
    """A score with its 95 % bootstrap interval over images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """The scores of one source of captions."""

    name: str
    references: float
    """mean number of reference captions per image; human captions have one fewer."""
    scores: dict[str, Value]
    diversity: Diversity
    lead: dict[str, Comparison]
    """by metric, the captioner's score minus this score; empty for human captions."""


@dataclass(frozen=True)
class ImageScore:
    """One image with its caption, references and scores."""

    image: str
    caption: str
    references: tuple[str, ...]
    cider_d: float
    score: float | None
    """the captioner's mean log-probability per token in nats; None without a caption or score."""
    error: str | None
    """why there is no caption; the image is scored with an empty caption."""


@dataclass(frozen=True)
class Report:
    """The evaluation of a captioner."""

    captioner: Result
    baselines: tuple[Result, ...]
    skipped: dict[str, str]
    """metrics and baselines that are missing, with the reason."""
    images: tuple[ImageScore, ...]
    seconds: float
    """wall time of captioning, without scoring."""
    images_per_s: float
    data_sha256: str
    """checksum of image names and reference captions, in order."""
    seed: int

    @property
    def failed(self) -> tuple[ImageScore, ...]:
        """The images without a caption."""
        return tuple(image for image in self.images if image.error is not None)

    def to_json(self) -> str:
        """The report as one JSON object."""
        return json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a report that `to_json` wrote.

        Raises:
            DataError: the text is no such report.
        """
        try:
            fields = json.loads(text)
            return cls(
                **{
                    **fields,
                    "captioner": _result(fields["captioner"]),
                    "baselines": tuple(map(_result, fields["baselines"])),
                    "images": tuple(
                        ImageScore(**{**image, "references": tuple(image["references"])})
                        for image in fields["images"]
                    ),
                }
            )
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"the file is no report ({error}); expected one from `cutline evaluate --output`"
            ) from error

    def to_markdown(self) -> str:
        """A table with one metric per line: the captioner with intervals, then the baselines."""
        results = (self.captioner, *self.baselines)
        lines = [
            ["", *(result.name for result in results)],
            ["---", *("---:" for _ in results)],
        ]
        for metric in self.captioner.scores:
            first, *others = (result.scores[metric] for result in results)
            interval = f"{first.value:.3f} [{first.low:.3f}, {first.high:.3f}]"
            lines.append([metric, interval, *(f"{other.value:.3f}" for other in others)])
        for label, show in _DIVERSITY.items():
            lines.append([label, *(show(result.diversity) for result in results)])
        lines.append(["references per image", *(f"{result.references:.1f}" for result in results)])
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        notes = [
            f"{len(self.images)} images, {len(self.failed)} of them without a caption; "
            f"{self.seconds:.1f} s, {self.images_per_s:.1f} images/s. In brackets: 95 % bootstrap "
            "intervals over images. CIDEr-D is what papers report as CIDEr.",
            *(f"No {what}: {why}." for what, why in self.skipped.items()),
            *(f"Failed: {image.image}: {image.error}" for image in self.failed),
        ]
        return f"{table}\n" + "\n".join(notes) + "\n"


_DIVERSITY: dict[str, Callable[[Diversity], str]] = {
    "different captions": lambda d: f"{d.unique_rate:.1%}",
    "share of the most frequent": lambda d: f"{d.top_share:.1%}",
    "different words": lambda d: f"{d.words}",
    "words per caption": lambda d: f"{d.mean_length:.1f}",
    "with a repeated phrase": lambda d: f"{d.repeated_rate:.1%}",
    "not in the training captions": lambda d: (
        "-" if d.novel_rate is None else f"{d.novel_rate:.1%}"
    ),
}


@dataclass(frozen=True)
class _CaptionSet:
    """Tokenized captions and their references."""

    name: str
    captions: list[Tokens]
    references: list[list[Tokens]]


def evaluate(
    captioner: Captioner,
    examples: Sequence[Example],
    *,
    limit: int | None = None,
    meteor: bool | None = None,
    baselines: bool = True,
    train: Sequence[Example] | None = None,
    embed: Embed | None = None,
    seed: int = 0,
    partial: PartialCaptions | None = None,
    on_progress: OnProgress = ignore,
) -> Report:
    """Caption images, score the captions, and score baselines on the same images.

    Args:
        captioner: the captioner. An image that it fails on is scored with an empty caption.
        examples: images with their reference captions.
        limit: use only this many examples, from the start.
        meteor: whether to score METEOR, and SPICE if installed, in Java; None: if installed.
        baselines: whether to score the baselines.
        train: the captioner's training examples; the most common caption, random captions,
            nearest neighbours and the share of novel captions come from them.
        embed: returns (B, D) embeddings of B paths in the captioner's space, for the nearest
            neighbours; called with all of `train`. Without it, or if an image cannot be read,
            there is no nearest-neighbour baseline.
        seed: the seed of random captions and of the bootstrap.
        partial: captions of an unfinished run, which are reused; new captions are added. None
            keeps no captions.
        on_progress: called after each caption.

    Raises:
        OptionError: `limit` is not positive.
        DataError: there are no examples, an example has no references, or the captioner returns
            fewer or more captions than images.
        MissingExtraError, EngineError: METEOR was requested and cannot run.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"got limit {limit}; expected at least 1, or None for all")
    examples = examples[:limit]
    if not examples:
        raise DataError("got no images, as in an empty split; expected one: name another split")

    timed = list(_captioned(captioner, examples, partial, on_progress))
    captions = [caption for caption, _ in timed]
    seconds = sum(duration for _, duration in timed)
    if len(captions) != len(examples):
        raise DataError(
            f"got {len(captions)} captions for {len(examples)} images; expected one each"
        )

    texts = ["" if caption.error is not None else caption.text for caption in captions]
    references = [[metrics.tokenize(text) for text in example.captions] for example in examples]
    sets = [_CaptionSet(captioner.name, [metrics.tokenize(text) for text in texts], references)]
    skipped: dict[str, str] = {}
    if choose_clean_up(text for each in examples for text in each.captions) != ENGLISH:
        skipped["comparison with published scores"] = (
            "the metrics tokenize captions as English, which does not fit the language of these "
            "references"
        )
    known = None if train is None else [[metrics.tokenize(t) for t in e.captions] for e in train]
    if baselines:
        sets += _baselines(examples, captions, references, train, known, embed, seed, skipped)

    scored = _score(sets, meteor, seed, skipped)
    results = [
        Result(
            name=each.name,
            references=sum(map(len, each.references)) / len(each.references),
            scores={m: Value(score.value, score.low, score.high) for m, score in scores.items()},
            diversity=metrics.diversity(
                [tokens for tokens in each.captions if tokens] or [[]],
                None if known is None else (tokens for group in known for tokens in group),
            ),
            lead={}
            if number == 0 or each.name == HUMAN
            else {m: metrics.compare(scored[0][m], score) for m, score in scores.items()},
        )
        for number, (each, scores) in enumerate(zip(sets, scored, strict=True))
    ]
    image_scores = tuple(
        ImageScore(
            image=example.name,
            caption=text,
            references=example.captions,
            cider_d=float(cider_d),
            score=finite(caption.score) if caption.error is None else None,
            error=None if caption.error is None else str(caption.error),
        )
        for example, text, caption, cider_d in zip(
            examples, texts, captions, scored[0]["CIDEr-D"].per_image, strict=True
        )
    )
    return Report(
        captioner=results[0],
        baselines=tuple(results[1:]),
        skipped=skipped,
        images=image_scores,
        seconds=seconds,
        images_per_s=len(examples) / max(seconds, 1e-9),
        data_sha256=digest(examples),
        seed=seed,
    )


def _captioned(
    captioner: Captioner,
    examples: Sequence[Example],
    partial: PartialCaptions | None,
    on_progress: OnProgress,
) -> Iterator[tuple[Caption, float]]:
    """Each image's caption with the seconds it took; captions in `partial` are reused."""
    name = captioner.name
    known = [None if partial is None else partial.get(name, each.image) for each in examples]
    missing = [each.image for each, pair in zip(examples, known, strict=True) if pair is None]
    captions = captioner.stream(missing, CaptionOptions(labels=0))
    failed = 0
    for done, (example, pair) in enumerate(zip(examples, known, strict=True), 1):
        if pair is None:
            began = time.perf_counter()
            caption = next(captions, None)
            if caption is None:
                return
            pair = caption, time.perf_counter() - began
            if partial is not None:
                partial.add(name, example.image, *pair)
        failed += pair[0].error is not None
        on_progress(Progress("captioning", done, len(examples), failed))
        yield pair
    yield from ((surplus, 0.0) for surplus in captions)


def _baselines(
    examples: Sequence[Example],
    captions: Sequence[Caption],
    references: list[list[Tokens]],
    train: Sequence[Example] | None,
    known: list[list[Tokens]] | None,
    embed: Embed | None,
    seed: int,
    skipped: dict[str, str],
) -> Iterator[_CaptionSet]:
    if all(len(group) > 1 for group in references):
        rest = [group[1:] for group in references]
        yield _CaptionSet(HUMAN, [group[0] for group in references], rest)
    else:
        skipped[HUMAN] = "an image has a single reference"
    if not train or not known:
        skipped[f"{NEAREST}, {COMMON}, {RANDOM}"] = "no training captions were given"
        return
    if embed is None:
        skipped[NEAREST] = "the captioner has no embeddings"
    else:
        try:
            own = [caption.embedding for caption in captions if caption.embedding is not None]
            vectors = (
                np.stack(own)
                if len(own) == len(captions)
                else embed([example.image for example in examples])
            )
            neighbours = Neighbours(embed([example.image for example in train]), known)
            yield _CaptionSet(NEAREST, neighbours.consensus(vectors), references)
        except (ImageError, OptionError) as error:
            skipped[NEAREST] = str(error)
    pool = [tokens for group in known for tokens in group]
    common = Counter(map(tuple, pool)).most_common(1)[0][0]
    yield _CaptionSet(COMMON, [list(common)] * len(examples), references)
    draw = random.Random(seed)
    yield _CaptionSet(RANDOM, [draw.choice(pool) for _ in examples], references)


def _score(
    sets: Sequence[_CaptionSet], meteor: bool | None, seed: int, skipped: dict[str, str]
) -> list[dict[str, Score]]:
    weights = metrics.resamples(len(sets[0].captions), seed=seed)
    java: dict[str, list[NDArray[np.float64]]] = {}
    if meteor is not False:
        captions = [tokens for each in sets for tokens in each.captions]
        references = [group for each in sets for group in each.references]
        for name, count in {"METEOR": metrics.meteor_statistics, "SPICE": metrics.spice}.items():
            try:
                java[name] = np.split(count(captions, references), len(sets))
            except (MissingExtraError, EngineError) as error:
                if meteor and name == "METEOR":
                    raise
                skipped[name] = str(error)
    ciders: dict[int, metrics.CiderD] = {}
    scored = []
    for number, each in enumerate(sets):
        shared = id(each.references)
        cider = ciders[shared] = ciders.get(shared) or metrics.CiderD(each.references)
        rows = metrics.bleu_statistics(each.captions, each.references)
        scores = {
            f"BLEU-{order}": Score.of(rows, partial(metrics.bleu, order=order), weights)
            for order in range(1, 5)
        }
        if "METEOR" in java:
            scores["METEOR"] = Score.of(java["METEOR"][number], metrics.meteor, weights)
        means = {
            "ROUGE-L": metrics.rouge_l(each.captions, each.references),
            "CIDEr-D": cider.corpus(each.captions),
            **({"SPICE": java["SPICE"][number]} if "SPICE" in java else {}),
        }
        scored.append(scores | {m: metrics.mean_score(rows, weights) for m, rows in means.items()})
    return scored


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot represent by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def _result(fields: Mapping[str, Any]) -> Result:
    return Result(
        name=fields["name"],
        references=fields["references"],
        scores={metric: Value(**value) for metric, value in fields["scores"].items()},
        diversity=Diversity(**fields["diversity"]),
        lead={metric: Comparison(**lead) for metric, lead in fields["lead"].items()},
    )
