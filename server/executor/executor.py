"""The one thread that owns a device and runs slices.

Loop: drain the inbox; ask the scheduler; start or resume a slice; at each yield drain again and ask whether
to give way. The rules (numbers as in the design, section 5):
  1. A slice is a transaction: its jobs' state changes at the commit only; suspension keeps the generator,
     close falls back to the last commit.
  2. Suspended slices form a set: at most one a pipeline and class.
  6. Rows are cancelled, not batches: a cancelled row emits nothing from then on and leaves when its slice
     ends; the last live row closes the generator.
  7. What a job held is released by `device.retire`, after the last launch that used it.
  9. A job without credits is parked; what a slice emits to the last credit may overdraw it.
 10. A claimant without memory evicts the least urgent lease, or waits until memory comes back.

Everything but `post` runs on the executor's thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from pipelines.contract import SPARE, Batch, Budget, Emission, Emitted, Job, Pipeline, Pressure
from pipelines.device import Device
from pipelines.errors import UpbeatError
from pipelines.messages import (
    Cancel,
    Credits,
    Done,
    Failed,
    JobClass,
    Promote,
    StartTrace,
    Stats,
    Stop,
    Submit,
    TokenChunk,
)
from server.executor import previews
from server.executor.activations import Activations
from server.executor.counters import Counters
from server.executor.guard import guarded
from server.executor.inbox import Arrival, Inbox
from server.executor.jobs import JobBook, failed
from server.executor.listeners import read
from server.executor.recording import Committed, Evicted, Recording
from server.executor.scheduler import Resume, Running, Scheduler, Slot, Start
from server.executor.slices import Slice
from server.executor.trace import Tracer

Emit = Callable[[Job, Emitted], None]


class DeviceExecutor:
    """Runs the jobs of all pipelines on one device.

    emit(job, chunk) hands a chunk on, released(job_id) says that a job is gone; neither may block.
    clock gives seconds, cpu_clock this thread's CPU seconds. `give_way`, for tests, forces a suspension
    at a yield.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        scheduler: Scheduler,
        device: Device,
        budget: Budget,
        emit: Emit,
        *,
        released: Callable[[int], None] = lambda _: None,
        send_trace: Callable[[bytes], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
        recording: Recording | None = None,
        give_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self.inbox = Inbox()
        self.counters = Counters()
        self._pipelines = pipelines
        self._scheduler = scheduler
        self._device = device
        self._budget = budget
        # Where others may come at any moment, slices in spare time are short, and so are the ways to yields.
        self._spare = Budget(budget.gap_ms / 4, budget.gap_ms / 4)
        self._emit_out = emit
        self._send_trace = send_trace
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._recording = recording
        self._give_way = give_way
        self._book = JobBook(pipelines, scheduler, device, emit, clock, recording, released)
        self._suspended: dict[Slot, Slice] = {}
        self._blocked: set[Slot] = set()
        self._endings: list[tuple[Job, Done | Failed]] = []
        self._tracer = Tracer()
        self._trace_until_s = math.inf
        self._stopping = False
        self._activations = Activations(device)
        self._gap_start_s = 0.0

    # --- loop -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until Stop."""
        self._device.enter_thread()
        self._activations.open()
        while not self._stopping:
            if not self.step():
                self.inbox.wait(0.05)
        for piece in self._suspended.values():
            self._end(piece)
        self._suspended.clear()
        self._book.end_all()
        self._device.collect()

    def step(self) -> bool:
        """One decision and the stretch on the device that follows; False if there was nothing to do."""
        self._gap_start_s = self._cpu_clock()
        self._drain()
        self._scheduler.tick(self._clock())
        decision = self._scheduler.decide(self._waiting(), frozenset(self._blocked))
        match decision:
            case Resume(slot, quantum_ms):
                self._stretch(self._suspended.pop(slot), quantum_ms)
            case Start(pipeline, rank, quantum_ms):
                piece = self._plan(Slot(pipeline, rank))
                if piece is not None:
                    self._stretch(piece, quantum_ms)
            case None:
                return False
        return True

    def stats(self) -> Stats:
        """Counters for metrics; may be called on any thread."""
        counters = self.counters
        return Stats(
            running=len(self._book),
            suspended=len(self._suspended),
            queued=len(self._scheduler),
            preemptions=counters.preemptions,
            evictions=counters.evictions,
            device_busy_s=counters.busy_s,
            longest_gap_ms=counters.gaps.longest_ms,
            cost_error=counters.cost_errors(),
        )

    # --- inbox ----------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Take what has arrived, for at most half a promised delay; the rest waits for the next yield."""
        until_s = self._cpu_clock() + self._budget.gap_ms / 2000
        for arrival in self.inbox.take():
            self._receive(arrival)
            if self._cpu_clock() >= until_s:
                break
        if self._device.collect():
            self._blocked.clear()
        if self._tracer.on and self._clock() >= self._trace_until_s:
            self._send_trace(self._tracer.finish())

    def _receive(self, arrival: Arrival) -> None:
        self._blocked.clear()
        message = arrival.message
        match message:
            case Cancel(job_id):
                self._cancel(job_id)
            case Credits(job_id, count):
                self._book.credit(job_id, count)
            case Promote():
                self._book.promote(message)
            case StartTrace(seconds):
                now_s = self._clock()
                self._tracer.start(now_s)
                self._trace_until_s = now_s + seconds
            case Stop():
                self._stopping = True
            case _:
                if self._tracer.on and isinstance(message, Submit):
                    self._tracer.arrival(message.pipeline, message.job_id, message.job_class, self._clock())
                self._book.receive(arrival)

    def _cancel(self, job_id: int) -> None:
        job = self._book.cancel(job_id)
        if job is None:
            return
        for slot, piece in list(self._suspended.items()):
            if job in piece.rows and not piece.live:
                del self._suspended[slot]
                self._end(piece)

    # --- planning and pressure ---------------------------------------------------------------------------

    def _plan(self, slot: Slot) -> Slice | None:
        pipeline = self._pipelines[slot.pipeline]
        while True:
            try:
                ready = self._scheduler.ready(slot.pipeline, slot.rank)
                spare = slot.rank == SPARE and self._book.sessions > 1
                budget = self._spare if spare else self._budget
                batch = guarded("planning", partial(pipeline.plan, ready, budget))
            except Pressure:
                if not self._make_room(slot):
                    self._blocked.add(slot)
                    return None
                continue
            except UpbeatError as error:
                self._fail_first(slot, error)
                return None
            return self._begin(slot, batch, pipeline)

    def _begin(self, slot: Slot, batch: Batch | None, pipeline: Pipeline) -> Slice | None:
        if batch is None:
            self._blocked.add(slot)
            return None
        needed = self._activations.needs(batch)
        if needed and not self._reserve(batch, needed):
            self._blocked.add(slot)
            return None
        for job in batch.rows:
            self._book.enter_slice(job)
            self._scheduler.withdraw(job)
        expected_ms = pipeline.estimate(batch).median_ms
        return Slice(slot, batch, pipeline, pipeline.run(batch), expected_ms, reserved=needed)

    def _reserve(self, batch: Batch, needed: int) -> bool:
        """Memory for the slice's activations; less urgent suspended slices fall back for it. False: it has to
        wait for a more urgent one."""
        urgency = self._scheduler.slice_urgency
        others = [(urgency(piece.rows), piece) for piece in self._suspended.values()]
        try:
            closed = self._activations.makes_room(needed, urgency(batch.rows), others)
        except MemoryError:
            return False
        for piece in closed:
            del self._suspended[piece.slot]
            self._end(piece)
        return True

    def _make_room(self, slot: Slot) -> bool:
        """Rule 10: evict one lease for the slot's most urgent ready job. False: nobody may be evicted."""
        pipeline = self._pipelines[slot.pipeline]
        claimant = next(self._scheduler.ready(slot.pipeline, slot.rank))
        leases = [job for job in self._book.live(slot.pipeline) if pipeline.leased(job) > 0]
        victim = self._scheduler.victim(leases, claimant)
        if victim is not None:
            self._evict(victim)
        return victim is not None

    def _evict(self, victim: Job) -> None:
        """Take the memory of the job's committed state, by a move to the host or by dropping what can be made
        again, whichever is predicted to be cheaper; a suspended slice of its falls back first."""
        for other, piece in list(self._suspended.items()):
            if victim in piece.rows:
                del self._suspended[other]
                self._end(piece)
        pipeline = self._pipelines[victim.pipeline]
        keep = pipeline.keeps(victim, self._budget)
        start_s = self._clock()
        pipeline.evict(victim, keep)
        if keep:
            moved = Batch(victim.pipeline, "evict", (victim,), float(keep))
            pipeline.observe(moved, (self._clock() - start_s) * 1000)
            self.counters.swaps += 1
        victim.evictions += 1
        self.counters.evictions += 1
        self._record(Evicted(victim.id, keep))
        self._book.refresh(victim)

    def _fail_first(self, slot: Slot, error: UpbeatError) -> None:
        job = next(self._scheduler.ready(slot.pipeline, slot.rank))
        self._book.finish(job, failed(error))

    # --- on the device ------------------------------------------------------------------------------------

    def _stretch(self, piece: Slice, quantum_ms: float) -> None:
        """Run the slice until it commits, gives way, or nobody wants it any more."""
        start_s = self._clock()
        self._device.switch_to(urgent=piece.slot.rank <= 1)
        self._activations.enter(piece)
        outcome = self._advance(piece, start_s, quantum_ms)
        self._activations.leave(piece, committed=outcome == "commit")
        end_s = self._clock()
        spent_ms = (end_s - start_s) * 1000
        piece.device_ms += spent_ms
        self.counters.busy_s += spent_ms / 1000
        self._scheduler.charge(piece.running(), spent_ms, self._waiting())
        self._book.forecaster.used(piece.slot.rank, spent_ms, end_s)
        for job, last in self._endings:
            self._book.finish(job, last, piece.device_ms)
        self._endings.clear()
        self._tracer.stretch(piece, start_s, end_s, outcome)
        if outcome == "suspend":
            self._suspend(piece)
            return
        if outcome == "commit":
            self._learn(piece)
        self._end(piece)

    def _learn(self, piece: Slice) -> None:
        """What the slice has cost, for the next prediction."""
        self.counters.slices += 1
        self.counters.saw_cost(piece.batch, piece.expected_ms, piece.device_ms)
        self._scheduler.completed(piece.slot.pipeline, piece.device_ms)
        piece.pipeline.observe(piece.batch, piece.device_ms)

    def _advance(self, piece: Slice, start_s: float, quantum_ms: float) -> str:
        emissions: list[Emission] = []
        take = partial(next, piece.steps)
        while True:
            try:
                step = guarded(piece.batch.kind, take)
            except StopIteration:
                break
            except UpbeatError as error:
                return self._fail(piece, error)
            self._device.segment()
            self._saw_gap(piece)
            if step is not None:
                emissions.append(step)
                self._emit(step.job, step.chunk)
            elif (outcome := self._between(piece, start_s, quantum_ms)) is not None:
                return outcome
        self._saw_gap(piece)
        self._committed(piece, emissions)
        return "commit"

    def _between(self, piece: Slice, start_s: float, quantum_ms: float) -> str | None:
        """At a preemption point: "close" if nobody wants the slice, "suspend" if it gives way."""
        forced = self._give_way()
        self._drain()
        if not piece.live:
            return "close"
        now_s = self._clock()
        self._scheduler.tick(now_s)
        elapsed_ms = (now_s - start_s) * 1000
        if forced or self._must_yield(piece, now_s, elapsed_ms, elapsed_ms < quantum_ms < math.inf):
            return "suspend"
        return None

    def _saw_gap(self, piece: Slice) -> None:
        """A preemption point; draining and deciding count to the gap that follows."""
        now_s = self._cpu_clock()
        self.counters.gaps.saw(piece.batch, (now_s - self._gap_start_s) * 1000)
        self._gap_start_s = now_s

    def _must_yield(self, piece: Slice, now_s: float, elapsed_ms: float, in_quantum: bool) -> bool:
        running, blocked = piece.running(elapsed_ms), frozenset(self._blocked)
        return self._scheduler.should_yield(now_s, running, in_quantum, self._waiting(), blocked)

    def _suspend(self, piece: Slice) -> None:
        self._suspended[piece.slot] = piece
        self.counters.preemptions += 1
        if self._recording is not None:
            self._recording.suspensions += 1
        for job in piece.rows:
            job.preemptions += 1

    def _committed(self, piece: Slice, emissions: list[Emission]) -> None:
        if self._recording is None:
            return
        batch = piece.batch
        rows = tuple(job.id for job in batch.rows)
        kept = tuple((e.job.id, e.chunk) for e in emissions if not e.job.cancelled)
        self._record(Committed(batch.pipeline, batch.kind, rows, batch.units, batch.work, kept))

    def _fail(self, piece: Slice, error: UpbeatError) -> str:
        self._endings.extend((job, failed(error)) for job in piece.rows)
        return "fail"

    def _end(self, piece: Slice) -> None:
        """The slice is over, committed or not: its rows go back, or go."""
        piece.close()
        for job in piece.rows:
            self._book.leave_slice(job, piece.device_ms)
        self._blocked.clear()

    # --- out ----------------------------------------------------------------------------------------------

    def _emit(self, job: Job, chunk: Emitted) -> None:
        """A cancelled or finished job emits nothing."""
        if job.cancelled or self._book.is_finished(job):
            return
        if isinstance(chunk, Done | Failed):
            self._endings.append((job, chunk))
            return
        if not previews.due(job, chunk, self._clock):
            return
        job.credits -= 1
        if isinstance(chunk, TokenChunk) and job.consumer is None and job.job_class <= JobClass.INTERACTIVE:
            read(job, self._clock(), len(chunk.token_ids))
        self._emit_out(job, chunk)

    def _waiting(self) -> Iterator[Running]:
        return (piece.running() for piece in self._suspended.values())

    def _record(self, event: Evicted | Committed) -> None:
        if self._recording is not None:
            self._recording.events.append(event)
