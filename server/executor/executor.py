"""The one thread that owns a device and runs slices.

Loop: drain the inbox; ask the scheduler; start or resume a slice; at each yield drain again and ask whether
to give way. The rules that stand here (numbers as in ARCHITECTURE.md):
  1. A slice is a transaction: its jobs' state changes at the commit only; suspension keeps the generator,
     close falls back to the last commit.
  2. Suspended slices form a set: at most one a pipeline and class.
  6. Rows are cancelled, not batches: a cancelled row emits nothing from then on and leaves when its slice
     ends; the last live row closes the generator.
  7. What a job held is released by `device.retire`, after the last launch that used it.
  9. A job without credits is parked; what a slice emits to the last credit may overdraw it.
 10. A claimant without memory evicts the least urgent lease, or waits until memory comes back. Evicting is a
     step of its own.

Here is what is decided; `stretch` runs a slice between two decisions, `suspended` keeps those that gave way,
`pressure` finds memory, `jobs` knows who waits for what. All of it runs on the executor's thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial

from pipelines.contract import SPARE, Batch, Budget, Emitted, Job, Pipeline, Pressure
from pipelines.device import Device
from pipelines.errors import UpbeatError
from pipelines.messages import Cancel, Credits, Promote, StartTrace, Stats, Stop, Submit
from server.executor.activations import Activations
from server.executor.counters import Counters
from server.executor.guard import guarded
from server.executor.inbox import Arrival, Inbox
from server.executor.jobs import JobBook, failed
from server.executor.pressure import MemoryPressure
from server.executor.recording import Recording
from server.executor.scheduler import Resume, Scheduler, Slot, Start
from server.executor.slices import Slice
from server.executor.stretch import Outcome, Stretches
from server.executor.suspended import SuspendedSlices
from server.executor.trace import Tracer

PAUSE_SHARE = 0.02
"""Of the promised delay: yields that come sooner after the last one are passed over. Listening at each of
them, several a millisecond, took a tenth of the device's time."""

IDLE_S, MEMORY_S = 0.05, 0.001
"""How long to sleep where nothing can run, and where somebody waits for memory: it comes back by an event of
the device, which wakes nobody (rule 7)."""

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
        self._send_trace = send_trace
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._recording = recording
        self._give_way = give_way
        self._tracer = Tracer()
        self._trace_until_s = math.inf
        self._pause_s = budget.gap_ms * PAUSE_SHARE / 1000
        self._listen_from_s = -math.inf
        self._stopping = False
        self._book = JobBook(pipelines, scheduler, device, emit, clock, recording, released)
        self._suspended = SuspendedSlices(self._book)
        self._activations = Activations(device)
        self._stretches = Stretches(
            device, self._activations, self._book, self.counters, emit, clock, cpu_clock, recording
        )
        self._memory = MemoryPressure(
            pipelines,
            scheduler,
            self._book,
            self._suspended,
            self._activations,
            budget,
            self.counters,
            clock,
            recording,
        )

    # --- loop -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until Stop."""
        self._device.enter_thread()
        self._activations.open()
        while not self._stopping:
            if not self.step():
                self.inbox.wait(MEMORY_S if self._suspended.blocked else IDLE_S)
        self._suspended.end_all()
        self._book.end_all()
        self._device.collect()

    def step(self) -> bool:
        """One decision and the stretch on the device that follows; False if there was nothing to do."""
        self._stretches.begin_gap()
        self._drain()
        self._scheduler.tick(self._clock())
        decision = self._scheduler.decide(self._suspended.running(), frozenset(self._suspended.blocked))
        match decision:
            case Resume(slot, quantum_ms):
                self._stretch(self._suspended.take(slot), quantum_ms)
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
        """Take what has arrived, for at most half a promised delay; the rest waits for the next yield. What
        the device has given back by then is there for it."""
        if self._device.collect():
            self._suspended.blocked.clear()
        until_s = self._cpu_clock() + self._budget.gap_ms / 2000
        for arrival in self.inbox.take():
            self._receive(arrival)
            if self._cpu_clock() >= until_s:
                break
        if self._tracer.on and self._clock() >= self._trace_until_s:
            self._send_trace(self._tracer.finish())

    def _receive(self, arrival: Arrival) -> None:
        self._suspended.blocked.clear()
        message = arrival.message
        match message:
            case Cancel(job_id):
                self._cancel(job_id)
            case Credits(job_id, count):
                self._book.credit(job_id, count)
            case Promote():
                if not self._book.promote(message):
                    self._cancel(message.job_id)
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
        for piece in self._suspended:
            if job in piece.rows and not piece.live:
                self._suspended.fall_back(piece)

    # --- planning ----------------------------------------------------------------------------------------

    def _plan(self, slot: Slot) -> Slice | None:
        """None where there is none to begin now. Evicting is a step of its own, so that who has arrived
        meanwhile is heard."""
        pipeline = self._pipelines[slot.pipeline]
        ready = self._scheduler.ready(slot.pipeline, slot.rank)
        spare = slot.rank == SPARE and self._book.sessions > 1
        budget = self._spare if spare else self._budget
        try:
            batch = guarded("planning", partial(pipeline.plan, ready, budget))
        except Pressure as pressure:
            if not self._memory.make_room(slot, pressure.short):
                self._suspended.blocked.add(slot)
            return None
        except UpbeatError as error:
            self._fail_first(slot, error)
            return None
        return self._begin(slot, batch, pipeline)

    def _begin(self, slot: Slot, batch: Batch | None, pipeline: Pipeline) -> Slice | None:
        if batch is None:
            self._suspended.blocked.add(slot)
            return None
        needed = self._activations.needs(batch)
        if needed and not self._memory.reserve(batch, needed):
            self._suspended.blocked.add(slot)
            return None
        for job in batch.rows:
            self._book.enter_slice(job)
            self._scheduler.withdraw(job)
        expected_ms = pipeline.estimate(batch).median_ms
        return Slice(slot, batch, pipeline, pipeline.run(batch), expected_ms, reserved=needed)

    def _fail_first(self, slot: Slot, error: UpbeatError) -> None:
        job = next(self._scheduler.ready(slot.pipeline, slot.rank))
        self._book.finish(job, failed(error))

    # --- on the device ------------------------------------------------------------------------------------

    def _stretch(self, piece: Slice, quantum_ms: float) -> None:
        """Give the device to the slice, and account for what it did there."""
        start_s = self._clock()
        self._listen_from_s = start_s + self._pause_s
        outcome = self._stretches.run(piece, partial(self._at_yield, piece, start_s, quantum_ms))
        end_s = self._clock()
        spent_ms = (end_s - start_s) * 1000
        piece.device_ms += spent_ms
        self.counters.busy_s += spent_ms / 1000
        self._scheduler.charge(piece.running(), spent_ms, self._suspended.running())
        self._book.forecaster.used(piece.slot.rank, spent_ms, end_s)
        for job, last in self._stretches.endings:
            self._book.finish(job, last, piece.device_ms)
        self._stretches.endings.clear()
        self._tracer.stretch(piece, start_s, end_s, outcome)
        if outcome == "suspend":
            self._suspend(piece)
            return
        if outcome == "commit":
            self._learn(piece)
        self._suspended.end(piece)

    def _at_yield(self, piece: Slice, start_s: float, quantum_ms: float) -> Outcome | None:
        """At a preemption point: "close" if nobody wants the slice, "suspend" if it gives way."""
        forced, now_s = self._give_way(), self._clock()
        if now_s < self._listen_from_s and not forced:
            return None
        self._listen_from_s = now_s + self._pause_s
        self._stretches.end_gap(piece)
        self._drain()
        if not piece.live:
            return "close"
        self._scheduler.tick(now_s)
        elapsed_ms = (now_s - start_s) * 1000
        in_quantum = elapsed_ms < quantum_ms < math.inf
        running, blocked = piece.running(elapsed_ms), frozenset(self._suspended.blocked)
        others = self._suspended.running()
        if forced or self._scheduler.should_yield(now_s, running, in_quantum, others, blocked):
            return "suspend"
        return None

    def _suspend(self, piece: Slice) -> None:
        self._suspended.add(piece)
        self.counters.preemptions += 1
        if self._recording is not None:
            self._recording.suspensions += 1
        for job in piece.rows:
            job.preemptions += 1

    def _learn(self, piece: Slice) -> None:
        """What the slice has cost, for the next prediction."""
        self.counters.committed(piece.batch, piece.expected_ms, piece.device_ms)
        self._scheduler.completed(piece.slot.pipeline, piece.device_ms)
        piece.pipeline.observe(piece.batch, piece.device_ms)
