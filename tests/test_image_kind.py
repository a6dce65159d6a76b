from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cutline.errors import BundleError
from cutline.image_kind import PHOTOGRAPH, KindClassifier

CLASSIFIER = KindClassifier(
    (PHOTOGRAPH, "chart"),
    np.array([[1, -1], [0, 0], [-1, 1]], np.float32),
    np.array([0.5, 0], np.float32),
)


def test_the_most_probable_kind_has_its_probability() -> None:
    kind = CLASSIFIER.classify(np.array([0, 5, 1], np.float32))
    assert kind.name == "chart"
    assert kind.probability == pytest.approx(1 / (1 + np.exp(0.5 - 2)))


def test_a_classifier_is_saved_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        CLASSIFIER.write(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = KindClassifier.read(tmp_path / "a.npz")
    assert read.names == CLASSIFIER.names
    np.testing.assert_array_equal(read.weight, CLASSIFIER.weight)


@pytest.mark.parametrize(
    ("names", "weight", "message"),
    [
        (("chart", "map"), np.zeros((3, 2)), "expected photograph"),
        ((PHOTOGRAPH, "map"), np.zeros((3, 5)), r"got 2 names, weight \(3, 5\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, names: tuple[str, ...], weight: np.ndarray, message: str
) -> None:
    KindClassifier(names, weight, np.zeros(2, np.float32)).write(tmp_path / "kinds.npz")
    with pytest.raises(BundleError, match=message):
        KindClassifier.read(tmp_path / "kinds.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"kinds\.npz: "):
        KindClassifier.read(tmp_path / "kinds.npz")
