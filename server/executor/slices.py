"""A slice on the device: one run of a batch, from plan to commit, with its suspensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.contract import Batch, Emission, Job, Pipeline
from server.executor.scheduler import Running, Slot


@dataclass(slots=True, eq=False)
class Slice:
    """Owner: the executor thread. `steps` is the pipeline's generator; its frame is the suspended state."""

    slot: Slot
    batch: Batch
    pipeline: Pipeline
    steps: Iterator[Emission | None]
    device_ms: float = 0.0

    @property
    def rows(self) -> tuple[Job, ...]:
        return self.batch.rows

    @property
    def live(self) -> bool:
        """Whether any row is still wanted."""
        return any(not job.cancelled for job in self.batch.rows)

    def running(self) -> Running:
        """As the scheduler sees it."""
        expected = self.pipeline.estimate(self.batch).median_ms
        return Running(self.slot, self.batch.rows, max(0.0, expected - self.device_ms))

    def close(self) -> None:
        """Fall back to the last commit."""
        close = getattr(self.steps, "close", None)
        if close is not None:
            close()
