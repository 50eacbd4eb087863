"""Who gets memory when there is too little (rule 10 of the executor).

A slice's activations are reserved when it is planned; for committed state the least urgent lease is evicted
first, by a move to the host or by dropping what can be made again. Who may not take anybody's memory waits.
Whose lease that is, floors included, is the scheduler's rule 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.contract import Batch, Budget, Job, Pipeline
from server.executor.activations import Activations
from server.executor.counters import Counters
from server.executor.jobs import JobBook
from server.executor.recording import Evicted, Recording
from server.executor.scheduler import Scheduler, Slot
from server.executor.suspended import SuspendedSlices


class MemoryPressure:
    """Owner: the executor thread."""

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        scheduler: Scheduler,
        book: JobBook,
        suspended: SuspendedSlices,
        activations: Activations,
        budget: Budget,
        counters: Counters,
        clock: Callable[[], float],
        recording: Recording | None,
    ) -> None:
        self._pipelines = pipelines
        self._scheduler = scheduler
        self._book = book
        self._suspended = suspended
        self._activations = activations
        self._budget = budget
        self._counters = counters
        self._clock = clock
        self._recording = recording

    def reserve(self, batch: Batch, needed: int) -> bool:
        """Memory for the slice's activations; less urgent suspended slices fall back for it. False: it has to
        wait for a more urgent one."""
        urgency = self._scheduler.slice_urgency
        others = [(urgency(piece.rows), piece) for piece in self._suspended]
        try:
            closed = self._activations.makes_room(needed, urgency(batch.rows), others)
        except MemoryError:
            return False
        for piece in closed:
            self._suspended.fall_back(piece)
        return True

    def make_room(self, slot: Slot, short: int) -> bool:
        """Evict leases of so many units for the slot's most urgent ready job, but for no longer than half a
        promised delay. False: nobody may be evicted."""
        pipeline = self._pipelines[slot.pipeline]
        claimant = next(self._scheduler.ready(slot.pipeline, slot.rank))
        holders = filter(self._book.is_live, pipeline.holders())
        until_s, freed = self._clock() + self._budget.gap_ms / 2000, 0
        for victim in self._scheduler.victims(holders, pipeline.leased, claimant):
            units = pipeline.leased(victim)
            if not units:
                continue
            freed += units
            # Others may go with a suspended slice that falls back.
            last = victim.in_slice or freed >= short
            self.evict(victim)
            if last or self._clock() >= until_s:
                break
        return freed > 0

    def evict(self, victim: Job) -> None:
        """Take the memory of the job's committed state, the way that is predicted to be cheaper; a suspended
        slice of its falls back first."""
        self._suspended.fall_back_with(victim)
        pipeline = self._pipelines[victim.pipeline]
        keep = pipeline.keeps(victim, self._budget)
        start_s = self._clock()
        pipeline.evict(victim, keep)
        if keep:
            moved = Batch(victim.pipeline, "evict", (victim,), float(keep))
            pipeline.observe(moved, (self._clock() - start_s) * 1000)
            self._counters.swaps += 1
        victim.evictions += 1
        self._counters.evictions += 1
        if self._recording is not None:
            self._recording.events.append(Evicted(victim.id, keep))
        self._book.refresh(victim)
