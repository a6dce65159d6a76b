"""A run's weights, put together again: from pixels to words in torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cutline.errors import RecipeError
from cutline.preprocess import Transform
from cutline.text import Vocabulary
from cutline.training.bpe import Subwords
from cutline.training.decoders import Decoder, build
from cutline.training.encoders import SIDE_PX, Backbone, Encoder, load_encoder
from cutline.training.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """A run's weights, put together again.

    Attributes:
        encoder: pixels (B,3,S,S) -> features (B,N,D), embedding (B,E), and `mid`, what labels are
            told from, if they are.
        labels: mid -> ImageNet logits (B,1000); None where the backbone knows no such classes.
        decoder: features -> words.
        transform: what a picture goes through before the encoder.
        grid: rows and columns of the regions.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    encoder: nn.Module
    labels: nn.Module | None
    decoder: Decoder
    transform: Transform
    grid: tuple[int, int]

    @property
    def parameters(self) -> dict[str, int]:
        """How many weights each part has; `labels` are those only labels need."""
        parts = {"encoder": self.encoder, "labels": self.labels, "decoder": self.decoder}
        return {
            name: sum(p.numel() for p in part.parameters()) if part else 0
            for name, part in parts.items()
        }

    @classmethod
    def read(cls, run: Path, checkpoint: str = "best.ckpt") -> Trained:
        """Read a run folder that `train` wrote.

        Raises:
            RecipeError: there is no run, or it was trained over regions.
        """
        if not (run / checkpoint).is_file():
            raise RecipeError(f"got {run} without {checkpoint}; expected a run that `train` wrote")
        recipe = Recipe.of_run(run)
        weights = torch.load(run / checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        parts: dict[str, dict[str, Tensor]] = {"top": {}, "decoder": {}}
        for name, tensor in weights.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        vocabulary = read_vocabulary(run)
        return cls.build(recipe, vocabulary, parts["top"], parts["decoder"])

    @classmethod
    def build(
        cls,
        recipe: Recipe,
        vocabulary: Vocabulary,
        top: dict[str, Tensor] | None = None,
        decoder: dict[str, Tensor] | None = None,
    ) -> Trained:
        """Put the weights of the encoder's top and of the decoder where they belong, if given."""
        chosen = recipe.encoder
        if chosen.features == "regions":
            raise RecipeError(
                "got a run over detected regions; expected one whose encoder sees whole pictures, "
                'since a bundle cannot hold the detector: train with encoder.features = "grid"'
            )
        pooled = chosen.features == "pooled"
        encoder: nn.Module
        labels: nn.Module | None = None
        if chosen.tunable:
            transform = Transform(side_px=SIDE_PX[chosen.backbone])
            backbone = Backbone(chosen.backbone, chosen.cut)
            learnt = Backbone(chosen.backbone, chosen.cut).top
            if top:
                learnt.load_state_dict(top)
            encoder, labels = _Encode(backbone, learnt, pooled), _Labels(backbone)
            with torch.no_grad():
                rows, columns = backbone(torch.zeros(1, 3, *[transform.side_px] * 2))[0].shape[2:]
            grid = (1, 1) if pooled else (rows, columns)
        else:
            whole = load_encoder(
                chosen.backbone,
                pooled=pooled,
                weights=Path(chosen.weights) if chosen.weights else None,
                side_px=chosen.side_px or None,
            )
            transform, encoder, grid = whole.transform, _Look(whole), whole.grid
        with torch.no_grad():
            side = transform.side_px
            features = encoder.eval()(torch.zeros(1, 3, side, side))[0]
        words = build(len(vocabulary), features.shape[-1], recipe.decoder)
        if decoder:
            words.load_state_dict(decoder)
        return cls(recipe, vocabulary, encoder.eval(), labels, words.eval(), transform, grid)


class _Encode(nn.Module):
    """A Lite backbone: pixels -> features (B,N,D), embedding (B,D), mid (B,C,H,W)."""

    def __init__(self, backbone: Backbone, top: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.trunk, self.top, self.pooled = backbone.trunk, top, pooled

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        mid = self.trunk(pixels)
        regions = self.top(mid).flatten(2).transpose(1, 2)  # (B,N,D)
        mean = regions.mean(1)  # (B,D)
        return mean.unsqueeze(1) if self.pooled else regions, mean, mid


class _Look(nn.Module):
    """Any other backbone: pixels -> features (B,N,D), embedding (B,D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features = self.encoder(pixels)
        return features, features.mean(1)


class _Labels(nn.Module):
    """mid -> ImageNet logits (B,1000), by the top as it was before training."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.top, self.classifier = backbone.top, backbone.classifier

    def forward(self, mid: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.top(mid).mean((2, 3)))
        return logits


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a run or bundle, of words or of pieces."""
    path = folder / "vocabulary.txt"
    return Subwords.read(path) if Subwords.merges(path).is_file() else Vocabulary.read(path)
