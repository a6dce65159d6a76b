"""Caption decoders: region features and the words so far -> the next word.

Every decoder says the same three things. `start(features)` gives a `memory`, tensors by name with
one entry an image, and a `state`, tensors by name with one entry a row (an image's beams stand
next to each other). `advance(tokens, memory, state)` reads one word: it gives the hidden state that
the next word is told from, the attention over regions and the next state. `forward(features,
tokens)` is teacher forcing: what `advance` would give all along given captions, in parallel where
the architecture allows it. `logits(hidden)` turns hidden states into words.

Axes: B images, K rows an image, T tokens, N regions, D feature width, H hidden width, E embedding
width, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cutline.errors import RecipeError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class DecoderOptions:
    """What a decoder is built from."""

    kind: str = "soft-attention"
    width: int = 512
    embedding: int = 512
    heads: int = 8
    dropout: float = 0.3
    word_dropout: float = 0.05


class Decoder(nn.Module):
    """What all decoders share: an embedding tied to the output layer (Press and Wolf, 2017)."""

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__()
        self.options = options
        self.embedding = nn.Embedding(vocabulary, options.embedding)
        nn.init.normal_(self.embedding.weight, std=options.embedding**-0.5)
        self.output = nn.Linear(options.width, options.embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = nn.Dropout(options.dropout)

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> (..., E), of unit variance; in training some words vanish whole."""
        words: Tensor = self.embedding(tokens) * self.options.embedding**0.5
        if self.training and self.options.word_dropout:
            keep = torch.rand(tokens.shape, device=tokens.device) >= self.options.word_dropout
            words = words * keep.unsqueeze(-1)
        return self.dropout(words)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., H) -> (..., V)."""
        return F.linear(self.output(self.dropout(hidden)), self.embedding.weight, self.bias)

    @abstractmethod
    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """features (B,N,D) -> memory (B,...) and state (B,1,...)."""

    @abstractmethod
    def advance(
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """tokens (B,K) -> hidden (B,K,H), attention (B,K,N), next state (B,K,...)."""

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """features (B,N,D), tokens (B,K,T) -> hidden (B,K,T,H), attention (B,K,T,N)."""
        memory, state = self.start(features)
        state = {
            name: rows.expand(-1, tokens.shape[1], *rows.shape[2:]) for name, rows in state.items()
        }
        steps = []
        for t in range(tokens.shape[2]):
            hidden, attention, state = self.advance(tokens[:, :, t], memory, state)
            steps.append((hidden, attention))
        return torch.stack([s[0] for s in steps], 2), torch.stack([s[1] for s in steps], 2)


class SoftAttention(Decoder):
    """Show, Attend and Tell (Xu et al., 2015): an LSTM that looks at the regions before each word.

    Additive attention (Bahdanau et al., 2015), the gate of section 4.2.1 on the context, and a
    deep output layer (eq. 7) over state, context and last word.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        width = options.width
        self.project = nn.Linear(features, width)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.energy = nn.Linear(width, 1, bias=False)
        self.gate = nn.Linear(width, width)
        self.first_hidden = nn.Linear(width, width)
        self.first_cell = nn.Linear(width, width)
        self.lstm = nn.LSTMCell(options.embedding + width, width)
        self.from_context = nn.Linear(width, width)
        self.from_word = nn.Linear(options.embedding, width)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        regions = self.dropout(torch.relu(self.project(features)))  # (B,N,H)
        mean = regions.mean(1)  # (B,H)
        state = {
            "hidden": torch.tanh(self.first_hidden(mean)).unsqueeze(1),  # (B,1,H)
            "cell": torch.tanh(self.first_cell(mean)).unsqueeze(1),
        }
        return {"regions": regions, "keys": self.key(regions)}, state

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        batch, rows = tokens.shape
        hidden, cell = state["hidden"], state["cell"]  # (B,K,H)
        query = self.query(hidden).unsqueeze(2)  # (B,K,1,H)
        energy = self.energy(torch.tanh(memory["keys"].unsqueeze(1) + query))  # (B,K,N,1)
        attention = energy.squeeze(-1).softmax(-1)  # (B,K,N)
        context = torch.sigmoid(self.gate(hidden)) * (attention @ memory["regions"])  # (B,K,H)
        word = self.embed(tokens)  # (B,K,E)
        flat = torch.cat([word, context], -1).flatten(0, 1)  # (B*K,E+H)
        hidden, cell = self.lstm(flat, (hidden.flatten(0, 1), cell.flatten(0, 1)))
        hidden, cell = hidden.view(batch, rows, -1), cell.view(batch, rows, -1)
        deep = torch.tanh(
            self.dropout(hidden) + self.from_context(context) + self.from_word(word)
        )  # (B,K,H)
        return deep, attention, {"hidden": hidden, "cell": cell}


class GlobalAttention(Decoder):
    """Two LSTM layers with global attention between them (Luong, Pham and Manning, 2015).

    The first layer reads the words, its states look at the regions through several scaled
    dot-product heads (Vaswani et al., 2017), the second reads both. Nothing an attention saw
    feeds back into the layer that asked, so that teacher forcing runs over all words at once.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
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
    ) -> tuple[Tensor, Tensor, Tensors]:
        word = self.embed(tokens)  # (B,K,E)
        hidden1, cell1 = _lstm_step(self.reader, word, state["hidden1"], state["cell1"])
        context, attention = self._look(self.dropout(hidden1), memory)  # (B,K,H), (B,K,N)
        both = torch.cat([self.dropout(hidden1), context], -1)  # (B,K,2H)
        hidden2, cell2 = _lstm_step(self.writer, both, state["hidden2"], state["cell2"])
        after = {"hidden1": hidden1, "cell1": cell1, "hidden2": hidden2, "cell2": cell2}
        return self.norm(hidden1 + context + hidden2), attention, after

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        batch, rows, length = tokens.shape
        memory, state = self.start(features)
        flat = {
            name: s.expand(-1, rows, -1).flatten(0, 1).unsqueeze(0).contiguous()
            for name, s in state.items()
        }  # (1,B*K,H)
        words = self.embed(tokens).flatten(0, 1)  # (B*K,T,E)
        hidden1, _ = self.reader(words, (flat["hidden1"], flat["cell1"]))  # (B*K,T,H)
        read = self.dropout(hidden1)
        context, attention = self._look(read.reshape(batch, rows * length, -1), memory)
        context = context.reshape(read.shape)  # (B*K,T,H)
        hidden2, _ = self.writer(torch.cat([read, context], -1), (flat["hidden2"], flat["cell2"]))
        hidden = self.norm(hidden1 + context + hidden2)  # (B*K,T,H)
        return hidden.reshape(batch, rows, length, -1), attention.reshape(batch, rows, length, -1)

    def _heads(self, x: Tensor) -> Tensor:
        """(B,N,H) -> (B,heads,N,H/heads)."""
        return x.unflatten(-1, (self.options.heads, -1)).transpose(1, 2)

    def _look(self, hidden: Tensor, memory: Tensors) -> tuple[Tensor, Tensor]:
        """hidden (B,Q,H) -> context (B,Q,H), attention (B,Q,N) averaged over the heads."""
        query = self._heads(self.query(hidden))  # (B,heads,Q,H/heads)
        energy = query @ memory["keys"].transpose(-1, -2) * query.shape[-1] ** -0.5  # (B,heads,Q,N)
        attention = energy.softmax(-1)
        context = (attention @ memory["values"]).transpose(1, 2).flatten(2)  # (B,Q,H)
        return self.from_context(context), attention.mean(1)


def _lstm_step(lstm: nn.LSTM, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a one-layer LSTM: x (...,I), hidden and cell (...,H) -> the next two."""
    from_input, from_hidden, input_bias, hidden_bias = lstm.all_weights[0]
    gates = F.linear(x, from_input, input_bias) + F.linear(hidden, from_hidden, hidden_bias)
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


DECODERS: dict[str, type[Decoder]] = {
    "soft-attention": SoftAttention,
    "global-attention": GlobalAttention,
}


def build(vocabulary: int, features: int, options: DecoderOptions) -> Decoder:
    """A decoder of the kind that the options name.

    Raises:
        RecipeError: there is no such kind.
    """
    if options.kind not in DECODERS:
        raise RecipeError(f"got decoder {options.kind!r}; expected one of {', '.join(DECODERS)}")
    return DECODERS[options.kind](vocabulary, features, options)


@dataclass(frozen=True)
class TorchState:
    """What a `TorchStepper` carries: memory by image, state by row."""

    memory: Tensors
    rows: Tensors


class TorchStepper:
    """A decoder under training as the `Stepper` that `cutline.search` drives."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.device = next(decoder.parameters()).device

    def start(self, features: Tensor) -> TorchState:
        """features (B,N,D) -> the state before the first word, one row an image."""
        return TorchState(*self.decoder.start(features.to(self.device)))

    def step(
        self, state: TorchState, tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], TorchState]:
        """tokens (B,K) -> logprobs (B,K,V) in nats, attention (B,K,N), the next state."""
        ids = torch.from_numpy(tokens).to(self.device)
        hidden, attention, rows = self.decoder.advance(ids, state.memory, state.rows)
        logprobs = self.decoder.logits(hidden).log_softmax(-1).float().cpu().numpy()
        return logprobs, attention.float().cpu().numpy(), TorchState(state.memory, rows)

    def reorder(self, state: TorchState, rows: NDArray[np.int64]) -> TorchState:
        """rows (B',K') of flat row indices -> the state with just these rows, in this order."""
        beams = next(iter(state.rows.values())).shape[1]
        images = torch.from_numpy(rows[:, 0] // beams).to(self.device)
        flat = torch.from_numpy(rows).to(self.device)
        return TorchState(
            {name: tensor[images] for name, tensor in state.memory.items()},
            {name: tensor.flatten(0, 1)[flat] for name, tensor in state.rows.items()},
        )
