"""What a slice costs by how many tokens it drafts, measured online.

For each number of rows, steps of drafted tokens keep a moving time. What was not measured lies between its
neighbours; beyond the last, up to about twice as far, a token is taken to cost what one more row costs (both
are one token more in the same products), and little where only one number of rows is known, so that it is
tried and then known. Few measurements count for less than that. What was not seen for long is forgotten and
tried again. How slow the device is just now
(`level`) is taken out of what is kept: sizes are compared, and each was seen at another moment.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
FORGOTTEN = 400

_UNTRIED = 0.01
# So many measurements count as much as what a row costs.
_TRUST = 2
_FIRST = 8
_WINDOW = 21
_LEVEL_WEIGHT = 0.25


@dataclass(slots=True)
class _Step:
    """The last times (ms) with about so many drafted tokens, and when that was (slices)."""

    times: list[float] = field(default_factory=list)
    last: int = 0

    def median(self) -> float:
        return sorted(self.times)[len(self.times) // 2]


@dataclass(slots=True)
class _Rows:
    """What is known for one number of rows. Non-decreasing times: more tokens never take less."""

    steps: dict[int, _Step] = field(default_factory=dict)
    slices: int = 0
    curve: list[tuple[int, float]] | None = None


class VerifyCost:
    """Owner: the executor thread."""

    def __init__(self) -> None:
        self._rows: dict[int, _Rows] = {}
        self._level = 1.0

    def observe(self, rows: int, drafted: int, ms: float) -> None:
        """A slice of `rows` single tokens and `drafted` more has taken so long."""
        known = self._rows.setdefault(bucket(rows), _Rows())
        known.slices += 1
        step = known.steps.setdefault(_step(drafted), _Step())
        if step.times:
            ratio = min(4.0, max(0.25, ms / step.median()))
            self._level += _LEVEL_WEIGHT * (ratio - self._level)
        step.times = [*step.times[1 - _WINDOW :], ms / self._level]
        step.last = known.slices
        known.curve = None

    def predict(self, rows: int) -> Callable[[int], float] | None:
        """Milliseconds by drafted tokens; None before so many rows have been measured at all. Where that was
        with drafts only, plain decoding comes next: without it nothing could be compared."""
        known = self._rows.get(bucket(rows))
        if known is None:
            return None
        if 0 not in known.steps:
            return lambda drafted: math.inf if drafted else 1.0
        each_ms = self._row_ms(bucket(rows))
        if known.curve is None:
            known.curve = _curve(known, each_ms)
        curve, level = known.curve, self._level

        def cost_ms(drafted: int) -> float:
            place = bisect_left(curve, (drafted, 0.0))
            if place == len(curve):
                last, ms = curve[-1]
                if drafted > 2 * last + _FIRST:
                    return math.inf
                return level * (ms + (drafted - last) * (ms * _UNTRIED if each_ms is None else each_ms))
            right, right_ms = curve[place]
            if right == drafted:
                return level * right_ms
            left, left_ms = curve[place - 1]
            return level * (left_ms + (right_ms - left_ms) * (drafted - left) / (right - left))

        return cost_ms

    def _row_ms(self, rows: int) -> float | None:
        """What one row more or less costs near so many, None where nothing is known of another number."""
        others = [other for other, known in self._rows.items() if other != rows and 0 in known.steps]
        if not others:
            return None
        other = min(others) if min(others) < rows else max(others)
        ms = self._rows[rows].steps[0].median() - self._rows[other].steps[0].median()
        return max(0.0, ms / (rows - other))


def _curve(known: _Rows, each_ms: float | None) -> list[tuple[int, float]]:
    plain_ms = known.steps[0].median()

    def time_ms(number: int, step: _Step) -> float:
        if number == 0 or each_ms is None:
            return step.median()
        seen = len(step.times)
        return (seen * step.median() + _TRUST * (plain_ms + number * each_ms)) / (seen + _TRUST)

    found = [
        (number, time_ms(number, step))
        for number, step in sorted(known.steps.items())
        if number == 0 or known.slices - step.last <= FORGOTTEN
    ]
    lowest = float("inf")
    for place in range(len(found) - 1, -1, -1):
        lowest = min(lowest, found[place][1])
        found[place] = (found[place][0], lowest)
    return found


def _step(drafted: int) -> int:
    return STEPS[min(bisect_left(STEPS, drafted), len(STEPS) - 1)]


def bucket(rows: int) -> int:
    """Exact up to four rows, then in steps of a quarter of a power of two."""
    if rows <= 4:
        return rows
    grain = 1 << (rows.bit_length() - 3)
    return -(-rows // grain) * grain
