"""What every turn of a session works with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.messages import JobClass, ModelInfo, Request
from server.allowance import Allowance
from server.clock import Clock
from server.dispatch import Dispatcher, Work
from server.executor.link import JobOrder
from server.history import History
from server.plan import Plan


@dataclass(frozen=True, slots=True)
class Desk:
    """Owner: the session. deadline_s: on the clock, inf for none."""

    session_id: str
    plan: Plan
    dispatcher: Dispatcher
    clock: Clock
    history: History
    allowance: Allowance
    deadline_s: Callable[[], float]
    max_prompt_chars: int
    max_audio_s: float

    def submit(self, turn_id: str, model: ModelInfo, job_class: JobClass, request: Request) -> Work:
        """A job without further ado. Raises: Draining, Exhausted, DeviceLost."""
        return self.dispatcher.submit(self.order(turn_id, model, job_class, request))

    def order(self, turn_id: str, model: ModelInfo, job_class: JobClass, request: Request) -> JobOrder:
        """A job of this session's, with the stream's deadline."""
        deadline_s = self.deadline_s()
        return JobOrder(
            model.name,
            self.session_id,
            turn_id,
            self.plan.tenant,
            job_class,
            request,
            deadline_in_s=0.0 if math.isinf(deadline_s) else max(0.001, deadline_s - self.clock.now()),
        )

    def grant(self, model: ModelInfo, wanted: int) -> int:
        """How many of the tokens wanted may be generated ahead of a commit now."""
        return self.allowance.grant(wanted, self.dispatcher.busy(model.name), self.clock.now())
