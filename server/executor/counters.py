"""Device-wide counters. Owner: the executor thread; other threads read them for metrics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from pipelines.contract import Batch
from server.executor.gaps import Gaps

KEPT = 256


@dataclass(slots=True)
class Spent:
    """On the committed slices of one kind: device time, how many there were, their rows in all."""

    ms: float = 0.0
    slices: int = 0
    rows: int = 0


@dataclass(slots=True)
class Counters:
    """Since the start of the process; swaps: evictions that moved something to the host; busy_s is time on
    the device; spent: by pipeline/kind of slice."""

    preemptions: int = 0
    evictions: int = 0
    swaps: int = 0
    slices: int = 0
    busy_s: float = 0.0
    gaps: Gaps = field(default_factory=Gaps)
    spent: dict[str, Spent] = field(default_factory=dict)
    _errors: dict[str, deque[float]] = field(default_factory=dict)

    def committed(self, batch: Batch, predicted_ms: float, device_ms: float) -> None:
        """What a slice has cost, and how far the prediction was off."""
        kind = f"{batch.pipeline}/{batch.kind}"
        spent = self.spent.setdefault(kind, Spent())
        spent.ms += device_ms
        spent.slices += 1
        spent.rows += len(batch.rows)
        self.slices += 1
        if device_ms > 0:
            kept = self._errors.setdefault(kind, deque(maxlen=KEPT))
            kept.append(abs(predicted_ms - device_ms) / device_ms)

    def cost_errors(self) -> dict[str, float]:
        """Median relative error of the last predictions, by pipeline/kind of slice."""
        return {name: median(tuple(kept)) for name, kept in list(self._errors.items()) if kept}
