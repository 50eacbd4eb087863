"""What the services share: one gateway over one link. Owner: the event loop."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pipelines.messages import ModelInfo
from server import catalog
from server.admission import Admission
from server.allowance import Allowances
from server.clock import Clock, LoopClock
from server.config import Config
from server.dispatch import Dispatcher
from server.executor.link import Link
from server.metrics import Metrics
from server.plan import Plan
from server.replay import ReplayBudget
from server.session import Session, SessionLimits
from server.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Gateway:
    """Built once by `build`."""

    config: Config
    link: Link
    clock: Clock
    admission: Admission
    dispatcher: Dispatcher
    sessions: Sessions
    metrics: Metrics
    budget: ReplayBudget
    allowances: Allowances

    def model(self, modality: str, name: str, field: str) -> ModelInfo:
        """The loaded model that a request means. Raises: NotFound, Unsupported."""
        return catalog.resolve(self.link.models, modality, name, field)

    def session(self, plan: Plan) -> Session:
        """A new conversation."""
        limits = SessionLimits(
            prompt_chars=self.config.limits.prompt_chars, audio_s=self.config.limits.audio_s
        )
        return Session(
            new_id(),
            plan,
            self.dispatcher,
            self.clock,
            limits,
            self.budget,
            finished=self.metrics.turn,
            allowance=self.allowances.session(plan.tenant),
        )


def build(config: Config, link: Link, clock: Clock | None = None) -> Gateway:
    """Everything between the wire and `link`, with nothing started."""
    clock = clock or LoopClock()
    limits = config.limits
    admission = Admission(limits.streams, limits.streams_per_tenant, limits.jobs_per_pipeline, clock.now)
    metrics = Metrics()
    metrics.watch(lambda: admission.open_streams, lambda: link.up, lambda: link.stats)
    return Gateway(
        config,
        link,
        clock,
        admission,
        Dispatcher(link, admission),
        Sessions(clock),
        metrics,
        ReplayBudget(limits.replay_mib << 20),
        Allowances(limits.ahead_tokens_per_s, limits.ahead_tokens_per_s_per_tenant, limits.ahead_until_jobs),
    )


def new_id() -> str:
    """Names a session; nobody can guess it."""
    return uuid.uuid4().hex
