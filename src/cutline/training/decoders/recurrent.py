"""Decoders without attention: an LSTM with one feature vector per image."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cutline.errors import RecipeError
from cutline.training.decoders.core import Decoder, DecoderOptions, DecoderOutput, Tensors, spread


class SentenceDecoder(Decoder):
    """One LSTM reads the words; `start` and `merge` add the image.

    The image is represented by the mean of its features, whether they are a grid or pooled.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        self.lstm = nn.LSTM(options.embedding, options.width, batch_first=True)

    @abstractmethod
    def merge(self, read: Tensor, memory: Tensors) -> Tensor:
        """The LSTM's states (B,...,H) -> hidden states, with the memory's (B,...) tensors."""

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        hidden, cell = lstm_step(self.lstm, self.embed(tokens), state["hidden"], state["cell"])
        return self.merge(hidden, memory), None, {"hidden": hidden, "cell": cell}  # (B,K,H)

    def forward(self, features: Tensor, tokens: Tensor) -> DecoderOutput:  # noqa: D102
        memory, state = self.start(features)
        first = tuple(
            each.flatten(0, 1).unsqueeze(0).contiguous()
            for each in spread(state, tokens.shape[1]).values()
        )  # (1,B*K,H)
        read, _ = self.lstm(self.embed(tokens).flatten(0, 1), first)  # (B*K,T,H)
        return DecoderOutput(self.merge(read.view(*tokens.shape, -1), memory), None)

    def zero_state(self, features: Tensor) -> Tensors:
        """The state (B,1,H) before the first word: zeros."""
        zeros = features.new_zeros(features.shape[0], 1, self.options.width)
        return {"hidden": zeros, "cell": zeros}


class ShowAndTell(SentenceDecoder):
    """Show and Tell (Vinyals et al., 2015): the image is the first word (eqs. 10 to 12)."""

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        self.project = nn.Linear(features, options.embedding)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        picture = self.dropout(self.project(features.mean(1))).unsqueeze(1)  # (B,1,E)
        none = self.zero_state(features)
        hidden, cell = lstm_step(self.lstm, picture, none["hidden"], none["cell"])
        return {}, {"hidden": hidden, "cell": cell}  # (B,1,H)

    def merge(self, read: Tensor, memory: Tensors) -> Tensor:  # noqa: D102
        return read


class PlainMerge(SentenceDecoder):
    """The merge architecture (Tanti, Gatt and Camilleri, 2018, figure 1b).

    The LSTM never sees the image: its state and the image's vector stand side by side in
    front of the output layer.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        self.project = nn.Linear(features, options.width)
        self.output = nn.Linear(2 * options.width, options.embedding)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        picture = F.normalize(features.mean(1), dim=-1) * features.shape[-1] ** 0.5  # (B,D)
        return {"picture": self.project(picture)}, self.zero_state(features)

    def merge(self, read: Tensor, memory: Tensors) -> Tensor:  # noqa: D102
        return torch.cat([read, beside(memory["picture"], read)], -1)  # (B,...,2H)


class Merge(SentenceDecoder):
    """The merge model of many notebooks: the image is both read first and added last.

    Its vector goes before the words in the LSTM's sequence and is added to the LSTM's output; a
    dense layer of half the width follows, then the words. So image, words and states have one
    width.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        if options.width != options.embedding:
            raise RecipeError(
                f"got width {options.width} and embedding {options.embedding}; expected them "
                "equal: merge adds the image's vector, which stands among the words, to the "
                "LSTM's states"
            )
        super().__init__(vocabulary, features, options)
        self.project = nn.Linear(features, options.width)
        self.output = nn.Linear(options.width, options.width // 2)
        self.words = nn.Linear(options.width // 2, vocabulary, bias=False)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        picture = torch.relu(self.project(features.mean(1)))  # (B,H)
        none = self.zero_state(features)
        hidden, cell = lstm_step(self.lstm, picture.unsqueeze(1), none["hidden"], none["cell"])
        return {"picture": picture}, {"hidden": hidden, "cell": cell}  # (B,1,H)

    def merge(self, read: Tensor, memory: Tensors) -> Tensor:  # noqa: D102
        return self.dropout(read) + beside(memory["picture"], read)  # (B,...,H)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., H) -> (..., V), not tied to the embedding."""
        dense = torch.relu(self.output(hidden))  # (...,H/2)
        return F.linear(self.dropout(dense), self.words.weight, self.bias)


def beside(picture: Tensor, read: Tensor) -> Tensor:
    """image (B,H) -> the shape of read, (B,K,H) or (B,K,T,H)."""
    return picture.view(picture.shape[0], *[1] * (read.dim() - 2), -1).expand_as(read)


def lstm_step(lstm: nn.LSTM, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a one-layer LSTM: x (...,I), hidden and cell (...,H) -> the next two."""
    from_input, from_hidden, input_bias, hidden_bias = lstm.all_weights[0]
    gates = F.linear(x, from_input, input_bias) + F.linear(hidden, from_hidden, hidden_bias)
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell
