"""Decoders over the frames of a video: the N "regions" are frames in the order of time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutline.training.decoders.attention import SoftAttention
from cutline.training.decoders.core import Decoder, DecoderOptions, Tensors
from cutline.training.decoders.recurrent import lstm_step


class MeanPooling(Decoder):
    """The mean of the frames goes into an LSTM with every word (Venugopalan et al., 2015a)."""

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        self.project = nn.Linear(features, options.width)
        self.lstm = nn.LSTM(options.width + options.embedding, options.width, batch_first=True)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        mean = self.dropout(torch.relu(self.project(features.mean(1))))  # (B,H)
        zeros = mean.new_zeros(mean.shape[0], 1, self.options.width)
        return {"mean": mean}, {"hidden": zeros, "cell": zeros}

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        mean = memory["mean"].unsqueeze(1).expand(-1, tokens.shape[1], -1)
        inputs = torch.cat([mean, self.embed(tokens)], -1)  # (B,K,H+E)
        hidden, cell = lstm_step(self.lstm, inputs, state["hidden"], state["cell"])
        return hidden, None, {"hidden": hidden, "cell": cell}


class TemporalAttention(SoftAttention):
    """Soft attention over frames (Yao et al., 2015, section 3.2).

    The paper gives each frame features of its motion from a 3-D network. Here the difference to
    the next frame takes their place, beside the frame's own features.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, 2 * features, options)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        following = torch.cat([features[:, 1:], features[:, -1:]], 1)
        return super().start(torch.cat([features, following - features], -1))  # (B,N,2D)


class S2VT(Decoder):
    """Sequence to sequence, video to text (Venugopalan et al., 2015b, section 3.2).

    One LSTM reads the frames and then padding, the other reads the first one's states, with
    padding in place of words until the last frame.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        width = options.width
        self.project = nn.Linear(features, width)
        self.frames = nn.LSTM(width, width, batch_first=True)
        self.words_lstm = nn.LSTM(width + options.embedding, width, batch_first=True)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        frames = self.dropout(torch.relu(self.project(features)))  # (B,N,H)
        first, (hidden1, cell1) = self.frames(frames)  # (B,N,H)
        padding = first.new_zeros(*first.shape[:2], self.options.embedding)
        _, (hidden2, cell2) = self.words_lstm(torch.cat([first, padding], -1))
        names = ("hidden1", "cell1", "hidden2", "cell2")
        states = (hidden1, cell1, hidden2, cell2)  # each (1,B,H)
        return {}, {n: s.transpose(0, 1) for n, s in zip(names, states, strict=True)}

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        word = self.embed(tokens)  # (B,K,E)
        padding = torch.zeros_like(state["hidden1"])
        hidden1, cell1 = lstm_step(self.frames, padding, state["hidden1"], state["cell1"])
        both = torch.cat([hidden1, word], -1)
        hidden2, cell2 = lstm_step(self.words_lstm, both, state["hidden2"], state["cell2"])
        after = {"hidden1": hidden1, "cell1": cell1, "hidden2": hidden2, "cell2": cell2}
        return hidden2, None, after
