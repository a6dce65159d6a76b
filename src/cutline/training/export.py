"""Export of a run as a bundle, which is written only if torch and the graphs agree."""

from __future__ import annotations

import contextlib
import datetime
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn

from cutline.boxes import Box
from cutline.bundle import (
    Bundle,
    DataEntry,
    Manifest,
    VocabularyEntry,
    find,
    refuse_taken,
    write_bundle,
)
from cutline.caption import CaptionOptions
from cutline.captioner import BundleCaptioner
from cutline.data import Collection, Example
from cutline.errors import (
    BundleError,
    DataError,
    ImageError,
    MissingExtraError,
    OptionError,
    ParityError,
)
from cutline.evaluation.metrics import (
    CiderD,
    bleu,
    bleu_statistics,
    diversity,
    meteor,
    meteor_statistics,
    rouge_l,
    tokenize,
)
from cutline.image import load_image
from cutline.options import SearchOptions
from cutline.preprocess import DetectorTransform, Transform
from cutline.runtime import Runtime, cores
from cutline.search import search
from cutline.text import SPECIALS, CleanUp, Vocabulary
from cutline.training.checkpoint import Trained, with_place
from cutline.training.decoders import Decoder, TorchStepper
from cutline.training.decoders.core import spread
from cutline.training.detectors import DetectorEncoder, write_onnx


class _Encoder(nn.Module):
    """pixels -> features, embedding, and ImageNet logits where the model has labels."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.encoder, self.labels = trained.encoder, trained.labels

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features, embedding, *rest = self.encoder(pixels)
        if self.labels is None:
            return features, embedding, *rest
        return features, embedding, self.labels(*rest)


class _Start(nn.Module):
    """features -> memory and state, as a tuple."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.decoder.start(features)
        return (*memory.values(), *state.values())


class _Step(nn.Module):
    """tokens, memory and state -> logprobs, attention if there is any, and the next state."""

    def __init__(self, decoder: Decoder, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.decoder, self.memory, self.state = decoder, memory, state

    def forward(self, tokens: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        memory = dict(zip(self.memory, rest, strict=False))
        state = dict(zip(self.state, rest[len(self.memory) :], strict=True))
        hidden, attention, after = self.decoder.advance(tokens, memory, state)
        logprobs = self.decoder.logits(hidden).log_softmax(-1)
        looked = () if attention is None else (attention,)
        return (logprobs, *looked, *(after[name] for name in self.state))


def write_graphs(trained: Trained, folder: Path) -> None:
    """The graphs of a bundle in float32; batch and beam axes are dynamic."""
    write_encoder(trained, folder)
    write_decoder(trained, folder)


def write_encoder(trained: Trained, folder: Path) -> None:
    """`encoder.onnx`, with the labels in it if there are any."""
    per_image = {0: torch.export.Dim("images", min=1)}
    pixels = trained.probe.expand(2, -1, -1, -1)
    path = folder / "encoder.onnx"
    if isinstance(trained.encoder, DetectorEncoder):
        write_onnx(trained.encoder, path)
        strip_metadata(path)
        return
    encoder = _Encoder(trained)
    with torch.no_grad():
        count = len(encoder(pixels))
    outputs = ["features", "embedding", "logits"][:count]
    _write(path, encoder, (pixels,), (per_image,), ["pixels"], outputs)


def write_decoder(trained: Trained, folder: Path) -> None:
    """`start.onnx` and `step.onnx`; an axis that grows from word to word is dynamic too."""
    images, rows = torch.export.Dim("images", min=1), torch.export.Dim("rows", min=1)
    read = torch.export.Dim("read", min=0)
    decoder, tokens = trained.decoder, torch.full((2, 3), Vocabulary.bos)
    with torch.no_grad():
        features = trained.features(trained.probe).repeat(2, 1, 1)
        memory, state = decoder.start(features)
        state = {name: each.contiguous() for name, each in spread(state, 3).items()}
        for _ in range(2):  # a length of 0 or 1 would be taken for a constant
            state = decoder.advance(tokens, memory, state)[2]
        _, attention, after = decoder.advance(tokens, memory, state)
    per_image, per_row = {0: images}, {0: images, 1: rows}
    state_axes = [
        per_row | {axis: read for axis in range(old.dim()) if old.shape[axis] != new.shape[axis]}
        for old, new in zip(state.values(), after.values(), strict=True)
    ]
    memory_names = [f"memory_{name}" for name in memory]
    state_names = [f"state_{name}" for name in state]
    looked = [] if attention is None else ["attention"]
    _write(
        folder / "start.onnx", _Start(decoder), (features,), (per_image,),
        ["features"], [*memory_names, *state_names],
    )  # fmt: skip
    _write(
        folder / "step.onnx", _Step(decoder, list(memory), list(state)),
        (tokens, *memory.values(), *state.values()),
        (per_row, (*[per_image] * len(memory), *state_axes)),
        ["tokens", *memory_names, *state_names],
        ["logprobs", *looked, *(f"next_{name}" for name in state_names)],
    )  # fmt: skip


def _write(
    path: Path, module: nn.Module, arguments: tuple[Tensor, ...], axes: Any,
    inputs: list[str], outputs: list[str],
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), arguments, dynamo=True, dynamic_shapes=axes, verbose=False,
            input_names=inputs, output_names=outputs,
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    strip_metadata(path)


def strip_metadata(graph: Path) -> None:
    """Remove stack traces, local paths and shapes of intermediate values from a graph file."""
    model = onnx.load(graph)
    parts = [model, model.graph, *model.graph.node, *model.graph.initializer]
    for part in [*parts, *model.graph.input, *model.graph.output]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    graph.write_bytes(model.SerializeToString(deterministic=True))


def compress(graph: Path, *, int8: bool, least: int = 4096) -> None:
    """Store large float32 weights in fewer bits; engines expand them to float32 when they load.

    Args:
        graph: the file, changed in place.
        int8: whether matrices become int8 with one scale for each output unit; other weights, and
            all of them without it, become float16.
        least: weights with fewer elements stay float32.
    """
    model = onnx.load(graph)
    multiplied = {
        name for node in model.graph.node if node.op_type == "MatMul" for name in node.input
    }
    nodes, added = [], []
    for tensor in model.graph.initializer:
        array, name = onnx.numpy_helper.to_array(tensor), tensor.name
        if array.dtype != np.float32 or array.size < least:
            continue
        if int8 and array.ndim == 2:
            scale = np.abs(array).max(axis=0 if name in multiplied else 1, keepdims=True) / 127
            scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
            stored = np.rint(array / scale).astype(np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored, f"{name}.int8"))
            added.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
            nodes += [
                onnx.helper.make_node(
                    "Cast", [f"{name}.int8"], [f"{name}.wide"], to=onnx.TensorProto.FLOAT
                ),
                onnx.helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]),
            ]
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
            nodes.append(
                onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
            )
    model.graph.initializer.extend(added)
    nodes += list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    graph.write_bytes(model.SerializeToString(deterministic=True))


def check_parity(trained: Trained, runtime: Runtime, pixels: NDArray[np.float32]) -> None:
    """Check that graphs give the same as torch: features, one step, complete captions.

    Args:
        trained: the model in torch.
        runtime: its graphs in float32.
        pixels: (B,3,S,S), images to compare on; for a detector, a single image (1,3,H,W).

    Raises:
        ParityError: they differ by more than rounding error.
    """
    if isinstance(trained.encoder, DetectorEncoder):
        check_detector(trained, runtime, pixels)
        return
    with torch.no_grad():
        features, embedding, *logits = _Encoder(trained)(torch.from_numpy(pixels))
    encoded = runtime.encode(pixels)
    _agree("features", features, encoded.features)
    _agree("embedding", embedding, encoded.embedding)
    _agree("labels", logits[0] if logits else None, encoded.logits)
    if trained.input == "box":
        theirs = map(torch.from_numpy, (encoded.features, encoded.embedding))
        mine, exported = with_place(features, embedding), with_place(*theirs).numpy()
        check_decoder(trained.decoder, runtime, mine, exported)
    else:
        check_decoder(trained.decoder, runtime, features, encoded.features)


def check_detector(trained: Trained, runtime: Runtime, pixels: NDArray[np.float32]) -> None:
    """The form of `check_parity` for a bundle whose encoder is a detector.

    Rounding can exchange boxes of equal confidence, and remove one of two that overlap by exactly
    the threshold. So each of torch's boxes is compared with the nearest one of the graph, and one
    in ten may have none; the decoder is compared on the same features.

    Args:
        trained: the model in torch.
        runtime: its graphs in float32.
        pixels: (1,3,H,W).

    Raises:
        ParityError: they differ by more than rounding.
    """
    with torch.no_grad():
        features, _, boxes = trained.encoder(torch.from_numpy(pixels))
    encoded = runtime.encode(pixels)
    assert encoded.boxes is not None
    distances = np.abs(boxes.numpy()[0][:, None] - encoded.boxes[0][None]).max(-1)  # (K,K)
    nearest = distances.argmin(1)
    same = distances.min(1) <= 1e-3
    if same.mean() < 0.9:
        raise ParityError(
            f"got {int(same.sum())} of {len(same)} boxes of torch in the graph; expected 9 of 10"
        )
    _agree("features", features[0][same], encoded.features[0][nearest[same]])
    check_decoder(trained.decoder, runtime, features, features.numpy())


def check_decoder(
    decoder: Decoder, runtime: Runtime, features: Tensor, exported: NDArray[np.float32]
) -> None:
    """The part of `check_parity` after the encoder: features (B,N,D) of torch and of the graphs."""
    bos = np.full((len(features), 1), Vocabulary.bos)
    with torch.no_grad():
        stepper = TorchStepper(decoder)
        state = stepper.start(features)
        logprobs, attention, _ = stepper.step(state, bos)
        expected = _captions(stepper, state, len(features))
    start = runtime.start(exported)
    exported_logprobs, exported_attention, _ = runtime.step(start, bos)
    _agree("logprobs", logprobs, exported_logprobs)
    _agree("attention", attention, exported_attention)
    for ours, theirs in zip(expected, _captions(runtime, start, len(features)), strict=True):
        if ours != theirs:
            raise ParityError(f"got the caption {theirs}; torch gives {ours}")


def _agree(what: str, ours: Any, theirs: NDArray[np.float32] | None) -> None:
    """Check that outputs of torch and of an engine agree."""
    if (ours is None) != (theirs is None):
        raise ParityError(f"got {what} from one of torch and ONNX; expected both or neither")
    if ours is None or theirs is None:
        return
    ours = np.asarray(ours)
    apart = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not apart <= 1e-3:
        raise ParityError(f"got {what} {apart:.2g} apart, relatively; expected at most 0.001")


def _captions(stepper: Any, state: Any, images: int) -> list[tuple[int, ...]]:
    found = search(
        stepper, state, images, SearchOptions(beam_size=3),
        bos=Vocabulary.bos, eos=Vocabulary.eos, banned=Vocabulary.unsayable,
    )  # fmt: skip
    return [hypotheses[0].tokens for hypotheses in found]


def log_prior(
    vocabulary: Vocabulary, examples: Sequence[Example], clean_up: CleanUp
) -> NDArray[np.float32]:
    """(V,) log-frequencies of words in captions, in nats, centred on their mean in running text.

    Special ids have 0, and so do words or pieces that do not occur.
    """
    captions = (clean_up.words(caption) for example in examples for caption in example.captions)
    counts = Counter(token for words in captions for token in vocabulary.encode(words))
    frequency = np.array([counts[token] for token in range(len(vocabulary))], dtype=np.float64)
    frequency[: len(SPECIALS)] = 0
    share = frequency / max(1, frequency.sum())
    prior = np.log(np.maximum(frequency, 1) / max(1, frequency.sum()))
    prior -= share @ prior
    prior[frequency == 0] = 0
    return prior.astype(np.float32)


@dataclass(frozen=True)
class _Captioned:
    """Captions of a bundle for the dev split, as tokens, and how fast they came."""

    candidates: list[list[str]]
    images_per_s: float


def _caption(bundle: Bundle, examples: Sequence[Example]) -> _Captioned:
    captioner = BundleCaptioner(Runtime(bundle, "onnxruntime"))
    started = time.perf_counter()
    if any(example.box for example in examples):
        candidates = _region_phrases(captioner, examples)
    else:
        captions = captioner.stream([e.image for e in examples], CaptionOptions(labels=0))
        candidates = [tokenize(caption.text) for caption in captions]
    return _Captioned(candidates, len(examples) / (time.perf_counter() - started))


def score(
    sets: Sequence[Sequence[list[str]]], examples: Sequence[Example]
) -> list[dict[str, float]]:
    """The scores of `cutline evaluate`, without intervals, for sets of tokenized captions.

    METEOR is scored for all sets in one Java process, if it can run.
    """
    references = [[tokenize(text) for text in example.captions] for example in examples]
    cider = CiderD(references)
    rows = []
    for candidates in sets:
        varied = diversity(candidates)
        rows.append({
            "cider": float(cider.corpus(candidates).mean()),
            "bleu4": float(bleu(bleu_statistics(candidates, references).sum(axis=0))),
            "rouge_l": float(rouge_l(candidates, references).mean()),
            "words": varied.words,
            "unique_rate": varied.unique_rate,
            "top_share": varied.top_share,
            "repeated_rate": varied.repeated_rate,
        })  # fmt: skip
    with contextlib.suppress(MissingExtraError):
        statistics = meteor_statistics([*chain(*sets)], references * len(sets))
        for row, part in zip(rows, np.split(statistics, len(sets)), strict=True):
            row["meteor"] = float(meteor(part.sum(axis=0)))
    return [{name: round(value, 4) for name, value in row.items()} for row in rows]


def _region_phrases(captioner: BundleCaptioner, examples: Sequence[Example]) -> list[list[str]]:
    """The words for the box of each example; none if its image cannot be read."""
    boxes: dict[Path, list[Box]] = {}
    for example in examples:
        if example.box is not None:
            boxes.setdefault(example.image, []).append(example.box)
    phrases: dict[tuple[Path, Box | None], str] = {}
    for image, some in boxes.items():
        with contextlib.suppress(ImageError, OptionError):
            found = captioner.regions(image, some)
            phrases |= {
                (image, box): region.phrase for box, region in zip(some, found.regions, strict=True)
            }
    return [tokenize(phrases.get((each.image, each.box), "")) for each in examples]


def _check_on(trained: Trained, runtime: Runtime, examples: Sequence[Example]) -> None:
    """`check_parity` on the first readable images: together, or for a detector one by one."""
    if isinstance(trained.transform, DetectorTransform):
        for pixels in _pixels(trained.transform, examples, most=4):
            check_parity(trained, runtime, pixels[None])
    else:
        check_parity(trained, runtime, np.stack(_pixels(trained.transform, examples)))


def _pixels(
    transform: Transform | DetectorTransform, examples: Sequence[Example], most: int = 16
) -> list[NDArray[np.float32]]:
    """The first images that can be read, each (3,H,W)."""
    found: list[NDArray[np.float32]] = []
    for example in examples:
        if len(found) == most:
            break
        with contextlib.suppress(ImageError):
            found.append(transform(load_image(example.image)))
    if not found:
        raise DataError(f"got {len(examples)} pictures of which none can be read; expected some")
    return found


def _stages(run: Path) -> list[dict[str, Any]]:
    """The recipes of a run and of the runs before it, oldest first."""
    recipe = json.loads((run / "recipe.json").read_text())
    name = recipe["fit"]["start_from"]
    start = Path(name).parent if name.endswith(".ckpt") else Path(name)
    if not name:
        before = []
    elif (start / "recipe.json").is_file():
        before = _stages(start)
    else:
        with contextlib.suppress(BundleError):
            return [*find(name).manifest.recipe["stages"], recipe]
        before = []
    return [*before, recipe]


def export(
    run: Path,
    collection: Collection,
    output: Path,
    *,
    summary: str,
    options: SearchOptions,
    card: str = "",
    word_bias: float = 0.0,
    checkpoint: str = "best.ckpt",
    doing: Callable[[str], object] = lambda _: None,
) -> Bundle:
    """Export a training run as a bundle and measure it on the dev split.

    Args:
        run: what `train` wrote.
        collection: the captions it was trained on; its dev split is captioned for the scores.
        output: the bundle's folder; its last part is the bundle's name.
        summary: one sentence for a list of models.
        options: the search that suits the model.
        card: the model card in Markdown; the measured scores are appended.
        word_bias: how strongly frequent words are penalised.
        checkpoint: which of the run's checkpoints.
        doing: called with the name of each step as it begins.

    Raises:
        ParityError: torch and the exported graphs differ.
        OutputError: the folder exists, or cannot be written.
        RecipeError: there is no such run, or its region features were read from files.
        WeightsError: the weights of its detector are missing.
        DataError: there is no dev split, or none of its images can be read.
    """
    refuse_taken(output)
    doing("reading the run")
    trained = Trained.read(run, checkpoint)
    recipe = trained.recipe
    train, dev = recipe.data.examples(collection), collection.split(recipe.data.dev)
    manifest = Manifest(
        name=output.name,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        summary=summary,
        preprocessing=trained.transform,
        grid=trained.grid,
        vocabulary=VocabularyEntry(len(trained.vocabulary), trained.vocabulary.checksum),
        search=asdict(options),
        word_bias=word_bias,
        recipe={"stages": _stages(run)},
        data=DataEntry(**json.loads((run / "data.json").read_text())),
        licence="Apache-2.0",
        parameters=trained.parameters,
        scores={},
        speed={},
        input=trained.input,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        doing("writing the graphs")
        write_graphs(trained, folder)
        trained.vocabulary.write(folder / "vocabulary.txt")
        if trained.labels:
            classes = ImageNetInfo()  # reading its tables takes 40 ms
            names = (classes.index_to_description(k).split(",")[0] for k in range(1000))
            (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names))
        prior = log_prior(trained.vocabulary, train, CleanUp.named(recipe.data.clean_up))
        np.save(folder / "prior.npy", np.exp(prior))

        staged = Bundle(folder, manifest)
        doing("comparing them with torch")
        _check_on(trained, Runtime(staged, "onnxruntime"), dev)
        doing(f"captioning {len(dev):,} images of {recipe.data.dev}")
        exact = _caption(staged, dev)

        for name in ("encoder", "start", "step"):
            compress(folder / f"{name}.onnx", int8=name == "start")
        doing(f"captioning {len(dev):,} images of {recipe.data.dev} with compressed weights")
        shipped = _caption(staged, dev)
        before, after = score([exact.candidates, shipped.candidates], dev)
        speed = {"engine": "onnxruntime", "cores": cores(), "images": len(dev)}
        speed["images_per_s"] = round(shipped.images_per_s, 4)
        scores = {recipe.data.dev: after, f"{recipe.data.dev}, before compression": before}
        rows = "".join(f"| {k} | {before[k]} | {after[k]} |\n" for k in after)
        table = f"| {recipe.data.dev} | float32 | as shipped |\n| --- | --- | --- |\n{rows}"
        (folder / "README.md").write_text(f"{card or f'# {output.name}'}\n\n## Measured\n\n{table}")
        files = {path.name: path for path in folder.iterdir()}
        return write_bundle(
            output, files, replace(manifest, scores=scores, speed=speed), max_bytes=None
        )
