"""From the gateway to the device: one submitted job with its place in admission."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.errors import Draining, Exhausted, UpbeatError
from pipelines.messages import Chunk, Done, Input
from server.admission import Admission, Slot
from server.executor.link import JobHandle, JobOrder, Link


class Work:
    """A running job. Its slot is given back when it ends, fails or is cancelled, once."""

    def __init__(self, handle: JobHandle, slot: Slot, committed: bool, place: Callable[[bool], Slot]) -> None:
        """place(committed): takes a slot among the committed jobs, or those ahead."""
        self.handle = handle
        self.committed = committed
        self._slot = slot
        self._place = place

    def on_arrival(self, callback: Callable[[], object]) -> None:
        """`callback()` whenever `take` may have something."""
        self.handle.outbox.on_arrival = callback

    def take(self) -> Chunk | None:
        """The next chunk if one is there. Raises: UpbeatError, when the job failed."""
        try:
            chunk = self.handle.outbox.take()
        except UpbeatError:
            self._slot.leave()
            raise
        if isinstance(chunk, Done):
            self._slot.leave()
        return chunk

    def update(self, value: Input) -> None:
        """More input; ignored once the job has ended."""
        self.handle.update(value)

    def promote(self, consumer: Work | None = None) -> None:
        """The turn of a job that ran ahead is committed. consumer: what it feeds. Raises: Exhausted."""
        if not self.committed:
            self.enter()
        self.handle.promote(consumer.handle if consumer else None)

    def commit(self, value: Input) -> None:
        """The input that makes the job a committed one. Raises: Exhausted."""
        self.enter()
        self.update(value)

    def enter(self) -> None:
        """From the places of work ahead to those of committed work, where it runs. Raises: Exhausted."""
        self.committed = True
        self._move()

    def rest(self) -> None:
        """And back: it only waits. Where too many do, it keeps its place."""
        self.committed = False
        try:
            self._move()
        except Exhausted:
            self.committed = True

    def _move(self) -> None:
        if not self._slot.left:
            slot = self._place(self.committed)
            self._slot.leave()
            self._slot = slot

    def cancel(self) -> None:
        """Nothing comes any more; the device drops the job. More than once is once."""
        self.handle.cancel()
        self._slot.leave()


class Dispatcher:
    """Submits jobs, unless there are too many or the server is going. Owner: the event loop."""

    def __init__(self, link: Link, admission: Admission) -> None:
        self.draining = False
        self._link = link
        self._admission = admission

    def check_open(self) -> None:
        """Raises: Draining."""
        if self.draining:
            raise Draining("the server is shutting down", retry_after_s=1.0)

    def submit(self, order: JobOrder, rests: bool = False) -> Work:
        """rests: it only waits for the time being, so that its place is one of those ahead. Raises: Draining,
        Exhausted, DeviceLost."""
        self.check_open()
        committed = order.committed and not rests
        slot = self._place(order, committed, rests)
        try:
            handle = self._link.submit(order)
        except UpbeatError:
            slot.leave()
            raise
        return Work(handle, slot, committed, lambda committed: self._place(order, committed, rests))

    def busy(self, pipeline: str) -> int:
        """Committed jobs that run."""
        return self._admission.busy(pipeline)

    def _place(self, order: JobOrder, committed: bool, rests: bool) -> Slot:
        """The device's own places bound who works; who only rests takes none of them."""
        if rests and not committed:
            return self._admission.job(order.pipeline, order.tenant, committed)
        places = next((model.places for model in self._link.models if model.name == order.pipeline), 0)
        return self._admission.job(order.pipeline, order.tenant, committed, places)
