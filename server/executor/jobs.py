"""All jobs that the executor knows: how they come, wait, are parked, and go.

A job is offered to the scheduler exactly while it could run: admitted, neither cancelled nor finished, in
no slice, with credits, and with work (`Pipeline.ready`). It is released exactly once, never in a slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import msgspec

from pipelines.contract import Emitted, Job, Pipeline
from pipelines.device import Device
from pipelines.errors import UpbeatError
from pipelines.messages import (
    DeviceTimings,
    Done,
    Failed,
    ImageRequest,
    Playback,
    Promote,
    PromptRevision,
    Submit,
    Update,
)
from server.executor.forecast import Forecaster, check, goes_before, size_of
from server.executor.guard import guarded
from server.executor.inbox import Arrival
from server.executor.listeners import played
from server.executor.recording import Admitted, Recording, Released, Updated
from server.executor.scheduler import Scheduler
from server.executor.supply import Supply

LOWERED = 0.5
"""What a lowered image costs, over a full one: half of the steps."""


def failed(error: UpbeatError) -> Failed:
    """The error as it travels."""
    return Failed(type(error).__name__, error.message, error.field, error.retry_after_s)


class JobBook:
    """Owner: the executor thread."""

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        scheduler: Scheduler,
        device: Device,
        emit: Callable[[Job, Emitted], None],
        clock: Callable[[], float],
        recording: Recording | None,
        released: Callable[[int], None],
    ) -> None:
        self._pipelines = pipelines
        self._scheduler = scheduler
        self._device = device
        self._emit = emit
        self._clock = clock
        self._recording = recording
        self._released = released
        self._jobs: dict[int, Job] = {}
        self._finished: set[int] = set()
        self._deferred: dict[int, list[Arrival]] = {}
        self._producers: dict[int, list[Job]] = {}
        self._entered_s: dict[int, float] = {}
        self._completed: set[int] = set()
        self.forecaster = Forecaster()
        self._supply = Supply()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def sessions(self) -> int:
        """How many conversations have a job."""
        return len({job.session_id for job in self._jobs.values()})

    def live(self, pipeline: str) -> Iterator[Job]:
        """The pipeline's jobs that are neither cancelled nor finished."""
        return (job for job in self._present() if job.pipeline == pipeline)

    def _present(self) -> Iterator[Job]:
        return filter(self.is_live, self._jobs.values())

    def is_live(self, job: Job) -> bool:
        """Whether it is here, and neither cancelled nor finished."""
        return job.id in self._jobs and not job.cancelled and not self.is_finished(job)

    def is_finished(self, job: Job) -> bool:
        """Whether its last chunk is out."""
        return job.id in self._finished

    # --- in -------------------------------------------------------------------------------------------

    def receive(self, arrival: Arrival) -> None:
        """A Submit or an Update."""
        message = arrival.message
        if isinstance(message, Submit):
            self._submit(message, arrival)
            return
        assert isinstance(message, Update)
        job = self._jobs.get(message.job_id)
        if job is None or not self.is_live(job):
            return
        if isinstance(message.input, PromptRevision) and message.input.final:
            job.committed = True
        if isinstance(message.input, Playback):
            played(job, self._clock(), message.input.ahead_ms / 1000)
            for producer in self._producers.get(job.id, ()):
                self.refresh(producer)
        elif job.in_slice:
            self._defer(job, arrival)
        else:
            self._update(job, arrival.prepared, arrival.error)
        self.refresh(job)

    def _defer(self, job: Job, arrival: Arrival) -> None:
        """Until the job's slice has ended; of several revisions of a prompt the last one counts."""
        waiting = self._deferred.setdefault(job.id, [])
        if waiting and arrival.error is None and waiting[-1].error is None and _revises(waiting[-1], arrival):
            waiting.pop()
        waiting.append(arrival)

    def _submit(self, message: Submit, arrival: Arrival) -> None:
        now_s = self._clock()
        job = Job(
            id=message.job_id,
            pipeline=message.pipeline,
            tenant=message.tenant,
            job_class=message.job_class,
            request=message.request,
            turn_id=message.turn_id,
            session_id=message.session_id,
            arrived_s=now_s,
            deadline_s=now_s + message.deadline_in_s if message.deadline_in_s else math.inf,
            committed=message.committed,
            credits=message.credits,
        )
        try:
            if arrival.error is not None:
                raise arrival.error
            pipeline = self._pipelines[message.pipeline]
            size = size_of(pipeline.info, message.request)
            self._check_deadline(job, size)
            self._supply.check(job, self._present(), now_s)
            guarded("admission", lambda: pipeline.admit(job, arrival.prepared))
        except UpbeatError as error:
            self._emit(job, failed(error))
            return
        self._serve(job, message.consumer)
        self._jobs[job.id] = job
        self._scheduler.enter(job.tenant)
        self.forecaster.enter(job, size)
        self._record_admission(job, arrival.prepared)
        if message.first is not None:
            self._update(job, arrival.first)
        self.refresh(job)

    def _check_deadline(self, job: Job, size: float) -> None:
        """Quality yields before service does. Raises: Exhausted, where the deadline would be missed."""
        if math.isinf(job.deadline_s) or not job.committed:
            return
        ahead = [other for other in self._jobs.values() if goes_before(other, job)]
        left_ms = (job.deadline_s - job.arrived_s) * 1000
        found = self.forecaster.forecast(job, size, ahead)
        request = job.request
        may_lower = isinstance(request, ImageRequest) and request.allow_lower_quality
        if found is not None and found.p90_ms > left_ms and may_lower:
            job.pressed = True
            found = self.forecaster.forecast(job, size * LOWERED, ahead)
        check(found, left_ms, job.pipeline)

    def _update(self, job: Job, prepared: object, error: UpbeatError | None = None) -> None:
        try:
            if error is not None:
                raise error
            guarded("input", lambda: self._pipelines[job.pipeline].update(job, prepared))
        except UpbeatError as refused:
            self.finish(job, failed(refused))
            return
        if self._recording is not None:
            self._recording.events.append(Updated(job.id, prepared))

    def credit(self, job_id: int, count: int) -> None:
        """The outbox has room again."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.credits += count
            self.refresh(job)

    def promote(self, message: Promote) -> bool:
        """The job's turn is committed. Returns False for a voice too many: it has failed, and is to be
        cancelled."""
        job = self._jobs.get(message.job_id)
        if job is None or not self.is_live(job):
            return True
        job.committed = True
        self._serve(job, message.consumer)
        try:
            others = (other for other in self._present() if other is not job)
            self._supply.check(job, others, self._clock())
        except UpbeatError as error:
            self._emit(job, failed(error))
            return False
        if not job.in_slice:
            self.refresh(job)
        return True

    def cancel(self, job_id: int) -> Job | None:
        """From now on the job emits nothing; it leaves at once, or when its slice ends."""
        job = self._jobs.get(job_id)
        if job is None or job.cancelled:
            return None
        job.cancelled = True
        self._scheduler.withdraw(job)
        if not job.in_slice:
            self._release(job)
        return job

    # --- waiting ----------------------------------------------------------------------------------------

    def refresh(self, job: Job) -> None:
        """Offer the job to the scheduler, or withdraw it."""
        if self._could_run(job):
            if job.waiting_since_s is None:
                job.waiting_since_s = self._clock()
            self._scheduler.offer(job)
        else:
            job.waiting_since_s = None
            self._scheduler.withdraw(job)

    def _could_run(self, job: Job) -> bool:
        if not self.is_live(job) or job.in_slice or job.credits <= 0:
            return False
        return self._pipelines[job.pipeline].ready(job)

    def _serve(self, job: Job, consumer: int) -> None:
        """From now on the job produces for this one; 0, or one that is gone, for its client alone."""
        if job.consumer is not None:
            self._producers[job.consumer.id].remove(job)
        job.consumer = self._jobs.get(consumer)
        if job.consumer is not None:
            self._producers.setdefault(consumer, []).append(job)

    def _let_go(self, consumer: Job) -> None:
        """The consumer is gone: nobody inherits from it any more."""
        for job in self._producers.pop(consumer.id, ()):
            job.consumer = None
            if not job.in_slice:
                self.refresh(job)

    # --- slices -----------------------------------------------------------------------------------------

    def enter_slice(self, job: Job) -> None:
        """The job is a row of a slice now."""
        now_s = self._clock()
        if job.waiting_since_s is not None:
            job.queue_ms += (now_s - job.waiting_since_s) * 1000
            job.waiting_since_s = None
        job.in_slice = True
        job.slices += 1
        self._entered_s[job.id] = now_s

    def leave_slice(self, job: Job, slice_ms: float) -> None:
        """The slice, `slice_ms` on the device, has ended: input that waited is applied, or the job goes."""
        job.queue_ms += self._suspended_ms(job, slice_ms)
        job.in_slice = False
        del self._entered_s[job.id]
        deferred = self._deferred.pop(job.id, [])
        if job.cancelled or self.is_finished(job):
            self._release(job)
            return
        for arrival in deferred:
            if not self.is_finished(job):
                self._update(job, arrival.prepared, arrival.error)
        self.refresh(job)

    def _suspended_ms(self, job: Job, slice_ms: float) -> float:
        return max(0.0, (self._clock() - self._entered_s[job.id]) * 1000 - slice_ms)

    # --- out --------------------------------------------------------------------------------------------

    def finish(self, job: Job, last: Done | Failed, slice_ms: float = 0.0) -> None:
        """The job's last chunk. slice_ms: device time of the slice it is in, for its timings."""
        if not self.is_live(job):
            return
        self._finished.add(job.id)
        if isinstance(last, Done):
            self._completed.add(job.id)
            self._supply.learn(job, last.usage.audio_ms)
        self._scheduler.withdraw(job)
        if job.in_slice:
            job.queue_ms += self._suspended_ms(job, slice_ms)
        self._emit(job, last if isinstance(last, Failed) else _with_timings(job, last))
        if not job.in_slice:
            self._release(job)

    def end_all(self) -> None:
        """The executor stops: everything is released."""
        for job in list(self._jobs.values()):
            job.in_slice = False
            self._release(job)

    def _release(self, job: Job) -> None:
        del self._jobs[job.id]
        self._serve(job, consumer=0)
        self._let_go(job)
        self._scheduler.withdraw(job)
        self._scheduler.leave(job.tenant)
        self.forecaster.leave(job, completed=job.id in self._completed)
        self._completed.discard(job.id)
        self._finished.discard(job.id)
        self._deferred.pop(job.id, None)
        pipeline = self._pipelines[job.pipeline]
        self._device.retire(lambda: pipeline.release(job))
        self._released(job.id)
        if self._recording is not None:
            self._recording.events.append(Released(job.id))

    def _record_admission(self, job: Job, prepared: object) -> None:
        if self._recording is not None:
            self._recording.events.append(Admitted(job.id, job.pipeline, job.tenant, job.request, prepared))


def _revises(earlier: Arrival, later: Arrival) -> bool:
    inputs = [each.message.input for each in (earlier, later) if isinstance(each.message, Update)]
    return all(isinstance(each, PromptRevision) for each in inputs)


def _with_timings(job: Job, done: Done) -> Done:
    timings = DeviceTimings(job.queue_ms, job.served_ms, job.preemptions, job.evictions, job.slices)
    return msgspec.structs.replace(done, timings=timings)
