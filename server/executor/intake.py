"""Prepares messages for the executor: tokenising, phonemising and validation, off its thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelines.contract import Pipeline
from pipelines.errors import NotFound, UpbeatError
from pipelines.messages import Cancel, Down, Playback, Request, Submit, Update
from server.executor.guard import guarded
from server.executor.inbox import Arrival
from server.executor.turns import Turns


@dataclass(slots=True)
class _Known:
    """A running job. latest: what its last input was prepared to."""

    pipeline: Pipeline
    request: Request
    tenant: str
    latest: object


class Intake:
    """Keeps the requests of running jobs, since later input is prepared in their light.

    `take` and `take_next` are called on one thread; `put` and `forget` from any. clock: seconds of that
    thread's own time.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        post: Callable[[Arrival], None],
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._pipelines = pipelines
        self._post = post
        self._clock = clock
        self._turns = Turns()
        self._requests: dict[int, _Known] = {}

    @property
    def waiting(self) -> bool:
        """Whether `take_next` has something to do."""
        return bool(self._turns)

    def put(self, message: Down) -> None:
        """For `take_next`, behind the others of its tenant."""
        self._turns.put(message)

    def take_next(self) -> Down | None:
        """Take the message whose tenant's turn it is; None where none waits."""
        turn = self._turns.take()
        if turn is None:
            return None
        tenant, message = turn
        since_s = self._clock()
        self.take(message)
        self._turns.charge(tenant, self._clock() - since_s)
        return message

    def take(self, message: Down) -> None:
        """Prepare the message and post it, or its error, to the executor."""
        try:
            self._post(guarded("preparing", lambda: self._prepare(message)))
        except UpbeatError as error:
            self._post(Arrival(message, error=error))

    def forget(self, job_id: int) -> None:
        """The job has ended."""
        self._requests.pop(job_id, None)
        self._turns.forget(job_id)

    def _prepare(self, message: Down) -> Arrival:
        if isinstance(message, Submit):
            return self._submit(message)
        if isinstance(message, Cancel):
            self.forget(message.job_id)
        if isinstance(message, Update) and not isinstance(message.input, Playback):
            known = self._requests.get(message.job_id)
            if known is not None:
                known.latest = known.pipeline.prepare(
                    known.request, message.input, known.latest, known.tenant
                )
                return Arrival(message, known.latest)
        return Arrival(message)

    def _submit(self, message: Submit) -> Arrival:
        pipeline = self._pipelines.get(message.pipeline)
        if pipeline is None:
            raise NotFound(f"model: there is no model {message.pipeline!r}", field="model")
        request, tenant = message.request, message.tenant
        prepared = pipeline.prepare(request, None, tenant=tenant)
        first = pipeline.prepare(request, message.first, tenant=tenant) if message.first is not None else None
        self._requests[message.job_id] = _Known(pipeline, request, tenant, first)
        return Arrival(message, prepared, first)
