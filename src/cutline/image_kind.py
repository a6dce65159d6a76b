"""Image kinds: a linear classifier that tells photographs from screenshots, charts and the like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.errors import BundleError

Floats = NDArray[np.float32]

PHOTOGRAPH = "photograph"
"""The kind that captioners are trained on; every classifier has it."""


@dataclass(frozen=True)
class ImageKind:
    """What kind of image it is, with the classifier's probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class KindClassifier:
    """Multinomial logistic regression on an encoder's embedding.

    Attributes:
        names: the K kinds; `PHOTOGRAPH` is one of them.
        weight: (E, K).
        bias: (K,).
    """

    names: tuple[str, ...]
    weight: Floats
    bias: Floats

    @classmethod
    def read(cls, path: Path) -> KindClassifier:
        """Read a classifier that `write` saved.

        Raises:
            BundleError: the file is unreadable, or its arrays do not fit together.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = tuple(map(str, arrays["names"]))
                weight, bias = arrays["weight"], arrays["bias"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise BundleError(f"{path}: {error}; expected names, weight and bias") from error
        count = len(names)
        if weight.ndim != 2 or weight.shape[1] != count or bias.shape != (count,):
            raise BundleError(
                f"{path}: got {count} names, weight {weight.shape} and bias {bias.shape}; "
                f"expected (E, {count}) and ({count},)"
            )
        if PHOTOGRAPH not in names:
            raise BundleError(f"{path}: got the kinds {', '.join(names)}; expected {PHOTOGRAPH}")
        return cls(names, weight.astype(np.float32), bias.astype(np.float32))

    def write(self, path: Path) -> None:
        """Save as an .npz file; the same classifier gives the same bytes."""
        np.savez(path, names=np.array(self.names), weight=self.weight, bias=self.bias)

    def classify(self, embedding: Floats) -> ImageKind:
        """Return the most probable kind of the image with this embedding (E,)."""
        probabilities = softmax(embedding @ self.weight + self.bias)
        best = int(probabilities.argmax())
        return ImageKind(self.names[best], float(probabilities[best]))


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Turn logits (N,) into probabilities (N,) in float64."""
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    return weights / weights.sum()  # type: ignore[no-any-return]
