"""Search: next-word log-probabilities -> captions. Greedy, beam and sampling; the one decoder.

Whatever can say a next word is a `Stepper`; `search` asks it once per position for all images and
hypotheses together, so its own work is a few array operations a step. Every image is searched by
itself: the others in the batch, and their order, change nothing. Ties go to the better hypothesis
and then to the lower token id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cutline.errors import EngineError, OptionError
from cutline.options import SearchOptions

__all__ = ["Hypothesis", "SearchOptions", "Stepper", "search"]

S = TypeVar("S")
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDING_NATS = 1e-3  # a sure word may come out this much above 0


class Stepper(Protocol[S]):
    """Says the next word for B images with K hypotheses each; its state is its own affair."""

    def step(self, state: S, tokens: Ints) -> tuple[Floats, Floats | None, S]:
        """Append one token to every hypothesis and say what may follow.

        Args:
            state: what the last `step` or `reorder` returned, for B images with K rows each.
            tokens: (B, K) ids, the last token of every hypothesis; bos at first.

        Returns:
            logprobs (B, K, V) in nats, at most 0; attention (B, K, N), non-negative, or None;
            the next state.
        """
        ...

    def reorder(self, state: S, rows: Ints) -> S:
        """Keep only these rows, in this order; not called when that would change nothing.

        Args:
            state: for B images with K rows each.
            rows: (B', K') flat indices b * K + k into the present rows. All rows of one line come
                from one image and lines keep the images' order, so that rows[:, 0] // K are the
                images that stay; an image that is absent is dropped.
        """
        ...


@dataclass(frozen=True)
class Hypothesis:
    """One caption as the search found it.

    Attributes:
        tokens: its ids, without bos and eos.
        logprob: the model's own log-probability of it, eos included, nats.
        rank: what it was ranked by: its biased log-probability / length**length_penalty.
        token_logprobs: of each token, then of eos unless it was cut off, nats.
        attention: (T, N), what the model looked at as it chose each of the T tokens, or None.
    """

    tokens: tuple[int, ...]
    logprob: float
    rank: float
    token_logprobs: tuple[float, ...]
    attention: Floats | None = field(default=None, compare=False, repr=False)

    @property
    def score(self) -> float:
        """The mean log-probability per token, eos counted, nats."""
        return self.logprob / len(self.token_logprobs)

    @property
    def ended(self) -> bool:
        """Whether it ends by eos; otherwise it was cut off at max_tokens."""
        return len(self.token_logprobs) > len(self.tokens)


def search(
    stepper: Stepper[S],
    state: S,
    images: int,
    options: SearchOptions,
    *,
    bos: int,
    eos: int,
    bias: Floats | None = None,
    banned: Sequence[int] = (),
    draw_keys: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Find captions for a batch of images.

    With beam_size 1 each word is the likeliest (greedy). With a larger one, the likeliest
    unfinished hypotheses stay alive at every step and each may also end there; an image is done
    when nothing alive can still rank among its n_best (with `early_stop`, when nothing alive ranks
    among them as it stands), with length-normalised ranks (Wu et al.
    2016, section 7, with the plain power of the length). With a temperature, n_best captions are
    drawn from the nucleus (Holtzman et al. 2020, section 3.1). Repeated n-grams are barred as by
    Paulus et al. 2018, section 2.5.

    Args:
        stepper: says the next word.
        state: its state for `images` images with one row each.
        images: how many there are.
        options: how to search.
        bos: the id every caption is started with.
        eos: the id that ends one.
        bias: (V,) for all images, or (B, V), added to the log-probabilities wherever words and
            captions are chosen, nats; reported log-probabilities do not contain it.
        banned: ids that never appear.
        draw_keys: a number from 0 up for each image, its place here if None. Draws depend on the
            seed and an image's key alone, so they are the same however a run is cut into batches.

    Returns:
        For each image n_best hypotheses, best first, those cut off after those that ended; fewer
        if the rules allow fewer. Only draws can be alike.

    Raises:
        OptionError: the bias or a banned id does not fit the vocabulary.
        EngineError: the stepper gave a log-probability above 0 or one that is not a number.
    """
    draws = _draws(options, range(images) if draw_keys is None else draw_keys)
    trail = _Trail()
    finished, cut = _Pool(images, options.n_best), _Pool(images, options.n_best)
    alive = np.arange(images)
    tokens = np.full((images, 1), bos, dtype=np.int64)
    totals = np.zeros((images, 1))
    history = np.empty((images, 1, 0), dtype=np.int64)
    offset = np.zeros((images, 0), dtype=np.float32)
    gain = np.zeros(images)

    for length in range(1, options.max_tokens + 1):
        if not alive.size:
            break
        logprobs, attention, state = stepper.step(state, tokens)
        count, width, vocabulary = logprobs.shape
        if not (highest := logprobs.max()) <= _ROUNDING_NATS:
            raise EngineError(
                f"got a log-probability of {highest} for word {length}; expected at most 0; "
                "does the model end in a log-softmax, and are its weights finite?"
            )
        if length == 1:
            offset = _offset(images, vocabulary, bias, banned)
            gain = offset.max(axis=1).astype(np.float64)
        scores = logprobs + offset[alive, None]
        if length <= options.min_tokens:
            scores[..., eos] = -np.inf
        if options.no_repeat_ngram:
            _bar_repeats(scores, history, options.no_repeat_ngram)

        if draws is not None:
            words = _draw(scores, draws[alive, :, length - 1], options)
            choice = _follow(scores, totals, words, eos)
        elif options.beam_size == 1:
            choice = _follow(scores, totals, scores.argmax(axis=-1), eos)
        else:
            choice = _extend(scores, totals, options.beam_size, eos)

        first_rows = width * np.arange(count)[:, None]
        divisor = length**options.length_penalty
        finished.add(alive, choice.ends / divisor, length - 1, first_rows + choice.end_parents)
        best = choice.totals.max(axis=1)
        if options.early_stop:
            hope = best / divisor
        else:
            hope = _best_rank_ahead(best, length, gain[alive], options)
        going = hope > finished.worst(alive)

        rows = (first_rows + choice.parents)[going]
        alive, tokens, totals = alive[going], choice.words[going], choice.totals[going]
        trail.record(logprobs, attention, rows, tokens, eos)
        history = np.concatenate([history.reshape(count * width, -1)[rows], tokens[..., None]], 2)
        if length == options.max_tokens:
            cut.add(alive, totals / divisor, length, np.arange(rows.size).reshape(rows.shape))
        elif alive.size and not np.array_equal(rows, first_rows + np.arange(width)):
            state = stepper.reorder(state, rows)

    return [
        [
            *(trail.follow(*place, ended=True) for place in finished.places(image)),
            *(trail.follow(*place, ended=False) for place in cut.places(image)),
        ][: options.n_best]
        for image in range(images)
    ]


class _Choice(NamedTuple):
    """How every image's hypotheses go on; rows k are within the image, -inf marks none."""

    parents: Ints  # (B, K') rows that are continued
    words: Ints  # (B, K') by which token
    totals: Doubles  # (B, K') biased log-probability since bos
    end_parents: Ints  # (B, M) rows that end here
    ends: Doubles  # (B, M) biased log-probability, eos included


def _extend(scores: Floats, totals: Doubles, size: int, eos: int) -> _Choice:
    """Beam: the `size` likeliest unfinished continuations; every hypothesis may end as well."""
    count, width, vocabulary = scores.shape
    images, beams = np.arange(count)[:, None], np.arange(width)
    ends = totals + scores[..., eos]
    scores[..., eos] = -np.inf
    rows = scores.reshape(-1, vocabulary)
    each = np.arange(len(rows))
    top = min(size, vocabulary)
    words = np.empty((len(rows), top), dtype=np.int64)
    values = np.empty((len(rows), top))
    for place in range(top):  # a few passes of argmax cost less than a partition, and order ties
        words[:, place] = rows.argmax(axis=1)
        values[:, place] = rows[each, words[:, place]]
        rows[each, words[:, place]] = -np.inf
    sums = (totals[..., None] + values.reshape(count, width, top)).reshape(count, -1)
    best = np.argsort(-sums, axis=1, kind="stable")[:, :size]
    words = words.reshape(count, -1)[images, best]
    return _Choice(best // top, words, sums[images, best], np.tile(beams, (count, 1)), ends)


def _follow(scores: Floats, totals: Doubles, words: Ints, eos: int) -> _Choice:
    """Greedy and sampling: row k goes on, or ends, by the one word (B, K') chosen for it."""
    count, width = words.shape
    parents = np.minimum(np.arange(width), scores.shape[1] - 1)  # at first all share one row
    totals = totals[:, parents] + scores[np.arange(count)[:, None], parents, words]
    parents = np.tile(parents, (count, 1))
    ended = words == eos
    none = np.float64(-np.inf)
    return _Choice(
        parents, words, np.where(ended, none, totals), parents, np.where(ended, totals, none)
    )


def _draws(options: SearchOptions, keys: Sequence[int]) -> Doubles | None:
    """One uniform number per image, caption and word: (images, n_best, max_tokens); or None."""
    if options.temperature is None:
        return None
    shape = (options.n_best, options.max_tokens)
    seeded = [np.random.default_rng((options.seed or 0, key)).random(shape) for key in keys]
    return np.array(seeded).reshape(len(keys), *shape)


def _draw(scores: Floats, uniform: Doubles, options: SearchOptions) -> Ints:
    """One word per row (B, K) by inverting the cumulated nucleus at `uniform` (B, K)."""
    peak = scores.max(axis=-1, keepdims=True)
    peak[np.isneginf(peak)] = 0
    weights = np.exp((scores - peak).astype(np.float64) / (options.temperature or 1.0))
    if options.top_p < 1:
        ordered = np.sort(weights, axis=-1)[..., ::-1]
        cumulated = np.cumsum(ordered, axis=-1)
        inside = cumulated - ordered < options.top_p * cumulated[..., -1:]
        least = np.where(inside, ordered, np.inf).min(axis=-1, keepdims=True)
        weights[weights < least] = 0
    cumulated = np.cumsum(weights, axis=-1)
    words: Ints = (cumulated <= uniform[..., None] * cumulated[..., -1:]).sum(axis=-1)
    return words.clip(max=scores.shape[-1] - 1)


def _offset(images: int, vocabulary: int, bias: Floats | None, banned: Sequence[int]) -> Floats:
    """What is added to the log-probabilities of every image (B, V): the bias, -inf if banned."""
    given = np.zeros(vocabulary, np.float32) if bias is None else np.asarray(bias, np.float32)
    shape = (images, vocabulary)
    if given.shape not in ((vocabulary,), shape) or not (given < np.inf).all():
        raise OptionError(
            f"got a bias of shape {given.shape}; expected ({vocabulary},) or {shape}, "
            "no nan, no +inf"
        )
    if wrong := [word for word in banned if not 0 <= word < vocabulary]:
        raise OptionError(f"got banned ids {wrong}; expected ids from 0 to {vocabulary - 1}")
    offset = np.array(np.broadcast_to(given, shape))
    offset[:, list(banned)] = -np.inf
    return offset


def _bar_repeats(scores: Floats, history: Ints, size: int) -> None:
    """Set to -inf, in place, each word that would complete an n-gram the hypothesis has had."""
    length = history.shape[2]
    if length < size:
        return
    grams = np.lib.stride_tricks.sliding_window_view(history, size, axis=2)
    seen = (grams[..., :-1] == history[:, :, None, length - size + 1 :]).all(axis=-1)
    image, row, start = np.nonzero(seen)
    scores[image, row, history[image, row, start + size - 1]] = -np.inf


def _best_rank_ahead(
    totals: Doubles, length: int, gain: Doubles, options: SearchOptions
) -> Doubles:
    """The best rank that a live hypothesis can still end with, given the best total (B,).

    A hypothesis with total s at `length` that ends at length L, eos counted, adds L - length
    tokens. Each adds its log-probability, at most 0, and its bias, at most `gain` (B,), the largest
    of any allowed word, whatever its sign. Its rank is therefore at most
    (s + (L - length) * gain) / L**length_penalty; since L**length_penalty > 0 this also grows
    with s, so the best total bounds them all. Its largest value over every L up to max_tokens is
    taken term by term, so neither the sign of s nor that of the gain, nor where in L the maximum
    lies, matters.
    """
    lengths = np.arange(length + 1, max(options.max_tokens, length + 1) + 1)
    ahead = totals[:, None] + (lengths - length) * gain[:, None]
    bound: Doubles = (ahead / lengths**options.length_penalty).max(axis=1)
    return bound


class _Pool:
    """The n best places of every image: ranks, and the trail's rows that lead there."""

    def __init__(self, images: int, size: int) -> None:
        self._ranks = np.full((images, size), -np.inf)
        self._rows = np.zeros((images, size, 2), dtype=np.int64)

    def add(self, images: Ints, ranks: Doubles, step: int, rows: Ints) -> None:
        """Offer (B, M) places; ranks of -inf are none, and on a tie the earlier place stays."""
        places = np.stack([np.full_like(rows, step), rows], axis=-1)
        ranks = np.concatenate([self._ranks[images], ranks], axis=1)
        places = np.concatenate([self._rows[images], places], axis=1)
        best = np.argsort(-ranks, axis=1, kind="stable")[:, : self._ranks.shape[1]]
        each = np.arange(len(images))[:, None]
        self._ranks[images], self._rows[images] = ranks[each, best], places[each, best]

    def worst(self, images: Ints) -> Doubles:
        """The rank (B,) that the next place must exceed; -inf while there is room."""
        worst: Doubles = self._ranks[images, -1]
        return worst

    def places(self, image: int) -> list[tuple[float, int, int]]:
        """The rank, step and row of each place of one image, best first."""
        ranks, rows = self._ranks[image].tolist(), self._rows[image].tolist()
        return [(rank, *row) for rank, row in zip(ranks, rows, strict=True) if rank > -np.inf]


class _Trail:
    """Back-pointers of every step, so that only what is returned is ever put together."""

    def __init__(self) -> None:
        self._rows: list[Ints] = []
        self._words: list[Ints] = []
        self._logprobs: list[Floats] = []
        self._ends: list[Floats] = []
        self._attention: list[Floats] = []

    def record(
        self, logprobs: Floats, attention: Floats | None, rows: Ints, words: Ints, eos: int
    ) -> None:
        """One step over R rows: (B', K') continued rows, by which words."""
        flat = logprobs.reshape(-1, logprobs.shape[2])
        self._rows.append(rows.ravel())
        self._words.append(words.ravel())
        self._logprobs.append(flat[self._rows[-1], self._words[-1]])
        self._ends.append(flat[:, eos].copy())
        if attention is not None:
            self._attention.append(attention.reshape(len(flat), -1))

    def follow(self, rank: float, step: int, row: int, *, ended: bool) -> Hypothesis:
        """The hypothesis that stood at `row` before `step`, and, if `ended`, ended there."""
        logprobs = [float(self._ends[step][row])] if ended else []
        tokens, attention = [], []
        for before in reversed(range(step)):
            tokens.append(int(self._words[before][row]))
            logprobs.append(float(self._logprobs[before][row]))
            row = int(self._rows[before][row])
            if self._attention:
                attention.append(self._attention[before][row])
        looked = None
        if self._attention:
            looked = np.array(attention[::-1], np.float32).reshape(
                step, self._attention[0].shape[1]
            )
        return Hypothesis(
            tuple(tokens[::-1]), math.fsum(logprobs), rank, tuple(logprobs[::-1]), looked
        )
