"""What a policy does, seen from outside: who has the device, and the preemption delay, which is how long a
running slice goes on after a job of a more urgent class has become ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipelines.contract import Job
from pipelines.messages import JobClass
from server.executor.scheduler import Running, Scheduler


@dataclass(slots=True)
class Watched:
    """used_ms: device time by class of the slice's most urgent row. delays_ms: of REALTIME and INTERACTIVE
    jobs that were yet to begin."""

    used_ms: dict[int, float] = field(default_factory=lambda: dict.fromkeys(map(int, JobClass), 0.0))
    delays_ms: list[float] = field(default_factory=list)


def watching(policy: type[Scheduler], clock: Callable[[], float], seen: Watched) -> type[Scheduler]:
    """The policy, which notes what it does in `seen`."""

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
            seen.used_ms[mine] += ms
            seen.delays_ms.extend((now_s - since_s) * 1000 for since_s in waited)
            self._come.clear()

    return Watching
