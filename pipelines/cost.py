"""Online cost model of one pipeline: device time of a slice by its kind and size.

For each kind there is one typical point (units, milliseconds) for every power of two of units, a median of
the slices seen there; between points time is linear, so that what a slice costs whatever its size is not
scaled with it. `level` follows how slow the device is just now (cores are shared, clocks change) and is
taken out of what the points keep; the
spread of what was observed around the prediction gives the p90. All sorting is done when a slice is
observed, and then only of what it changed: an estimate takes a microsecond, since a plan asks for many.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

from pipelines.contract import Batch, Estimate

WINDOW = 32
SPREAD_WINDOW = 64
LEVEL_WEIGHT = 0.1
UNKNOWN = Estimate(median_ms=5.0, p90_ms=20.0)


class CostModel:
    """Median and p90 of what a slice will take. Owner: the executor thread."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def estimate(self, batch: Batch) -> Estimate:
        """Predicted milliseconds for the batch, UNKNOWN before the first of its kind."""
        kind = self._kinds.get(batch.kind)
        return UNKNOWN if kind is None else kind.estimate(batch.units)

    def observe(self, batch: Batch, device_ms: float) -> None:
        """A slice has completed."""
        self._kinds.setdefault(batch.kind, _Kind()).observe(max(batch.units, 1e-9), device_ms)


class _Sorted:
    """The last `most` numbers, kept in order."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []
        self.median = 0.0

    def add(self, number: float) -> None:
        """In place of the oldest, where there are enough."""
        ordered = self._ordered
        if len(ordered) == self._most:
            del ordered[bisect_left(ordered, self._latest.popleft())]
        self._latest.append(number)
        insort(ordered, number)
        half = len(ordered) // 2
        self.median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

    def at(self, share: float) -> float:
        """The number below which `share` of them lie."""
        return self._ordered[int(len(self._ordered) * share)]


@dataclass(frozen=True, slots=True)
class _Point:
    """What was seen of one power of two of units."""

    units: _Sorted
    ms: _Sorted


class _Kind:
    """One kind of slice."""

    def __init__(self) -> None:
        self._points: dict[int, _Point] = {}
        self._units: list[float] = []
        self._ms: list[float] = []
        self._level = 1.0
        self._spread = _Sorted(SPREAD_WINDOW)
        self._p90 = 1.0

    def estimate(self, units: float) -> Estimate:
        median_ms = self._typical(units) * self._level
        return Estimate(median_ms, median_ms * self._p90)

    def observe(self, units: float, ms: float) -> None:
        bucket = max(0, math.ceil(math.log2(max(units, 1.0))))
        point = self._points.get(bucket)
        if point is None:
            point = self._points[bucket] = _Point(_Sorted(WINDOW), _Sorted(WINDOW))
        else:
            ratio = min(4.0, max(0.25, ms / max(self._typical(units), 1e-9)))
            self._spread.add(ratio / self._level)
            self._level += LEVEL_WEIGHT * (ratio - self._level)
            self._p90 = max(1.0, self._spread.at(0.9))
        point.units.add(units)
        point.ms.add(ms / self._level)
        points = sorted((each.units.median, each.ms.median) for each in self._points.values())
        self._units, self._ms = (list(column) for column in zip(*points, strict=True))

    def _typical(self, units: float) -> float:
        """On the line between the two nearest points; outside of them in proportion to the nearest."""
        right = bisect_left(self._units, units)
        if right == 0:
            return self._ms[0] * units / self._units[0]
        left = right - 1
        if right == len(self._units):
            return self._ms[left] * units / self._units[left]
        share = (units - self._units[left]) / (self._units[right] - self._units[left])
        return self._ms[left] + share * (self._ms[right] - self._ms[left])
