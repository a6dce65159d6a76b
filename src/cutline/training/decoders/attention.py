"""Recurrent decoders that attend to the image's regions before each word."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutline.errors import RecipeError
from cutline.training.decoders.core import Decoder, DecoderOptions, DecoderOutput, Tensors, spread
from cutline.training.decoders.recurrent import lstm_step

CELLS: dict[str, type[nn.LSTMCell] | type[nn.GRUCell]] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


class SoftAttention(Decoder):
    """Show, Attend and Tell (Xu et al., 2015): an LSTM or GRU with additive attention.

    The attention is that of Bahdanau et al. (2015). The optional gate of section 4.2.1 on the
    context is a vector here instead of a scalar. A deep output layer (eq. 7) combines state,
    context and last word. Regions are projected to the width of the states first.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        if options.cell not in CELLS:
            raise RecipeError(f"got cell {options.cell!r}; expected {' or '.join(CELLS)}")
        width, inner = options.width, options.attention or options.width
        self.project = nn.Linear(features, width)
        self.key = nn.Linear(width, inner)
        self.query = nn.Linear(width, inner)
        self.energy = nn.Linear(inner, 1, bias=False)
        if options.gate:
            self.gate = nn.Linear(width, width)
        self.first_hidden = nn.Linear(width, width)
        if options.cell == "lstm":
            self.first_cell = nn.Linear(width, width)
        self.cell = CELLS[options.cell](options.embedding + width, width)
        self.from_context = nn.Linear(width, width)
        self.from_word = nn.Linear(options.embedding, width)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        regions = self.dropout(torch.relu(self.project(features)))  # (B,N,H)
        mean = regions.mean(1, keepdim=True)  # (B,1,H)
        state = {"hidden": torch.tanh(self.first_hidden(mean))}
        if self.options.cell == "lstm":
            state["cell"] = torch.tanh(self.first_cell(mean))
        return {"regions": regions, "keys": self.key(regions)}, state

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        attention = self.attend(memory, state)
        hidden, after = self.decode_step(tokens, self.context(attention, memory), state)
        return hidden, attention, after

    def attend(self, memory: Tensors, state: Tensors) -> Tensor:
        """Weights (B,K,N) of the regions (eqs. 4 and 5)."""
        query = self.query(state["hidden"]).unsqueeze(2)  # (B,K,1,A)
        energy = self.energy(torch.tanh(memory["keys"].unsqueeze(1) + query))  # (B,K,N,1)
        return energy.squeeze(-1).softmax(-1)

    def context(self, attention: Tensor, memory: Tensors) -> Tensor:
        """attention (B,K,N) -> context (B,K,H): the regions' expected value (eq. 13)."""
        return attention @ memory["regions"]

    def decode_step(
        self, tokens: Tensor, context: Tensor, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """tokens (B,K), context (B,K,H) -> hidden (B,K,H) and the next state."""
        if self.options.gate:
            context = torch.sigmoid(self.gate(state["hidden"])) * context
        word = self.embed(tokens)  # (B,K,E)
        inputs = torch.cat([word, context], -1).flatten(0, 1)  # (B*K,E+H)
        before = tuple(each.flatten(0, 1) for each in state.values())  # (B*K,H)
        if isinstance(self.cell, nn.LSTMCell):
            flat = self.cell(inputs, before)
        else:
            flat = (self.cell(inputs, *before),)
        after = {n: a.view(*tokens.shape, -1) for n, a in zip(state, flat, strict=True)}  # (B,K,H)
        deep = self.dropout(after["hidden"]) + self.from_context(context) + self.from_word(word)
        return torch.tanh(deep), after


class HardAttention(SoftAttention):
    """Show, Attend and Tell with hard attention: one region per word (section 4.1)."""

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        self.baseline: Tensor
        self.register_buffer("baseline", torch.zeros(()))

    def context(self, attention: Tensor, memory: Tensors) -> Tensor:
        """attention (B,K,N) -> context (B,K,H): the region with the largest weight."""
        return _pick(memory["regions"], attention.argmax(-1))

    def explore(self, features: Tensor, tokens: Tensor) -> tuple[DecoderOutput, Tensor]:
        """Teacher forcing with randomly sampled regions.

        Half of the images get the regions' expected value instead, as in the paper.

        Args:
            features: (B,N,D).
            tokens: (B,K,T).

        Returns:
            the output; the log-probability (B,K,T) of every sampled region, nats, 0 for none.
        """
        memory, state = self.start(features)
        state = spread(state, tokens.shape[1])
        sampling = torch.rand(len(features), 1, device=features.device) < 0.5  # (B,1)
        steps = []
        for t in range(tokens.shape[2]):
            attention = self.attend(memory, state).float()  # (B,K,N)
            drawn = torch.multinomial(attention.flatten(0, 1), 1).view(tokens.shape[:2])  # (B,K)
            one, all_ = _pick(memory["regions"], drawn), super().context(attention, memory)
            context = torch.where(sampling.unsqueeze(-1), one, all_)  # (B,K,H)
            log_prob = attention.gather(-1, drawn.unsqueeze(-1)).squeeze(-1).log()  # (B,K)
            hidden, state = self.decode_step(tokens[:, :, t], context, state)
            steps.append((hidden, attention, log_prob * sampling))
        hiddens, attentions, log_probs = (torch.stack(each, 2) for each in zip(*steps, strict=True))
        return DecoderOutput(hiddens, attentions), log_probs

    def reinforce(
        self, likelihood: Tensor, log_probs: Tensor, attention: Tensor, mask: Tensor, entropy: float
    ) -> Tensor:
        """REINFORCE for the sampled regions, with a moving average as the baseline (eqs. 11, 12).

        The reward is the mean per word, so that long captions weigh no more than short ones.

        Args:
            likelihood: (B,K,T) log-probability of the given words, nats.
            log_probs: (B,K,T) log-probability of the sampled regions, from `explore`.
            attention: (B,K,T,N).
            mask: (B,K,T), true for words, false for padding.
            entropy: weight of the attention's entropy, which is maximised.

        Returns:
            a loss with the gradient of the paper; also updates the baseline.
        """
        words = mask.sum(-1)  # (B,K)
        reward = (likelihood.detach() * mask).sum(-1) / words
        loss = -((reward - self.baseline).unsqueeze(-1) * log_probs)[mask].mean()
        entropies = torch.special.entr(attention).sum(-1)[mask].mean()
        with torch.no_grad():
            self.baseline.lerp_(reward.mean(), 0.1)
        return loss - entropy * entropies


def _pick(regions: Tensor, chosen: Tensor) -> Tensor:
    """regions (B,N,H), chosen (B,K) -> (B,K,H)."""
    return regions.gather(1, chosen.unsqueeze(-1).expand(-1, -1, regions.shape[-1]))


class UpDown(Decoder):
    """Bottom-up and top-down attention (Anderson et al., 2018, section 3.2).

    One LSTM computes the attention from the state of the other, which generates the words from the
    attended context. Regions are those of a detector or the cells of a grid; they are projected to
    the width of the states first.
    """

    def __init__(self, vocabulary: int, features: int, options: DecoderOptions) -> None:
        super().__init__(vocabulary, features, options)
        width, inner = options.width, options.attention or options.width
        self.project = nn.Linear(features, width)
        self.key = nn.Linear(width, inner)
        self.query = nn.Linear(width, inner)
        self.energy = nn.Linear(inner, 1, bias=False)
        self.attention_lstm = nn.LSTM(width + width + options.embedding, width, batch_first=True)
        self.language_lstm = nn.LSTM(width + width, width, batch_first=True)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:  # noqa: D102
        regions = self.dropout(torch.relu(self.project(features)))  # (B,N,H)
        zeros = regions.new_zeros(regions.shape[0], 1, self.options.width)
        memory = {"regions": regions, "keys": self.key(regions), "mean": regions.mean(1)}
        return memory, dict.fromkeys(("hidden1", "cell1", "hidden2", "cell2"), zeros)

    def advance(  # noqa: D102
        self, tokens: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor | None, Tensors]:
        language = state["hidden2"]  # (B,K,H)
        mean = memory["mean"].unsqueeze(1).expand_as(language)
        query_input = torch.cat([language, mean, self.embed(tokens)], -1)  # (B,K,2H+E)
        hidden1, cell1 = lstm_step(
            self.attention_lstm, query_input, state["hidden1"], state["cell1"]
        )
        query = self.query(hidden1).unsqueeze(2)  # (B,K,1,A)
        energy = self.energy(torch.tanh(memory["keys"].unsqueeze(1) + query))  # (B,K,N,1)
        attention = energy.squeeze(-1).softmax(-1)  # (B,K,N)
        context = attention @ memory["regions"]  # (B,K,H)
        inputs = torch.cat([context, hidden1], -1)  # (B,K,2H)
        hidden2, cell2 = lstm_step(self.language_lstm, inputs, language, state["cell2"])
        after = {"hidden1": hidden1, "cell1": cell1, "hidden2": hidden2, "cell2": cell2}
        return hidden2, attention, after
