"""Training: a recipe and a collection in; a run folder with checkpoints, curves and samples out."""

from __future__ import annotations

import datetime
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from rich.progress import Progress

from cutline.data import Collection, Example, digest
from cutline.errors import RecipeError
from cutline.run_log import (
    BEST,
    CURVES,
    DATA,
    DETECTOR_FILE,
    INPUTS,
    LAST,
    METRICS,
    RECIPE,
    SCHEDULE,
    Run,
    add_metrics,
    add_samples,
    plot_curves,
    read_json,
    rewind,
    write_json,
    write_sources,
)
from cutline.text import Vocabulary
from cutline.training.checkpoint import part, read_checkpoint
from cutline.training.detectors import file_checksum
from cutline.training.inputs import (
    Prepared,
    build_vocabulary,
    describe_texts,
    prepare,
    resolve,
    texts,
)
from cutline.training.lightning_module import (
    TIMED_STEPS,
    Learner,
    moving_average,
    steps_in_budget,
)
from cutline.training.recipe import Recipe
from cutline.training.warm_start import Start, word_vectors

__all__ = ["Run", "train"]

_REDRAW_S = 30.0


def train(
    recipe: Recipe,
    collection: Collection,
    run: Path,
    *,
    features: Path,
    resume: bool = False,
    devices: int = 1,
    vocabulary: Vocabulary | None = None,
    sources: Sequence[Path] = (),
) -> Run:
    """Train a captioner; a killed run continues with `resume`.

    Args:
        recipe: what to train and how.
        collection: the captioned images; for several collections, `cutline.data.combine` them.
        run: a folder for all files of the run; must not hold a run unless resumed.
        features: a folder that caches features and decoded images, between runs.
        resume: continue from the run's last checkpoint.
        devices: how many GPUs, or processes if there is none, share every batch.
        vocabulary: the words to learn; by default those of the training captions.
        sources: where the collection was read from, which the run's folder notes for `export`.

    Raises:
        RecipeError: the run folder holds a run already, the resumed run had other options, its
            files are damaged, or options contradict each other.
        DataError: the collection lacks a split, has no captions in one, or is not that of the
            resumed run.
        KeyboardInterrupt: it was stopped; the last whole epoch is kept.
    """
    recipe.check()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    _join_torchrun()
    start = Start.read(recipe.fit.start_from) if recipe.fit.start_from else None
    if start is not None:
        recipe = start.inherited_by(recipe)
    recipe = _resolved(recipe, collection, start, run if resume else None)
    found = texts(recipe, collection)
    known = vocabulary is not None or start is not None
    early = vocabulary or build_vocabulary(recipe, found.train_words, known=known)
    loud = _rank() == 0
    resumed = resume and (run / LAST).exists()
    epochs_done = 0
    if loud:
        epochs_done = _open_run(run, recipe, found.train, found.dev, resume)
        write_sources(run, sources)
        for line in describe_texts(recipe, found, start.vocabulary if start else early):
            print(line, file=sys.stderr)
    lightning.seed_everything(recipe.fit.seed, verbose=False)
    prepared = _prepare(recipe, found, features, start)
    vocabulary = vocabulary or build_vocabulary(recipe, prepared.train.words, known=known)
    if start is not None:
        start = start.extended(vocabulary)
        vocabulary = start.vocabulary
    if loud:
        vocabulary.write(run / "vocabulary.txt")
        _write_data(run, collection, prepared.texts.train)
        if recipe.encoder.features == "regions" and not recipe.encoder.regions:
            write_json(run / DETECTOR_FILE, {"sha256": file_checksum(recipe.encoder)})
        if resumed:
            rewind(run, epochs_done)
    lightning.seed_everything(recipe.fit.seed, verbose=False)  # whatever was cached or computed
    learner = _learner(recipe, vocabulary, prepared, start)
    trainer = _trainer(recipe, run, prepared.texts.dev, devices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.|torch\.")
        try:
            trainer.fit(learner, ckpt_path=str(run / LAST) if resumed else None)
        except SystemExit as stopped:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stopped
    done = Run.read(run)
    if loud:
        done.write()
    return done


def _resolved(
    recipe: Recipe, collection: Collection, start: Start | None, resumed: Path | None
) -> Recipe:
    """The recipe with what it leaves to the data; a resumed run keeps what it had."""
    found = resolve(recipe, collection, start)
    if resumed is None or not (resumed / RECIPE).exists():
        return found
    before = Recipe.of_run(resumed).data
    data = found.data
    if recipe.data.clean_up != data.clean_up:
        data = replace(data, clean_up=before.clean_up)
    if not recipe.data.max_tokens:
        data = replace(data, max_tokens=before.max_tokens)
    return replace(found, data=data)


def _open_run(
    run: Path, recipe: Recipe, train: Sequence[Example], dev: Sequence[Example], resume: bool
) -> int:
    """Create the run's folder, or check that the run in it may be resumed.

    Returns:
        how many epochs are done.

    Raises:
        RecipeError: there is another run, or its last checkpoint is damaged.
    """
    run.mkdir(parents=True, exist_ok=True)
    inputs = {"train_sha256": digest(train), "dev_sha256": digest(dev)}
    sizes = {"train_images": len(train), "dev_images": len(dev)}
    epochs_done = 0
    if (run / RECIPE).exists():
        if not resume:
            raise RecipeError(
                f"got run folder {run} of an earlier run; resume it with --resume, or name another"
            )
        _check_same(run, recipe, inputs, sizes)
        if (run / LAST).exists():
            epoch = read_checkpoint(run / LAST).get("epoch")
            if not isinstance(epoch, int):
                raise RecipeError(
                    f"got {run / LAST}, which is no checkpoint of a run; delete it to start again"
                )
            epochs_done = epoch + 1
    write_json(run / RECIPE, recipe.to_dict())
    write_json(run / INPUTS, {**inputs, **sizes})
    return epochs_done


def _check_same(run: Path, recipe: Recipe, inputs: dict[str, str], sizes: dict[str, int]) -> None:
    """Refuse to resume a run with other options or other data; more epochs are allowed.

    Raises:
        RecipeError: they differ; the message says in what.
    """
    before = Recipe.of_run(run)
    longer = recipe.fit.epochs > before.fit.epochs
    if longer:
        print(
            f"resuming with {recipe.fit.epochs} epochs instead of {before.fit.epochs}",
            file=sys.stderr,
        )
    same = recipe.with_fit(epochs=before.fit.epochs) if longer else recipe
    same = replace(same, name=before.name)
    differences = same.differences(before)
    then = read_json(run / INPUTS) or {}
    for name, split in (("train_sha256", "train"), ("dev_sha256", "dev")):
        if name in then and then[name] != inputs[name]:
            count = then.get(f"{split}_images", "unknown")
            differences.append(
                f"{sizes[f'{split}_images']} {split} images with other names or captions than the "
                f"{count} before"
            )
    if differences:
        raise RecipeError(
            f"got run folder {run} of an earlier run, with {'; '.join(differences)}; expected the "
            "same data and options: resume it with those, or name another folder"
        )


def _write_data(run: Path, collection: Collection, examples: Sequence[Example]) -> None:
    """Describe the training data as a bundle's manifest does."""
    captions = sum(len(example.captions) for example in examples)
    write_json(
        run / DATA,
        {
            "name": collection.name,
            "licence": collection.licence,
            "images": len(examples),
            "captions": captions,
            "sha256": digest(examples),
        },
    )


def _prepare(recipe: Recipe, found: Any, features: Path, start: Start | None) -> Prepared:
    """The inputs of all images, with progress; the first process computes them."""
    views = 1 if recipe.encoder.input == "pixels" else recipe.encoder.views
    teacher = bool(recipe.fit.distillation_weight)
    total = len(found.dev) + (views + teacher) * len(found.train)
    with _first_process_first(), Progress(disable=_rank() != 0) as bar:
        task = bar.add_task("encoding images", total=total)
        return prepare(
            recipe, found, features, start, lambda n: bar.advance(task, n), loud=_rank() == 0
        )


def _learner(
    recipe: Recipe, vocabulary: Vocabulary, prepared: Prepared, start: Start | None
) -> Learner:
    """The module to train, with the weights that it starts from.

    Raises:
        RecipeError: the weights do not fit.
    """
    learner = Learner(
        recipe, vocabulary, prepared.train, prepared.dev, tail=prepared.tail, trunk=prepared.trunk,
        labels=prepared.labels, transform=prepared.transform,
    )  # fmt: skip
    if start is not None:
        try:
            learner.decoder.load_state_dict(part(start.weights, "decoder."))
        except RuntimeError as error:
            raise RecipeError(
                f"got weights in {recipe.fit.start_from} that do not fit: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
    elif recipe.fit.vectors:
        table = learner.decoder.embedding.weight
        filled, count = word_vectors(Path(recipe.fit.vectors), vocabulary, table.detach())
        table.data.copy_(filled)
        print(f"word vectors: {count} of {len(vocabulary) - 4} words", file=sys.stderr)
    return learner


def _rank() -> int:
    """The number of this process among those that train together."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def _join_torchrun() -> None:
    """Join the other processes if `torchrun` started this one; Lightning starts its own later."""
    if "TORCHELASTIC_RUN_ID" in os.environ and not torch.distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=datetime.timedelta(days=1))


@contextmanager
def _first_process_first() -> Iterator[None]:
    """The other processes wait until the first one has written the cache."""
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
        ModelCheckpoint(
            filename=BEST.removesuffix(".ckpt"), monitor=fit.monitor, mode=mode, **kept
        ),
        ModelCheckpoint(filename=LAST.removesuffix(".ckpt"), **kept),
        RunLogger(run, dev),
        ProgressBar(),
    ]
    if fit.max_seconds:
        callbacks.append(TimeBudget(run, fit.max_seconds))
    if fit.patience:
        callbacks.append(EarlyStopping(fit.monitor, mode=mode, patience=fit.patience))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    return lightning.Trainer(
        accelerator="auto",
        devices=processes,
        num_nodes=int(os.environ.get("WORLD_SIZE", processes)) // processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=-1 if fit.max_seconds else fit.epochs,
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


class ProgressBar(RichProgressBar):
    """Lightning's progress bar without the logger's version, which is always the same."""

    def get_metrics(
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        figures = super().get_metrics(trainer, learner)
        return {name: figure for name, figure in figures.items() if name != "v_num"}


class RunLogger(Callback):
    """Writes metrics and captions of the first dev images after every epoch.

    Learning curves are drawn at the end, and after an epoch if the drawing is half a minute old.
    """

    def __init__(self, run: Path, dev: Sequence[Example], count: int = 10) -> None:
        self.run, self.dev, self.count = run, dev, count
        self._drawn_s = time.monotonic()

    def on_validation_end(
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> None:
        if not trainer.is_global_zero or not isinstance(learner, Learner):
            return
        add_metrics(self.run / METRICS, trainer.current_epoch, learner.figures)
        if time.monotonic() - self._drawn_s > _REDRAW_S:
            self._draw()
        pairs = list(zip(self.dev, learner.captions, strict=True))[: self.count]
        captions = {example.name: " ".join(words) for example, words in pairs}
        add_samples(self.run, trainer.current_epoch + 1, captions)

    def on_fit_end(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self._draw()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        learner: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        if trainer.is_global_zero:
            self._draw()

    def _draw(self) -> None:
        if (self.run / METRICS).exists():
            plot_curves(self.run / METRICS, self.run / CURVES)
        self._drawn_s = time.monotonic()


class TimeBudget(Callback):
    """Converts a time budget to a number of steps once, and stops the run after them.

    The number is written to the run's folder at once, so that a run that is killed before its
    first checkpoint ends after as many steps as it would have.

    Args:
        run: the run's folder.
        seconds: the budget of the training steps, without validation.
    """

    def __init__(self, run: Path, seconds: float) -> None:
        self.path, self.seconds = run / SCHEDULE, seconds
        self._durations: list[float] = []
        self._began = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> None:
        assert isinstance(learner, Learner)
        known = read_json(self.path) or {}
        if not learner.total_steps and known.get("max_seconds") == self.seconds:
            learner.total_steps = int(known.get("steps", 0))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, learner: lightning.LightningModule, *_: Any
    ) -> None:
        now = time.perf_counter()
        self._began = self._began or now
        self._step_began = now

    def on_train_batch_end(
        self, trainer: lightning.Trainer, learner: lightning.LightningModule, *_: Any
    ) -> None:
        assert isinstance(learner, Learner)
        if not learner.total_steps:
            self._durations.append(time.perf_counter() - self._step_began)
            if trainer.global_step >= TIMED_STEPS:
                spent = sum(self._durations)
                steps = steps_in_budget(self._durations, trainer.global_step, spent, self.seconds)
                learner.total_steps = int(trainer.strategy.broadcast(steps))
                if trainer.is_global_zero:
                    content = {"max_seconds": self.seconds, "steps": learner.total_steps}
                    write_json(self.path, content)
                    print(f"{self.seconds:g} s are {learner.total_steps} steps", file=sys.stderr)
        if learner.total_steps and trainer.global_step >= learner.total_steps:
            trainer.should_stop = True
