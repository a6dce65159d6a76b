"""Initial weights of a training run: from a run, a bundle, a checkpoint, or word vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cutline.bundle import Bundle, find
from cutline.errors import BundleError, BundleNotFoundError, ParityError, RecipeError
from cutline.run_log import BEST
from cutline.runtime import Runtime
from cutline.text import CONTINUES, Vocabulary
from cutline.training.bpe import Subwords
from cutline.training.checkpoint import (
    Trained,
    Weights,
    current_name,
    part,
    read_checkpoint,
    read_vocabulary,
    read_weights,
)
from cutline.training.decoders import DecoderOptions
from cutline.training.encoders import (
    STEM_MODULES,
    Backbone,
    EncoderOptions,
    fold_batch_norm,
)
from cutline.training.recipe import DataOptions, FitOptions, Recipe

_HALF_PRECISION = 2e-3
"""Largest relative difference by which weights count as the same, stored as float16."""

_DIFFERENCE = 0.02
_INT8_DIFFERENCE = 0.5
"""Largest relative difference of torch from a bundle's graphs, and from graphs that run in int8."""


@dataclass(frozen=True)
class Start:
    """A trained model to start from.

    Attributes:
        recipe: of its last stage; its decoder and backbone are kept.
        vocabulary: its words.
        weights: by `Learner`'s names: "decoder...", and "tail...", "trunk..." and "labels..." if
            the encoder has such parts of its own.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    weights: Weights

    @classmethod
    def read(cls, name: str) -> Start:
        """A checkpoint, a run's folder, a bundle's folder, or the name of an installed bundle.

        A checkpoint may also be a dictionary that `torch.save` wrote, with `words`, the vocabulary
        from `<pad>` on, and `model`, a state dict: `enc.net.*`, timm's `tf_efficientnet_lite0` to
        `2` without classifier, BatchNorm not folded; `dec.*`, the decoder global attention; and
        `labels.*`, a linear layer from the mean feature to the ImageNet classes, if there is one.

        Raises:
            RecipeError: it is none of these, or it is damaged.
            BundleError: it is a bundle whose weights have no names.
            ParityError: it is a bundle whose weights give other outputs in torch.
        """
        path = Path(name)
        if path.is_file():
            return _of_checkpoint(path)
        if (path / BEST).is_file():
            return _of_checkpoint(path / BEST)
        try:
            return _of_bundle(find(name))
        except BundleNotFoundError as error:
            raise RecipeError(
                f"got start_from {name!r}; expected a checkpoint, a run's folder, or a bundle "
                f"({error})"
            ) from error

    @property
    def changes_trunk(self) -> bool:
        """Whether its trunk differs from the published backbone's."""
        return any(name.startswith("trunk.") for name in self.weights)

    @property
    def has_labels(self) -> bool:
        """Whether its labels are predicted from the mean feature."""
        return "labels.weight" in self.weights

    def inherited_by(self, recipe: Recipe) -> Recipe:
        """A recipe with the architecture of this start, and its own training options.

        Raises:
            RecipeError: the recipe describes boxes, and this start whole images.
        """
        features = self.recipe.encoder.features
        if recipe.encoder.features == "box" and features != "box":
            raise RecipeError(
                f"got start_from a model with {features} features for a run with box features; "
                "expected a run with the same features, or none"
            )
        mine, other = recipe.decoder, self.recipe.decoder
        decoder = replace(other, dropout=mine.dropout, word_dropout=mine.word_dropout)
        encoder = replace(
            recipe.encoder,
            backbone=self.recipe.encoder.backbone,
            features=features,
            weights=self.recipe.encoder.weights,
            side_px=self.recipe.encoder.side_px,
            regions=self.recipe.encoder.regions,
        )
        if encoder.input == "features" and not self.changes_trunk:
            encoder = replace(encoder, cut=self.recipe.encoder.cut)
        return replace(recipe, decoder=decoder, encoder=encoder)

    def load_backbone(self, backbone: Backbone) -> None:
        """Load the encoder's weights into a backbone, whatever its cut is."""
        weights = _recut(self.weights, self.recipe.encoder.cut, len(backbone.trunk) - STEM_MODULES)
        for name, module in (("trunk.", backbone.trunk), ("tail.", backbone.tail)):
            if found := part(weights, name):
                unknown = module.load_state_dict(found, strict=False).unexpected_keys
                if unknown:
                    raise RecipeError(
                        f"got weights of the encoder that do not fit {backbone.name}: {unknown[0]}"
                    )
        if self.has_labels:
            backbone.classifier.load_state_dict(part(weights, "labels."))

    def extended(self, vocabulary: Vocabulary) -> Start:
        """The same, with the words of another vocabulary appended to its own.

        The embedding of a new word is close to the mean, its bias that of the rarest word.

        Raises:
            RecipeError: this vocabulary consists of subwords without their merges.
        """
        known = set(self.vocabulary.words)
        new = [word for word in vocabulary.words if word not in known]
        if not new or isinstance(self.vocabulary, Subwords):
            return self
        if any(word.startswith(CONTINUES) for word in self.vocabulary.words):
            raise RecipeError(
                "got a start whose vocabulary consists of subwords without their merges; expected "
                "one of words, or with vocabulary.merges.json beside it"
            )
        weights = dict(self.weights)
        for name in ("decoder.embedding.weight", "decoder.words.weight"):
            if name in weights:
                old = weights[name]
                noise = torch.randn(
                    len(new), old.shape[1], generator=torch.Generator().manual_seed(0)
                )
                weights[name] = torch.cat([old, old.mean(0) + 0.3 * old.std(0) * noise])
        bias = weights["decoder.bias"]
        weights["decoder.bias"] = torch.cat([bias, bias[4:].min().expand(len(new))])
        return Start(self.recipe, Vocabulary([*self.vocabulary.words, *new]), weights)


def _recut(weights: Weights, before: int, after: int) -> Weights:
    """Move stages of a Lite backbone between trunk and tail."""
    if before == after:
        return weights
    moved: Weights = {}
    for name, tensor in weights.items():
        side, _, rest = name.partition(".")
        if side in ("trunk", "tail"):
            number, _, rest = rest.partition(".")
            place = int(number) + (STEM_MODULES + before if side == "tail" else 0)
            if place < STEM_MODULES + after:
                name = f"trunk.{place}.{rest}"
            else:
                name = f"tail.{place - STEM_MODULES - after}.{rest}"
        moved[name] = tensor
    return moved


def _of_checkpoint(path: Path) -> Start:
    if not (path.parent / "recipe.json").is_file():
        content = read_checkpoint(path)
        if "words" in content and isinstance(content.get("model"), dict):
            return _of_state_dict(content, path)
    recipe = Recipe.of_run(path.parent)
    parts = ("decoder.", "tail.", "trunk.", "labels.")
    kept = {n: w for n, w in read_weights(path).items() if n.startswith(parts)}
    return Start(recipe, read_vocabulary(path.parent), kept)


def _of_state_dict(content: Mapping[str, Any], path: Path) -> Start:
    """The form of a plain dictionary; see `Start.read`."""
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in content["model"].items()
    }
    try:
        net_state, decoder = part(state, "enc.net."), part(state, "dec.")
        name = _lite_of(net_state)
        net: Any = timm.create_model(f"tf_{name}", pretrained=False, num_classes=0)
        net.load_state_dict(net_state)
        net = fold_batch_norm(net.eval())
        embedding, width = decoder["embedding.weight"], decoder["norm.weight"]
    except (LookupError, RuntimeError, AttributeError) as error:
        raise RecipeError(
            f"got {path}, whose weights are of another model: "
            f"{' '.join(str(error).split())[:200]}; expected enc.net.*, dec.* and labels.*"
        ) from error
    cut = EncoderOptions().cut
    trunk = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:cut])
    tail = nn.Sequential(*net.blocks[cut:], net.conv_head, net.bn2)
    recipe = Recipe(
        path.stem,
        DataOptions(clean_up="cutline"),
        EncoderOptions(backbone=name, cut=cut),
        DecoderOptions(
            kind="global-attention", width=len(width), embedding=embedding.shape[1],
            tied="words.weight" not in decoder,
        ),
        FitOptions(),
    )  # fmt: skip
    weights = {
        **{f"trunk.{n}": w for n, w in trunk.state_dict().items()},
        **{f"tail.{n}": w for n, w in tail.state_dict().items()},
        **{f"decoder.{n}": w for n, w in decoder.items()},
        **{n: w for n, w in state.items() if n.startswith("labels.")},
    }
    return Start(recipe, Vocabulary([str(word) for word in content["words"]]), weights)


def _lite_of(state: Weights) -> str:
    """The EfficientNet-Lite whose depth a state dict has."""
    blocks = len({name.split(".")[2] for name in state if name.startswith("blocks.5.")})
    depths = {4: "efficientnet_lite0", 5: "efficientnet_lite2"}
    name = depths.get(blocks)
    if name == "efficientnet_lite2" and state["conv_head.weight"].shape[1] != 352:
        name = "efficientnet_lite1"
    if name is None:
        raise LookupError(f"{blocks} blocks in the last stage but one")
    return name


def _of_bundle(bundle: Bundle) -> Start:
    stages = bundle.manifest.recipe.get("stages")
    if not stages:
        raise BundleError(f"got {bundle.folder} without a recipe; expected one that train wrote")
    recipe = Recipe.from_dict(stages[-1])
    vocabulary = read_vocabulary(bundle.folder)
    decoder_weights: dict[str, NDArray[np.float32]] = {}
    for graph in ("start.onnx", "step.onnx"):
        decoder_weights |= _weights(bundle.path(graph))
    encoder_weights = {
        name.removeprefix("encoder.").replace("classifier.", "labels."): array
        for name, array in _weights(bundle.path("encoder.onnx")).items()
        if not name.startswith(("labels.tail.", "labels.classifier."))
    }
    blank = Trained.build(recipe, vocabulary)
    decoder = _matched(blank.decoder.state_dict(), decoder_weights, "decoder.", bundle)
    weights = {f"decoder.{name}": tensor for name, tensor in decoder.items()}
    if recipe.encoder.tunable:
        for prefix in ("trunk.", "tail."):
            wanted = blank.encoder.get_submodule(prefix[:-1]).state_dict()
            found = _matched(wanted, encoder_weights, prefix, bundle)
            if prefix == "tail." or not _same(found, wanted):
                weights |= {f"{prefix}{name}": tensor for name, tensor in found.items()}
        if {"labels.weight", "labels.bias"} <= encoder_weights.keys():
            weights |= {
                name: torch.from_numpy(np.array(encoder_weights[name]))
                for name in ("labels.weight", "labels.bias")
            }
    _check(Trained.build(recipe, vocabulary, weights), Runtime(bundle, "onnxruntime"))
    return Start(recipe, vocabulary, weights)


def _same(found: Weights, published: Weights) -> bool:
    """Whether weights are the published ones, but for being stored as float16."""
    return all(
        float((found[name] - tensor).abs().max()) <= _HALF_PRECISION * float(tensor.abs().max())
        for name, tensor in published.items()
    )


def _weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """A graph's weights under the names they have in torch.

    The exporter turns `linear(x, weight, bias)` into a product with a nameless, transposed weight
    and a sum with the bias, which keeps its name; so the bias identifies the weight.
    """
    graph = onnx.load(path).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    values = {
        name.removesuffix(".half"): array.astype(np.float32)
        for name, array in stored.items()
        if array.dtype in (np.float32, np.float16) and not name.endswith(".scale")
    }
    axes = {
        node.input[0]: onnx.helper.get_node_attr_value(node, "axis")
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.attribute
    }
    for name, scale in stored.items():  # integers with a scale for each output unit
        if name.endswith(".scale"):
            weight = name.removesuffix(".scale")
            kind = f"{weight}.int8" if f"{weight}.int8" in stored else f"{weight}.int32"
            integers = stored[kind]
            if kind in axes:
                shape = [-1 if axis == axes[kind] else 1 for axis in range(integers.ndim)]
                scale = scale.reshape(shape)
            values[weight] = integers.astype(np.float32) * scale
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in values
    }
    found = dict(values)
    for node in graph.node:
        product, bias = (*node.input, "")[:2]
        if node.op_type == "Add" and product in products and ".bias" in bias:
            weight = ".weight".join(bias.rsplit(".bias", 1))
            found[weight] = found.pop(products[product], values[products[product]]).T
    return {current_name(name): array for name, array in found.items()}


def _matched(
    wanted: Weights, found: dict[str, NDArray[np.float32]], prefix: str, bundle: Bundle
) -> Weights:
    """Weights by the names of a state dict; those without a name are identified by their shape."""
    named = {n.removeprefix(prefix): a for n, a in found.items() if n.startswith(prefix)}
    nameless = [
        array if name.endswith(".weight") else array.T
        for name, array in found.items()
        if name.removeprefix(prefix) not in wanted and array.ndim == 2
    ]
    matched = {}
    for name, tensor in wanted.items():
        array = named.get(name)
        if tensor.dim() == 0:  # a baseline, of no use once a model is trained
            matched[name] = tensor
            continue
        if array is None or array.shape != tensor.shape:
            fitting = [each for each in nameless if each.shape == tensor.shape]
            if len(fitting) != 1:
                raise BundleError(
                    f"got {bundle.folder} without a name for the weights {prefix}{name}; "
                    "expected a bundle that `cutline export` wrote: start from its run instead"
                )
            array = fitting[0]
        matched[name] = torch.from_numpy(np.array(array, np.float32))
    return matched


def _check(trained: Trained, runtime: Runtime) -> None:
    """Refuse weights with which torch gives other outputs than the bundle.

    Raises:
        ParityError: they do.
    """
    nodes = onnx.load(runtime.bundle.path("step.onnx")).graph.node
    int8 = any(node.op_type == "QuantizeLinear" for node in nodes)
    most = _INT8_DIFFERENCE if int8 else _DIFFERENCE
    side = trained.transform.side_px
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    encoded = runtime.encode(noise.numpy())
    bos = np.full((2, 1), Vocabulary.bos)
    logprobs = runtime.step(runtime.start(encoded.features), bos)[0]
    with torch.no_grad():
        features = trained.encoder(noise)[0]
        memory, state = trained.decoder.start(torch.from_numpy(encoded.features))
        hidden, _, _ = trained.decoder.advance(torch.from_numpy(bos), memory, state)
        ours = trained.decoder.logits(hidden).log_softmax(-1)
    for what, torch_output, output in (
        ("features", features.numpy(), encoded.features),
        ("logprobs", ours.numpy(), logprobs),
    ):
        difference = float(np.abs(torch_output - output).max() / np.abs(output).max())
        if not difference <= most:
            raise ParityError(
                f"got {what} that differ by {difference:.2g} from {runtime.bundle.name}'s, "
                f"relatively, with its weights in torch; expected at most {most}"
            )


def word_vectors(path: Path, vocabulary: Vocabulary, table: Tensor) -> tuple[Tensor, int]:
    """An embedding that starts from word vectors, as GloVe's (Pennington et al., 2014).

    Args:
        path: text, a line for each word: `word x1 x2 ...`.
        vocabulary: the words wanted.
        table: (V,E), for words that have no vector; the others are brought to its scale.

    Returns:
        (V,E), and how many words had a vector.

    Raises:
        RecipeError: the file is unreadable, or its vectors are not of width E.
    """
    ids = {word: number for number, word in enumerate(vocabulary.words)}
    rows: dict[int, NDArray[np.float32]] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                word, _, numbers = line.rstrip().partition(" ")
                if word in ids and len(fields := numbers.split(" ")) > 1:
                    rows[ids[word]] = np.array(fields, np.float32)
    except (OSError, ValueError) as error:
        raise RecipeError(f"got unreadable word vectors {path}: {error}") from error
    widths = {len(row) for row in rows.values()}
    if widths != {table.shape[1]}:
        raise RecipeError(
            f"got vectors of width {', '.join(map(str, sorted(widths))) or 'none'} in {path}; "
            f"expected {table.shape[1]}: set decoder.embedding to theirs"
        )
    vectors = torch.from_numpy(np.stack([*rows.values()]))
    vectors = vectors - vectors.mean(0)
    filled = table.clone()
    filled[[*rows]] = (
        vectors
        / vectors.norm(dim=1).square().mean().sqrt()
        * math.sqrt(float(table[4:].square().sum(1).mean()))
    )
    return filled, len(rows)
