from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cutline.bundle import DEFAULT
from cutline.caption import CaptionOptions
from cutline.site.decide.alt_text import WordingOptions, calibration

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate", ROOT / "scripts" / "calibrate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_violators_are_pooled(script: ModuleType) -> None:
    scores = np.array([4.0, 1.0, 2.0, 3.0, 5.0])
    fits = np.array([True, False, True, False, True])  # by score: 0 1 0 1 1
    knots, shares = script.isotonic(scores, fits)
    assert knots.tolist() == [1.0, 2.5, 4.5]
    assert shares.tolist() == [1 / 3, 2 / 4, 3 / 4]


def test_a_curve_finds_what_made_the_data(script: ModuleType) -> None:
    random = np.random.default_rng(3)
    scores = random.uniform(-2, 0, 4000)
    truth = 1 / (1 + np.exp(-3 * (scores + 1)))
    fits = random.random(4000) < truth
    knots, shares = script.isotonic(scores, fits)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(shares) >= 0).all()
    assert np.abs(np.interp(scores, knots, shares) - truth).mean() < 0.03
    predicted = script.cross_validated(scores, fits, np.ones(len(scores)))
    assert script.calibration_error(predicted, fits) < 0.05


def test_weights_count_as_that_many_captions(script: ModuleType) -> None:
    scores, fits = np.array([1.0, 2.0, 3.0]), np.array([True, False, True])
    weighted = script.isotonic(scores, fits, np.array([1.0, 2.0, 1.0]))
    repeated = script.isotonic(np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, False, False, True]))
    np.testing.assert_allclose(weighted, repeated)


def test_the_threshold_withholds_at_most_a_fifth_of_each_set(script: ModuleType) -> None:
    confidences = np.linspace(0.0, 1.0, 1001)
    assert script.choose_threshold([confidences]) == 0.2
    assert script.choose_threshold([confidences / 2 + 0.5]) == 0.6
    assert script.choose_threshold([confidences, confidences / 2 + 0.5]) == 0.2


def test_context_goes_up_while_it_pays(script: ModuleType) -> None:
    def table(mixed: list[float], wrong: list[float]) -> list[dict[str, object]]:
        return [
            {"words": words, "cider_d": score}
            for words, scores in (("mixed", mixed), ("wrong", wrong))
            for score in scores
        ]

    assert script.choose_context(table([0, 3, 6, 7, 8], [0, -1, -2, -3, -4])) == 1.0
    assert script.choose_context(table([0, 1, 6, 7, 8], [0, -1, -2, -3, -4])) == 0.0
    assert script.choose_context(table([0, 3, 6, 9, 12], [0, 0, 0, 0, 0])) == 3.0


def test_what_was_measured_is_what_is_shipped() -> None:
    measured = json.loads((ROOT / "docs" / "confidence.json").read_text("utf-8"))
    assert WordingOptions().threshold == measured["threshold"]
    assert CaptionOptions().context_nats == measured["context_nats"]
    assert measured["model"] == DEFAULT
    knots, shares = calibration()[DEFAULT]
    assert knots[0] < knots[-1] < 0
    for each in measured["sets"]:
        assert shares[0] < each["fits"] < shares[-1]
        assert each["suggested"] <= min(each["kept"], each["photographs"])
