"""CPU time between preemption points, the promise that everything else rests on."""

from __future__ import annotations

from collections import deque

from pipelines.contract import Batch

KEPT = 10_000


class Gaps:
    """The last 10,000 gaps of each pipeline and kind of slice, in milliseconds.

    Owner: the executor thread.
    """

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._kinds: dict[tuple[str, str], deque[float]] = {}

    def saw(self, batch: Batch, gap_ms: float) -> None:
        """A gap has ended."""
        kind = (batch.pipeline, batch.kind)
        kept = self._kinds.get(kind)
        if kept is None:
            kept = self._kinds[kind] = deque(maxlen=KEPT)
        kept.append(gap_ms)
        if gap_ms > self.longest_ms:
            self.longest_ms = gap_ms

    def percentile(self, kind: tuple[str, str], share: float) -> float:
        """The `share` (0 to 1) quantile of one kind's gaps, 0.0 where there are none."""
        ordered = sorted(self._kinds.get(kind, ()))
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def kinds(self) -> dict[tuple[str, str], int]:
        """How many gaps are kept, by pipeline and kind of slice."""
        return {kind: len(kept) for kind, kept in self._kinds.items()}
