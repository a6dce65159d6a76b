"""Training: a recipe and a collection in; a run folder with checkpoints, curves and samples out."""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

from cutline.data import Collection, Example, digest
from cutline.errors import DataError, ImageError, RecipeError
from cutline.preprocess import Transform
from cutline.run_log import add_metrics, plot_curves, read_metrics
from cutline.text import CleanUp, Vocabulary
from cutline.training.bpe import Subwords
from cutline.training.encoders import SIDE_PX, Backbone
from cutline.training.features import FeatureOptions, View, extract, frozen, readable
from cutline.training.lightning_module import Learner, Words, moving_average
from cutline.training.recipe import Recipe
from cutline.training.regions import detect, regions
from cutline.training.warm_start import Start, word_vectors

Views = list[NDArray[np.float16]]


@dataclass(frozen=True)
class Run:
    """What a run came to, by its best epoch.

    Attributes:
        folder: where everything is.
        best: the checkpoint of the best epoch.
        epochs: how many there were.
        best_epoch: which was the best, from 1.
        dev_loss: its mean negative log-likelihood per token on the dev split, nats.
        dev_cider: its CIDEr-D there.
        parameters: trained weights.
        epoch_s: median wall time of an epoch, in seconds, without validation.
    """

    folder: Path
    best: Path
    epochs: int
    best_epoch: int
    dev_loss: float
    dev_cider: float
    parameters: int
    epoch_s: float

    @classmethod
    def read(cls, folder: Path) -> Run:
        """A run that `train` wrote."""
        recipe = Recipe.of_run(folder)
        series = read_metrics(folder / "metrics.csv")
        loss, cider = dict(series["dev_loss"]), dict(series["dev_cider"])
        if recipe.fit.monitor == "dev_cider":
            best = max(cider, key=lambda epoch: cider[epoch])
        else:
            best = min(loss, key=lambda epoch: loss[epoch])
        parameters = int(series["parameters"][0][1])
        epoch_s = float(np.median([seconds for _, seconds in series["epoch_s"]]))
        checkpoint = folder / "best.ckpt"
        return cls(
            folder, checkpoint, len(loss), best, loss[best], cider[best], parameters, epoch_s
        )

    def write(self) -> None:
        """Leave it in the run's folder as `summary.json`."""
        content = {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "dev_loss": self.dev_loss,
            "dev_cider": self.dev_cider,
            "parameters": self.parameters,
            "seconds_per_epoch": self.epoch_s,
        }
        (self.folder / "summary.json").write_text(json.dumps(content, indent=1) + "\n")


def train(
    recipe: Recipe,
    collection: Collection,
    run: Path,
    *,
    features: Path,
    resume: bool = False,
    devices: int = 1,
    vocabulary: Vocabulary | None = None,
) -> Run:
    """Train what a recipe says on a collection; a killed run goes on with `resume`.

    Args:
        recipe: what to train and how.
        collection: the captioned images; the recipe names its splits.
        run: a folder for everything the run writes; must not hold a run unless resumed.
        features: a folder that caches what frozen parts see, between runs.
        resume: go on from the run's last checkpoint.
        devices: how many GPUs, or processes where there is none, share every batch.
        vocabulary: the words to learn; by default those of the training captions.

    Raises:
        RecipeError: the run folder holds a run already, or one of another recipe; or the recipe
            says something impossible.
        DataError: the collection lacks a split, or has no captions in one.
        KeyboardInterrupt: it was stopped; what the last whole epoch reached is kept.
    """
    recipe.check()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    _join_torchrun()
    start = Start.read(recipe.fit.start_from) if recipe.fit.start_from else None
    if start is not None:
        recipe = _going_on(recipe, start.recipe)
    if _rank() == 0:
        _open_run(run, recipe, resume)
    lightning.seed_everything(recipe.fit.seed, verbose=False)
    with _first_of_processes():
        seen = _see(recipe, collection, features, start)
    clean_up = CleanUp.named(recipe.data.clean_up)
    words, dev_words = _words(clean_up, seen.train), _words(clean_up, seen.dev)
    vocabulary = vocabulary or _vocabulary(recipe, words)
    if start is not None:
        start = start.extended(vocabulary)
        vocabulary = start.vocabulary
    if _rank() == 0:
        vocabulary.write(run / "vocabulary.txt")
        _describe_data(run, collection, seen.train)

    learner = Learner(recipe, seen.top, vocabulary, words, dev_words, seen.views, seen.dev_view)
    if start is not None:
        lost = learner.load_state_dict(start.weights, strict=False)
        if lost.unexpected_keys or any(n.startswith("decoder.") for n in lost.missing_keys):
            raise RecipeError(f"got weights in {recipe.fit.start_from} that do not fit: {lost}")
    elif recipe.fit.vectors:
        table = learner.decoder.embedding.weight
        filled, count = word_vectors(Path(recipe.fit.vectors), vocabulary, table.detach())
        table.data.copy_(filled)
        print(f"word vectors: {count} of {len(vocabulary) - 4} words", file=sys.stderr)
    last = run / "last.ckpt"
    trainer = _trainer(recipe, run, seen.dev, devices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.|torch\.")
        try:
            trainer.fit(learner, ckpt_path=str(last) if resume and last.exists() else None)
        except SystemExit as stopped:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stopped
    done = Run.read(run)
    if _rank() == 0:
        done.write()
    return done


def _going_on(recipe: Recipe, before: Recipe) -> Recipe:
    """The recipe with the architecture of the one it goes on from."""
    keep = recipe.decoder
    decoder = replace(before.decoder, dropout=keep.dropout, word_dropout=keep.word_dropout)
    encoder = replace(before.encoder, views=recipe.encoder.views)
    return replace(recipe, decoder=decoder, encoder=encoder)


def _open_run(run: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run's folder and write its recipe, unless another run is there."""
    run.mkdir(parents=True, exist_ok=True)
    record = run / "recipe.json"
    if record.exists() and not (resume and Recipe.of_run(run) == recipe):
        raise RecipeError(f"got run folder {run} of an earlier run; resume it, or name another")
    record.write_text(json.dumps(recipe.to_dict(), indent=2) + "\n")


def _describe_data(run: Path, collection: Collection, examples: Sequence[Example]) -> None:
    source = {"name": collection.name, "licence": collection.licence, "images": len(examples)}
    source |= {"captions": sum(len(e.captions) for e in examples), "sha256": digest(examples)}
    (run / "data.json").write_text(json.dumps(source, indent=2) + "\n")


def _vocabulary(recipe: Recipe, words: Words) -> Vocabulary:
    captions = (caption for image in words for caption in image)
    kind = Subwords if recipe.data.subwords else Vocabulary
    return kind.build(captions, recipe.data.min_count, recipe.data.top_k or None)


def _words(clean_up: CleanUp, examples: Sequence[Example]) -> list[list[list[str]]]:
    captions = [[clean_up.words(caption) for caption in example.captions] for example in examples]
    return [[words for words in image if words] for image in captions]


@dataclass(frozen=True)
class _Seen:
    """What the frozen part sees of all pictures that can be used, and the part after it.

    Attributes:
        top: turns views into a grid, where they are not features yet; None if there is none.
        train, dev: the pictures.
        views: of the training pictures, each (I,C,H,W), or (I,N,D) features.
        dev_view: the plain view of the dev pictures.
    """

    top: nn.Module | None
    train: list[Example]
    dev: list[Example]
    views: Views
    dev_view: NDArray[np.float16]


def _see(recipe: Recipe, collection: Collection, folder: Path, start: Start | None) -> _Seen:
    """Look at all pictures, or read what was seen before from the folder; into memory.

    Pictures that cannot be read are told and left out, and so are those without words.
    """
    encoder = recipe.encoder
    clean_up = CleanUp.named(recipe.data.clean_up)
    train, dev = recipe.data.examples(collection), collection.split(recipe.data.dev)
    views = [View(number) for number in range(encoder.views)]
    with Progress(disable=_rank() != 0) as bar:
        task = bar.add_task("looking", total=len(dev) + len(views) * len(train))
        look = _look(recipe, folder, start, lambda count: bar.advance(task, count))
        seen_dev, seen_train = look(dev, View(0)), [look(train, view) for view in views]

    def usable(examples: Sequence[Example], seen: NDArray[np.float16]) -> list[int]:
        worded = [any(map(clean_up.words, example.captions)) for example in examples]
        kept = [i for i, there in enumerate(readable(seen)) if there and worded[i]]
        if not kept:
            raise DataError(
                f"got {len(examples)} pictures of which none can be read and has words; "
                f"expected some to learn from and some for {recipe.data.dev}"
            )
        if len(kept) < len(examples) and _rank() == 0:
            print(
                f"left out {len(examples) - len(kept)} of {len(examples)} pictures that cannot be "
                "read or have no words; `cutline data check` lists them",
                file=sys.stderr,
            )
        return kept

    good, good_dev = usable(train, seen_train[0]), usable(dev, seen_dev)
    if len(good) < len(train):
        seen_train = [seen[good] for seen in seen_train]
    top = _top(recipe, start) if recipe.encoder.tunable else None
    return _Seen(
        top, [train[i] for i in good], [dev[i] for i in good_dev], seen_train, seen_dev[good_dev]
    )


def _look(
    recipe: Recipe, folder: Path, start: Start | None, progress: Callable[[int], None]
) -> Callable[[Sequence[Example], View], NDArray[np.float16]]:
    """How pictures are looked at: examples and a view -> (I,C,H,W) or (I,N,D), NaN if unreadable.

    What is trained further is looked at up to there; all else up to its features.
    """
    encoder = recipe.encoder
    pooled = encoder.features == "pooled"

    def ignore(position: int, error: ImageError) -> None:
        pass  # its row is NaN

    def look_for_regions(examples: Sequence[Example], view: View) -> NDArray[np.float16]:
        if encoder.regions:
            return regions(Path(encoder.regions), examples, folder, progress=progress).features
        return detect(examples, folder, progress=progress, unreadable=ignore).features

    def look_at_all(examples: Sequence[Example], view: View) -> NDArray[np.float16]:
        weights = Path(encoder.weights) if encoder.weights else None
        options = FeatureOptions(encoder.backbone, pooled, weights, encoder.side_px or None)
        return frozen(
            options, examples, folder, view=view.number, progress=progress, unreadable=ignore
        )

    def look_at_half(examples: Sequence[Example], view: View) -> NDArray[np.float16]:
        backbone = Backbone(encoder.backbone, encoder.cut)
        transform = Transform(side_px=SIDE_PX[encoder.backbone])
        half = extract(backbone, transform, examples, view, folder, progress, ignore)
        return half if _tuned(recipe) else _finished(_top(recipe, start), half, pooled)

    if encoder.features == "regions":
        look = look_for_regions
    elif _tuned(recipe) or (encoder.tunable and start is not None):
        look = look_at_half
    else:
        look = look_at_all
    return lambda examples, view: np.array(look(examples, view))


def _tuned(recipe: Recipe) -> bool:
    return recipe.encoder.tunable and recipe.fit.encoder_learning_rate > 0


def _top(recipe: Recipe, start: Start | None) -> nn.Module:
    """The top of the encoder as training begins."""
    top = Backbone(recipe.encoder.backbone, recipe.encoder.cut).top
    if start is not None:
        weights = start.weights.items()
        top.load_state_dict({n.removeprefix("top."): w for n, w in weights if n.startswith("top.")})
    return top


@torch.inference_mode()
def _finished(top: nn.Module, half: NDArray[np.float16], pooled: bool) -> NDArray[np.float16]:
    """The trunk's output (I,C,H,W) -> features (I,N,D)."""
    parts = []
    for first in range(0, len(half), 32):
        grid = top(torch.from_numpy(np.array(half[first : first + 32])).float())
        features = grid.flatten(2).transpose(1, 2)  # (B,N,D)
        features = features.mean(1, keepdim=True) if pooled else features
        parts.append(features.half().numpy())
    return np.concatenate(parts)


def _rank() -> int:
    """Which of the processes that train together this is."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def _join_torchrun() -> None:
    """Meet the other processes if `torchrun` started this one; Lightning starts its own later."""
    if "TORCHELASTIC_RUN_ID" in os.environ and not torch.distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=datetime.timedelta(days=1))


@contextmanager
def _first_of_processes() -> Iterator[None]:
    """The first process goes ahead, and the others follow in what it has written."""
    together = torch.distributed.is_initialized()
    if together and _rank():
        torch.distributed.barrier()
    yield
    if together and not _rank():
        torch.distributed.barrier()


def _trainer(recipe: Recipe, run: Path, dev: Sequence[Example], devices: int) -> lightning.Trainer:
    fit = recipe.fit
    mode = "max" if fit.monitor == "dev_cider" else "min"
    kept: dict[str, Any] = {"dirpath": run, "enable_version_counter": False}
    callbacks: list[Callback] = [
        WeightAveraging(avg_fn=moving_average(fit.ema_decay)),
        ModelCheckpoint(filename="best", monitor=fit.monitor, mode=mode, **kept),
        ModelCheckpoint(filename="last", **kept),
        Books(run, dev),
        Bar(),
    ]
    if fit.patience:
        callbacks.append(EarlyStopping(fit.monitor, mode=mode, patience=fit.patience))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    return lightning.Trainer(
        accelerator="auto",
        devices=processes,
        num_nodes=int(os.environ.get("WORLD_SIZE", processes)) // processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=fit.epochs,
        precision=fit.precision,  # type: ignore[arg-type]
        gradient_clip_val=fit.clip_norm,
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        callbacks=callbacks,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
    )


class Bar(RichProgressBar):
    """Progress with its figures, but for the logger's version, which is always the same."""

    def get_metrics(  # noqa: D102
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        figures = super().get_metrics(trainer, learner)
        return {name: figure for name, figure in figures.items() if name != "v_num"}


class Books(Callback):
    """After every epoch: its figures, their curves, and what is said of the first dev images."""

    def __init__(self, run: Path, dev: Sequence[Example], count: int = 10) -> None:
        self.run, self.dev, self.count = run, dev, count

    def on_validation_end(  # noqa: D102
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> None:
        if not trainer.is_global_zero or not isinstance(learner, Learner):
            return
        add_metrics(self.run / "metrics.csv", trainer.current_epoch, learner.figures)
        plot_curves(self.run / "metrics.csv", self.run / "curves.png")
        lines = [f"epoch {trainer.current_epoch + 1}"]
        for example, words in list(zip(self.dev, learner.said, strict=True))[: self.count]:
            lines += [f"  {example.name}: {' '.join(words)}"]
        with (self.run / "samples.txt").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
