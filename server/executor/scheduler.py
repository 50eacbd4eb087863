"""Which batch runs next, and when the running one gives way. Pure: no threads, no clock of its own.

The specification
  1. Order. Jobs stand by class; inside a class by the rules of `ready`: tenants over their share last, then
     the earliest deadline, then the tenant that was served least, then the first to come. The deadline is the
     client's or, in the two urgent classes, the moment at which whom the job serves runs dry, whichever is
     earlier; before the first output that is the job's arrival. But text for a voice that has yet to begin,
     which may be a prompt of a thousand tokens, stands behind voices that are heard, for up to `BEGIN_S`.
  2. What can wait stands one class lower, behind every committed job there: work on an uncommitted prompt,
     and work that is ahead of whom it serves (audio of which enough is buffered, text that is yet to be
     read), until that is used up. Work on uncommitted prompts of a session that owes device time (rule 3 of
     `accounts`) runs in spare time: behind every class, in slices of its own.
  3. Inheritance. A job is as urgent as the job that consumes its output, a slice as its most urgent row.
  4. Floors. While a class waits, it earns its floor share of the device time that others use. With a
     promised delay earned it goes first for half a one, whatever is more urgent.
  5. Next. The most urgent of the suspended slices and the ready jobs goes first. A pipeline holds at most
     one suspended slice a class: that one is resumed before its pipeline starts another of the class.
  6. Giving way. A running slice gives way at a yield to a more urgent class, unless that would help nobody:
     whom the waiting job serves has enough until the slice will have ended, or the slice is itself of an
     urgent class and will end within half a promised delay. Work in spare time gives way to every class at
     once. Within the class it gives way only to a job of
     another pipeline whose predicted slack has become negative, with the earlier deadline. Work for the
     running slice's own pipeline waits for its next slice if that is at most a promised delay away.
  7. Ageing. A job without a deadline that has waited for its class's patience gets that moment as its
     deadline, so that no stream of later jobs with deadlines goes before it for ever.
  8. Pressure. Memory is taken from jobs that cannot run now, the least urgent first, then from the least
     urgent ready job, never from one more urgent than the claimant. But on its floor a class takes it from
     more urgent classes too, until it holds half as much as they do; the rows of its last slice on a floor
     keep theirs while it holds no more than they do. Who claims is left out of that sum, so that the most
     urgent job waits for nobody.

Times are seconds on the caller's clock, told by `tick`; costs are milliseconds of device time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from pipelines.contract import SPARE, Job
from pipelines.messages import JobClass
from server.executor.accounts import FLOORS, AheadAccounts, ClassFloors, TenantAccounts, divided
from server.executor.ready import Place, ReadyQueue

__all__ = ["FLOORS", "Decision", "Resume", "Running", "Scheduler", "Slot", "Start", "Urgency"]

Leased = Callable[[Job], int]
PATIENCE_S = {JobClass.STANDARD: 120.0, JobClass.BATCH: 1200.0}
MARGIN_S = 0.05
"""What is left to hear when work for a listener is begun at the latest."""
BEGIN_S = 10.0
"""So long a wait for a voice's first sound weighs as much as a silence in the midst of another's speech."""


class Urgency(NamedTuple):
    """Sorts jobs: the smaller goes first. due_s: until when it can wait, wherever it stands."""

    rank: int
    ahead: bool
    over: bool
    deadline_s: float
    tenant_cost: float
    job_id: int
    due_s: float = -math.inf


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
    shares: tuple[float, ...] = ()

    def ends_within(self, ms: float) -> bool:
        """Whether it is expected to; one that is overdue is not."""
        return self.remaining_ms <= ms and not self.overdue


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
        self._now_s = -math.inf
        self._typical_ms: dict[str, float] = {}
        self._ready: dict[str, ReadyQueue] = {}
        self._places: dict[int, tuple[ReadyQueue, Place, Job]] = {}
        self._wakes: list[tuple[float, int]] = []
        self._wake_s: dict[int, float] = {}
        self._tenants = TenantAccounts()
        self._floors = ClassFloors(promised_delay_ms)
        self._ahead = AheadAccounts()
        self._on_floor: Slot | None = None
        self._floor_rows: dict[Slot, frozenset[int]] = {}

    def tick(self, now_s: float) -> None:
        """It is `now_s`: whoever's time has come (rules 2 and 7) takes the new place."""
        self._now_s = now_s
        while self._wakes and self._wakes[0][0] <= now_s:
            _, job_id = heappop(self._wakes)
            self._wake_s.pop(job_id, None)
            if job_id in self._places:
                self.offer(self._places[job_id][2])

    # --- order: rules 1 to 3, and 7 -----------------------------------------------------------------------

    def urgency(self, job: Job) -> Urgency:
        """Rules 1 to 3 and 7."""
        rank, ahead, due_s = self._standing(job)
        served = _served(job)
        begins = rank == JobClass.REALTIME and served is not job and served.dry_s == -math.inf
        deadline_s = due_s + BEGIN_S if begins else due_s
        over, cost = self._tenants.over(job.tenant), self._tenants.cost(job.tenant)
        return Urgency(rank, ahead, over, deadline_s, cost, job.id, due_s)

    def _standing(self, job: Job, leads: bool = True) -> tuple[int, bool, float]:
        """Class, whether it can wait, deadline. leads: work that is ahead of whom it serves stands lower."""
        rank, deadline_s, served = int(job.job_class), job.deadline_s, job
        while served.consumer is not None:
            served = served.consumer
            rank, deadline_s = min(rank, int(served.job_class)), min(deadline_s, served.deadline_s)
        ahead = not job.committed or (leads and served.ahead_until_s > self._now_s)
        if rank <= JobClass.INTERACTIVE:
            deadline_s = min(deadline_s, served.dry_s if served.dry_s > -math.inf else served.arrived_s)
        elif deadline_s == math.inf and self._patience_ends_s(job) <= self._now_s:
            deadline_s = self._patience_ends_s(job)
        if ahead:
            spare = not job.committed and self._ahead.free_s(job.session_id, self._now_s) > self._now_s
            rank = SPARE if spare else min(rank + 1, int(JobClass.BATCH))
        return rank, ahead, deadline_s

    def slice_urgency(self, rows: Iterable[Job]) -> Urgency:
        """That of the most urgent row that is not cancelled."""
        return min(self.urgency(job) for job in rows if not job.cancelled)

    def offer(self, job: Job) -> None:
        """The job could run now; also after a change of class, deadline or commitment."""
        self._unplace(job)
        self._tenants.activate(job.tenant, job.id)
        urgency = self.urgency(job)
        job.rank = urgency.rank
        if job.pipeline not in self._ready:
            self._ready[job.pipeline] = ReadyQueue(self._tenants)
        queue = self._ready[job.pipeline]
        place = Place(urgency.rank, urgency.ahead, job.tenant, urgency.deadline_s)
        queue.add(place, job)
        self._places[job.id] = (queue, place, job)
        self._wake_later(job)

    def withdraw(self, job: Job) -> None:
        """The job cannot run now: parked, waiting for input, in a slice, or gone."""
        self._unplace(job)
        if not job.in_slice:
            self._tenants.rest(job.tenant, job.id)

    def _unplace(self, job: Job) -> None:
        found = self._places.pop(job.id, None)
        if found is not None:
            queue, place, _ = found
            queue.remove(place, job)

    def _wake_later(self, job: Job) -> None:
        """When the place that the job has just taken will have become wrong by itself."""
        served = _served(job)
        times = [served.ahead_until_s, self._patience_ends_s(job)]
        if job.rank == SPARE:
            times.append(self._ahead.free_s(job.session_id, self._now_s))
        soonest = min((time for time in times if time > self._now_s), default=math.inf)
        if soonest < self._wake_s.get(job.id, math.inf) and self._now_s > -math.inf:
            self._wake_s[job.id] = soonest
            heappush(self._wakes, (soonest, job.id))

    def _patience_ends_s(self, job: Job) -> float:
        return job.arrived_s + PATIENCE_S.get(job.job_class, math.inf)

    def is_ready(self, job: Job) -> bool:
        """Whether the job stands in the queue."""
        return job.id in self._places

    def ready(self, pipeline: str, rank: int = 0) -> Iterator[Job]:
        """The pipeline's ready jobs of this class and below in urgency order, read lazily."""
        queue = self._ready.get(pipeline)
        return queue.jobs(rank) if queue else iter(())

    def __len__(self) -> int:
        return len(self._places)

    # --- what runs next: rules 4 and 5 --------------------------------------------------------------------

    def decide(self, suspended: Iterable[Running], blocked: frozenset[Slot] = frozenset()) -> Decision:
        """Rule 5, after rule 4. `blocked`: pipelines whose most urgent job of a class has no memory now."""
        waiting = {running.slot: running for running in suspended}
        owed = self._owed(waiting, blocked)
        candidates = self._candidates(waiting, blocked, owed if owed is not None else 0)
        best = min(candidates, key=lambda c: c[0], default=None)
        if best is None:
            return None
        _, slot = best
        self._on_floor = slot if owed is not None else None
        quantum_ms = self._delay_ms / 2 if owed is not None else math.inf
        if slot in waiting:
            return Resume(slot, quantum_ms)
        return Start(slot.pipeline, slot.rank, quantum_ms)

    # --- giving way: rule 6 -------------------------------------------------------------------------------

    def should_yield(
        self,
        now_s: float,
        running: Running,
        in_quantum: bool,
        suspended: Iterable[Running],
        blocked: frozenset[Slot] = frozenset(),
    ) -> bool:
        """Rule 6. in_quantum: the slice runs on its class's floor and has not used it up."""
        if in_quantum:
            return False
        mine = self.slice_urgency(running.rows)
        for slot, urgency in self._heads(0, blocked):
            if self._goes_first(now_s, running, mine, slot.pipeline, urgency):
                return True
        return any(
            other.slot != running.slot and self.slice_urgency(other.rows).rank < mine.rank
            for other in suspended
        )

    def _goes_first(
        self, now_s: float, running: Running, mine: Urgency, pipeline: str, other: Urgency
    ) -> bool:
        """Rule 6 for one ready job of `pipeline`."""
        own_pipeline = pipeline == running.slot.pipeline
        if other.rank > mine.rank:
            return False
        if other.rank == mine.rank:
            pressed = self._done_s(now_s, running, pipeline) > other.due_s
            alone = own_pipeline or other.ahead or other.over
            return pressed and not alone and other.deadline_s < mine.deadline_s
        if mine.rank == SPARE:
            return True
        if own_pipeline:
            return not running.ends_within(self._delay_ms)
        if mine.rank <= JobClass.INTERACTIVE and not running.overdue:
            return not running.ends_within(self._delay_ms / 2)
        runs_dry = self._done_s(now_s, running, pipeline) + MARGIN_S > other.due_s
        return runs_dry or other.rank > JobClass.INTERACTIVE

    def _done_s(self, now_s: float, running: Running, pipeline: str) -> float:
        """When a job of `pipeline` would have had its next slice if the running one were not suspended."""
        return now_s + (running.remaining_ms + self._typical_ms.get(pipeline, 0.0)) / 1000

    def _heads(self, rank: int, blocked: frozenset[Slot]) -> Iterator[tuple[Slot, Urgency]]:
        """Each pipeline's most urgent job of class `rank` or below that has memory."""
        for pipeline, queue in self._ready.items():
            for level in queue.ranks():
                if level >= rank and Slot(pipeline, level) not in blocked:
                    yield Slot(pipeline, level), self.urgency(next(queue.jobs(level)))
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

    # --- accounts: rules 1 and 4 --------------------------------------------------------------------------

    def enter(self, tenant: str) -> None:
        """A job is admitted."""
        self._tenants.enter(tenant)

    def leave(self, tenant: str) -> None:
        """A job is released."""
        self._tenants.leave(tenant)

    def charge(self, running: Running, ms: float, suspended: Iterable[Running]) -> None:
        """`running` has used the device for `ms`: rows' tenants pay, waiting classes earn (rule 4)."""
        rows = list(zip(running.rows, running.shares or (1.0,) * len(running.rows), strict=True))
        rows = [row for row in rows if not row[0].cancelled] or rows
        live = [job for job, _ in rows]
        for job, part_ms in zip(live, divided((share for _, share in rows), ms), strict=True):
            job.served_ms += part_ms
            self._tenants.charge(job.tenant, part_ms)
            if not job.committed:
                self._ahead.charge(job.session_id, part_ms, self._now_s)
        used = self.slice_urgency(live).rank if any(not j.cancelled for j in live) else running.slot.rank
        waiting = {self.slice_urgency(other.rows).rank for other in suspended if other.slot != running.slot}
        for queue in self._ready.values():
            waiting.update(queue.ranks())
        self._floors.charge(used, waiting, ms)
        self._floor_rows.pop(running.slot, None)
        if running.slot == self._on_floor:
            self._floor_rows[running.slot] = frozenset(job.id for job in running.rows)

    def completed(self, pipeline: str, ms: float) -> None:
        """A slice has committed after `ms` on the device: what rule 6 expects of the next one."""
        before = self._typical_ms.get(pipeline, ms)
        self._typical_ms[pipeline] = before + (ms - before) / 8

    def _owed(self, waiting: dict[Slot, Running], blocked: frozenset[Slot]) -> int | None:
        """The class that has earned a quantum and would not go first by itself."""
        ranks = {self.slice_urgency(running.rows).rank for running in waiting.values()}
        for pipeline, queue in self._ready.items():
            ranks.update(level for level in queue.ranks() if Slot(pipeline, level) not in blocked)
        return self._floors.owed(ranks)

    # --- pressure: rule 8 ---------------------------------------------------------------------------------

    def victims(self, holders: Iterable[Job], leased: Leased, claimant: Job) -> list[Job]:
        """Rule 8: whose memory is taken, one after the other. holders: those of the claimant's pipeline.
        leased: how many units a job holds; asked only where floors compare classes."""
        others = [job for job in holders if job is not claimant]
        mine, claims = self._claim(claimant), {job: self._claim(job) for job in others}
        kept = self._kept(others, leased, claimant.rank)
        idle = {job for job in others if not job.in_slice and not self.is_ready(job)}
        order = sorted(others, key=lambda job: (job in idle, claims[job]), reverse=True)
        found = [job for job in order if job in idle or (job not in kept and claims[job] > mine)]
        if self._on_floor == Slot(claimant.pipeline, claimant.rank):
            gone = set(found)
            left = [job for job in order if job not in gone]
            held, above = _held([claimant, *left], leased, claimant.rank)
            for job in (job for job in left if job not in kept):
                if 2 * held < above and job.rank < claimant.rank:
                    found.append(job)
                    above -= leased(job)
        return found

    def _kept(self, others: list[Job], leased: Leased, rank: int) -> set[Job]:
        """Whose memory floors keep against a claimant of class `rank` that holds none of this."""
        floors = {slot: ids for slot, ids in self._floor_rows.items() if slot.rank > rank}
        rows = [job for job in others if job.id in floors.get(Slot(job.pipeline, job.rank), ())]
        held = {each: _held(others, leased, each) for each in {job.rank for job in rows}}
        return {job for job in rows if held[job.rank][0] <= held[job.rank][1]}

    def _claim(self, job: Job) -> Urgency:
        """Urgency without what changes all the time. By what tenants were served, two would take each other's
        memory for ever; who is ahead of a listener is back in tenths of a second."""
        rank, ahead, deadline_s = self._standing(job, leads=False)
        return Urgency(rank, ahead, False, deadline_s, 0.0, job.id)


def _served(job: Job) -> Job:
    """Whom it serves in the end: itself, or who consumes its output."""
    while job.consumer is not None:
        job = job.consumer
    return job


def _held(jobs: list[Job], leased: Leased, rank: int) -> tuple[int, int]:
    """Units of memory that those of the class hold, and those of more urgent ones."""
    own = sum(leased(job) for job in jobs if job.rank == rank)
    return own, sum(leased(job) for job in jobs if job.rank < rank)
