from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cutline.errors import EngineError, OptionError
from cutline.options import SearchOptions
from cutline.search import Hypothesis, search

BOS, EOS = 0, 1


@dataclass
class ChainState:
    images: NDArray[np.int64]  # (B,) memory per image
    before: NDArray[np.int64]  # (B, K) the token before the last, per row


@dataclass
class Chain:
    """Second-order Markov chains, one per image, that check what the search asks of them."""

    table: NDArray[np.float32]  # (images, V, V, V) log p(next | token before, token)
    attends: bool = True
    steps: int = 0
    rows: list[int] = field(default_factory=list)

    def start(self) -> ChainState:
        images = np.arange(len(self.table))
        return ChainState(images, np.full((len(images), 1), BOS))

    def step(
        self, state: ChainState, tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, ChainState]:
        assert tokens.dtype == np.int64
        assert tokens.shape == state.before.shape
        assert ((tokens >= 0) & (tokens < self.table.shape[1])).all()
        self.steps += 1
        self.rows.append(tokens.size)
        images = np.broadcast_to(state.images[:, None], tokens.shape)
        logprobs = self.table[images, state.before, tokens]
        attention = np.stack([images, state.before, tokens], axis=-1).astype(np.float32)
        logprobs.flags.writeable = False
        return logprobs, attention if self.attends else None, ChainState(state.images, tokens)

    def reorder(self, state: ChainState, rows: NDArray[np.int64]) -> ChainState:
        width = state.before.shape[1]
        kept = rows[:, 0] // width
        assert (rows // width == kept[:, None]).all(), "rows of one line are of one image"
        assert (np.diff(kept) > 0).all(), "images keep their order"
        assert (
            rows.shape[1] != width
            or (rows.ravel() != np.arange(state.before.size)[: rows.size]).any()
            or len(rows) < len(state.before)
        ), "only called for a change"
        return ChainState(state.images[kept], state.before.ravel()[rows])


def chain(
    seed: int, images: int = 1, vocabulary: int = 5, order: int = 2, sharpness: float = 1.5
) -> Chain:
    rng = np.random.default_rng(seed)
    shape = (images, vocabulary if order == 2 else 1, vocabulary, vocabulary)
    logits = np.broadcast_to(rng.normal(size=shape) * sharpness, (images, *[vocabulary] * 3))
    return Chain(log_softmax(logits).astype(np.float32))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    peaks = logits.max(-1, keepdims=True)
    return np.asarray(logits - peaks - np.log(np.exp(logits - peaks).sum(-1, keepdims=True)))


def run(model: Chain, options: SearchOptions, **more: Any) -> list[list[Hypothesis]]:
    more = {"banned": [BOS], **more}
    return search(model, model.start(), len(model.table), options, bos=BOS, eos=EOS, **more)


def one(model: Chain, image: int) -> Chain:
    return Chain(model.table[image : image + 1], model.attends)


def token_logprobs(model: Chain, image: int, tokens: tuple[int, ...]) -> list[float]:
    path = (BOS, BOS, *tokens)
    return [float(model.table[image][path[i : i + 3]]) for i in range(len(tokens))]


def every_caption(
    model: Chain, image: int, options: SearchOptions, bias: NDArray[np.float32], banned: list[int]
) -> Iterator[Hypothesis]:
    """All that the options allow, by enumeration."""
    words = [word for word in range(model.table.shape[1]) if word not in (EOS, *banned)]
    for length in range(options.max_tokens + 1):
        for tokens in itertools.product(words, repeat=length):
            n = options.no_repeat_ngram
            grams = [tokens[i : i + n] for i in range(length - n + 1)] if n else []
            if len(set(grams)) < len(grams) or length < options.min_tokens:
                continue
            ends = [EOS] if length < options.max_tokens else []
            path = (*tokens, *ends)
            parts = token_logprobs(model, image, path)
            biased = sum(parts) + float(bias[list(path)].sum())
            rank = biased / len(path) ** options.length_penalty
            yield Hypothesis(tokens, sum(parts), rank, tuple(parts))


def assert_best(found: list[Hypothesis], every: Iterator[Hypothesis], n: int) -> None:
    """The n best of all; first-order chains tie, so it is the ranks that must be the same."""
    by_tokens = {h.tokens: h for h in every}
    ordered = sorted(by_tokens.values(), key=lambda h: (not h.ended, -h.rank))[:n]
    assert [h.ended for h in found] == [h.ended for h in ordered]
    assert [h.rank for h in found] == pytest.approx([h.rank for h in ordered], abs=1e-5)
    assert len({h.tokens for h in found}) == len(found)
    for mine in found:
        other = by_tokens[mine.tokens]
        assert mine.rank == pytest.approx(other.rank, abs=1e-5)
        assert mine.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert mine.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.5])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"min_tokens": 0, "max_tokens": 3},
        {"min_tokens": 3, "max_tokens": 4},
        {"no_repeat_ngram": 1},
        {"no_repeat_ngram": 2, "min_tokens": 2},
    ],
    ids=str,
)
def test_a_wide_beam_finds_what_enumeration_finds(
    penalty: float, order: int, rules: dict[str, int]
) -> None:
    settings = {"max_tokens": 5, "no_repeat_ngram": 0, "min_tokens": 1, **rules}
    options = SearchOptions(beam_size=300, n_best=7, length_penalty=penalty, **settings)
    for seed, scale in [(0, 0.0), (1, 0.0), (2, 0.7), (3, 2.0)]:
        model = chain(seed, images=2, order=order)
        bias = (np.random.default_rng(seed).normal(size=5) * scale).astype(np.float32)
        banned = [BOS, 2] if seed == 1 else [BOS]
        found = run(model, options, bias=bias if scale else None, banned=banned)
        for image in range(2):
            assert_best(found[image], every_caption(model, image, options, bias, banned), 7)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_each_image_may_have_its_own_bias(penalty: float) -> None:
    options = SearchOptions(
        beam_size=300, n_best=7, length_penalty=penalty, max_tokens=5, no_repeat_ngram=0
    )
    model = chain(4, images=2)
    bias = (np.random.default_rng(4).normal(size=(2, 5)) * 2).astype(np.float32)
    found = run(model, options, bias=bias)
    for image in range(2):
        assert_best(found[image], every_caption(model, image, options, bias[image], [BOS]), 7)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_large_positive_bias_does_not_stop_the_beam_too_early(penalty: float) -> None:
    options = SearchOptions(
        beam_size=64, length_penalty=penalty, max_tokens=5, no_repeat_ngram=0, min_tokens=0
    )
    for seed in range(10):
        model = chain(seed, vocabulary=4, sharpness=3.0)
        bias = np.array([0, -1, 3, 0.5], np.float32)
        [found] = run(model, options, bias=bias)
        assert_best(found, every_caption(model, 0, options, bias, [BOS]), 1)


def test_a_steep_length_penalty_with_a_positive_bias_looks_at_the_next_step_too() -> None:
    model = Chain(np.full((1, 3, 3, 3), -9, np.float32))
    model.table[..., 2] = -0.001
    model.table[0, BOS, 2, EOS] = -1.0  # total 3 - 1, rank 2 / 2**2
    model.table[0, 2, 2, EOS] = -0.1  # total 6 - 0.1, rank 5.9 / 3**2; the last is about 27 / 10**2
    options = SearchOptions(beam_size=2, length_penalty=2.0, max_tokens=10, no_repeat_ngram=0)
    [[found]] = run(model, options, bias=np.array([0, 0, 3], np.float32))
    assert found.tokens == (2, 2)


def test_a_narrow_beam_follows_the_definition() -> None:
    options = SearchOptions(beam_size=3, n_best=3, max_tokens=6, no_repeat_ngram=0)
    for seed in range(20):
        model = chain(seed, vocabulary=7)
        live: list[tuple[int, ...]] = [()]
        ended: list[tuple[int, ...]] = []
        for _ in range(options.max_tokens):
            ended += [(*tokens, EOS) for tokens in live if tokens]
            longer = [(*tokens, word) for tokens in live for word in range(2, 7)]
            longer.sort(key=lambda tokens: -sum(token_logprobs(model, 0, tokens)))
            live = longer[:3]
        ended.sort(key=lambda tokens: -np.mean(token_logprobs(model, 0, tokens)))
        [found] = run(model, options)
        assert [(*h.tokens, EOS) for h in found] == ended[:3]


def rollout(model: Chain, image: int, max_tokens: int) -> tuple[int, ...]:
    before, last, tokens = BOS, BOS, []
    for place in range(max_tokens):
        scores = model.table[image, before, last].copy()
        scores[[BOS, EOS] if place == 0 else [BOS]] = -np.inf
        before, last = last, int(scores.argmax())
        if last == EOS:
            break
        tokens.append(last)
    return tuple(tokens)


def test_greedy_takes_the_likeliest_word_each_time() -> None:
    model = chain(5, images=30, vocabulary=8)
    found = run(model, SearchOptions(beam_size=1, max_tokens=9, no_repeat_ngram=0))
    assert [hypothesis.tokens for [hypothesis] in found] == [
        rollout(model, image, 9) for image in range(30)
    ]
    assert {hypothesis.ended for [hypothesis] in found} == {True, False}


@pytest.mark.parametrize(
    "settings",
    [
        {"beam_size": 1},
        {"beam_size": 2, "n_best": 2},
        {"beam_size": 5, "n_best": 3, "length_penalty": 0.7},
        {"beam_size": 4, "n_best": 2, "no_repeat_ngram": 2, "min_tokens": 3},
        {"temperature": 0.8, "n_best": 3, "seed": 7},
        {"temperature": 1.3, "top_p": 0.7, "n_best": 2, "seed": 8},
    ],
    ids=str,
)
def test_the_batch_changes_nothing(settings: dict[str, Any]) -> None:
    model = chain(11, images=12, vocabulary=9, sharpness=2.5)
    model.table[3, :, :, EOS] = -0.01  # one that ends at once, one that never does
    model.table[6, :, :, EOS] = -30
    options = SearchOptions(max_tokens=8, **settings)
    together = run(model, options)
    apart = [run(one(model, image), options, draw_keys=[image])[0] for image in range(12)]
    assert together == apart
    assert len({len(hypotheses[0].tokens) for hypotheses in together}) > 2
    assert model.rows[-1] < max(model.rows), "images that are done leave the batch"


def test_hypotheses_are_sorted_and_distinct() -> None:
    for hypotheses in run(chain(2, 10, 9), SearchOptions(beam_size=6, n_best=6, max_tokens=7)):
        assert len({h.tokens for h in hypotheses}) == 6
        ranks = [h.rank for h in hypotheses]
        assert ranks == sorted(ranks, reverse=True)
        assert all(h.score == pytest.approx(h.rank) for h in hypotheses)


def test_a_bias_ranks_but_is_not_reported() -> None:
    model = chain(4, images=5, vocabulary=6)
    bias = np.array([0, 0, 1.5, 0, -1, 0], np.float32)
    plain = run(model, SearchOptions())
    for image, [found] in enumerate(run(model, SearchOptions(), bias=bias)):
        path = (*found.tokens, EOS)[: len(found.token_logprobs)]
        assert found.token_logprobs == pytest.approx(token_logprobs(model, image, path))
        assert found.logprob == pytest.approx(sum(found.token_logprobs))
        biased = found.logprob + bias[list(path)].sum()
        assert found.rank == pytest.approx(biased / len(path), abs=1e-6)
    words = Counter(word for [h] in run(model, SearchOptions(), bias=bias) for word in h.tokens)
    assert words[2] > sum(h.tokens.count(2) for [h] in plain)


@pytest.mark.parametrize("settings", [{}, {"beam_size": 1}, {"temperature": 1.0, "n_best": 4}])
def test_banned_words_and_repeats_never_appear(settings: dict[str, Any]) -> None:
    model = chain(6, images=8, vocabulary=6, sharpness=3.0)
    options = SearchOptions(no_repeat_ngram=2, min_tokens=5, max_tokens=9, **settings)
    for hypothesis in itertools.chain(*run(model, options, banned=[BOS, 3])):
        pairs = list(itertools.pairwise(hypothesis.tokens))
        assert not {BOS, EOS, 3} & set(hypothesis.tokens)
        assert len(set(pairs)) == len(pairs)
        assert 5 <= len(hypothesis.tokens) <= 9


@pytest.mark.parametrize(
    "settings", [{"n_best": 3}, {"beam_size": 1}, {"temperature": 1.0, "n_best": 3}]
)
def test_attention_belongs_to_its_tokens(settings: dict[str, Any]) -> None:
    model = chain(7, images=6, vocabulary=8)
    for image, hypotheses in enumerate(run(model, SearchOptions(max_tokens=7, **settings))):
        for hypothesis in hypotheses:
            path = (BOS, BOS, *hypothesis.tokens)
            looked = [(image, *path[i : i + 2]) for i in range(len(hypothesis.tokens))]
            assert hypothesis.attention is not None
            assert hypothesis.attention.dtype == np.float32
            np.testing.assert_array_equal(hypothesis.attention, looked)


def test_attention_is_optional_and_an_empty_caption_has_none_of_it() -> None:
    model = Chain(chain(7).table, attends=False)
    assert run(model, SearchOptions())[0][0].attention is None
    sure = Chain(np.full((1, 4, 4, 4), -9, np.float32))
    sure.table[..., EOS] = -0.001
    [[empty]] = run(sure, SearchOptions(min_tokens=0))
    assert empty.tokens == ()
    assert empty.attention is not None
    assert empty.attention.shape == (0, 3)


def test_the_beam_stops_as_soon_as_nothing_can_rank_higher() -> None:
    sure = Chain(np.full((3, 4, 4, 4), -30, np.float32))
    sure.table[:, BOS, BOS, 2] = 0.0
    sure.table[:, BOS, 2, EOS] = 0.0
    found = run(sure, SearchOptions(length_penalty=1.0))
    assert [h.tokens for [h] in found] == [(2,)] * 3
    assert sure.steps == 2


def test_early_stop_ends_at_the_first_length_at_which_nothing_alive_ranks_higher() -> None:
    patient, hasty = chain(5, images=6), chain(5, images=6)
    options = SearchOptions(beam_size=3, length_penalty=1.0, max_tokens=20)
    whole = run(patient, options)
    stopped = run(hasty, replace(options, early_stop=True))
    assert hasty.steps < patient.steps
    for mine, best in zip(stopped, whole, strict=True):
        assert mine[0].ended
        assert mine[0].rank <= best[0].rank
        assert len(mine[0].tokens) <= len(best[0].tokens)


def test_what_was_cut_off_comes_only_when_too_few_ended() -> None:
    model = chain(9, images=4, vocabulary=6)
    model.table[:2, :, :, EOS] = -np.inf
    options = SearchOptions(beam_size=4, n_best=4, max_tokens=5)
    endless, ending = run(model, options)[:2], run(model, options)[2:]
    assert all(len(h.tokens) == 5 and not h.ended for hs in endless for h in hs)
    assert all(h.score == pytest.approx(h.logprob / 5) for hs in endless for h in hs)
    assert all(h.ended for hs in ending for h in hs)
    [mixed] = run(one(model, 2), SearchOptions(n_best=3, min_tokens=4, max_tokens=5, beam_size=3))
    assert [h.ended for h in mixed] == [True, True, True]
    [mixed] = run(one(model, 2), SearchOptions(n_best=3, min_tokens=5, max_tokens=5, beam_size=3))
    assert [h.ended for h in mixed] == [False, False, False]
    assert [h.rank for h in mixed] == sorted((h.rank for h in mixed), reverse=True)


def test_one_token_at_most() -> None:
    model = chain(3, images=4, vocabulary=6)
    for beam_size in (1, 5, 50):
        found = run(model, SearchOptions(beam_size=beam_size, max_tokens=1))
        for image, [hypothesis] in enumerate(found):
            assert hypothesis.tokens == (int(model.table[image, BOS, BOS, 2:].argmax()) + 2,)
            assert not hypothesis.ended
    assert model.steps == 3


def test_a_beam_larger_than_the_vocabulary() -> None:
    options = SearchOptions(beam_size=40, n_best=40, max_tokens=3)
    [found] = run(chain(1, vocabulary=3), options)
    assert sorted(h.tokens for h in found) == [(2,), (2, 2), (2, 2, 2)]
    assert [h.ended for h in found] == [True, True, False]


def test_no_images_and_rules_that_nothing_can_meet() -> None:
    assert run(chain(0, images=0), SearchOptions()) == []
    assert run(chain(0, images=0), SearchOptions(temperature=1.0)) == []
    for settings in ({"beam_size": 1}, {"beam_size": 5}, {"temperature": 1.0}):
        options = SearchOptions(no_repeat_ngram=1, min_tokens=6, max_tokens=7, **settings)
        assert run(chain(0, images=2), options) == [[], []]


def test_ties_go_to_the_lower_id() -> None:
    flat = Chain(np.full((2, 6, 6, 6), -math.log(6), np.float32))
    for beam_size in (1, 2, 5):
        options = SearchOptions(beam_size=beam_size, max_tokens=4, no_repeat_ngram=0, min_tokens=3)
        for [hypothesis] in run(flat, options):
            assert hypothesis.tokens[:3] == (2, 2, 2)


def test_sampling_repeats_with_its_seed_and_differs_without() -> None:
    model = chain(8, images=6, vocabulary=9)
    options = SearchOptions(temperature=1.0, n_best=3, seed=1, max_tokens=8)
    assert run(model, options) == run(model, options)
    assert run(model, options) != run(model, SearchOptions(temperature=1.0, n_best=3, max_tokens=8))
    same = Chain(np.repeat(model.table[:1], 6, axis=0))
    assert len({hypotheses[0].tokens for hypotheses in run(same, options)}) > 1
    for hypotheses in run(model, options):
        order = [(not h.ended, -h.rank) for h in hypotheses]
        assert order == sorted(order)


def test_a_cold_sample_is_the_greedy_caption() -> None:
    model = chain(12, images=10, vocabulary=8)
    greedy = run(model, SearchOptions(beam_size=1, max_tokens=9))
    cold = run(model, SearchOptions(temperature=1e-6, n_best=3, max_tokens=9))
    assert [[h.tokens for h in hypotheses] for hypotheses in cold] == [
        [hypothesis.tokens] * 3 for [hypothesis] in greedy
    ]


def draws(model: Chain, count: int, **settings: Any) -> Counter[tuple[int, ...]]:
    options = SearchOptions(n_best=count, no_repeat_ngram=0, **settings)
    [hypotheses] = run(model, options)
    assert len(hypotheses) == count
    return Counter((*h.tokens, EOS) if h.ended else h.tokens for h in hypotheses)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_model(temperature: float) -> None:
    model = chain(13, vocabulary=5, sharpness=1.0)
    bias = np.array([0, 0.3, -0.4, 0.8, 0], np.float32)
    options = SearchOptions(n_best=6000, no_repeat_ngram=0, max_tokens=2, temperature=temperature)
    [hypotheses] = run(model, options, bias=bias)
    counts = Counter((*h.tokens, EOS) if h.ended else h.tokens for h in hypotheses)
    heat = (model.table[0] + bias).astype(np.float64) / temperature
    heat[..., BOS] = -np.inf
    first = heat[BOS, BOS].copy()
    first[EOS] = -np.inf
    chances = {
        (one_, two): math.exp(log_softmax(first)[one_] + log_softmax(heat[BOS, one_])[two])
        for one_ in range(2, 5)
        for two in range(1, 5)
    }
    assert sum(chances.values()) == pytest.approx(1)
    chi_square = sum((counts[path] - 6000 * p) ** 2 / (6000 * p) for path, p in chances.items())
    assert chi_square < 31.3  # the 0.999 quantile with 11 degrees of freedom
    assert sum(counts.values()) == 6000


def test_top_p_keeps_the_smallest_set_that_holds_the_mass() -> None:
    table = np.full((1, 6, 6, 6), -np.inf, np.float32)
    table[..., [5, 2, 4, 3]] = np.log(np.array([0.45, 0.3, 0.15, 0.1], np.float32))
    for top_p, words in [(0.4, {5}), (0.6, {5, 2}), (0.8, {5, 2, 4}), (1.0, {5, 2, 4, 3})]:
        counts = draws(Chain(table), 2000, temperature=1.0, top_p=top_p, max_tokens=1)
        assert {word for (word,) in counts} == words
        share = {5: 0.45, 2: 0.3, 4: 0.15, 3: 0.1}
        mass = sum(share[word] for word in words)
        for word in words:
            assert counts[(word,)] / 2000 == pytest.approx(share[word] / mass, abs=0.045)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beam_size": 0}, "got beam_size 0; expected a whole number from 1 to 1000"),
        ({"beam_size": 1001}, "got beam_size 1001; expected a whole number from 1 to 1000"),
        ({"n_best": 10_001, "temperature": 1.0}, "got n_best 10001"),
        ({"beam_size": 2.0}, "got beam_size 2.0"),
        ({"n_best": 6}, "got n_best 6; expected at most beam_size 5"),
        ({"n_best": 0}, "got n_best 0"),
        ({"length_penalty": -0.1}, "got length_penalty -0.1"),
        ({"length_penalty": 10.1}, "got length_penalty 10.1; expected a number from 0 to 10"),
        ({"length_penalty": math.nan}, "got length_penalty nan"),
        ({"min_tokens": 21}, "got min_tokens 21; expected at most max_tokens 20"),
        ({"max_tokens": 0}, "got max_tokens 0"),
        ({"no_repeat_ngram": -1}, "got no_repeat_ngram -1"),
        ({"temperature": 0.0}, "set beam_size 1 instead"),
        ({"temperature": math.inf}, "got temperature inf"),
        ({"top_p": 0.0}, "got top_p 0.0; expected a number above 0, at most 1"),
        ({"top_p": 1.01}, "got top_p 1.01"),
        ({"seed": -1}, "got seed -1; expected a whole number from 0 up"),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        SearchOptions(**settings)


def test_every_option_has_a_help_line() -> None:
    assert all(option.metadata["help"].endswith(".") for option in fields(SearchOptions))


def test_a_bias_or_ban_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OptionError, match="shape \\(4,\\); expected \\(5,\\)"):
        run(chain(0), SearchOptions(), bias=np.zeros(4, np.float32))
    with pytest.raises(OptionError, match="no nan"):
        run(chain(0), SearchOptions(), bias=np.full(5, np.nan, np.float32))
    with pytest.raises(OptionError, match="got banned ids \\[5, -1\\]; expected ids from 0 to 4"):
        run(chain(0), SearchOptions(), banned=[0, 5, -1])


@pytest.mark.parametrize("wrong", [np.nan, 2.0])
def test_a_model_that_gives_no_logprobs_is_refused(wrong: float) -> None:
    model = chain(0)
    model.table[..., 3] = wrong
    with pytest.raises(EngineError, match=f"got a log-probability of {wrong} for word 1"):
        run(model, SearchOptions())
