"""What is trained, the losses it is trained by, and how it is watched."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from cutline.evaluation.metrics import CiderD
from cutline.options import SearchOptions
from cutline.search import Hypothesis, search
from cutline.text import Vocabulary
from cutline.training.dataloader import Batch, Batches, dev_batches, pad
from cutline.training.decoders import HardAttention, TorchStepper, build
from cutline.training.recipe import Recipe

Words = Sequence[Sequence[Sequence[str]]]
"""Captions as words, by image."""


class Learner(lightning.LightningModule):
    """The trained parts, the top of the encoder and the decoder, with losses and validation.

    Args:
        recipe: what to train and how.
        top: what turns views (I,C,H,W) into a grid; kept with the weights even if they are
            features (I,N,D) already; None if there is no such part.
        vocabulary: the words to learn.
        train, dev: captions as words, by image.
        train_views: by view, what is seen of the training images: (I,C,H,W) or (I,N,D).
        dev_view: the same of the dev images.
    """

    def __init__(
        self,
        recipe: Recipe,
        top: nn.Module | None,
        vocabulary: Vocabulary,
        train: Words,
        dev: Words,
        train_views: Sequence[NDArray[np.float16]],
        dev_view: NDArray[np.float16],
    ) -> None:
        super().__init__()
        self.recipe, self.vocabulary = recipe, vocabulary
        tuned = recipe.fit.encoder_learning_rate > 0
        self.top = copy.deepcopy(top or nn.Identity()).requires_grad_(tuned)
        self.top.to(memory_format=torch.channels_last)
        with torch.no_grad():
            width = self.encode(torch.from_numpy(np.asarray(dev_view[:1]))).shape[-1]
        self.decoder = build(len(vocabulary), width, recipe.decoder)
        self.concepts = nn.Linear(width, len(vocabulary)) if recipe.fit.concept_weight else None

        self.train_views, self.dev_view = train_views, dev_view
        self.train_captions = [[vocabulary.encode(c) for c in image] for image in train]
        self.dev_captions = [[vocabulary.encode(c) for c in image] for image in dev]
        self.dev_cider = CiderD([[list(c) for c in image] for image in dev])
        self.reward = (
            CiderD([[list(c) for c in image] for image in train])
            if recipe.fit.objective == "self-critical"
            else None
        )

    def encode(self, seen: Tensor) -> Tensor:
        """What was seen, (B,C,H,W) or (B,N,D) -> region features (B,N,D)."""
        if seen.dim() == 3:
            return seen.float()
        grid: Tensor = self.top(seen.float().contiguous(memory_format=torch.channels_last))
        regions = grid.flatten(2).transpose(1, 2)  # (B,N,D)
        return (
            regions.mean(1, keepdim=True) if self.recipe.encoder.features == "pooled" else regions
        )

    def train_dataloader(self) -> Batches:  # noqa: D102
        return Batches(
            self.train_views, self.train_captions, self.recipe, self.current_epoch,
            self.trainer.global_rank, self.trainer.world_size,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[Batch]:  # noqa: D102
        batches = dev_batches(
            self.dev_view, self.dev_captions, self.recipe.data.max_tokens,
            self.trainer.global_rank, self.trainer.world_size,
        )  # fmt: skip
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def on_train_epoch_start(self) -> None:  # noqa: D102
        seed = self.recipe.fit.seed * 100_003 + self.current_epoch
        torch.manual_seed(seed + 7_919 * self.trainer.global_rank)
        self._noted: dict[str, tuple[float, int]] = {}
        self._began = time.perf_counter()

    def on_validation_start(self) -> None:  # noqa: D102
        self._seconds = time.perf_counter() - self._began

    def training_step(self, batch: Batch, _: int) -> Tensor:  # noqa: D102
        features = self.encode(batch["seen"])
        loss, penalty = self.teach(features, batch["tokens"])
        loss = loss * batch["share"]
        self._note("train_loss", loss, batch)
        if self.reward is not None:
            advantage, reward = self.self_critical(features, batch["images"])
            self._note("reward", reward, batch)
            loss = advantage + self.recipe.fit.cross_entropy_weight * loss
        if self.concepts is not None:
            penalty = penalty + self.recipe.fit.concept_weight * self.concept_loss(
                features, batch["tokens"]
            )
        return loss + penalty * batch["share"]

    def _note(self, name: str, value: Tensor, batch: Batch) -> None:
        """Count a value of this batch towards its mean over the epoch."""
        images = int(batch["whole"])
        total, weight = self._noted.get(name, (0.0, 0))
        self._noted[name] = total + float(value.detach()) * images, weight + images
        self.log(f"{name}_step", value.detach(), prog_bar=True, logger=False)

    def teach(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing, or scheduled sampling.

        Args:
            features: (B,N,D).
            tokens: (B,K,T).

        Returns:
            the mean negative log-likelihood per token, nats; what the recipe adds to it.
        """
        fit = self.recipe.fit
        given, targets = tokens[:, :, :-1], tokens[:, :, 1:]
        words = targets != Vocabulary.pad  # (B,K,T)
        chances = None
        own = self.own_words(self.current_epoch)
        if isinstance(self.decoder, HardAttention):
            told, chances = self.decoder.explore(features, given)
        else:
            told = (
                self.decoder.unroll(features, given, own) if own else self.decoder(features, given)
            )
        surprise = F.cross_entropy(
            self.decoder.logits(told.hidden[words]).float(), targets[words], reduction="none",
            label_smoothing=fit.label_smoothing,
        )  # fmt: skip

        penalty = surprise.new_zeros(())
        if fit.attention_weight and told.attention is not None:
            looked = (told.attention * words.unsqueeze(-1)).sum(2)  # (B,K,N)
            penalty = fit.attention_weight * (1 - looked).square().sum() / words.sum()
        if isinstance(self.decoder, HardAttention) and chances is not None:
            assert told.attention is not None
            likelihood = torch.zeros_like(chances).masked_scatter(words, -surprise.detach())
            penalty = penalty + fit.reinforce_weight * self.decoder.reinforce(
                likelihood, chances, told.attention, words, fit.entropy_weight
            )
        return surprise.mean(), penalty

    def own_words(self, epoch: int) -> float:
        """The chance of a word of the decoder's own in an epoch, counted from 0."""
        return self.recipe.fit.scheduled_sampling * epoch / max(1, self.recipe.fit.epochs - 1)

    def surprise(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of captions, nats, summed; and of how many tokens."""
        targets = tokens[:, :, 1:]
        words = targets != Vocabulary.pad
        logits = self.decoder.logits(self.decoder(features, tokens[:, :, :-1]).hidden[words])
        return F.cross_entropy(logits.float(), targets[words], reduction="sum"), words.sum()

    def self_critical(self, features: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """REINFORCE on CIDEr-D (Rennie et al., 2017, eq. 7); the loss and the mean reward.

        What a sample is held against is the mean reward of the picture's other samples (Luo, 2020).
        """
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
            ],
            device=features.device,
        )  # (B,S)
        baseline = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
        tokens = pad([[h.tokens for h in hypotheses] for hypotheses in drawn], options.max_tokens)
        tokens = tokens.to(features.device)
        hidden = self.decoder(features, tokens[:, :, :-1]).hidden
        targets = tokens[:, :, 1:]
        told = targets != Vocabulary.pad  # (B,S,T)
        advantage = (rewards - baseline).unsqueeze(-1).expand_as(targets)[told]
        surprise = F.cross_entropy(
            self.decoder.logits(hidden[told]).float(), targets[told], reduction="none"
        )
        return (advantage * surprise).mean(), rewards.mean()

    def concept_loss(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Which words will people use? Binary cross-entropy from the mean feature, summed."""
        assert self.concepts is not None
        said = torch.zeros(len(tokens), len(self.vocabulary), device=features.device)
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
            bos=Vocabulary.bos, eos=Vocabulary.eos, banned=Vocabulary.unsayable,
        )  # fmt: skip
        self.decoder.train(training)
        return found

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self._said: dict[int, list[str]] = {}
        self._surprise = torch.zeros(2, dtype=torch.float64)  # nats, tokens

    def validation_step(self, batch: Batch, _: int) -> None:  # noqa: D102
        features = self.encode(batch["seen"])
        nats, tokens = self.surprise(features, batch["tokens"])
        self._surprise += torch.tensor([float(nats), float(tokens)], dtype=torch.float64)
        found = self.describe(features, SearchOptions(beam_size=self.recipe.fit.dev_beam))
        for number, hypotheses in enumerate(found, int(batch["first"])):
            self._said[number] = self.vocabulary.decode(hypotheses[0].tokens)

    def on_validation_epoch_end(self) -> None:
        """Put the processes' parts together: what was said, and the epoch's `figures`."""
        mine = self._said, self._surprise, self._noted
        parts = [mine]
        if self.trainer.world_size > 1:
            parts *= self.trainer.world_size
            torch.distributed.all_gather_object(parts, mine)
        said = {number: words for part, _, _ in parts for number, words in part.items()}
        self.said = [said[number] for number in sorted(said)]
        nats, tokens = torch.stack([surprise for _, surprise, _ in parts]).sum(0).tolist()
        self.figures = {
            name: sum(noted[name][0] for _, _, noted in parts) / (len(parts) * weight)
            for name, (_, weight) in self._noted.items()
        } | {
            "dev_loss": nats / tokens,
            "dev_cider": float(
                np.mean([self.dev_cider.score(c, i) for i, c in enumerate(self.said)])
            ),
            "dev_words": float(len({word for c in self.said for word in c})),
            "dev_unique": len({tuple(c) for c in self.said}) / len(self.said),
            "epoch_s": self._seconds,
            "parameters": float(sum(p.numel() for p in self.parameters() if p.requires_grad)),
        }
        for name, value in self.figures.items():
            self.log(name, value, prog_bar=name in ("train_loss", "dev_loss", "dev_cider"))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:  # noqa: D102
        fit = self.recipe.fit
        top = [p for p in self.top.parameters() if p.requires_grad]
        rest = [p for name, p in self.named_parameters() if not name.startswith("top.")]
        groups = [{"params": rest, "lr": fit.learning_rate}]
        if top:
            groups.append({"params": top, "lr": fit.encoder_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=fit.weight_decay)
        if fit.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, "max" if fit.monitor == "dev_cider" else "min", 0.1, fit.plateau
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": fit.monitor},
            }
        total = int(self.trainer.estimated_stepping_batches)

        def rate(step: int) -> float:
            if step < fit.warmup_steps:
                return (step + 1) / fit.warmup_steps
            if fit.schedule == "constant":
                return 1.0
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
