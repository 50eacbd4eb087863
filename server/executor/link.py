"""The seam between the gateway and a device, as an interface.

A local process stands behind it now (`process_link`), an executor in the same process for tests and
embedding (`local_link`), another machine later: nothing above may assume one host. Everything here is
called on the gateway's event loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipelines.errors import DeviceLost
from pipelines.messages import (
    Cancel,
    Chunk,
    Credits,
    Down,
    Emit,
    Input,
    JobClass,
    ModelInfo,
    Promote,
    Request,
    Stats,
    Submit,
    Update,
)
from server.outbox import Outbox

CREDITS = {"text": 64, "speech": 8, "image": 4, "transcription": 16}


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What the gateway asks of a pipeline. deadline_in_s: seconds from now, 0 for none. credits: how many
    chunks the job may emit before it is granted more, 0 for the usual number."""

    pipeline: str
    session_id: str
    turn_id: str
    tenant: str
    job_class: JobClass
    request: Request
    first: Input | None = None
    deadline_in_s: float = 0.0
    committed: bool = True
    consumer: JobHandle | None = None
    credits: int = 0


class Link(Protocol):
    """One device, as the gateway sees it."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What is loaded; kept while the device restarts."""

    @property
    def up(self) -> bool:
        """Whether jobs can be submitted now."""

    @property
    def stats(self) -> Stats:
        """The device's latest counters."""

    async def start(self) -> None:
        """Returns when the models are loaded. Raises: ModelBroken, Unsupported naming folder and file."""

    async def stop(self) -> None:
        """Ends the device; jobs that still run fail with DeviceLost."""

    def submit(self, order: JobOrder) -> JobHandle:
        """Raises: DeviceLost while the device is down."""

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """`callback(up)` whenever the device goes down or comes back."""

    async def trace(self, seconds: float) -> bytes:
        """Chrome/Perfetto JSON of every slice and preemption in the next `seconds`."""


class JobHandle:
    """One submitted job: inputs go down, chunks come up through its outbox."""

    def __init__(self, job_id: int, outbox: Outbox, usual: int, send: Callable[[Down], None]) -> None:
        self.job_id = job_id
        self.outbox = outbox
        self._usual = usual
        self._send = send
        self._cancelled = False

    def update(self, value: Input) -> None:
        """More input; ignored once the job has ended."""
        if not self.outbox.ended and not self._cancelled:
            self._send(Update(self.job_id, value))

    def promote(self, consumer: JobHandle | None = None) -> None:
        """The turn is committed, so the job ran ahead of it no longer: it gets its rank, its consumer and the
        usual credits."""
        if self.outbox.ended or self._cancelled:
            return
        self._send(Promote(self.job_id, consumer.job_id if consumer else 0))
        if self.outbox.capacity < self._usual:
            self._send(Credits(self.job_id, self._usual - self.outbox.capacity))
            self.outbox.capacity = self._usual

    def cancel(self) -> None:
        """Nothing leaves the outbox from now on; the device drops the job at its next commit."""
        if self._cancelled:
            return
        self._cancelled = True
        ended = self.outbox.ended
        self.outbox.discard()
        if not ended:
            self._send(Cancel(self.job_id))

    async def get(self) -> Chunk | None:
        """The next chunk; Done last; None once cancelled. Raises: UpbeatError, when the job failed."""
        return await self.outbox.get()


class JobTable:
    """The running jobs of one link: what every kind of link does alike."""

    def __init__(self, send: Callable[[Down], None]) -> None:
        self._send = send
        self._ids = itertools.count(1)
        self._outboxes: dict[int, Outbox] = {}

    def __len__(self) -> int:
        return len(self._outboxes)

    def submit(self, order: JobOrder, modality: str) -> JobHandle:
        """Number the job, open its outbox, send it down."""
        job_id = next(self._ids)
        capacity = order.credits or CREDITS[modality]
        outbox = Outbox(capacity, lambda count: self._send(Credits(job_id, count)))
        self._outboxes[job_id] = outbox
        self._send(
            Submit(
                job_id,
                order.pipeline,
                order.session_id,
                order.turn_id,
                order.tenant,
                order.job_class,
                order.request,
                capacity,
                order.deadline_in_s,
                order.committed,
                order.consumer.job_id if order.consumer else 0,
                order.first,
            )
        )
        return JobHandle(job_id, outbox, CREDITS[modality], self._forward)

    def deliver(self, emit: Emit) -> None:
        """A chunk has come up."""
        outbox = self._outboxes.get(emit.job_id)
        if outbox is not None:
            outbox.put(emit.chunk)
            if outbox.ended:
                del self._outboxes[emit.job_id]

    def fail_all(self, reason: str) -> None:
        """The device is gone."""
        outboxes, self._outboxes = self._outboxes, {}
        for outbox in outboxes.values():
            outbox.fail(DeviceLost(reason, retry_after_s=2.0))

    def _forward(self, message: Down) -> None:
        if isinstance(message, Cancel):
            self._outboxes.pop(message.job_id, None)
        self._send(message)
