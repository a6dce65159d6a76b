"""A training recipe: everything that decides what a run learns, as one TOML file."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cutline.data import Collection, Example
from cutline.errors import RecipeError
from cutline.text import CLEAN_UPS
from cutline.training.decoders import DECODERS, DecoderOptions
from cutline.training.encoders import SIDE_PX

_FOLDER = Path(__file__).parents[1] / "recipes"

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("data.max_tokens", "encoder.views", "decoder.width"), (1, math.inf)),
    **dict.fromkeys(("decoder.embedding", "decoder.heads", "decoder.layers"), (1, math.inf)),
    **dict.fromkeys(("fit.epochs", "fit.batch_images", "fit.captions_per_image"), (1, math.inf)),
    **dict.fromkeys(("fit.learning_rate", "fit.encoder_learning_rate"), (0, math.inf)),
    **dict.fromkeys(("decoder.dropout", "decoder.word_dropout", "fit.ema_decay"), (0, 1)),
    **dict.fromkeys(("fit.label_smoothing", "fit.scheduled_sampling"), (0, 1)),
    "encoder.cut": (0, 7),
    "fit.dev_beam": (1, math.inf),
    "fit.samples": (2, math.inf),
}


@dataclass(frozen=True)
class DataOptions:
    """Which captions are learnt.

    Attributes:
        train: splits to learn from; those that are not there are passed over, but for the first.
        dev: the split to judge by.
        clean_up: a name of `text.CLEAN_UPS`.
        min_count: how often a word must occur to be learnt; of pieces, how often two must meet.
        top_k: how many words or pieces are learnt at most, four marks among them; 0 is no limit.
        subwords: whether pieces of words are learnt instead of words.
        max_tokens: where longer captions are cut.
        made_up: draw so many pictures of coloured shapes where no data is given; 0 draws none.
    """

    train: tuple[str, ...] = ("train", "rest")
    dev: str = "dev"
    clean_up: str = "cutline"
    min_count: int = 5
    top_k: int = 0
    subwords: bool = False
    max_tokens: int = 18
    made_up: int = 0

    def examples(self, collection: Collection) -> tuple[Example, ...]:
        """What is learnt from: the splits of `train` that are there.

        Raises:
            DataError: the first is not.
        """
        first, *others = self.train
        return collection.split(first, *(name for name in others if name in collection.splits))


@dataclass(frozen=True)
class EncoderOptions:
    """What looks at the pictures.

    Attributes:
        backbone: "efficientnet_lite0" to "efficientnet_lite2", whose stages from `cut` on are
            trained if their learning rate is not 0; or any model of timm, which stays frozen.
        features: "grid", a vector for each cell; "pooled", one for the picture; or "regions", read
            from the file that `regions` names.
        cut: how many of a Lite backbone's seven stages are always frozen.
        views: how many views of each picture: plain, mirrored, then random crops; 1 of regions.
        weights: a file with a timm model's weights; "" takes those it is known for.
        side_px: side of the square a timm model sees; 0 is its own.
        regions: a file or folder of detected regions, for features "regions"; "" detects them
            with torchvision's Faster R-CNN.
    """

    backbone: str = "efficientnet_lite2"
    features: str = "grid"
    cut: int = 5
    views: int = 2
    weights: str = ""
    side_px: int = 0
    regions: str = ""

    @property
    def tunable(self) -> bool:
        """Whether it is a Lite backbone as its package has it, in a trunk and a top."""
        return self.backbone in SIDE_PX and self.features != "regions" and not self.weights


@dataclass(frozen=True)
class FitOptions:
    """How it is learnt.

    Attributes:
        objective: "cross-entropy", or "self-critical" (Rennie et al., 2017, with the mean of the
            other samples as the baseline: Luo, 2020).
        start_from: a bundle's name or folder, a run, or a checkpoint, whose architecture, words
            and weights come first; new words are added to its vocabulary.
        vectors: a text file of word vectors (`word x1 x2 ...`, as GloVe's) for the embedding; not
            with `start_from`.
        epochs: how often every picture is seen.
        batch_images: pictures a step, over all processes together.
        captions_per_image: captions drawn of each.
        learning_rate: of the decoder, at its highest.
        encoder_learning_rate: of a Lite backbone's last stages; 0 leaves them as they are.
        weight_decay: of AdamW.
        schedule: "cosine" towards 0; "plateau", which takes a tenth after `plateau` epochs
            without progress; or "constant".
        plateau: for that schedule.
        warmup_steps: steps until the highest rate, but for the schedule "plateau".
        patience: epochs without progress after which training ends; 0 never ends it early.
        monitor: progress is a higher "dev_cider" or a lower "dev_loss"; the best epoch is kept.
        dev_beam: hypotheses kept alive when the dev split is captioned after an epoch.
        label_smoothing: share of a target that goes to all words alike.
        scheduled_sampling: chance of the decoder's own word in place of the given one, reached
            linearly by the last epoch (Bengio et al., 2015); not with hard attention.
        attention_weight: of the doubly stochastic penalty (Xu et al., 2015, eq. 14).
        reinforce_weight: of hard attention's REINFORCE term (eq. 12).
        entropy_weight: of hard attention's entropy (eq. 12).
        concept_weight: of a loss that tells the captions' words from the mean feature.
        ema_decay: of the moving average of the weights that is kept; 0 keeps the weights.
        clip_norm: gradients are scaled down to this norm.
        samples: captions drawn of each picture in self-critical training.
        cross_entropy_weight: what stays of it in self-critical training.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        seed: of everything random.
    """

    objective: str = "cross-entropy"
    start_from: str = ""
    vectors: str = ""
    epochs: int = 20
    batch_images: int = 16
    captions_per_image: int = 5
    learning_rate: float = 5e-4
    encoder_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    schedule: str = "cosine"
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
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    samples: int = 5
    cross_entropy_weight: float = 0.1
    precision: str = "32-true"
    seed: int = 1


@dataclass(frozen=True)
class Recipe:
    """One training run, but for the pictures themselves."""

    name: str
    data: DataOptions = field(default_factory=DataOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    decoder: DecoderOptions = field(default_factory=DecoderOptions)
    fit: FitOptions = field(default_factory=FitOptions)

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """A recipe from TOML; its name is the file's.

        Raises:
            RecipeError: the file is unreadable, or names an option there is not.
        """
        path = Path(path)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"got unreadable recipe {path}: {error}") from error
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
        """What a run was trained by.

        Raises:
            RecipeError: there is no run in that folder.
        """
        record = run / "recipe.json"
        if not record.is_file():
            raise RecipeError(f"got {run} without recipe.json; expected a folder of `train`")
        return cls.from_dict(json.loads(record.read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, tables: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; absent options take their defaults."""
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
            defaults = {f.name: f.default for f in fields(kinds[name])}
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
            for option, value in values.items():
                if option not in defaults:
                    raise RecipeError(f"got {name}.{option}; expected one of {', '.join(defaults)}")
                kind = type(defaults[option])
                if type(value) is not kind and not (kind is float and type(value) is int):
                    like = json.dumps(defaults[option])
                    raise RecipeError(f"got {name}.{option} {value!r}; expected such as {like}")
            parts[name] = kinds[name](**values)
        return cls(**parts)

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            RecipeError: an option has a value there is not.
        """
        choices: dict[str, tuple[str, Iterable[str]]] = {
            "data.clean_up": (self.data.clean_up, CLEAN_UPS),
            "decoder.kind": (self.decoder.kind, DECODERS),
            "encoder.features": (self.encoder.features, ("grid", "pooled", "regions")),
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
        if self.encoder.features == "regions" and self.encoder.views > 1:
            raise RecipeError(
                f"got {self.encoder.views} views of regions; expected encoder.views = 1"
            )
        if self.decoder.kind == "hard-attention" and self.fit.scheduled_sampling:
            raise RecipeError("got fit.scheduled_sampling with hard attention; expected 0")
        if self.fit.start_from and self.fit.vectors:
            raise RecipeError("got fit.vectors and fit.start_from; expected one of them")

    def to_dict(self) -> dict[str, Any]:
        """Every option with its value, in JSON's types."""
        return asdict(self)
