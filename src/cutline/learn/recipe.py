"""A training recipe: everything that decides what a run learns, as one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cutline.errors import RecipeError
from cutline.learn.decoders import DecoderOptions


@dataclass(frozen=True)
class DataOptions:
    """Which captions are learnt."""

    train: tuple[str, ...] = ("train", "rest")
    dev: str = "dev"
    min_count: int = 5
    max_tokens: int = 18


@dataclass(frozen=True)
class EncoderOptions:
    """What looks at the pictures; stages from `cut` on are trained when their rate is not 0."""

    backbone: str = "efficientnet_lite2"
    cut: int = 5
    views: int = 2


@dataclass(frozen=True)
class FitOptions:
    """How it is learnt.

    `objective` is "cross-entropy" or "self-critical" (Rennie et al., 2017, with the mean of the
    other samples as the baseline: Luo, 2020); `start_from` names a run whose weights come first.
    """

    objective: str = "cross-entropy"
    start_from: str = ""
    epochs: int = 20
    batch_images: int = 16
    captions_per_image: int = 5
    learning_rate: float = 5e-4
    encoder_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_steps: int = 400
    label_smoothing: float = 0.0
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
            valid = [f.name for f in fields(kinds[name])]
            for option in options:
                if option not in valid:
                    raise RecipeError(f"got {name}.{option}; expected one of {', '.join(valid)}")
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
            parts[name] = kinds[name](**values)
        return cls(**parts)

    def to_dict(self) -> dict[str, Any]:
        """Every option with its value, in JSON's types."""
        return asdict(self)
