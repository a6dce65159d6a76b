"""The Lightning module: what is trained, its losses, validation and optimiser."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from cutline.evaluation.metrics import CiderD
from cutline.options import SearchOptions
from cutline.preprocess import Transform
from cutline.search import Hypothesis, search
from cutline.text import Vocabulary
from cutline.training.augmentation import augment, normalise
from cutline.training.dataloader import Batch, Split, TrainingBatches, dev_batches
from cutline.training.decoders import HardAttention, TorchStepper, build
from cutline.training.decoders.core import spread
from cutline.training.recipe import Recipe

TIMED_STEPS = 20
"""Steps after which a time budget is converted to a number of steps."""
_UNTIMED_STEPS = 5  # of these; the first ones are slower
_SAMPLE_TOKENS = 20
_END = "</s>"


class Learner(lightning.LightningModule):
    """The trained parts of a captioner, with losses, validation and optimiser.

    Args:
        recipe: what to train and how; `data.max_tokens` is not 0.
        vocabulary: the words to learn.
        train, dev: the images as the trained part takes them, with their captions.
        tail: maps the output of the trunk (B,C,H,W) to the feature grid; it is part of the
            checkpoint even if the views are features (B,N,D) already; None if there is none.
        trunk: the part before the tail, if it is trained or differs from the published backbone.
        labels: maps the mean feature (B,D) to ImageNet logits, if there is distillation.
        transform: the normalisation of pixels.
    """

    def __init__(
        self,
        recipe: Recipe,
        vocabulary: Vocabulary,
        train: Split,
        dev: Split,
        *,
        tail: nn.Module | None = None,
        trunk: nn.Module | None = None,
        labels: nn.Linear | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.vocabulary = recipe, vocabulary
        self.transform = transform or Transform()
        tuned = recipe.fit.encoder_learning_rate > 0
        self.tail = copy.deepcopy(tail or nn.Identity()).requires_grad_(tuned)
        self.tail.to(memory_format=torch.channels_last)
        self.trunk = copy.deepcopy(trunk)
        if self.trunk is not None:
            self.trunk.requires_grad_(tuned and train.pixels)
            self.trunk.to(memory_format=torch.channels_last)
        with torch.no_grad():
            probe = torch.from_numpy(np.array(dev.views[0][:1]))
            width = self.eval().encode(probe).shape[-1]
            self.train()
        self.decoder = build(len(vocabulary), width, recipe.decoder)
        self.concepts = nn.Linear(width, len(vocabulary)) if recipe.fit.concept_weight else None
        self.labels = copy.deepcopy(labels)
        if self.labels is not None:
            self.labels.requires_grad_(recipe.fit.distillation_weight > 0)

        self.train_split, self.dev_split = train, dev
        self.train_captions = [[vocabulary.encode(c) for c in image] for image in train.words]
        self.dev_captions = [[vocabulary.encode(c) for c in image] for image in dev.words]
        self.dev_cider = CiderD([[list(c) for c in image] for image in dev.words])
        self.reward = None
        if recipe.fit.objective == "self-critical":
            self.reward = CiderD(_references(train, [_END] if recipe.fit.reward_end else []))
        self.total_steps = 0
        """Steps of the whole run if it has a time budget; 0 until that is known."""
        self.max_caption_tokens = max(_SAMPLE_TOKENS, recipe.data.max_tokens)

    def encode(self, inputs: Tensor, augmentation: Tensor | None = None) -> Tensor:
        """Pixels (B,S,S,3), the trunk's output (B,C,H,W) or features -> features (B,N,D)."""
        if inputs.dim() == 3:
            return inputs.float()
        if inputs.dtype == torch.uint8:
            if augmentation is None:
                pixels = normalise(inputs, self.transform)
            else:
                pixels = augment(inputs, augmentation, self.transform)
            assert self.trunk is not None
            inputs = self.trunk(pixels.contiguous(memory_format=torch.channels_last))
        grid: Tensor = self.tail(inputs.float().contiguous(memory_format=torch.channels_last))
        regions = grid.flatten(2).transpose(1, 2)  # (B,N,D)
        return regions.mean(1, keepdim=True) if self.recipe.encoder.pooled else regions

    def train_dataloader(self) -> TrainingBatches:  # noqa: D102
        return TrainingBatches(
            self.train_split, self.train_captions, self.recipe, self.current_epoch,
            self.trainer.global_rank, self.trainer.world_size,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[Batch]:  # noqa: D102
        batches = dev_batches(
            self.dev_split, self.dev_captions, self.recipe.data.max_tokens,
            self.trainer.global_rank, self.trainer.world_size,
        )  # fmt: skip
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def on_train_epoch_start(self) -> None:  # noqa: D102
        seed = self.recipe.fit.seed * 100_003 + self.current_epoch
        torch.manual_seed(seed + 7_919 * self.trainer.global_rank)
        self._sums: dict[str, tuple[float, int]] = {}
        self._began = time.perf_counter()

    def on_validation_start(self) -> None:  # noqa: D102
        self._seconds = time.perf_counter() - self._began

    def training_step(self, batch: Batch, _: int) -> Tensor:  # noqa: D102
        fit = self.recipe.fit
        features = self.encode(batch["inputs"], batch.get("augmentation"))
        loss, penalty = self.cross_entropy_step(features, batch["tokens"], batch["weights"])
        loss = loss * batch["share"]
        self._add("train_loss", loss, batch)
        if self.reward is not None:
            policy_loss, reward = self.self_critical(features, batch["images"])
            self._add("reward", reward, batch)
            loss = policy_loss + fit.cross_entropy_weight * loss
        if self.concepts is not None:
            penalty = penalty + fit.concept_weight * self.concept_loss(features, batch["tokens"])
        if self.labels is not None and "teacher" in batch:
            label_loss = self.distillation_loss(features, batch["teacher"])
            self._add("label_loss", label_loss, batch)
            penalty = penalty + fit.distillation_weight * label_loss
        return loss + penalty * batch["share"]

    def _add(self, name: str, value: Tensor, batch: Batch) -> None:
        """Add a value of this batch to its mean over the epoch."""
        images = int(batch["whole"])
        total, weight = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + float(value.detach()) * images, weight + images
        self.log(f"{name}_step", value.detach(), prog_bar=True, logger=False)

    def cross_entropy_step(
        self, features: Tensor, tokens: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing, or scheduled sampling.

        Args:
            features: (B,N,D).
            tokens: (B,K,T).
            weights: (B,K) of the captions; by default 1 each.

        Returns:
            the mean negative log-likelihood per token, nats; the penalties of the recipe.
        """
        fit = self.recipe.fit
        given, targets = tokens[:, :, :-1], tokens[:, :, 1:]
        mask = targets != Vocabulary.pad  # (B,K,T)
        log_probs = None
        rate = self.scheduled_sampling_rate(self.current_epoch)
        if isinstance(self.decoder, HardAttention):
            output, log_probs = self.decoder.explore(features, given)
        elif rate:
            output = self.decoder.unroll(features, given, rate)
        else:
            output = self.decoder(features, given)
        nll = F.cross_entropy(
            self.decoder.logits(output.hidden[mask]).float(), targets[mask], reduction="none",
            label_smoothing=fit.label_smoothing,
        )  # fmt: skip

        penalty = nll.new_zeros(())
        if fit.attention_weight and output.attention is not None:
            total = (output.attention * mask.unsqueeze(-1)).sum(2)  # (B,K,N)
            penalty = fit.attention_weight * (1 - total).square().sum() / mask.sum()
        if isinstance(self.decoder, HardAttention) and log_probs is not None:
            assert output.attention is not None
            likelihood = torch.zeros_like(log_probs).masked_scatter(mask, -nll.detach())
            penalty = penalty + fit.reinforce_weight * self.decoder.reinforce(
                likelihood, log_probs, output.attention, mask, fit.entropy_weight
            )
        if weights is None:
            return nll.mean(), penalty
        token_weights = weights.unsqueeze(-1).expand_as(targets)[mask]
        return (nll * token_weights).sum() / token_weights.sum().clamp(min=1e-6), penalty

    def scheduled_sampling_rate(self, epoch: int) -> float:
        """The probability that a given word is replaced by a sampled one; epochs count from 0."""
        return self.recipe.fit.scheduled_sampling * epoch / max(1, self.recipe.fit.epochs - 1)

    def nll(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of captions.

        Args:
            features: (B,N,D).
            tokens: (B,K,T).

        Returns:
            its sum over all tokens, nats; the number of tokens.
        """
        targets = tokens[:, :, 1:]
        mask = targets != Vocabulary.pad
        logits = self.decoder.logits(self.decoder(features, tokens[:, :, :-1]).hidden[mask])
        return F.cross_entropy(logits.float(), targets[mask], reduction="sum"), mask.sum()

    def self_critical(self, features: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """REINFORCE on CIDEr-D (Rennie et al., 2017, eq. 7).

        The baseline of a sample is the mean reward of the image's other samples (Luo, 2020).

        Args:
            features: (B,N,D).
            images: (B,) numbers of the training images.

        Returns:
            the loss, and the mean reward.
        """
        assert self.reward is not None
        samples = self.recipe.fit.samples
        targets = self.sample(features.detach(), samples)  # (B,S,T)
        ends = self.recipe.fit.reward_end
        rewards = torch.tensor(
            [
                [
                    self.reward.score(
                        self.vocabulary.decode(tokens)
                        + ([_END] if ends and Vocabulary.eos in tokens else []),
                        int(image),
                    )
                    for tokens in rows
                ]
                for image, rows in zip(images, targets.tolist(), strict=True)
            ],
            device=features.device,
        )  # (B,S)
        baseline = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
        bos = torch.full_like(targets[:, :, :1], Vocabulary.bos)
        hidden = self.decoder(features, torch.cat([bos, targets[:, :, :-1]], -1)).hidden
        mask = targets != Vocabulary.pad
        advantage = (rewards - baseline).unsqueeze(-1).expand_as(targets)[mask]
        nll = F.cross_entropy(
            self.decoder.logits(hidden[mask]).float(), targets[mask], reduction="none"
        )
        return (advantage * nll).mean(), rewards.mean()

    @torch.no_grad()
    def sample(self, features: Tensor, samples: int) -> Tensor:
        """Sample captions from the decoder's distribution.

        Args:
            features: (B,N,D).
            samples: S, captions per image.

        Returns:
            token ids (B,S,T), eos last unless cut, pad behind.
        """
        training = self.decoder.training
        self.decoder.eval()
        memory, state = self.decoder.start(features)
        state = spread(state, samples)
        tokens = torch.full(
            (len(features), samples), Vocabulary.bos, dtype=torch.long, device=features.device
        )
        alive = torch.ones_like(tokens, dtype=torch.bool)
        columns = []
        for step in range(self.max_caption_tokens):
            hidden, _, state = self.decoder.advance(tokens, memory, state)
            logits = self.decoder.logits(hidden).float()
            logits[..., list(Vocabulary.unsayable)] = -torch.inf
            if step == 0:
                logits[..., Vocabulary.eos] = -torch.inf
            drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1).view(tokens.shape)
            tokens = torch.where(alive, drawn, torch.full_like(drawn, Vocabulary.pad))
            columns.append(tokens)
            alive = alive & (tokens != Vocabulary.eos)
            if not alive.any():
                break
        self.decoder.train(training)
        return torch.stack(columns, -1)

    def concept_loss(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Binary cross-entropy of the captions' words, predicted from the mean feature.

        Args:
            features: (B,N,D).
            tokens: (B,K,T).

        Returns:
            the sum over the vocabulary, averaged over images.
        """
        assert self.concepts is not None
        used = torch.zeros(len(tokens), len(self.vocabulary), device=features.device)
        used.scatter_(1, tokens.flatten(1), 1.0)
        logits = self.concepts(features.mean(1))
        loss = F.binary_cross_entropy_with_logits(logits[:, 4:], used[:, 4:], reduction="sum")
        return loss / len(tokens)

    def distillation_loss(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Cross-entropy between the predicted labels and the teacher's (Hinton et al., 2015).

        Args:
            features: (B,N,D).
            teacher: (B,1000) logits.

        Returns:
            the mean over images, nats.
        """
        assert self.labels is not None
        return F.cross_entropy(self.labels(features.mean(1)).float(), teacher.float().softmax(-1))

    @torch.no_grad()
    def generate(self, features: Tensor, options: SearchOptions) -> list[list[Hypothesis]]:
        """Captions for features (B,N,D), by `cutline.search`."""
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
        self._generated: dict[int, list[str]] = {}
        self._nll = torch.zeros(2, dtype=torch.float64)  # nats, tokens

    def validation_step(self, batch: Batch, _: int) -> None:  # noqa: D102
        features = self.encode(batch["inputs"])
        nats, tokens = self.nll(features, batch["tokens"])
        self._nll += torch.tensor([float(nats), float(tokens)], dtype=torch.float64)
        options = SearchOptions(
            beam_size=self.recipe.fit.dev_beam, max_tokens=self.max_caption_tokens
        )
        for number, hypotheses in enumerate(self.generate(features, options), int(batch["first"])):
            self._generated[number] = self.vocabulary.decode(hypotheses[0].tokens)

    def on_validation_epoch_end(self) -> None:
        """Gather the captions of all processes and compute the epoch's `figures`."""
        mine = self._generated, self._nll, self._sums
        parts = [mine]
        if self.trainer.world_size > 1:
            parts *= self.trainer.world_size
            torch.distributed.all_gather_object(parts, mine)
        captions = {number: words for part, _, _ in parts for number, words in part.items()}
        self.captions = [captions[number] for number in sorted(captions)]
        nats, tokens = torch.stack([nll for _, nll, _ in parts]).sum(0).tolist()
        self.figures = {
            name: sum(sums[name][0] for _, _, sums in parts) / (len(parts) * weight)
            for name, (_, weight) in self._sums.items()
        } | {
            "dev_loss": nats / tokens,
            "dev_cider": float(
                np.mean([self.dev_cider.score(c, i) for i, c in enumerate(self.captions)])
            ),
            "dev_words": float(len({word for c in self.captions for word in c})),
            "dev_unique": len({tuple(c) for c in self.captions}) / len(self.captions),
            "epoch_s": self._seconds,
            "parameters": float(sum(p.numel() for p in self.parameters() if p.requires_grad)),
        }
        for name, value in self.figures.items():
            self.log(name, value, prog_bar=name in ("train_loss", "dev_loss", "dev_cider"))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:  # noqa: D102
        fit = self.recipe.fit
        encoder = ("tail.", "trunk.")
        tuned = [p for n, p in self.named_parameters() if n.startswith(encoder) and p.requires_grad]
        rest = [p for name, p in self.named_parameters() if not name.startswith(encoder)]
        groups = [{"params": rest, "lr": fit.learning_rate}]
        if tuned:
            groups.append({"params": tuned, "lr": fit.encoder_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=fit.weight_decay)
        if fit.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, "max" if fit.monitor == "dev_cider" else "min", 0.1, fit.plateau
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": fit.monitor},
            }
        planned = 0 if fit.max_seconds else int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.learning_rate_factor(step, self.total_steps or planned)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def learning_rate_factor(self, step: int, total: int) -> float:
        """The share of the highest learning rate at a step, from 0.

        While a time budget is not converted to steps, the rate is as if it were endless, so that a
        resumed run has the same rates.
        """
        fit = self.recipe.fit
        if step < fit.warmup_steps:
            return (step + 1) / fit.warmup_steps
        if fit.schedule == "constant" or (fit.max_seconds and step <= TIMED_STEPS):
            return 1.0
        done = (step - fit.warmup_steps) / max(1, total - fit.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return fit.final_rate + (1 - fit.final_rate) * cosine

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:  # noqa: D102
        checkpoint["total_steps"] = self.total_steps

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:  # noqa: D102
        self.total_steps = int(str(checkpoint.get("total_steps", 0)))


def steps_in_budget(seconds: list[float], done: int, elapsed_s: float, budget_s: float) -> int:
    """How many steps fit into a time budget.

    Args:
        seconds: durations of the steps so far, at least one; the first ones are not typical.
        done: how many steps these were.
        elapsed_s: what they took in all.
        budget_s: the whole budget.
    """
    typical = float(np.median(seconds[_UNTIMED_STEPS:] or seconds))
    return done + max(1, int((budget_s - elapsed_s) / max(typical, 1e-9)))


def _references(split: Split, end: list[str]) -> list[list[list[str]]]:
    """The reference captions of the reward; heavier ones are repeated in proportion."""
    references = []
    for number, image in enumerate(split.words):
        weights = split.caption_weights[number] if split.caption_weights else [1.0] * len(image)
        least = min(weights)
        repeated = [
            [*words, *end]
            for words, weight in zip(image, weights, strict=True)
            for _ in range(max(1, round(weight / least)))
        ]
        references.append(repeated)
    return references


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average of weights whose decay grows from 0.1 in the first steps."""

    def average(mean: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(weight, mean, keep)

    return average
