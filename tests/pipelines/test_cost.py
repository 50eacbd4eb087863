"""The cost model: what it predicts after what it has seen."""

from __future__ import annotations

import random
from statistics import median

import pytest

from pipelines.contract import Batch
from pipelines.cost import UNKNOWN, CostModel


def batch(units: float, kind: str = "k") -> Batch:
    return Batch("p", kind, (), units)


def taught(*pairs: tuple[float, float]) -> CostModel:
    model = CostModel()
    for units, ms in pairs:
        model.observe(batch(units), ms)
    return model


def test_nothing_is_known_of_a_kind_before_its_first_slice() -> None:
    model = taught((4, 8.0))
    assert model.estimate(batch(4, "other")) is UNKNOWN
    assert model.estimate(batch(4)).median_ms == 8.0


@pytest.mark.parametrize(
    ("units", "ms"), [(16, 10.0), (24, 14.0), (32, 18.0), (64, 34.0), (8, 5.0), (128, 68.0)]
)
def test_between_points_time_is_linear_and_outside_in_proportion(units: float, ms: float) -> None:
    """2 ms a slice and half a millisecond a unit: the fixed part is not scaled between points."""
    model = taught(*[(n, 2 + n / 2) for n in (16, 32, 64)])
    assert model.estimate(batch(units)).median_ms == pytest.approx(ms)


def test_one_slow_slice_does_not_move_the_median_by_much() -> None:
    model = taught(*[(8, 10.0)] * 30, (8, 500.0))
    assert model.estimate(batch(8)).median_ms < 14


def test_it_follows_a_device_that_becomes_slower() -> None:
    model = taught(*[(units, float(units)) for units in (16, 64) for _ in range(32)])
    for _ in range(24):
        model.observe(batch(16), 32.0)
    assert model.estimate(batch(64)).median_ms == pytest.approx(128.0, rel=0.25)


def test_p90_covers_nine_in_ten_and_the_median_error_is_small() -> None:
    """Costs of a fixed and a proportional part with 10 % noise: the aim is a median error of 15 %."""
    rng = random.Random(1)
    model, errors, covered = CostModel(), [], 0
    for number in range(600):
        units = rng.uniform(8, 400)
        ms = (3 + units / 10) * rng.lognormvariate(0, 0.1)
        found = model.estimate(batch(units))
        model.observe(batch(units), ms)
        if number >= 100:
            errors.append(abs(found.median_ms - ms) / ms)
            covered += ms <= found.p90_ms
    assert median(errors) < 0.1
    assert 0.82 < covered / 500 < 0.97
