"""One stretch of a slice on the device: from a decision until it commits, gives way, or is not wanted.

Between two yields nobody else has the device; at each of them `at_yield` takes what has arrived and says
whether the slice goes on. What a slice emits belongs to its commit: it is recorded once that is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pipelines.contract import Emission, Emitted, Job, RawAudio
from pipelines.device import Device
from pipelines.errors import UpbeatError
from pipelines.messages import Done, Failed, JobClass, TokenChunk
from server.executor import previews
from server.executor.activations import Activations
from server.executor.counters import Counters
from server.executor.guard import guarded
from server.executor.jobs import JobBook, failed
from server.executor.listeners import read
from server.executor.recording import Committed, Recording
from server.executor.slices import Slice

Outcome = Literal["commit", "suspend", "close", "fail"]
Ending = tuple[Job, Done | Failed]


class Stretches:
    """Runs slices, one at a time. Owner: the executor thread.

    endings: last chunks of rows, in the order in which they came, until the executor has taken them.
    """

    def __init__(
        self,
        device: Device,
        activations: Activations,
        book: JobBook,
        counters: Counters,
        emit: Callable[[Job, Emitted], None],
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
        recording: Recording | None,
    ) -> None:
        self._device = device
        self._activations = activations
        self._book = book
        self._counters = counters
        self._emit_out = emit
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._recording = recording
        self._gap_start_s = 0.0
        self.endings: list[Ending] = []

    def begin_gap(self) -> None:
        """Draining and deciding count to the gap that ends at the next such yield."""
        self._gap_start_s = self._cpu_clock()

    def run(self, piece: Slice, at_yield: Callable[[], Outcome | None]) -> Outcome:
        """The slice until it ends or gives way."""
        self._device.switch_to(urgent=piece.slot.rank <= JobClass.INTERACTIVE)
        self._activations.enter(piece)
        outcome = self._advance(piece, at_yield)
        self._activations.leave(piece, committed=outcome == "commit")
        return outcome

    def _advance(self, piece: Slice, at_yield: Callable[[], Outcome | None]) -> Outcome:
        emissions: list[Emission] = []
        take = partial(next, piece.steps)
        while True:
            try:
                step = guarded(piece.batch.kind, take)
            except StopIteration:
                break
            except UpbeatError as error:
                self.endings.extend((job, failed(error)) for job in piece.rows)
                return "fail"
            self._device.segment()
            if step is not None:
                emissions.append(step)
                self._emit(step.job, step.chunk)
            elif (outcome := at_yield()) is not None:
                return outcome
        self.end_gap(piece)
        self._record(piece, emissions)
        return "commit"

    def end_gap(self, piece: Slice) -> None:
        """At a commit, or a yield at which the executor listens."""
        now_s = self._cpu_clock()
        self._counters.gaps.saw(piece.batch, (now_s - self._gap_start_s) * 1000)
        self._gap_start_s = now_s

    def _emit(self, job: Job, chunk: Emitted) -> None:
        """A cancelled or finished job emits nothing."""
        if job.cancelled or self._book.is_finished(job):
            return
        if isinstance(chunk, Done | Failed):
            self.endings.append((job, chunk))
            return
        if not previews.due(job, chunk, self._clock):
            return
        job.credits -= 1
        if isinstance(chunk, RawAudio):
            job.given_s += len(chunk.samples) / chunk.sample_rate
        if isinstance(chunk, TokenChunk) and job.consumer is None and job.job_class <= JobClass.INTERACTIVE:
            read(job, self._clock(), len(chunk.token_ids))
        self._emit_out(job, chunk)

    def _record(self, piece: Slice, emissions: list[Emission]) -> None:
        if self._recording is None:
            return
        batch = piece.batch
        rows = tuple(job.id for job in batch.rows)
        kept = tuple((e.job.id, e.chunk) for e in emissions if not e.job.cancelled)
        self._recording.events.append(
            Committed(batch.pipeline, batch.kind, rows, batch.units, batch.work, kept)
        )
