"""What training goes on from: a run, a bundle, or word vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutline.bundle import Bundle, find
from cutline.errors import BundleError, BundleNotFoundError, ParityError, RecipeError
from cutline.runtime import Runtime
from cutline.text import CONTINUES, Vocabulary
from cutline.training.bpe import Subwords
from cutline.training.checkpoint import Trained, read_vocabulary
from cutline.training.recipe import Recipe

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Start:
    """A trained model to go on from.

    Attributes:
        recipe: of its last stage; its decoder and encoder are what is gone on with.
        vocabulary: its words.
        weights: by `Learner`'s names: "decoder...", and "top..." if the encoder has one.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    weights: Weights

    @classmethod
    def read(cls, name: str) -> Start:
        """A checkpoint, a run's folder, a bundle's folder, or the name of an installed bundle.

        Raises:
            RecipeError: it is none of these.
            BundleError: it is a bundle whose weights cannot be told apart.
            ParityError: it is a bundle whose weights, put together again, say something else.
        """
        path = Path(name)
        if path.is_file():
            return _of_run(path)
        if (path / "best.ckpt").is_file():
            return _of_run(path / "best.ckpt")
        try:
            return _of_bundle(find(name))
        except BundleNotFoundError as error:
            raise RecipeError(
                f"got start_from {name!r}; expected a checkpoint, a run's folder, or a bundle "
                f"({error})"
            ) from error

    def extended(self, vocabulary: Vocabulary) -> Start:
        """The same with the words of another vocabulary behind its own.

        A new word starts as an average word that is said as rarely as the rarest.
        """
        known = set(self.vocabulary.words)
        new = [word for word in vocabulary.words if word not in known]
        if not new or isinstance(self.vocabulary, Subwords):
            return self
        if any(word.startswith(CONTINUES) for word in self.vocabulary.words):
            raise RecipeError(
                "got a start whose vocabulary is of pieces without their merges; expected one of "
                "words, or with vocabulary.merges.json beside it"
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


def _of_run(checkpoint: Path) -> Start:
    run = checkpoint.parent
    recipe = Recipe.of_run(run)
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    kept = {n: w for n, w in weights.items() if n.partition(".")[0] in ("decoder", "top")}
    return Start(recipe, read_vocabulary(run), kept)


def _of_bundle(bundle: Bundle) -> Start:
    stages = bundle.manifest.recipe.get("stages")
    if not stages:
        raise BundleError(f"got {bundle.folder} without a recipe; expected one that train wrote")
    recipe = Recipe.from_dict(stages[-1])
    vocabulary = read_vocabulary(bundle.folder)
    blank = Trained.build(recipe, vocabulary)
    told: dict[str, NDArray[np.float32]] = {}
    for graph in ("start.onnx", "step.onnx"):
        told |= _weights(bundle.path(graph))
    seen = {
        name.removeprefix("encoder."): array
        for name, array in _weights(bundle.path("encoder.onnx")).items()
    }
    decoder = _matched(blank.decoder.state_dict(), told, "decoder.", bundle)
    top = blank.encoder.get_submodule("top") if recipe.encoder.tunable else None
    learnt = _matched(top.state_dict(), seen, "top.", bundle) if top is not None else {}
    trained = Trained.build(recipe, vocabulary, learnt, decoder)
    _check(trained, Runtime(bundle, "onnxruntime"))
    return Start(
        recipe,
        vocabulary,
        {f"decoder.{name}": tensor for name, tensor in decoder.items()}
        | {f"top.{name}": tensor for name, tensor in learnt.items()},
    )


def _weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """A graph's weights under the names they had in torch.

    The exporter turns `linear(x, weight, bias)` into a product with a nameless, transposed weight
    and a sum with the bias, which keeps its name; so the bias tells the weight's.
    """
    graph = onnx.load(path).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    values = {
        name.removesuffix(".half"): array.astype(np.float32)
        for name, array in stored.items()
        if array.dtype in (np.float32, np.float16) and not name.endswith(".scale")
    }
    for name, scale in stored.items():  # int8 with a scale for each output unit
        if name.endswith(".scale"):
            weight = name.removesuffix(".scale")
            values[weight] = stored[f"{weight}.int8"].astype(np.float32) * scale
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
    return found


def _matched(
    wanted: Weights, found: dict[str, NDArray[np.float32]], prefix: str, bundle: Bundle
) -> Weights:
    """Weights by the names of a state dict; what has no name there is told by its shape."""
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
                    f"got {bundle.folder} without telling which weights are {prefix}{name}; "
                    "expected a bundle that `cutline export` wrote: start from its run instead"
                )
            array = fitting[0]
        matched[name] = torch.from_numpy(np.array(array, np.float32))
    return matched


def _check(trained: Trained, runtime: Runtime) -> None:
    """Refuse weights that do not say what the bundle says, but for the halves it is stored in.

    Raises:
        ParityError: they don't.
    """
    side = trained.transform.side_px
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    encoded = runtime.encode(noise.numpy())
    bos = np.full((2, 1), Vocabulary.bos)
    logprobs = runtime.step(runtime.start(encoded.features), bos)[0]
    with torch.no_grad():
        features = trained.encoder(noise)[0]
        memory, state = trained.decoder.start(torch.from_numpy(encoded.features))
        hidden, _, _ = trained.decoder.advance(torch.from_numpy(bos), memory, state)
        told = trained.decoder.logits(hidden).log_softmax(-1)
    for what, ours, theirs in (
        ("features", features.numpy(), encoded.features),
        ("logprobs", told.numpy(), logprobs),
    ):
        apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        if not apart <= 0.02:
            raise ParityError(
                f"got {what} {apart:.2g} apart from {runtime.bundle.name}'s, relatively, with its "
                "weights put together again; expected at most 0.02"
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
