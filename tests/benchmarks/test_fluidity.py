"""The fluidity-index, by its definition."""

from __future__ import annotations

import pytest

from benchmarks.fluidity import fluidity

TABLE = [
    ("nothing was expected", [], 1.0),
    ("all in time", [(0.2, 0.3), (0.02, 0.03)], 1.0),
    ("early chunks earn slack for late ones", [(0.2, 0.3), (0.12, 0.03)], 1.0),
    ("one deadline missed", [(0.3, 0.3), (0.05, 0.03)], 1 - 1 / 2),
    ("a long gap misses several", [(0.3, 0.3), (0.125, 0.03)], 1 - 4 / 5),
    ("slack is gone after a miss", [(0.0, 0.3), (0.4, 0.03), (0.04, 0.03)], 1 - 4 / 5),
]


@pytest.mark.parametrize(("what", "gaps", "index"), TABLE, ids=[row[0] for row in TABLE])
def test_fluidity(what: str, gaps: list[tuple[float, float]], index: float) -> None:
    assert fluidity(gaps, 0.03) == pytest.approx(index)
