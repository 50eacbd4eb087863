"""A slice on the device: one run of a batch, from plan to commit, with its suspensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.contract import Batch, Emission, Job, Pipeline
from server.executor.scheduler import Running, Slot


@dataclass(slots=True, eq=False)
class Slice:
    """Owner: the executor thread. `steps` is the pipeline's generator; its frame is the suspended state.

    expected_ms: predicted at plan; device_ms: spent in the stretches so far. Bytes of activations: reserved
    until it ends, held now, peak so far; base: in use on the device when the stretch began.
    """

    slot: Slot
    batch: Batch
    pipeline: Pipeline
    steps: Iterator[Emission | None]
    expected_ms: float
    device_ms: float = 0.0
    reserved: int = 0
    held: int = 0
    base: int = 0
    peak: int = 0

    @property
    def rows(self) -> tuple[Job, ...]:
        return self.batch.rows

    @property
    def live(self) -> bool:
        """Whether any row is still wanted."""
        return any(not job.cancelled for job in self.batch.rows)

    def running(self, since_ms: float = 0.0) -> Running:
        """As the scheduler sees it, `since_ms` into the present stretch."""
        left_ms = self.expected_ms - self.device_ms - since_ms
        batch = self.batch
        return Running(self.slot, batch.rows, max(0.0, left_ms), left_ms < 0, batch.shares)

    def close(self) -> None:
        """Fall back to the last commit."""
        close = getattr(self.steps, "close", None)
        if close is not None:
            close()
