"""Which batch runs next, and when the running one gives way. Pure: no threads, no clock of its own.

The specification
  1. Order. Jobs stand by class; work on an uncommitted prompt one class lower and behind every committed
     job there; then the earliest deadline; then the tenant that was served least; then the first to come.
  2. Inheritance. A job is as urgent as the job that consumes its output, a slice as its most urgent row.
  3. Floors. While a class waits, it earns its floor share of the device time that others use. With a
     quantum earned it goes first for one quantum, whatever is more urgent.
  4. Next. The most urgent of the suspended slices and the ready jobs goes first. A pipeline holds at most
     one suspended slice a class: that one is resumed before its pipeline starts another of the class.
  5. Giving way. A running slice gives way at a yield to a more urgent class; within the class only to a
     job of another pipeline whose predicted slack has become negative, with the earlier deadline. Work for
     the running slice's own pipeline waits for its next slice if that is at most a promised delay away.
  6. Pressure. Memory is taken from jobs that cannot run now, the least urgent first, then from the least
     urgent ready job, never from one more urgent than the claimant.

Times are seconds on the caller's clock, costs milliseconds of device time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from typing import NamedTuple

from pipelines.contract import Job
from pipelines.messages import JobClass

FLOORS = {JobClass.REALTIME: 0.20, JobClass.INTERACTIVE: 0.10, JobClass.STANDARD: 0.05, JobClass.BATCH: 0.02}
QUANTA_KEPT = 4.0


class Urgency(NamedTuple):
    """Sorts jobs: the smaller goes first."""

    rank: int
    ahead: bool
    deadline_s: float
    tenant_cost: float
    job_id: int


class Slot(NamedTuple):
    """What a suspended slice occupies: at most one a pipeline and class."""

    pipeline: str
    rank: int


@dataclass(frozen=True, slots=True)
class Running:
    """What the scheduler needs to know of a slice, running or suspended."""

    slot: Slot
    rows: tuple[Job, ...]
    remaining_ms: float
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Plan a slice for the most urgent ready jobs of this pipeline. quantum_ms: give way after that."""

    pipeline: str
    rank: int
    quantum_ms: float = math.inf


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with the suspended slice of this slot."""

    slot: Slot
    quantum_ms: float = math.inf


Decision = Start | Resume | None


class Scheduler:
    """Ready jobs in order, tenants' and classes' accounts, the rules above. Owner: the executor thread."""

    def __init__(self, promised_delay_ms: float) -> None:
        self._delay_ms = promised_delay_ms
        self._typical_ms: dict[str, float] = {}
        self._ready: dict[str, _Queue] = {}
        self._places: dict[int, tuple[_Queue, _Place]] = {}
        self._tenant_cost: dict[str, float] = {}
        self._tenant_jobs: dict[str, int] = {}
        self._earned_ms = dict.fromkeys(JobClass, 0.0)

    # --- order ----------------------------------------------------------------------------------------

    def urgency(self, job: Job) -> Urgency:
        """Rules 1 and 2."""
        rank, deadline = int(job.job_class), job.deadline_s
        consumer = job.consumer
        while consumer is not None:
            rank, deadline = min(rank, int(consumer.job_class)), min(deadline, consumer.deadline_s)
            consumer = consumer.consumer
        if not job.committed:
            rank = min(rank + 1, int(JobClass.BATCH))
        return Urgency(rank, not job.committed, deadline, self._tenant_cost.get(job.tenant, 0.0), job.id)

    def slice_urgency(self, rows: Iterable[Job]) -> Urgency:
        """That of the most urgent row that is not cancelled."""
        return min(self.urgency(job) for job in rows if not job.cancelled)

    def offer(self, job: Job) -> None:
        """The job could run now; also after a change of class, deadline or commitment."""
        self.withdraw(job)
        urgency = self.urgency(job)
        queue = self._ready.setdefault(job.pipeline, _Queue())
        place = _Place(urgency.rank, urgency.ahead, job.tenant, urgency.deadline_s)
        queue.add(place, job)
        self._places[job.id] = (queue, place)

    def withdraw(self, job: Job) -> None:
        """The job cannot run now: parked, waiting for input, in a slice, or gone."""
        found = self._places.pop(job.id, None)
        if found is not None:
            queue, place = found
            queue.remove(place, job)

    def is_ready(self, job: Job) -> bool:
        """Whether the job stands in the queue."""
        return job.id in self._places

    def ready(self, pipeline: str, rank: int = 0) -> Iterator[Job]:
        """The pipeline's ready jobs of this class and below in urgency order, read lazily."""
        queue = self._ready.get(pipeline)
        return queue.jobs(self._tenant_cost, rank) if queue else iter(())

    def __len__(self) -> int:
        return len(self._places)

    # --- what runs ------------------------------------------------------------------------------------

    def decide(self, suspended: Iterable[Running], blocked: frozenset[Slot] = frozenset()) -> Decision:
        """Rule 4, after rule 3. `blocked`: pipelines whose most urgent job of a class has no memory now."""
        waiting = {running.slot: running for running in suspended}
        owed = self._owed(waiting, blocked)
        candidates = self._candidates(waiting, blocked, owed if owed is not None else 0)
        best = min(candidates, key=lambda c: c[0], default=None)
        if best is None:
            return None
        quantum_ms = self._delay_ms / 2 if owed is not None else math.inf
        _, slot = best
        if slot in waiting:
            return Resume(slot, quantum_ms)
        return Start(slot.pipeline, slot.rank, quantum_ms)

    def should_yield(
        self,
        now_s: float,
        running: Running,
        in_quantum: bool,
        suspended: Iterable[Running],
        blocked: frozenset[Slot] = frozenset(),
    ) -> bool:
        """Rule 5. in_quantum: the slice runs on its class's floor and has not used it up."""
        if in_quantum:
            return False
        mine = self.slice_urgency(running.rows)
        for slot, urgency in self._heads(0, blocked):
            if self._beats(now_s, running, mine, slot.pipeline, urgency):
                return True
        return any(
            other.slot != running.slot and self.slice_urgency(other.rows).rank < mine.rank
            for other in suspended
        )

    def _beats(self, now_s: float, running: Running, mine: Urgency, pipeline: str, other: Urgency) -> bool:
        if pipeline == running.slot.pipeline:
            long = running.overdue or running.remaining_ms > self._delay_ms
            return other.rank < mine.rank and long
        if other.rank != mine.rank:
            return other.rank < mine.rank
        if other.ahead or other.deadline_s >= mine.deadline_s:
            return False
        needed_s = (running.remaining_ms + self._typical_ms.get(pipeline, 0.0)) / 1000
        return now_s + needed_s > other.deadline_s

    def _heads(self, rank: int, blocked: frozenset[Slot]) -> Iterator[tuple[Slot, Urgency]]:
        """Each pipeline's most urgent job of class `rank` or below that has memory."""
        for pipeline, queue in self._ready.items():
            for level in queue.ranks():
                if level >= rank and Slot(pipeline, level) not in blocked:
                    yield Slot(pipeline, level), self.urgency(next(queue.jobs(self._tenant_cost, level)))
                    break

    def _candidates(
        self, waiting: dict[Slot, Running], blocked: frozenset[Slot], rank: int
    ) -> Iterator[tuple[Urgency, Slot]]:
        """Everything of class `rank` or below that could go next. A job whose slot is taken lends its
        urgency to the slice that stands there, which has to end first."""
        found = {slot: self.slice_urgency(running.rows) for slot, running in waiting.items()}
        for slot, urgency in self._heads(rank, blocked):
            found[slot] = min(urgency, found.get(slot, urgency))
        return ((urgency, slot) for slot, urgency in found.items() if urgency.rank >= rank)

    # --- floors and fairness ----------------------------------------------------------------------------

    def enter(self, tenant: str) -> None:
        """A job is admitted. A tenant who had none starts level with the least served of the others, so
        that having been away earns nothing (Virtual Token Counter, Sheng et al., 2024)."""
        if tenant not in self._tenant_jobs:
            least = min((self._tenant_cost.get(t, 0.0) for t in self._tenant_jobs), default=0.0)
            self._tenant_cost[tenant] = max(least, self._tenant_cost.get(tenant, 0.0))
        self._tenant_jobs[tenant] = self._tenant_jobs.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """A job is released. When nobody is left, all accounts are settled."""
        self._tenant_jobs[tenant] -= 1
        if not self._tenant_jobs[tenant]:
            del self._tenant_jobs[tenant]
        if not self._tenant_jobs:
            self._tenant_cost.clear()

    def charge(self, running: Running, ms: float, suspended: Iterable[Running]) -> None:
        """`running` has used the device for `ms`: rows' tenants pay, waiting classes earn (rule 3)."""
        live = [job for job in running.rows if not job.cancelled] or list(running.rows)
        for job in live:
            job.served_ms += ms / len(live)
            self._tenant_cost[job.tenant] = self._tenant_cost.get(job.tenant, 0.0) + ms / len(live)
        used = self.slice_urgency(live).rank if any(not j.cancelled for j in live) else running.slot.rank
        waiting = {self.slice_urgency(other.rows).rank for other in suspended if other.slot != running.slot}
        for queue in self._ready.values():
            waiting.update(queue.ranks())
        for job_class in JobClass:
            if job_class == used:
                self._earned_ms[job_class] = max(0.0, self._earned_ms[job_class] - ms)
            elif job_class in waiting:
                earned = self._earned_ms[job_class] + ms * FLOORS[job_class]
                self._earned_ms[job_class] = min(earned, QUANTA_KEPT * self._delay_ms)
            else:
                self._earned_ms[job_class] = 0.0

    def completed(self, pipeline: str, ms: float) -> None:
        """A slice has committed after `ms` on the device: what rule 5 expects of the next one."""
        before = self._typical_ms.get(pipeline, ms)
        self._typical_ms[pipeline] = before + (ms - before) / 8

    def _owed(self, waiting: dict[Slot, Running], blocked: frozenset[Slot]) -> int | None:
        """The class that has earned a quantum and would not go first by itself."""
        ranks = {self.slice_urgency(running.rows).rank for running in waiting.values()}
        for pipeline, queue in self._ready.items():
            ranks.update(level for level in queue.ranks() if Slot(pipeline, level) not in blocked)
        owed = [rank for rank in ranks if self._earned_ms[JobClass(rank)] >= self._delay_ms]
        return max(owed) if owed and max(owed) > min(ranks) else None

    # --- pressure ---------------------------------------------------------------------------------------

    def victim(self, leases: Iterable[Job], claimant: Job) -> Job | None:
        """Rule 6."""
        others = [job for job in leases if job is not claimant]
        idle = [job for job in others if not job.in_slice and not self.is_ready(job)]
        if idle:
            return max(idle, key=self._claim)
        least = max(others, key=self._claim, default=None)
        if least is None or self._claim(least) < self._claim(claimant):
            return None
        return least

    def _claim(self, job: Job) -> Urgency:
        """Urgency without what tenants were served, which changes with every slice: two tenants would
        take each other's memory for ever."""
        return self.urgency(job)._replace(tenant_cost=0.0)


class _Place(NamedTuple):
    """Where a job stands: changes of the job's fields do not move it until it is offered again."""

    rank: int
    ahead: bool
    tenant: str
    deadline_s: float


class _Queue:
    """One pipeline's ready jobs: by class and commitment, by tenant, each a list sorted by deadline."""

    def __init__(self) -> None:
        self._levels: dict[tuple[int, bool], dict[str, list[tuple[float, int, Job]]]] = {}

    def add(self, place: _Place, job: Job) -> None:
        """O(log n) to find the place, a short move of pointers to open it."""
        tenants = self._levels.setdefault((place.rank, place.ahead), {})
        insort(tenants.setdefault(place.tenant, []), (place.deadline_s, job.id, job))

    def remove(self, place: _Place, job: Job) -> None:
        """Empty lists go, so that reading stays short."""
        level = (place.rank, place.ahead)
        entries = self._levels[level][place.tenant]
        del entries[bisect_left(entries, (place.deadline_s, job.id))]
        if not entries:
            del self._levels[level][place.tenant]
            if not self._levels[level]:
                del self._levels[level]

    def ranks(self) -> list[int]:
        """Classes with a ready job, most urgent first."""
        return sorted({rank for rank, _ in self._levels})

    def jobs(self, tenant_cost: dict[str, float], rank: int) -> Iterator[Job]:
        """All jobs of this class and below, in urgency order."""
        for level in sorted(self._levels):
            if level[0] < rank:
                continue
            tenants = self._levels[level]
            streams = [_priced(entries, tenant_cost.get(t, 0.0)) for t, entries in tenants.items()]
            yield from (entry[3] for entry in (streams[0] if len(streams) == 1 else merge(*streams)))


def _priced(entries: list[tuple[float, int, Job]], cost: float) -> Iterator[tuple[float, float, int, Job]]:
    return ((deadline_s, cost, job_id, job) for deadline_s, job_id, job in entries)
