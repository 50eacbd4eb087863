"""The four ways to share a device that `benchmarks.preemption` compares. Only the policy differs: pipelines,
executor and arrivals are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pipelines.contract import Job
from server.executor.scheduler import Running, Scheduler, Slot, Urgency

NEVER: frozenset[Slot] = frozenset()


class AtSliceEnds(Scheduler):
    """Priorities are asked for at the end of each token, prompt chunk, evaluation and audio chunk."""

    def should_yield(
        self,
        now_s: float,
        running: Running,
        in_quantum: bool,
        suspended: Iterable[Running],
        blocked: frozenset[Slot] = NEVER,
    ) -> bool:
        """Never inside a slice."""
        return False


class AtAdmission(AtSliceEnds):
    """Priorities are asked for when a job is begun; what has begun runs to its end."""

    def urgency(self, job: Job) -> Urgency:
        """Begun jobs first, oldest first."""
        return _by_arrival(job) if job.slices else super().urgency(job)

    def _claim(self, job: Job) -> Urgency:
        return _by_arrival(job) if job.slices else super()._claim(job)


class InOrder(AtSliceEnds):
    """First come, first served, to the end."""

    def urgency(self, job: Job) -> Urgency:
        """By arrival alone."""
        return _by_arrival(job)

    def _claim(self, job: Job) -> Urgency:
        return _by_arrival(job)


def _by_arrival(job: Job) -> Urgency:
    return Urgency(0, False, False, -math.inf, 0.0, job.id)


ARMS: dict[str, type[Scheduler]] = {
    "first come, first served": InOrder,
    "priority admission": AtAdmission,
    "at tokens and steps": AtSliceEnds,
    "at layers and blocks": Scheduler,
}
