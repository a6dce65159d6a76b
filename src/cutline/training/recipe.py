"""A training recipe: all options of a run, as one TOML file."""

from __future__ import annotations

import codecs
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cutline.data import Collection, Example
from cutline.errors import RecipeError
from cutline.run_log import read_recipe
from cutline.text import AUTO, CLEAN_UPS
from cutline.training.decoders import DECODERS, DecoderOptions
from cutline.training.encoders import EncoderOptions

_FOLDER = Path(__file__).parents[1] / "recipes"

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("encoder.views", "decoder.width"), (1, math.inf)),
    **dict.fromkeys(("decoder.embedding", "decoder.heads", "decoder.layers"), (1, math.inf)),
    **dict.fromkeys(("fit.epochs", "fit.batch_images", "fit.captions_per_image"), (1, math.inf)),
    **dict.fromkeys(("fit.learning_rate", "fit.encoder_learning_rate"), (0, math.inf)),
    **dict.fromkeys(("fit.max_seconds", "fit.distillation_weight"), (0, math.inf)),
    **dict.fromkeys(("decoder.dropout", "decoder.word_dropout", "fit.ema_decay"), (0, 1)),
    **dict.fromkeys(("fit.label_smoothing", "fit.scheduled_sampling"), (0, 1)),
    **dict.fromkeys(("encoder.drop_path", "encoder.colour", "fit.final_rate"), (0, 1)),
    "encoder.min_area": (0.05, 1),
    "encoder.cut": (0, 7),
    "data.max_tokens": (0, math.inf),
    "fit.dev_beam": (1, math.inf),
    "fit.samples": (2, math.inf),
}

AuthorWeight = float | tuple[float, ...]


@dataclass(frozen=True)
class DataOptions:
    """The training data.

    Attributes:
        train: splits to learn from; only the first one must exist.
        dev: the split to evaluate on after each epoch.
        sources: paths of the data, as `cutline data check` reads them; --data replaces them.
        weights: how often an image of each source is drawn in an epoch, on average; () is 1 each.
        written_by: weights of captions by their author; 0 leaves them out, and authors that are
            not named have 1. A list gives the weights of an author's first, second ... caption of
            each image; further ones have its last weight.
        clean_up: a name of `text.CLEAN_UPS`; "auto" selects one that keeps the captions' letters.
        min_count: how often a word must occur to be learnt; of subwords, how often two must meet.
        top_k: most words or subwords, including the four special ones; 0 is no limit.
        subwords: whether the vocabulary consists of subwords instead of words.
        max_tokens: longer captions are cut in training; 0 selects the limit that 99 % of the
            training captions keep.
        made_up: number of synthetic images of coloured shapes if there is no data; 0 for none.
    """

    train: tuple[str, ...] = ("train", "rest")
    dev: str = "dev"
    sources: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    written_by: Mapping[str, AuthorWeight] = field(default_factory=dict)
    clean_up: str = AUTO
    min_count: int = 5
    top_k: int = 0
    subwords: bool = False
    max_tokens: int = 0
    made_up: int = 0

    def examples(self, collection: Collection) -> tuple[Example, ...]:
        """The training examples: the splits of `train` that exist.

        Raises:
            DataError: the first one does not.
        """
        first, *others = self.train
        return collection.split(first, *(name for name in others if name in collection.splits))

    def caption_weights(self, example: Example) -> list[float]:
        """The weight of each caption of an image, by its author."""
        authors = example.written_by or ("",) * len(example.captions)
        counts: dict[str, int] = {}
        weights = []
        for author in authors:
            position = counts.get(author, 0)
            counts[author] = position + 1
            weight = self.written_by.get(author, 1.0)
            if isinstance(weight, tuple):
                weight = weight[min(position, len(weight) - 1)] if weight else 0.0
            weights.append(float(weight))
        return weights


@dataclass(frozen=True)
class FitOptions:
    """The optimisation.

    Attributes:
        objective: "cross-entropy", or "self-critical" (Rennie et al., 2017, with the mean of the
            other samples as the baseline: Luo, 2020).
        start_from: a bundle's name or folder, a run, or a checkpoint, whose architecture, words
            and weights are taken; new words are added to its vocabulary.
        vectors: a text file of word vectors (`word x1 x2 ...`, as GloVe's) for the embedding; not
            with `start_from`.
        epochs: passes over the images; no limit if there is a time budget.
        max_seconds: time budget for the training steps, without validation; 0 is none. After some
            timed steps it is converted once into a number of steps, which the checkpoint stores.
        batch_images: images per step, over all processes together.
        captions_per_image: captions drawn of each.
        learning_rate: of the decoder, at its highest.
        encoder_learning_rate: of the trained stages of a Lite backbone; 0 freezes them.
        weight_decay: of AdamW.
        schedule: "cosine" towards `final_rate`; "plateau", which multiplies by a tenth after
            `plateau` epochs without progress; or "constant".
        final_rate: the share of the learning rate that the cosine ends with.
        plateau: for that schedule.
        warmup_steps: steps until the highest rate, but for the schedule "plateau".
        patience: epochs without progress after which training ends; 0 never ends it early.
        monitor: progress is a higher "dev_cider" or a lower "dev_loss"; the best epoch is kept.
        dev_beam: beam size when the dev split is captioned after an epoch.
        label_smoothing: share of a target that is spread over all words.
        scheduled_sampling: probability that a word is replaced by the decoder's own, reached
            linearly by the last epoch (Bengio et al., 2015); not with hard attention.
        attention_weight: of the doubly stochastic penalty (Xu et al., 2015, eq. 14).
        reinforce_weight: of hard attention's REINFORCE term (eq. 12).
        entropy_weight: of hard attention's entropy (eq. 12).
        concept_weight: of a loss that predicts the captions' words from the mean feature.
        distillation_weight: of a loss that keeps the ImageNet labels of the untouched backbone,
            predicted from the mean feature, so that one encoder pass serves captions and labels.
        ema_decay: of the moving average of the weights that is kept; 0 keeps the weights.
        clip_norm: gradients are scaled down to this norm.
        samples: captions sampled per image in self-critical training.
        cross_entropy_weight: of the cross-entropy in self-critical training.
        reward_end: whether the end of a caption counts as a word in the reward, so that captions
            are not cut short in the middle.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        seed: of everything random.
    """

    objective: str = "cross-entropy"
    start_from: str = ""
    vectors: str = ""
    epochs: int = 20
    max_seconds: float = 0.0
    batch_images: int = 16
    captions_per_image: int = 5
    learning_rate: float = 5e-4
    encoder_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    schedule: str = "cosine"
    final_rate: float = 0.0
    plateau: int = 2
    warmup_steps: int = 400
    patience: int = 0
    monitor: str = "dev_cider"
    dev_beam: int = 3
    label_smoothing: float = 0.0
    scheduled_sampling: float = 0.0
    attention_weight: float = 0.0
    reinforce_weight: float = 1.0
    entropy_weight: float = 0.01
    concept_weight: float = 0.0
    distillation_weight: float = 0.0
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    samples: int = 5
    cross_entropy_weight: float = 0.1
    reward_end: bool = False
    precision: str = "32-true"
    seed: int = 1


@dataclass(frozen=True)
class Recipe:
    """All options of one training run."""

    name: str
    data: DataOptions = field(default_factory=DataOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    decoder: DecoderOptions = field(default_factory=DecoderOptions)
    fit: FitOptions = field(default_factory=FitOptions)

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """A recipe from TOML in UTF-8, or UTF-16 with a byte order mark; named after its file.

        Raises:
            RecipeError: the file is unreadable, or names an unknown option.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
            utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            tables = tomllib.loads(content.decode("utf-16" if utf16 else "utf-8-sig"))
        except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(
                f"got unreadable recipe {path}: {error}; expected TOML in UTF-8"
            ) from error
        return cls.from_dict({"name": path.stem, **tables})

    @classmethod
    def find(cls, name: str) -> Recipe:
        """A recipe by its path, or one that comes with Cutline by its name.

        Raises:
            RecipeError: there is none, or it is unreadable.
        """
        if name.endswith(".toml"):
            return cls.read(name)
        known = {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}
        if name not in known:
            raise RecipeError(f"got recipe {name!r}; expected FILE.toml or {', '.join(known)}")
        return cls.read(known[name])

    @classmethod
    def of_run(cls, run: Path) -> Recipe:
        """The recipe of a run.

        Raises:
            RecipeError: there is no run in that folder, or its recipe is damaged.
        """
        return cls.from_dict(read_recipe(run))

    @classmethod
    def from_dict(cls, tables: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; missing options have their defaults.

        Raises:
            RecipeError: an option is unknown or of the wrong type.
        """
        kinds = {
            "data": DataOptions,
            "encoder": EncoderOptions,
            "decoder": DecoderOptions,
            "fit": FitOptions,
        }
        parts: dict[str, Any] = {"name": str(tables.get("name", "unnamed"))}
        for name, options in tables.items():
            if name == "name":
                continue
            if name not in kinds or not isinstance(options, dict):
                raise RecipeError(f"got table {name!r}; expected {', '.join(kinds)}")
            parts[name] = kinds[name](**_values(name, kinds[name](), options))
        return cls(**parts)

    def differences(self, other: Recipe) -> list[str]:
        """The options that differ, as `fit.epochs 10 instead of 20`."""
        lines = []
        for table in ("data", "encoder", "decoder", "fit"):
            mine, theirs = getattr(self, table), getattr(other, table)
            for each in fields(mine):
                a, b = getattr(mine, each.name), getattr(theirs, each.name)
                if a != b:
                    lines.append(f"{table}.{each.name} {_shown(a)} instead of {_shown(b)}")
        return lines

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            RecipeError: an option has an unknown value, or options contradict each other.
        """
        choices: dict[str, tuple[str, Iterable[str]]] = {
            "data.clean_up": (self.data.clean_up, (AUTO, *CLEAN_UPS)),
            "decoder.kind": (self.decoder.kind, DECODERS),
            "encoder.features": (self.encoder.features, ("grid", "pooled", "regions", "box")),
            "encoder.input": (self.encoder.input, ("features", "pixels")),
            "fit.objective": (self.fit.objective, ("cross-entropy", "self-critical")),
            "fit.schedule": (self.fit.schedule, ("cosine", "plateau", "constant")),
            "fit.monitor": (self.fit.monitor, ("dev_cider", "dev_loss")),
            "fit.precision": (self.fit.precision, ("32-true", "bf16-mixed", "16-mixed")),
        }
        for name, (value, valid) in choices.items():
            if value not in valid:
                raise RecipeError(f"got {name} {value!r}; expected one of {', '.join(valid)}")
        for name, (least, most) in _RANGES.items():
            table, _, option = name.partition(".")
            number = getattr(getattr(self, table), option)
            if not least <= number <= most:
                expected = f"{least} to {most}" if most < math.inf else f"at least {least}"
                raise RecipeError(f"got {name} {number}; expected {expected}")
        if self.encoder.features in ("regions", "box") and self.encoder.views > 1:
            raise RecipeError(
                f"got {self.encoder.views} views of regions; expected encoder.views = 1"
            )
        if self.decoder.kind == "hard-attention" and self.fit.scheduled_sampling:
            raise RecipeError("got fit.scheduled_sampling with hard attention; expected 0")
        if self.encoder.input == "pixels" and not self.encoder.tunable:
            raise RecipeError(
                f"got encoder.input 'pixels' with {self.encoder.backbone}; expected an "
                "efficientnet_lite backbone with its own weights"
            )
        if self.fit.distillation_weight and not self.encoder.tunable:
            raise RecipeError(
                f"got fit.distillation_weight with {self.encoder.backbone}, which has no ImageNet "
                "labels here; expected 0"
            )
        if any(weight < 0 for weight in self.data.weights):
            raise RecipeError(f"got data.weights {list(self.data.weights)}; expected at least 0")
        if self.fit.start_from and self.fit.vectors:
            raise RecipeError("got fit.vectors and fit.start_from; expected one of them")

    def to_dict(self) -> dict[str, Any]:
        """Every option with its value, in JSON's types."""
        return asdict(self)

    def with_fit(self, **options: Any) -> Recipe:
        """The same recipe with other options of `fit`."""
        return replace(self, fit=replace(self.fit, **options))


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)


def _values(table: str, defaults: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a table, checked against the types of the defaults."""
    values: dict[str, Any] = {}
    names = [each.name for each in fields(defaults)]
    for option, value in options.items():
        if option not in names:
            raise RecipeError(f"got {table}.{option}; expected one of {', '.join(names)}")
        default = getattr(defaults, option)
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(default, Mapping):
            value = _author_weights(f"{table}.{option}", value)
        if option in ("weights", "sources") and isinstance(value, tuple):
            kind = (int, float) if option == "weights" else str
            if not all(isinstance(v, kind) and not isinstance(v, bool) for v in value):
                like = "[1.0, 0.5]" if option == "weights" else '["photos.csv"]'
                raise RecipeError(f"got {table}.{option} {list(value)}; expected such as {like}")
        like_float = type(default) is float and type(value) is int
        same = type(value) is type(default) or isinstance(default, Mapping)
        if not same and not like_float:
            like = json.dumps(default)
            raise RecipeError(f"got {table}.{option} {value!r}; expected such as {like}")
        values[option] = value
    return values


def _author_weights(option: str, value: Any) -> dict[str, AuthorWeight]:
    like = f"expected such as {option} = {{ person = 1.0, model = [1.0, 0.3, 0.0] }}"
    if not isinstance(value, Mapping):
        raise RecipeError(f"got {option} {value!r}; {like}")
    weights: dict[str, AuthorWeight] = {}
    for author, weight in value.items():
        each = weight if isinstance(weight, (list, tuple)) else [weight]
        if not each or not all(type(w) in (int, float) and 0 <= w < math.inf for w in each):
            raise RecipeError(f"got {option} {author} = {weight!r}; {like}")
        weights[author] = tuple(map(float, each)) if each is weight else float(weight)
    return weights
