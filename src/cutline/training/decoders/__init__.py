"""Caption decoders: region features and the words so far -> the next word.

Every decoder says the same three things. `start(features)` gives a `memory`, tensors by name with
one entry an image, and a `state`, tensors by name with one entry a row (an image's beams stand
next to each other). `advance(tokens, memory, state)` reads one word: it gives the hidden state that
the next word is told from, the attention over regions if there is any, and the next state.
`forward(features, tokens)` is teacher forcing: what `advance` would give all along given captions,
in parallel where the architecture allows it. `logits(hidden)` turns hidden states into words.

Axes: B images, K rows an image, T tokens, N regions, D feature width, H hidden width, E embedding
width, A width inside additive attention, V vocabulary.
"""

from __future__ import annotations

from cutline.errors import RecipeError
from cutline.training.decoders.attention import HardAttention, SoftAttention, UpDown
from cutline.training.decoders.core import (
    Decoder,
    DecoderOptions,
    Tensors,
    Told,
    TorchState,
    TorchStepper,
)
from cutline.training.decoders.global_attention import GlobalAttention
from cutline.training.decoders.recurrent import Merge, PlainMerge, ShowAndTell
from cutline.training.decoders.transformer import Transformer

__all__ = [
    "DECODERS",
    "Decoder",
    "DecoderOptions",
    "HardAttention",
    "Tensors",
    "Told",
    "TorchState",
    "TorchStepper",
    "build",
]

DECODERS: dict[str, type[Decoder]] = {
    "merge": Merge,
    "plain-merge": PlainMerge,
    "show-and-tell": ShowAndTell,
    "soft-attention": SoftAttention,
    "hard-attention": HardAttention,
    "up-down": UpDown,
    "global-attention": GlobalAttention,
    "transformer": Transformer,
}


def build(vocabulary: int, features: int, options: DecoderOptions) -> Decoder:
    """A decoder of the kind that the options name.

    Raises:
        RecipeError: there is no such kind, or it cannot be built so.
    """
    if options.kind not in DECODERS:
        raise RecipeError(f"got decoder {options.kind!r}; expected one of {', '.join(DECODERS)}")
    return DECODERS[options.kind](vocabulary, features, options)
