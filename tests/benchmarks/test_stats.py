"""The statistics that all benchmarks share."""

from __future__ import annotations

import pytest

from benchmarks.stats import machine, paired_ratio, percentile


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([], 0.99) == 0.0


def test_a_paired_ratio_lies_in_its_interval() -> None:
    ratio, low, high = paired_ratio([4.0, 6.0, 8.0, 2.0], [2.0, 3.0, 4.0, 1.0])
    assert ratio == pytest.approx(2.0)
    assert low == pytest.approx(2.0)
    assert high == pytest.approx(2.0)


def test_the_machine_is_told() -> None:
    assert {"cores", "torch", "command"} <= set(machine())
