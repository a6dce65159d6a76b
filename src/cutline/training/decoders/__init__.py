"""Caption decoders: region features and the words so far -> the next word.

Every decoder has the same four methods. `start(features)` returns a `memory`, tensors by name
with one entry per image, and a `state`, tensors by name with one entry per row (the beams of an
image are adjacent rows). `advance(tokens, memory, state)` takes one word per row and returns the
hidden state, the attention over regions if there is any, and the next state.
`forward(features, tokens)` is teacher forcing: the results of `advance` for whole captions, in
parallel where the architecture allows it. `logits(hidden)` maps hidden states to the vocabulary.

Axes: B images, K rows per image, T tokens, N regions, D feature width, H hidden width, E embedding
width, A width inside additive attention, V vocabulary.
"""

from __future__ import annotations

from cutline.errors import RecipeError
from cutline.training.decoders.attention import HardAttention, SoftAttention, UpDown
from cutline.training.decoders.core import (
    Decoder,
    DecoderOptions,
    DecoderOutput,
    Tensors,
    TorchState,
    TorchStepper,
)
from cutline.training.decoders.global_attention import GlobalAttention
from cutline.training.decoders.recurrent import Merge, PlainMerge, ShowAndTell
from cutline.training.decoders.temporal import S2VT, MeanPooling, TemporalAttention
from cutline.training.decoders.transformer import Transformer

__all__ = [
    "DECODERS",
    "Decoder",
    "DecoderOptions",
    "DecoderOutput",
    "HardAttention",
    "Tensors",
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
    "mean-pooling": MeanPooling,
    "temporal-attention": TemporalAttention,
    "s2vt": S2VT,
}


def build(vocabulary: int, features: int, options: DecoderOptions) -> Decoder:
    """Create a decoder.

    Raises:
        RecipeError: the kind is unknown, or the options do not fit together.
    """
    if options.kind not in DECODERS:
        raise RecipeError(f"got decoder {options.kind!r}; expected one of {', '.join(DECODERS)}")
    return DECODERS[options.kind](vocabulary, features, options)
