"""A Transformer decoder with cross-attention over the image's regions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutline.errors import RecipeError
from cutline.training.decoders.core import Decoder, DecoderOptions, DecoderOutput, Tensors, spread


class Transformer(Decoder):
    """The decoder of Vaswani et al. (2017) over regions, with norms before or after (Xiong, 2020).

    The state is the key-value cache of the self-attention, so that a step computes only its own
    word.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        if options.embedding != options.width or options.width % (2 * options.heads):
            raise RecipeError(
                f"got width {options.width}, embedding {options.embedding} and {options.heads} "
                "heads; expected width and embedding equal, and an even number for each head"
            )
        super().__init__(vocabulary, features, options)
        self.project = nn.Linear(features, options.width)
        self.norm = nn.LayerNorm(options.width)
        self._blocks = [Block(options) for _ in range(options.layers)]
        self.blocks = nn.ModuleList(self._blocks)
        self.last = nn.LayerNorm(options.width) if options.norm == "pre" else nn.Identity()

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        regions = self.dropout(self.norm(self.project(features)))  # (B,N,H)
        memory: Tensors = {}
        state: Tensors = {}
        for number, block in enumerate(self._blocks):
            keys, values = block.cross_attn.project_kv(regions)  # (B,heads,N,H/heads)
            memory |= {f"keys{number}": keys, f"values{number}": values}
            nothing = keys[:, None, :, :0]  # (B,1,heads,0,H/heads)
            state |= {f"keys{number}": nothing, f"values{number}": nothing}
        return memory, state

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        output, after = self._decode(tokens.unsqueeze(2), memory, state)
        assert output.attention is not None
        return output.hidden.squeeze(2), output.attention.squeeze(2), after

    def forward(self, features: Tensor, tokens: Tensor) -> DecoderOutput:  # noqa: D102
        memory, state = self.start(features)
        return self._decode(tokens, memory, spread(state, tokens.shape[1]))[0]

    def _decode(
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[DecoderOutput, Tensors]:
        """tokens (B,K,T) after those of the state -> hidden (B,K,T,H), attention (B,K,T,N)."""
        x = self.embed(tokens)  # (B,K,T,H)
        x = x + _positions(state["keys0"].shape[-2], x)
        after: Tensors = {}
        for number, block in enumerate(self._blocks):
            names = f"keys{number}", f"values{number}"
            past = tuple(state[name] for name in names)
            x, attention, grown = block(x, past, tuple(memory[name] for name in names))
            after |= dict(zip(names, grown, strict=True))
        return DecoderOutput(self.last(x), attention), after


class Block(nn.Module):
    """Causal self-attention, cross-attention over regions, feed-forward."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        if options.norm not in ("pre", "post"):
            raise RecipeError(f"got norm {options.norm!r}; expected pre or post")
        self.pre = options.norm == "pre"
        width = options.width
        self.self_attn = MultiHeadAttention(width, options.heads)
        self.cross_attn = MultiHeadAttention(width, options.heads)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(options.dropout)

    def forward(
        self, x: Tensor, past: tuple[Tensor, ...], memory: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """x (B,K,T,H) -> the same, attention (B,K,T,N), keys and values with these words'."""
        before = self._before(0, x)
        new = self.self_attn.project_kv(before)  # (B,K,heads,T,H/heads)
        keys, values = (torch.cat(both, -2) for both in zip(past, new, strict=True))
        mixed, _ = self.self_attn(before, keys, values, causal=True)
        x = self._after(0, x + self.dropout(mixed))
        context, attention = self.cross_attn(self._before(1, x).flatten(1, 2), *memory)  # (B,K*T,H)
        x = self._after(1, x + self.dropout(context.view(x.shape)))
        x = self._after(2, x + self.dropout(self.ffn(self._before(2, x))))
        return x, attention.mean(1).view(*x.shape[:3], -1), (keys, values)

    def _before(self, number: int, x: Tensor) -> Tensor:
        return self.norms[number](x) if self.pre else x

    def _after(self, number: int, x: Tensor) -> Tensor:
        return x if self.pre else self.norms[number](x)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)

    def project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (...,T,H) -> keys and values (...,heads,T,H/heads)."""
        return self._split(self.key(x)), self._split(self.value(x))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, causal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x (...,T,H), S keys and values -> (...,T,H), attention (...,heads,T,S).

        With `causal`, a word attends to itself and earlier words only.
        """
        query = self._split(self.query(x))  # (...,heads,T,H/heads)
        energy = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5  # (...,heads,T,S)
        if causal and x.shape[-2] > 1:
            before = keys.shape[-2] - x.shape[-2]
            ahead = torch.ones(energy.shape[-2:], dtype=torch.bool, device=x.device)
            ahead = ahead.triu(1 + before)
            energy = energy.masked_fill(ahead, -torch.inf)
        attention = energy.softmax(-1)
        return self.mix((attention @ values).transpose(-2, -3).flatten(-2)), attention

    def _split(self, x: Tensor) -> Tensor:
        """(...,T,H) -> (...,heads,T,H/heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


def _positions(first: int, words: Tensor) -> Tensor:
    """Sinusoidal encodings (T,H) of words (...,T,H) at positions from `first` on (section 3.5)."""
    length, width = words.shape[-2:]
    places = torch.arange(first, first + length, device=words.device, dtype=words.dtype)
    rates = 10_000 ** -(torch.arange(0, width, 2, device=words.device, dtype=words.dtype) / width)
    angles = places.unsqueeze(1) * rates  # (T,H/2)
    return torch.cat([angles.sin(), angles.cos()], -1)
