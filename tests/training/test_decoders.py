from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from cutline.errors import RecipeError
from cutline.options import SearchOptions
from cutline.search import search
from cutline.training.decoders import (
    DECODERS,
    Decoder,
    DecoderOptions,
    HardAttention,
    TorchStepper,
    build,
)
from cutline.training.decoders.transformer import Transformer

VOCABULARY, FEATURES = 23, 12
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "gru": {"cell": "gru", "gate": False, "attention": 8},
    "post-norm": {"norm": "post"},
    "untied": {"tied": False},
}
KINDS = [*DECODERS, "soft-attention/gru", "transformer/post-norm", "show-and-tell/untied"]
CHOOSING = {"key", "query", "energy"}
BLIND = {"mean-pooling", "merge", "plain-merge", "s2vt", "show-and-tell", "show-and-tell/untied"}


def tiny(kind: str, **options: Any) -> Decoder:
    torch.manual_seed(0)
    kind, _, variant = kind.partition("/")
    options = {"width": 16, "embedding": 16, "heads": 2, "layers": 2} | VARIANTS[variant] | options
    chosen = DecoderOptions(kind=kind, **options)  # type: ignore[arg-type]
    return build(VOCABULARY, FEATURES, chosen)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_teacher_forcing_says_what_steps_say(kind: str) -> None:
    decoder = tiny(kind).eval()
    features, tokens = torch.randn(3, 5, FEATURES), torch.randint(4, VOCABULARY, (3, 2, 7))
    hidden, attention = decoder(features, tokens)
    stepped, looked = Decoder.forward(decoder, features, tokens)
    assert decoder.logits(hidden).shape == (3, 2, 7, VOCABULARY)
    torch.testing.assert_close(hidden, stepped, atol=1e-5, rtol=1e-5)
    assert (attention is None) == (kind in BLIND)
    if attention is not None:
        torch.testing.assert_close(attention, looked, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 2, 7))


def test_a_word_does_not_depend_on_later_words_or_other_rows(kind: str) -> None:
    decoder = tiny(kind).eval()
    features, tokens = torch.randn(2, 5, FEATURES), torch.randint(4, VOCABULARY, (2, 3, 6))
    before, _ = decoder(features, tokens)
    changed = tokens.clone()
    changed[0, 0, 4:] = 5
    changed[1, 2] = 6
    after, _ = decoder(features, changed)
    torch.testing.assert_close(before[0, 0, :4], after[0, 0, :4])
    torch.testing.assert_close(before[1, :2], after[1, :2])
    assert not torch.allclose(before[1, 2], after[1, 2])


def test_the_picture_matters_and_every_weight_learns(kind: str) -> None:
    decoder = tiny(kind).eval()
    features, tokens = torch.randn(2, 5, FEATURES), torch.randint(4, VOCABULARY, (2, 1, 6))
    hidden, _ = decoder(features, tokens)
    other, _ = decoder(features.flip(0), tokens)
    assert not torch.allclose(hidden, other)
    F.cross_entropy(decoder.logits(hidden).flatten(0, 2), tokens.flatten()).backward()
    for name, parameter in decoder.named_parameters():
        if isinstance(decoder, HardAttention) and name.partition(".")[0] in CHOOSING:
            continue  # which region is seen is learnt by REINFORCE
        assert parameter.grad is not None, name
        if not name.endswith("key.bias"):  # alike on every key, it cancels in the softmax
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", DECODERS)
def test_overfits_eight_pictures(kind: str) -> None:
    decoder = tiny(kind, dropout=0.0, word_dropout=0.0)
    features = torch.randn(8, 4, FEATURES)
    tokens = torch.randint(4, VOCABULARY, (8, 1, 6))
    tokens[:, :, 0], tokens[:, :, -1] = 1, 2
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.015)
    for _ in range(130):
        hidden, _ = decoder(features, tokens[:, :, :-1])
        loss = F.cross_entropy(decoder.logits(hidden).flatten(0, 2), tokens[:, :, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1

    stepper = TorchStepper(decoder.eval())
    with torch.no_grad():
        found = search(
            stepper, stepper.start(features), 8, SearchOptions(beam_size=3, no_repeat_ngram=0),
            bos=1, eos=2, banned=(0, 1, 3),
        )  # fmt: skip
    assert [list(h[0].tokens) for h in found] == tokens[:, 0, 1:-1].tolist()


def test_reorder_moves_rows_and_drops_images(kind: str) -> None:
    decoder = tiny(kind).eval()
    stepper = TorchStepper(decoder)
    with torch.no_grad():
        state = stepper.start(torch.randn(3, 5, FEATURES))
        state = stepper.reorder(state, np.array([[0, 0], [1, 1], [2, 2]]))
        tokens = np.array([[4, 5], [6, 7], [8, 9]])
        logprobs, _, state = stepper.step(state, tokens)
        kept = stepper.reorder(state, np.array([[1, 0], [4, 4]]))
        whole, _, _ = stepper.step(state, tokens)
        part, _, _ = stepper.step(kept, np.array([[5, 4], [8, 8]]))
    np.testing.assert_allclose(np.exp(logprobs).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(part[0], whole[0, ::-1], atol=1e-5)
    np.testing.assert_allclose(part[1], whole[2, [0, 0]], atol=1e-5)


def test_words_of_its_own_stand_in_for_given_ones() -> None:
    decoder = tiny("soft-attention").eval()
    features, tokens = torch.randn(2, 5, FEATURES), torch.randint(4, VOCABULARY, (2, 3, 6))
    given = decoder.unroll(features, tokens).hidden
    torch.manual_seed(0)
    own = decoder.unroll(features, tokens, sampling_rate=1.0).hidden
    torch.testing.assert_close(own[:, :, 0], given[:, :, 0])
    assert not torch.allclose(own[:, :, 2:], given[:, :, 2:])
    other = torch.cat([tokens[:, :, :1], tokens[:, :, 1:] % (VOCABULARY - 4) + 4], -1)
    torch.manual_seed(0)
    torch.testing.assert_close(decoder.unroll(features, other, sampling_rate=1.0).hidden, own)


def test_a_region_that_helps_is_drawn_more_often() -> None:
    decoder = tiny("hard-attention", dropout=0.0, word_dropout=0.0)
    assert isinstance(decoder, HardAttention)
    features, tokens = torch.randn(4, 5, FEATURES), torch.randint(4, VOCABULARY, (4, 2, 5))
    torch.manual_seed(1)
    output, log_probs = decoder.explore(features, tokens)
    drawing = log_probs[:, 0, 0] != 0
    assert drawing.any()
    assert not drawing.all()
    assert (log_probs[drawing] < 0).all()
    assert (log_probs[~drawing] == 0).all()
    assert output.attention is not None

    said = torch.ones_like(tokens, dtype=torch.bool)
    said[:, :, 3:] = False  # padding has no say
    likelihood = torch.full(tokens.shape, -2.0)
    likelihood[:, :, 3:] = -1000
    decoder.baseline.fill_(-3.0)
    loss = decoder.reinforce(likelihood, log_probs, output.attention, said, entropy=0.0)
    torch.testing.assert_close(loss, -(1.0 * log_probs[:, :, :3]).mean())
    torch.testing.assert_close(decoder.baseline, torch.tensor(-2.9))
    loss.backward()
    for part in (decoder.key, decoder.query, decoder.energy):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().sum() > 0
    spread_out = decoder.reinforce(likelihood, log_probs, output.attention, said, entropy=1.0)
    flat = torch.full_like(output.attention, 1 / 5)
    assert decoder.reinforce(likelihood, log_probs * 0, flat, said, 1.0) < spread_out


def test_a_transformer_remembers_what_it_has_read() -> None:
    decoder = tiny("transformer").eval()
    memory, state = decoder.start(torch.randn(2, 5, FEATURES))
    lengths = []
    for _ in range(3):
        lengths.append(state["keys1"].shape[-2])
        _, _, state = decoder.advance(torch.full((2, 1), 5), memory, state)
    assert lengths == [0, 1, 2]


def test_a_transformer_reads_on_in_several_words_at_once() -> None:
    decoder = tiny("transformer").eval()
    assert isinstance(decoder, Transformer)
    memory, state = decoder.start(torch.randn(2, 5, FEATURES))
    tokens = torch.randint(4, VOCABULARY, (2, 1, 6))
    whole, _ = decoder._decode(tokens, memory, state)
    first, state = decoder._decode(tokens[:, :, :2], memory, state)
    rest, _ = decoder._decode(tokens[:, :, 2:], memory, state)
    torch.testing.assert_close(torch.cat([first.hidden, rest.hidden], 2), whole.hidden)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("merge", {"embedding": 8}, "got width 16 and embedding 8; expected them equal"),
        ("transformer", {"heads": 3}, "expected width and embedding equal"),
        ("global-attention", {"heads": 3}, "got width 16 and 3 heads; expected a multiple"),
        ("transformer", {"norm": "none"}, "got norm 'none'; expected pre or post"),
        ("soft-attention", {"cell": "rnn"}, "got cell 'rnn'; expected lstm or gru"),
    ],
)
def test_what_cannot_be_built_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny(kind, **options)


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(RecipeError, match=r"got decoder 'mlp'; expected one of .*soft-attention"):
        tiny("mlp")
