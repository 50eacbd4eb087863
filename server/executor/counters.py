"""Device-wide counters. Owner: the executor thread; other threads read them for metrics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from pipelines.contract import Batch
from server.executor.gaps import Gaps

KEPT = 256


@dataclass(slots=True)
class Counters:
    """Since the start of the process; swaps: evictions that moved something to the host; busy_s is time on
    the device."""

    preemptions: int = 0
    evictions: int = 0
    swaps: int = 0
    slices: int = 0
    busy_s: float = 0.0
    gaps: Gaps = field(default_factory=Gaps)
    _errors: dict[str, deque[float]] = field(default_factory=dict)

    def saw_cost(self, batch: Batch, predicted_ms: float, device_ms: float) -> None:
        """How far a prediction was off."""
        if device_ms > 0:
            kept = self._errors.setdefault(f"{batch.pipeline}/{batch.kind}", deque(maxlen=KEPT))
            kept.append(abs(predicted_ms - device_ms) / device_ms)

    def cost_errors(self) -> dict[str, float]:
        """Median relative error of the last predictions, by pipeline/kind of slice."""
        return {name: median(tuple(kept)) for name, kept in list(self._errors.items()) if kept}
