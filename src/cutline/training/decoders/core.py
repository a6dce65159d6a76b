"""What every caption decoder is: region features and the words so far -> the next word."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class DecoderOptions:
    """What a decoder is built from.

    Attributes:
        kind: which of `DECODERS`.
        width: of hidden states, H.
        embedding: of words, E.
        heads: of attention, where there are several: global attention, transformer.
        layers: of the transformer.
        cell: "lstm" or "gru", for soft and hard attention.
        attention: width of additive attention's hidden layer, A; 0 is `width`.
        gate: whether soft and hard attention put a gate on what was seen (Xu et al., 4.2.1).
        norm: "pre" or "post", where the transformer normalises.
        tied: whether the output layer shares its weights with the embedding.
        dropout: share of values that vanish in training.
        word_dropout: share of words that vanish whole in training.
    """

    kind: str = "soft-attention"
    width: int = 512
    embedding: int = 512
    heads: int = 8
    layers: int = 3
    cell: str = "lstm"
    attention: int = 0
    gate: bool = True
    norm: str = "pre"
    tied: bool = True
    dropout: float = 0.3
    word_dropout: float = 0.05


class Told(NamedTuple):
    """What a decoder makes of given captions.

    Attributes:
        hidden: (B,K,T,H), what the next word is told from.
        attention: (B,K,T,N), shares of the regions; None if the decoder has no attention.
    """

    hidden: Tensor
    attention: Tensor | None


class Decoder(nn.Module):
    """What all decoders share: an embedding, tied to the output layer (Press and Wolf, 2017)."""

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__()
        self.options = options
        self.embedding = nn.Embedding(vocabulary, options.embedding)
        nn.init.normal_(self.embedding.weight, std=options.embedding**-0.5)
        self.output = nn.Linear(options.width, options.embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        if not options.tied:
            self.words = nn.Linear(options.embedding, vocabulary, bias=False)
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
        words = self.embedding.weight if self.options.tied else self.words.weight
        return F.linear(self.output(self.dropout(hidden)), words, self.bias)

    @abstractmethod
    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """features (B,N,D) -> memory (B,...) and state (B,1,...)."""

    @abstractmethod
    def advance(
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        """tokens (B,K) -> hidden (B,K,H), attention (B,K,N) or None, next state (B,K,...)."""

    def forward(self, features: Tensor, tokens: Tensor) -> Told:
        """Teacher forcing: features (B,N,D), tokens (B,K,T) -> what `advance` says all along."""
        return self.unroll(features, tokens)

    def unroll(self, features: Tensor, tokens: Tensor, own: float = 0.0) -> Told:
        """`forward`, a step at a time.

        Args:
            features: (B,N,D).
            tokens: (B,K,T).
            own: the chance that a word after the first is the decoder's own, drawn from what it
                has just said, instead of the given one: scheduled sampling (Bengio et al., 2015).
        """
        memory, state = self.start(features)
        state = spread(state, tokens.shape[1])
        hiddens, attentions = [], []
        word = tokens[:, :, 0]
        for t in range(tokens.shape[2]):
            hidden, attention, state = self.advance(word, memory, state)
            hiddens.append(hidden)
            attentions.append(attention)
            if t + 1 < tokens.shape[2]:
                word = tokens[:, :, t + 1]
                if own:
                    chosen = torch.rand(word.shape, device=word.device) < own
                    word = torch.where(chosen, self._draw(hidden), word)
        looked = [each for each in attentions if each is not None]
        return Told(torch.stack(hiddens, 2), torch.stack(looked, 2) if looked else None)

    @torch.no_grad()
    def _draw(self, hidden: Tensor) -> Tensor:
        """hidden (B,K,H) -> words (B,K), drawn from their probabilities."""
        shares = self.logits(hidden).softmax(-1)
        return torch.multinomial(shares.flatten(0, 1), 1).view(hidden.shape[:2])


def spread(state: Tensors, rows: int) -> Tensors:
    """A state (B,1,...) for that many rows an image: (B,K,...)."""
    return {name: each.expand(-1, rows, *each.shape[2:]) for name, each in state.items()}


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
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, TorchState]:
        """tokens (B,K) -> logprobs (B,K,V) in nats, attention (B,K,N) or None, the next state."""
        ids = torch.from_numpy(tokens).to(self.device)
        hidden, attention, rows = self.decoder.advance(ids, state.memory, state.rows)
        logprobs = self.decoder.logits(hidden).float().log_softmax(-1).cpu().numpy()
        looked = None if attention is None else attention.float().cpu().numpy()
        return logprobs, looked, TorchState(state.memory, rows)

    def reorder(self, state: TorchState, rows: NDArray[np.int64]) -> TorchState:
        """rows (B',K') of flat row indices -> the state with just these rows, in this order."""
        beams = next(iter(state.rows.values())).shape[1]
        images = torch.from_numpy(rows[:, 0] // beams).to(self.device)
        flat = torch.from_numpy(rows).to(self.device)
        return TorchState(
            {name: tensor[images] for name, tensor in state.memory.items()},
            {name: tensor.flatten(0, 1)[flat] for name, tensor in state.rows.items()},
        )
