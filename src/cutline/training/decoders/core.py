"""The base class of caption decoders, and the adapter that lets `cutline.search` drive one."""

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
    """The architecture of a decoder and its regularisation.

    Attributes:
        kind: which of `DECODERS`.
        width: of hidden states, H.
        embedding: of words, E.
        heads: of attention, where there are several: global attention, transformer.
        layers: of the transformer.
        cell: "lstm" or "gru", for soft and hard attention.
        attention: width of additive attention's hidden layer, A; 0 is `width`.
        gate: whether soft and hard attention gate the context (Xu et al., 4.2.1).
        norm: "pre" or "post": layer normalisation before or after each block of the transformer.
        tied: whether the output layer shares its weights with the embedding.
        dropout: share of values set to 0 in training.
        word_dropout: share of words whose embedding is set to 0 in training.
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


class DecoderOutput(NamedTuple):
    """The output of teacher forcing.

    Attributes:
        hidden: (B,K,T,H), input of `Decoder.logits`.
        attention: (B,K,T,N), weights of the regions; None if the decoder has no attention.
    """

    hidden: Tensor
    attention: Tensor | None


class Decoder(nn.Module):
    """A caption decoder; the output layer may be tied to the embedding (Press and Wolf, 2017)."""

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
        """tokens (...) -> (..., E), of unit variance, with word dropout in training."""
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

    def forward(self, features: Tensor, tokens: Tensor) -> DecoderOutput:
        """Teacher forcing: features (B,N,D) and tokens (B,K,T) -> hidden states and attention."""
        return self.unroll(features, tokens)

    def unroll(self, features: Tensor, tokens: Tensor, sampling_rate: float = 0.0) -> DecoderOutput:
        """`forward`, one step at a time, with scheduled sampling (Bengio et al., 2015).

        Args:
            features: (B,N,D).
            tokens: (B,K,T).
            sampling_rate: the probability that a word after the first is replaced by one sampled
                from the decoder's own distribution.
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
                if sampling_rate:
                    replaced = torch.rand(word.shape, device=word.device) < sampling_rate
                    word = torch.where(replaced, self._sample(hidden), word)
        weights = [each for each in attentions if each is not None]
        return DecoderOutput(torch.stack(hiddens, 2), torch.stack(weights, 2) if weights else None)

    @torch.no_grad()
    def _sample(self, hidden: Tensor) -> Tensor:
        """hidden (B,K,H) -> words (B,K), sampled from the softmax of the logits."""
        shares = self.logits(hidden).softmax(-1)
        return torch.multinomial(shares.flatten(0, 1), 1).view(hidden.shape[:2])


def spread(state: Tensors, rows: int) -> Tensors:
    """A state (B,1,...) expanded to that many rows per image: (B,K,...)."""
    return {name: each.expand(-1, rows, *each.shape[2:]) for name, each in state.items()}


@dataclass(frozen=True)
class TorchState:
    """The state of a `TorchStepper`: memory per image, state per row."""

    memory: Tensors
    rows: Tensors


class TorchStepper:
    """A decoder as the `Stepper` that `cutline.search` drives."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.device = next(decoder.parameters()).device

    def start(self, features: Tensor) -> TorchState:
        """features (B,N,D) -> the state before the first word, one row per image."""
        return TorchState(*self.decoder.start(features.to(self.device)))

    def step(
        self, state: TorchState, tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, TorchState]:
        """tokens (B,K) -> logprobs (B,K,V) in nats, attention (B,K,N) or None, the next state."""
        ids = torch.from_numpy(tokens).to(self.device)
        hidden, attention, rows = self.decoder.advance(ids, state.memory, state.rows)
        logprobs = self.decoder.logits(hidden).float().log_softmax(-1).cpu().numpy()
        weights = None if attention is None else attention.float().cpu().numpy()
        return logprobs, weights, TorchState(state.memory, rows)

    def reorder(self, state: TorchState, rows: NDArray[np.int64]) -> TorchState:
        """rows (B',K') of flat row indices -> the state with only these rows, in this order."""
        beams = next(iter(state.rows.values())).shape[1]
        images = torch.from_numpy(rows[:, 0] // beams).to(self.device)
        flat = torch.from_numpy(rows).to(self.device)
        return TorchState(
            {name: tensor[images] for name, tensor in state.memory.items()},
            {name: tensor.flatten(0, 1)[flat] for name, tensor in state.rows.items()},
        )
