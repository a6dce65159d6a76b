"""Reads a run's checkpoint and rebuilds the whole model, from pixels to words."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutline.boxes import place_vector
from cutline.errors import RecipeError
from cutline.preprocess import DetectorTransform, Transform
from cutline.run_log import BEST, DETECTOR_FILE, read_json
from cutline.text import Vocabulary
from cutline.training.bpe import Subwords
from cutline.training.decoders import Decoder, build
from cutline.training.detectors import (
    DetectorEncoder,
    detector_name,
    file_checksum,
    load_detector,
)
from cutline.training.encoders import SIDE_PX, Backbone, Encoder, load_encoder
from cutline.training.recipe import Recipe

Weights = dict[str, Tensor]

_ATTENTION_GRID = (14, 14)
"""Cells of the attention maps of bundles whose regions are boxes."""

_RENAMED = (
    (re.compile(r"^top\."), "tail."),
    (re.compile(r"(^|\.)top\."), r"\1tail."),
    (re.compile(r"(blocks\.\d+)\.read\."), r"\1.self_attn."),
    (re.compile(r"(blocks\.\d+)\.look\."), r"\1.cross_attn."),
    (re.compile(r"(blocks\.\d+)\.think\."), r"\1.ffn."),
    (re.compile(r"(^|\.)looker\."), r"\1attention_lstm."),
    (re.compile(r"(^|\.)speaker\."), r"\1language_lstm."),
)


def current_name(name: str) -> str:
    """The name of a weight today, from its name in a checkpoint or graph of version 0.1."""
    for old, new in _RENAMED:
        name = old.sub(new, name)
    return name


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file.

    Raises:
        RecipeError: it is missing, damaged or something else.
    """
    if not path.is_file():
        raise RecipeError(
            f"got {path.parent} without {path.name}; expected a run that `train` wrote"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as e:
        reason = str(e).strip().partition("\n")[0] or type(e).__name__
        raise RecipeError(
            f"got {path}, which is damaged ({reason}); expected a checkpoint: take another one of "
            "the run, or train again"
        ) from e
    if not isinstance(content, dict) or not content:
        raise RecipeError(f"got {path}, which is no checkpoint; expected one that `train` wrote")
    return content


def read_weights(path: Path) -> Weights:
    """The weights in a checkpoint of a run, by their names today.

    Raises:
        RecipeError: it is missing, damaged or something else.
    """
    weights = read_checkpoint(path).get("state_dict")
    if not isinstance(weights, dict):
        raise RecipeError(f"got {path} without weights; expected one that `train` wrote")
    named = {current_name(name): tensor for name, tensor in weights.items()}
    if not part(named, "decoder."):
        raise RecipeError(f"got {path} without weights of a decoder; expected those of a run")
    return named


def part(weights: Weights, prefix: str) -> Weights:
    """The weights of one part, without its prefix."""
    return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Trained:
    """The model of a run.

    Attributes:
        recipe: of the run.
        vocabulary: the words by id.
        encoder: pixels (B,3,S,S) -> features (B,N,D), embedding (B,D), and the input of `labels`,
            if there is one; for a detector, as `DetectorEncoder`.
        labels: that input -> ImageNet logits (B,1000); None where the backbone has no such classes.
        decoder: features -> words.
        transform: the preprocessing before the encoder.
        grid: rows and columns of the regions; for a detector, of its attention maps.
        input: the features that the decoder takes, as `cutline.bundle.Manifest.input`.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    encoder: nn.Module
    labels: nn.Module | None
    decoder: Decoder
    transform: Transform | DetectorTransform
    grid: tuple[int, int]
    input: str = "image"

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,S,S) -> what the decoder takes (B,N,D); an image is the box of itself."""
        features, embedding, *_ = self.encoder(pixels)
        return with_place(features, embedding) if self.input == "box" else features

    @property
    def probe(self) -> Tensor:
        """Black pixels of one image, (1,3,S,S)."""
        return torch.zeros(1, 3, *[self.transform.side_px] * 2)

    @property
    def parameters(self) -> dict[str, int]:
        """The number of weights of each part; `labels` are those that only labels need."""
        parts = {"encoder": self.encoder, "labels": self.labels, "decoder": self.decoder}
        return {
            name: sum(p.numel() for p in part.parameters()) if part else 0
            for name, part in parts.items()
        }

    @classmethod
    def read(cls, run: Path, checkpoint: str = BEST) -> Trained:
        """Read the run in a folder.

        Raises:
            RecipeError: there is no run, it is damaged, its region features were read from
                files, or its detector has changed.
            WeightsError: the weights of its detector are missing.
        """
        if not (run / checkpoint).is_file():
            raise RecipeError(f"got {run} without {checkpoint}; expected a run that `train` wrote")
        recipe = Recipe.of_run(run)
        detector = read_json(run / DETECTOR_FILE) or {}
        if detector and file_checksum(recipe.encoder) != detector.get("sha256"):
            raise RecipeError(
                f"got {recipe.encoder.weights}, which has changed since the run was trained; "
                f"expected a file with SHA-256 {detector.get('sha256')}"
            )
        return cls.build(recipe, read_vocabulary(run), read_weights(run / checkpoint))

    @classmethod
    def build(
        cls, recipe: Recipe, vocabulary: Vocabulary, weights: Weights | None = None
    ) -> Trained:
        """Build the model and load weights into it.

        Args:
            recipe: the architecture.
            vocabulary: the words by id.
            weights: by `Learner`'s names: "trunk...", "tail...", "labels...", "decoder...";
                the backbone's own where they are missing, and a random decoder.

        Raises:
            RecipeError: its region features were read from files, or the weights do not fit.
            WeightsError: the weights of its detector are missing.
        """
        chosen, weights = recipe.encoder, weights or {}
        encoder: nn.Module
        labels: nn.Module | None = None
        transform: Transform | DetectorTransform
        if chosen.features == "regions":
            if chosen.regions:
                raise RecipeError(
                    f"got a run over region features from {chosen.regions}, whose detector is "
                    "unknown; expected one with a detector, whose encoder.regions is empty"
                )
            name = detector_name(chosen.backbone)
            net = load_detector(Path(chosen.weights) if chosen.weights else None, name=name)
            encoder = DetectorEncoder(net, side_px=chosen.side_px)
            transform, grid = encoder.transform, _ATTENTION_GRID
        elif chosen.tunable:
            transform = Transform(side_px=SIDE_PX[chosen.backbone])
            backbone = Backbone(chosen.backbone, chosen.cut)
            untouched = Backbone(chosen.backbone, chosen.cut)
            distilled = part(weights, "labels.")
            _load(backbone.trunk, part(weights, "trunk."), "encoder")
            _load(backbone.tail, part(weights, "tail."), "encoder")
            if distilled:
                labels, label_input = backbone.classifier, "mean"
                _load(labels, distilled, "labels")
            elif not part(weights, "trunk."):
                labels, label_input = _Labels(untouched), "trunk"
            else:  # a trained trunk without distillation has no labels
                label_input = ""
            encoder = _LiteEncoder(backbone, chosen.pooled, label_input)
            with torch.no_grad():
                rows, columns = backbone(torch.zeros(1, 3, *[transform.side_px] * 2))[0].shape[2:]
            grid = (1, 1) if chosen.pooled else (rows, columns)
        else:
            whole = load_encoder(
                chosen.backbone,
                pooled=chosen.pooled,
                weights=Path(chosen.weights) if chosen.weights else None,
                side_px=chosen.side_px or None,
            )
            transform, encoder, grid = whole.transform, _TimmEncoder(whole), whole.grid
        with torch.no_grad():
            side = transform.side_px
            features = encoder.eval()(torch.zeros(1, 3, side, side))[0]
        inputs = {"regions": "detector", "box": "box"}.get(chosen.features, "image")
        decoder = build(len(vocabulary), features.shape[-1], recipe.decoder)
        _load(decoder, part(weights, "decoder."), "decoder")
        labels = labels.eval() if labels is not None else None
        return cls(
            recipe, vocabulary, encoder.eval(), labels, decoder.eval(), transform, grid, inputs
        )


def with_place(features: Tensor, embedding: Tensor) -> Tensor:
    """Features (B,N,D) of whole images -> those of a box that covers the image, (B,N+2,D)."""
    place = torch.from_numpy(place_vector(None, (1, 1), features.shape[2]))
    return torch.cat([features, embedding[:, None], place.expand(len(features), 1, -1)], 1)


def _load(module: nn.Module, weights: Weights, what: str) -> None:
    """Load weights, if there are any.

    Raises:
        RecipeError: they do not fit.
    """
    if not weights:
        return
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(
            f"got weights of the {what} that do not fit the recipe: "
            f"{' '.join(str(error).split())[:200]}; expected those of one run"
        ) from error


class _LiteEncoder(nn.Module):
    """A Lite backbone: pixels -> features (B,N,D), embedding (B,D), and the input of the labels.

    That input is the mean feature, the output of the trunk, or nothing if `label_input` is "".
    """

    def __init__(self, backbone: Backbone, pooled: bool, label_input: str) -> None:
        super().__init__()
        self.trunk, self.tail, self.pooled = backbone.trunk, backbone.tail, pooled
        self.label_input = label_input

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        trunk_output = self.trunk(pixels)
        regions = self.tail(trunk_output).flatten(2).transpose(1, 2)  # (B,N,D)
        mean = regions.mean(1)  # (B,D)
        features = mean.unsqueeze(1) if self.pooled else regions
        if not self.label_input:
            return features, mean
        return features, mean, mean if self.label_input == "mean" else trunk_output


class _TimmEncoder(nn.Module):
    """Any other backbone: pixels -> features (B,N,D), embedding (B,D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features = self.encoder(pixels)
        return features, features.mean(1)


class _Labels(nn.Module):
    """The trunk's output -> ImageNet logits (B,1000), by the published tail and classifier."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.tail, self.classifier = backbone.tail, backbone.classifier

    def forward(self, trunk_output: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.tail(trunk_output).mean((2, 3)))
        return logits


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a run or bundle, of words or of subwords.

    Raises:
        RecipeError: it is missing or is no text.
        DataError: it is damaged.
    """
    path = folder / "vocabulary.txt"
    try:
        return Subwords.read(path) if Subwords.merges(path).is_file() else Vocabulary.read(path)
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"got no readable {path} ({error}); expected the run's words") from error
