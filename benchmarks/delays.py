"""Preemption delay: how long a running slice goes on after a job of a more urgent class has become ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipelines.contract import Job
from pipelines.messages import JobClass
from server.executor.scheduler import Running, Scheduler


def watching(policy: type[Scheduler], clock: Callable[[], float], delays_ms: list[float]) -> type[Scheduler]:
    """The policy, which notes every delay of a REALTIME or INTERACTIVE job that is yet to begin."""

    class Watching(policy):  # type: ignore[misc, valid-type]
        def __init__(self, promised_delay_ms: float) -> None:
            super().__init__(promised_delay_ms)
            self._come: dict[int, tuple[float, Job]] = {}

        def offer(self, job: Job) -> None:
            super().offer(job)
            if job.job_class <= JobClass.INTERACTIVE and not job.slices:
                self._come.setdefault(job.id, (clock(), job))

        def charge(self, running: Running, ms: float, suspended: Iterable[Running]) -> None:
            super().charge(running, ms, suspended)
            now_s, mine = clock(), min(row.job_class for row in running.rows)
            waited = [since_s for since_s, job in self._come.values() if job.job_class < mine]
            delays_ms.extend((now_s - since_s) * 1000 for since_s in waited)
            self._come.clear()

    return Watching
