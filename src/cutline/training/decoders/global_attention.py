"""Global attention: two LSTM layers with several heads of attention between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutline.errors import RecipeError
from cutline.training.decoders.core import Decoder, DecoderOptions, DecoderOutput, Tensors
from cutline.training.decoders.recurrent import lstm_step


class GlobalAttention(Decoder):
    """Two LSTM layers with global attention between them (Luong, Pham and Manning, 2015).

    The states of the first layer attend to the regions through several scaled dot-product heads
    (Vaswani et al., 2017); the second layer takes both. The context does not feed back into the
    first layer, so teacher forcing runs over all words at once.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        if options.width % options.heads:
            raise RecipeError(
                f"got width {options.width} and {options.heads} heads; expected a multiple of them"
            )
        super().__init__(vocabulary, features, options)
        width = options.width
        self.project = nn.Linear(features, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.summary = nn.Linear(width, width)
        self.first = nn.Linear(width, 4 * width)
        self.reader = nn.LSTM(options.embedding, width, batch_first=True)
        self.writer = nn.LSTM(2 * width, width, batch_first=True)
        self.from_context = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        regions = self.dropout(torch.relu(self.project(features)))  # (B,N,H)
        first = torch.tanh(self.first(self.summary(regions.mean(1)).relu()))  # (B,4H)
        names = ("hidden1", "cell1", "hidden2", "cell2")
        state = {n: s.unsqueeze(1) for n, s in zip(names, first.chunk(4, -1), strict=True)}
        memory = {
            "keys": self._heads(self.key(regions)),
            "values": self._heads(self.value(regions)),
        }
        return memory, state

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        word = self.embed(tokens)  # (B,K,E)
        hidden1, cell1 = lstm_step(self.reader, word, state["hidden1"], state["cell1"])
        read = self.dropout(hidden1)
        context, attention = self._attend(read, memory)  # (B,K,H), (B,K,N)
        both = torch.cat([read, context], -1)  # (B,K,2H)
        hidden2, cell2 = lstm_step(self.writer, both, state["hidden2"], state["cell2"])
        after = {"hidden1": hidden1, "cell1": cell1, "hidden2": hidden2, "cell2": cell2}
        return self.norm(hidden1 + context + hidden2), attention, after

    def forward(self, features: Tensor, tokens: Tensor) -> DecoderOutput:  # noqa: D102
        batch, rows, length = tokens.shape
        memory, state = self.start(features)
        flat = {
            name: s.expand(-1, rows, -1).flatten(0, 1).unsqueeze(0).contiguous()
            for name, s in state.items()
        }  # (1,B*K,H)
        words = self.embed(tokens).flatten(0, 1)  # (B*K,T,E)
        hidden1, _ = self.reader(words, (flat["hidden1"], flat["cell1"]))  # (B*K,T,H)
        read = self.dropout(hidden1)
        context, attention = self._attend(read.reshape(batch, rows * length, -1), memory)
        context = context.reshape(read.shape)  # (B*K,T,H)
        hidden2, _ = self.writer(torch.cat([read, context], -1), (flat["hidden2"], flat["cell2"]))
        hidden = self.norm(hidden1 + context + hidden2)  # (B*K,T,H)
        attention = attention.reshape(batch, rows, length, -1)
        return DecoderOutput(hidden.reshape(batch, rows, length, -1), attention)

    def _heads(self, x: Tensor) -> Tensor:
        """(B,N,H) -> (B,heads,N,H/heads)."""
        return x.unflatten(-1, (self.options.heads, -1)).transpose(1, 2)

    def _attend(self, hidden: Tensor, memory: Tensors) -> tuple[Tensor, Tensor]:
        """hidden (B,Q,H) -> context (B,Q,H), attention (B,Q,N) averaged over the heads."""
        query = self._heads(self.query(hidden))  # (B,heads,Q,H/heads)
        energy = query @ memory["keys"].transpose(-1, -2) * query.shape[-1] ** -0.5  # (B,heads,Q,N)
        attention = energy.softmax(-1)
        context = (attention @ memory["values"]).transpose(1, 2).flatten(2)  # (B,Q,H)
        return self.from_context(context), attention.mean(1)
