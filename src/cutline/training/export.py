"""Export of a run as a bundle, which is written only if torch and the graphs agree."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timm.data.imagenet_info import ImageNetInfo

from cutline.boxes import Box
from cutline.bundle import (
    KINDS,
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
from cutline.data import Collection, Example, digest
from cutline.errors import (
    BundleError,
    DataError,
    ImageError,
    MissingExtraError,
    OptionError,
    RecipeError,
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
from cutline.image_kind import KindClassifier
from cutline.options import SearchOptions
from cutline.preprocess import DetectorTransform, Transform
from cutline.runtime import Runtime, cores
from cutline.search import search
from cutline.text import SPECIALS, CleanUp, Vocabulary
from cutline.training.checkpoint import Trained
from cutline.training.graphs import compress, write_graphs
from cutline.training.inputs import resolve
from cutline.training.parity import check_parity
from cutline.training.quantization import quantize
from cutline.training.recipe import Recipe
from cutline.training.warm_start import Start

CALIBRATION_IMAGES = 96
"""Training images on which int8 graphs are calibrated."""


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
        raise DataError(f"got {len(examples)} images of which none can be read; expected some")
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


@dataclass(frozen=True)
class _Source:
    """What becomes a bundle: the model, the recipes of its stages, and its training data."""

    trained: Trained
    stages: list[dict[str, Any]]
    data: DataEntry


def _read_source(
    source: Path, collection: Collection, recipes: Sequence[Recipe], checkpoint: str
) -> _Source:
    """Read a run's folder, or a checkpoint that was trained elsewhere.

    Raises:
        RecipeError: it is neither, or it was trained over regions.
        DataError: the training split is not there.
    """
    if not source.is_file():
        data = DataEntry(**json.loads((source / "data.json").read_text()))
        return _Source(Trained.read(source, checkpoint), _stages(source), data)
    start = Start.read(str(source))
    if (source.parent / "recipe.json").is_file():
        stages, last = _stages(source.parent), start.recipe
    else:
        chosen = [resolve(start.inherited_by(each), collection, start) for each in recipes]
        last = (chosen or [start.recipe])[-1]
        stages = [each.to_dict() for each in chosen or [last]]
    encoder = replace(last.encoder, cut=start.recipe.encoder.cut)
    trained = Trained.build(replace(last, encoder=encoder), start.vocabulary, start.weights)
    stages[-1]["encoder"]["cut"] = encoder.cut
    train = last.data.examples(collection)
    captions = sum(len(example.captions) for example in train)
    entry = DataEntry(collection.name, collection.licence, digest(train), len(train), captions)
    return _Source(trained, stages, entry)


def _quantize(folder: Path, manifest: Manifest, examples: Sequence[Example]) -> None:
    """Quantise a bundle's graphs, each calibrated on what the graph before it gives."""
    spread_out = examples[:: max(1, len(examples) // CALIBRATION_IMAGES)]
    pixels = _pixels(manifest.preprocessing, spread_out, CALIBRATION_IMAGES)
    quantize(folder / "encoder.onnx", [{"pixels": each[None]} for each in pixels])
    runtime = Runtime(Bundle(folder, manifest), "onnxruntime")
    features = np.concatenate([runtime.encode(each[None]).features for each in pixels])
    batches = np.array_split(features, math.ceil(len(features) / 16))
    quantize_decoder(folder, runtime, batches, SearchOptions(**manifest.search))


def quantize_decoder(
    folder: Path,
    runtime: Runtime,
    batches: Sequence[NDArray[np.float32]],
    options: SearchOptions,
) -> None:
    """Quantise `start.onnx` and `step.onnx`, calibrated on searches over features (B,N,D)."""
    steps: list[dict[str, NDArray[Any]]] = []

    class Recorder:
        """Keeps the inputs of every third step."""

        count = 0

        def step(self, state: Any, tokens: NDArray[np.int64]) -> Any:
            if self.count % 3 == 0:
                steps.append({"tokens": tokens, **state.memory, **state.rows})
            self.count += 1
            return runtime.step(state, tokens)

        def reorder(self, state: Any, rows: NDArray[np.int64]) -> Any:
            return runtime.reorder(state, rows)

    for features in batches:
        search(
            Recorder(), runtime.start(features), len(features), options,
            bos=Vocabulary.bos, eos=Vocabulary.eos, banned=Vocabulary.unsayable,
        )  # fmt: skip
    quantize(folder / "start.onnx", [{"features": features} for features in batches])
    quantize(folder / "step.onnx", steps)


def _by_collection(collection: Collection, split: str) -> dict[str, list[int]]:
    """Places of the examples of a split, by the name of their collection if several were merged."""
    names = collection.name.split(" + ")
    groups: dict[str, list[int]] = {}
    for place, example in enumerate(collection.split(split)):
        owner = next((name for name in names if example.name.startswith(f"{name}/")), "")
        groups.setdefault(f"{owner} {split}" if owner else split, []).append(place)
    return groups


def export(
    source: Path,
    collection: Collection,
    output: Path,
    *,
    summary: str,
    options: SearchOptions,
    card: str = "",
    word_bias: float = 0.0,
    checkpoint: str = "best.ckpt",
    int8: bool = False,
    kinds: Path | None = None,
    recipes: Sequence[Recipe] = (),
    doing: Callable[[str], object] = lambda _: None,
) -> Bundle:
    """Turn a training run or a checkpoint into a bundle, measured on the dev split on the way.

    The same weights, data and options give the same graphs, byte for byte. The environment variable
    SOURCE_DATE_EPOCH sets the date, as in other build tools; then no speed is recorded, and
    the whole bundle is the same.

    Args:
        source: a run's folder, which `train` wrote; or a checkpoint, as `Start.read` reads it.
        collection: the captions it was trained on; its dev split is captioned for the scores.
        output: the bundle's folder; its last part is the bundle's name.
        summary: one sentence for a list of models.
        options: the search that suits the model.
        card: the model card in Markdown; the measured scores are appended.
        word_bias: how strongly common words are held back.
        checkpoint: which of the run's checkpoints.
        int8: whether the graphs compute in int8, calibrated on training images.
        kinds: a classifier of image kinds, as `KindClassifier.write` saves it.
        recipes: for a checkpoint without a run, the recipes of its stages, in order.
        doing: told of each step as it begins.

    Raises:
        ParityError: torch and the exported graphs disagree.
        OutputError: the folder is there already, or cannot be written.
        RecipeError: there is no such run or checkpoint, its region features were read from files,
            or it is to compute in int8 and takes no whole images.
        WeightsError: the weights of its detector are missing.
        DataError: the dev split is not there, or none of its images can be read.
        BundleError: the classifier of image kinds does not fit.
    """
    refuse_taken(output)
    doing("reading the run")
    found = _read_source(source, collection, recipes, checkpoint)
    trained = found.trained
    if int8 and trained.input != "image":
        raise RecipeError(f"got --int8 for a model of {trained.input} features; expected images")
    data = trained.recipe.data
    train, dev = data.examples(collection), collection.split(data.dev)
    manifest = Manifest(
        name=output.name,
        created=_date().isoformat(),
        summary=summary,
        preprocessing=trained.transform,
        grid=trained.grid,
        vocabulary=VocabularyEntry(len(trained.vocabulary), trained.vocabulary.checksum),
        search=asdict(options),
        word_bias=word_bias,
        recipe={"stages": found.stages},
        data=found.data,
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
        _write_words(trained, train, folder)
        if kinds is not None:
            KindClassifier.read(kinds)
            shutil.copyfile(kinds, folder / KINDS)
        staged = Bundle(folder, manifest)
        doing("comparing them with torch")
        _check_on(trained, Runtime(staged, "onnxruntime"), dev)
        doing(f"captioning {len(dev):,} images of {data.dev}")
        exact = _caption(staged, dev)
        if int8:
            doing("quantising the graphs")
            _quantize(folder, manifest, train)
        else:
            for name in ("encoder", "start", "step"):
                compress(folder / f"{name}.onnx", int8=name == "start")
        doing(f"captioning {len(dev):,} images of {data.dev} with compressed weights")
        shipped = _caption(staged, dev)
        before, after = _scores(exact, shipped, dev, _by_collection(collection, data.dev))
        scores = {**after, **{f"{name}, before compression": s for name, s in before.items()}}
        (folder / "README.md").write_text(
            f"{card or f'# {output.name}'}\n\n{_measured(before, after)}"
        )
        files = {path.name: path for path in folder.iterdir()}
        manifest = replace(manifest, scores=scores, speed=_speed(shipped, len(dev)))
        return write_bundle(output, files, manifest, max_bytes=None)


def _date() -> datetime.date:
    """Today, or the date in SOURCE_DATE_EPOCH."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not seconds.isdigit():
        return datetime.datetime.now(datetime.UTC).date()
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).date()


def _write_words(trained: Trained, train: Sequence[Example], folder: Path) -> None:
    """The vocabulary, the names of the labels, and the frequencies of words."""
    trained.vocabulary.write(folder / "vocabulary.txt")
    if trained.labels:
        classes = ImageNetInfo()  # reading its tables takes 40 ms
        names = (classes.index_to_description(k).split(",")[0] for k in range(1000))
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    prior = log_prior(trained.vocabulary, train, CleanUp.named(trained.recipe.data.clean_up))
    np.save(folder / "prior.npy", np.exp(prior))


def _scores(
    before: _Captioned,
    after: _Captioned,
    examples: Sequence[Example],
    groups: Mapping[str, Sequence[int]],
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """The scores of captions before and after compression, for each group of examples."""
    found: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
    for name, places in groups.items():
        sets = [[each.candidates[i] for i in places] for each in (before, after)]
        for side, row in zip(found, score(sets, [examples[i] for i in places]), strict=True):
            side[name] = row
    return found


def _speed(captioned: _Captioned, images: int) -> dict[str, Any]:
    """The speed for the manifest, unless the bundle is to be the same each time."""
    if os.environ.get("SOURCE_DATE_EPOCH"):
        return {}
    per_s = round(captioned.images_per_s, 4)
    return {"engine": "onnxruntime", "cores": cores(), "images": images, "images_per_s": per_s}


def _measured(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]
) -> str:
    """The scores as a section of a model card."""
    lines = ["## Measured"]
    for split, scores in after.items():
        lines += ["", f"| {split} | float32 | as shipped |", "| --- | --- | --- |"]
        lines += [f"| {key} | {before[split][key]} | {value} |" for key, value in scores.items()]
    return "\n".join(lines) + "\n"
