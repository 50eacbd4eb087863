"""Online cost model of one pipeline: device time per unit of work, by kind of slice.

T(kind, units) is piecewise by powers of two of `units`; each bucket keeps a short window of observed
milliseconds, scaled to the asked units. Cheap (a few microseconds), robust to outliers, needs no fit.
"""

from __future__ import annotations

import math
from collections import deque

from pipelines.contract import Batch, Estimate

WINDOW = 32
UNKNOWN = Estimate(median_ms=5.0, p90_ms=20.0)


class CostModel:
    """Median and p90 of recent slices. Owner: the executor thread."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], deque[tuple[float, float]]] = {}

    def estimate(self, batch: Batch) -> Estimate:
        """Predicted milliseconds for the batch."""
        window = self._nearest(batch.kind, _bucket(batch.units))
        if window is None:
            return UNKNOWN
        scaled = sorted(ms * batch.units / units for ms, units in window)
        return Estimate(scaled[len(scaled) // 2], scaled[min(len(scaled) - 1, int(len(scaled) * 0.9))])

    def observe(self, batch: Batch, device_ms: float) -> None:
        """A slice has completed."""
        key = (batch.kind, _bucket(batch.units))
        self._seen.setdefault(key, deque(maxlen=WINDOW)).append((device_ms, max(batch.units, 1e-9)))

    def _nearest(self, kind: str, bucket: int) -> deque[tuple[float, float]] | None:
        found = [key for key in self._seen if key[0] == kind]
        if not found:
            return None
        return self._seen[min(found, key=lambda key: abs(key[1] - bucket))]


def _bucket(units: float) -> int:
    return max(0, math.ceil(math.log2(max(units, 1.0))))
