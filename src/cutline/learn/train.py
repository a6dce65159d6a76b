"""Training: a recipe and a collection in; a run folder with checkpoints, curves and samples out."""

from __future__ import annotations

import copy
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from cutline.data import Collection, Example, digest
from cutline.errors import RecipeError
from cutline.image import Transform
from cutline.learn.curves import plot_curves
from cutline.learn.decoders import TorchStepper, build
from cutline.learn.encoders import SIDE_PX, Backbone
from cutline.learn.features import View, extract
from cutline.learn.recipe import Recipe
from cutline.metrics import CiderD
from cutline.search import Hypothesis, SearchOptions, search
from cutline.text import Vocabulary, normalise

Batch = dict[str, Tensor]


class Batches:
    """One epoch of training batches: every image once, in one of its views, with its captions.

    The order, the views and the captions drawn depend on seed and epoch alone, so a resumed
    epoch is the epoch it would have been.
    """

    def __init__(
        self,
        views: Sequence[NDArray[np.float16]],
        captions: Sequence[Sequence[Sequence[int]]],
        recipe: Recipe,
        epoch: int,
    ) -> None:
        self.views, self.captions, self.recipe = views, captions, recipe
        self.rng = np.random.default_rng([recipe.fit.seed, epoch])
        self.order = self.rng.permutation(len(captions))

    def __len__(self) -> int:
        return math.ceil(len(self.captions) / self.recipe.fit.batch_images)

    def __iter__(self) -> Iterator[Batch]:
        size, per_image = self.recipe.fit.batch_images, self.recipe.fit.captions_per_image
        for start in range(0, len(self.order), size):
            images = self.order[start : start + size]
            views = self.rng.integers(len(self.views), size=len(images))
            chosen = [
                [self.captions[i][j] for j in self._draw(len(self.captions[i]), per_image)]
                for i in images
            ]
            mid = np.stack([self.views[v][i] for v, i in zip(views, images, strict=True)])
            yield {
                "images": torch.from_numpy(images),
                "mid": torch.from_numpy(mid),
                "tokens": pad(chosen, self.recipe.data.max_tokens),
            }

    def _draw(self, available: int, wanted: int) -> NDArray[np.int64]:
        """Which captions of an image: without repetition as far as there are enough."""
        rounds = [self.rng.permutation(available) for _ in range(math.ceil(wanted / available))]
        return np.concatenate(rounds)[:wanted]


def pad(captions: Sequence[Sequence[Sequence[int]]], max_tokens: int) -> Tensor:
    """Token ids by image and caption -> (B,K,T): bos first, eos last unless cut, pad behind."""
    length = min(max_tokens + 1, max(len(c) for image in captions for c in image) + 2)
    out = torch.full((len(captions), len(captions[0]), length), Vocabulary.pad)
    for b, image in enumerate(captions):
        for k, caption in enumerate(image):
            ids = [Vocabulary.bos, *caption, Vocabulary.eos][:length]
            out[b, k, : len(ids)] = torch.tensor(ids)
    return out


class Learner(lightning.LightningModule):
    """The trained parts, the top of the encoder and the decoder, with losses and validation."""

    def __init__(
        self,
        recipe: Recipe,
        top: nn.Module,
        vocabulary: Vocabulary,
        train: Sequence[Example],
        dev: Sequence[Example],
        train_views: Sequence[NDArray[np.float16]],
        dev_view: NDArray[np.float16],
    ) -> None:
        super().__init__()
        self.recipe, self.vocabulary = recipe, vocabulary
        tuned = recipe.fit.encoder_learning_rate > 0
        self.top = copy.deepcopy(top).requires_grad_(tuned).to(memory_format=torch.channels_last)
        with torch.no_grad():
            width = self.encode(torch.from_numpy(dev_view[:1])).shape[-1]
        self.decoder = build(len(vocabulary), width, recipe.decoder)
        self.concepts = nn.Linear(width, len(vocabulary)) if recipe.fit.concept_weight else None

        self.train_views, self.dev_view = train_views, dev_view
        words = [[normalise(caption) for caption in example.captions] for example in train]
        self.train_captions = [[vocabulary.encode(c) for c in image if c] for image in words]
        self.dev_captions = [
            [vocabulary.encode(normalise(c)) for c in example.captions] for example in dev
        ]
        self.dev_cider = CiderD([[normalise(c) for c in example.captions] for example in dev])
        self.reward = CiderD(words) if recipe.fit.objective == "self-critical" else None

    def encode(self, mid: Tensor) -> Tensor:
        """The trunk's output (B,C,H,W) -> region features (B,N,D)."""
        grid: Tensor = self.top(mid.float().contiguous(memory_format=torch.channels_last))
        return grid.flatten(2).transpose(1, 2)

    def train_dataloader(self) -> Batches:  # noqa: D102
        return Batches(self.train_views, self.train_captions, self.recipe, self.current_epoch)

    def val_dataloader(self) -> DataLoader[Batch]:  # noqa: D102
        batches = []
        for start in range(0, len(self.dev_view), 50):
            captions = self.dev_captions[start : start + 50]
            most = max(map(len, captions))
            whole = [[*image, *image[: most - len(image)]] for image in captions]
            batches.append(
                {
                    "mid": torch.from_numpy(self.dev_view[start : start + 50]),
                    "tokens": pad(whole, self.recipe.data.max_tokens),
                }
            )
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def on_train_epoch_start(self) -> None:  # noqa: D102
        torch.manual_seed(self.recipe.fit.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Batch, _: int) -> Tensor:  # noqa: D102
        features = self.encode(batch["mid"])
        loss = self.cross_entropy(features, batch["tokens"], self.recipe.fit.label_smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(features))
        if self.reward is not None:
            advantage, reward = self.self_critical(features, batch["images"])
            self.log(
                "reward", reward, on_step=False, on_epoch=True, prog_bar=True,
                batch_size=len(features),
            )  # fmt: skip
            loss = advantage + self.recipe.fit.cross_entropy_weight * loss
        if self.concepts is not None:
            loss = loss + self.recipe.fit.concept_weight * self.concept_loss(
                features, batch["tokens"]
            )
        return loss

    def cross_entropy(self, features: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean negative log-likelihood per token, in nats; features (B,N,D), tokens (B,K,T)."""
        hidden, _ = self.decoder(features, tokens[:, :, :-1])
        targets = tokens[:, :, 1:]
        told = targets != Vocabulary.pad
        logits = self.decoder.logits(hidden[told])
        return F.cross_entropy(logits, targets[told], label_smoothing=smoothing)

    def self_critical(self, features: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """REINFORCE on CIDEr-D (Rennie et al., 2017, eq. 7); the loss and the mean reward."""
        assert self.reward is not None
        samples = self.recipe.fit.samples
        options = SearchOptions(
            temperature=1.0, n_best=samples, max_tokens=20, no_repeat_ngram=0,
            seed=int(torch.randint(2**31, ()).item()),
        )  # fmt: skip
        drawn = self.describe(features.detach(), options)
        rewards = torch.tensor(
            [
                [self.reward.score(self.vocabulary.decode(h.tokens), int(i)) for h in hypotheses]
                for i, hypotheses in zip(images, drawn, strict=True)
            ]
        )  # (B,S)
        baseline = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
        tokens = pad([[h.tokens for h in hypotheses] for hypotheses in drawn], options.max_tokens)
        hidden, _ = self.decoder(features, tokens[:, :, :-1])
        targets = tokens[:, :, 1:]
        told = targets != Vocabulary.pad  # (B,S,T)
        advantage = (rewards - baseline).unsqueeze(-1).expand_as(targets)[told]
        surprise = F.cross_entropy(
            self.decoder.logits(hidden[told]), targets[told], reduction="none"
        )
        return (advantage * surprise).mean(), rewards.mean()

    def concept_loss(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Which words will people use? Binary cross-entropy from the mean feature, summed."""
        assert self.concepts is not None
        said = torch.zeros(len(tokens), len(self.vocabulary))
        said.scatter_(1, tokens.flatten(1), 1.0)
        logits = self.concepts(features.mean(1))
        loss = F.binary_cross_entropy_with_logits(logits[:, 4:], said[:, 4:], reduction="sum")
        return loss / len(tokens)

    @torch.no_grad()
    def describe(self, features: Tensor, options: SearchOptions) -> list[list[Hypothesis]]:
        """Captions for region features (B,N,D), by the one search."""
        training = self.decoder.training
        self.decoder.eval()
        stepper = TorchStepper(self.decoder)
        found = search(
            stepper, stepper.start(features), len(features), options,
            bos=Vocabulary.bos, eos=Vocabulary.eos,
            banned=(Vocabulary.pad, Vocabulary.bos, Vocabulary.unk),
        )  # fmt: skip
        self.decoder.train(training)
        return found

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self.said: list[list[str]] = []

    def validation_step(self, batch: Batch, _: int) -> None:  # noqa: D102
        features = self.encode(batch["mid"])
        loss = self.cross_entropy(features, batch["tokens"])
        self.log("dev_loss", loss, batch_size=len(features))
        for hypotheses in self.describe(features, SearchOptions(beam_size=3)):
            self.said.append(self.vocabulary.decode(hypotheses[0].tokens))

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        if self.trainer.sanity_checking:
            return
        cider = float(np.mean([self.dev_cider.score(c, i) for i, c in enumerate(self.said)]))
        self.log("dev_cider", cider, prog_bar=True)
        self.log("dev_words", float(len({word for c in self.said for word in c})))
        self.log("dev_unique", len({tuple(c) for c in self.said}) / len(self.said))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:  # noqa: D102
        fit = self.recipe.fit
        top = [p for p in self.top.parameters() if p.requires_grad]
        rest = [p for name, p in self.named_parameters() if not name.startswith("top.")]
        groups = [{"params": rest, "lr": fit.learning_rate}]
        if top:
            groups.append({"params": top, "lr": fit.encoder_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=fit.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)

        def rate(step: int) -> float:
            if step < fit.warmup_steps:
                return (step + 1) / fit.warmup_steps
            done = (step - fit.warmup_steps) / max(1, total - fit.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average of weights that forgets its random start quickly."""

    def average(mean: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(weight, mean, keep)

    return average


class Pictures(Callback):
    """After every epoch: the curves as a picture, what is said of the first dev images as text."""

    def __init__(self, run: Path, dev: Sequence[Example], count: int = 10) -> None:
        self.run, self.dev, self.count = run, dev, count

    def on_validation_epoch_end(  # noqa: D102
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> None:
        if trainer.sanity_checking or not isinstance(learner, Learner):
            return
        lines = [f"epoch {trainer.current_epoch}"]
        for example, words in list(zip(self.dev, learner.said, strict=True))[: self.count]:
            lines += [f"  {example.name}: {' '.join(words)}"]
        with (self.run / "samples.txt").open("a") as file:
            file.write("\n".join(lines) + "\n")
        metrics = self.run / "metrics.csv"
        if metrics.exists():
            plot_curves(metrics, self.run / "curves.png")


def train(
    recipe: Recipe, collection: Collection, run: Path, *, features: Path, resume: bool = False
) -> Path:
    """Train what a recipe says on a collection; a killed run goes on with `resume`.

    Args:
        recipe: what to train and how.
        collection: the captioned images; the recipe names its splits.
        run: a folder for everything the run writes; must not hold a run unless resumed.
        features: a folder that caches the frozen trunk's output between runs.
        resume: go on from the run's last checkpoint.

    Returns:
        The checkpoint that described the dev split best, by CIDEr-D.

    Raises:
        RecipeError: the run folder holds a run already, or one of another recipe.
        DataError: the collection lacks a split.
    """
    run.mkdir(parents=True, exist_ok=True)
    record, last = run / "recipe.json", run / "last.ckpt"
    if record.exists() and not (
        resume and Recipe.from_dict(json.loads(record.read_text())) == recipe
    ):
        raise RecipeError(f"got run folder {run} of an earlier run; resume it, or name another")
    examples = collection.split(*recipe.data.train)
    dev = collection.split(recipe.data.dev)
    words = (normalise(caption) for example in examples for caption in example.captions)
    vocabulary = Vocabulary.build(words, recipe.data.min_count)
    vocabulary.write(run / "vocabulary.txt")
    record.write_text(json.dumps(recipe.to_dict(), indent=2) + "\n")
    source = {"name": collection.name, "licence": collection.licence, "images": len(examples)}
    source |= {"captions": sum(len(e.captions) for e in examples), "sha256": digest(examples)}
    (run / "data.json").write_text(json.dumps(source, indent=2) + "\n")

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(recipe.fit.seed, verbose=False)
    backbone = Backbone(recipe.encoder.backbone, recipe.encoder.cut)
    transform = Transform(side_px=SIDE_PX[recipe.encoder.backbone])
    with Progress() as bar:
        total = len(dev) + recipe.encoder.views * len(examples)
        task = bar.add_task("trunk features", total=total)

        def load(part: Sequence[Example], view: int) -> NDArray[np.float16]:
            advance = lambda n: bar.advance(task, n)  # noqa: E731
            return np.array(extract(backbone, transform, part, View(view), features, advance))

        dev_view = load(dev, 0)
        train_views = [load(examples, view) for view in range(recipe.encoder.views)]

    learner = Learner(recipe, backbone.top, vocabulary, examples, dev, train_views, dev_view)
    if recipe.fit.start_from:
        weights = torch.load(recipe.fit.start_from, map_location="cpu", weights_only=True)
        learner.load_state_dict(weights["state_dict"], strict=False)
    kept: dict[str, Any] = {"dirpath": run, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor="dev_cider", mode="max", **kept)
    newest = ModelCheckpoint(filename="last", **kept)
    average = WeightAveraging(avg_fn=moving_average(recipe.fit.ema_decay))
    trainer = lightning.Trainer(
        accelerator="auto",
        max_epochs=recipe.fit.epochs,
        precision=recipe.fit.precision,  # type: ignore[arg-type]
        gradient_clip_val=recipe.fit.clip_norm,
        logger=CSVLogger(run, name="", version=""),
        callbacks=[average, best, newest, Pictures(run, dev)],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.|torch\.optim")
        trainer.fit(learner, ckpt_path=str(last) if resume and last.exists() else None)
    return run / "best.ckpt"
