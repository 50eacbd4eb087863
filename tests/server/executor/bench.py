"""A device executor without threads or real time: the test says what arrives and steps it by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pipelines.contract import Budget, Emitted, Job, Pipeline
from pipelines.device import Device
from pipelines.messages import Cancel, Credits, Down, Input, JobClass, Request, Submit, Update
from server.executor.executor import DeviceExecutor
from server.executor.intake import Intake
from server.executor.recording import Recording
from server.executor.scheduler import Scheduler
from tests.server.executor.toy import request


class InstantDevice:
    """Retires at once, or, when held, as the test says (rule 7)."""

    def __init__(self) -> None:
        self.hold = False
        self.kept: list[Callable[[], None]] = []
        self.segments = 0
        self.room = math.inf
        self.used = self.most = 0

    def enter_thread(self) -> None:
        self.segments = 0

    def switch_to(self, urgent: bool) -> None:
        self.urgent = urgent

    def segment(self) -> None:
        self.segments += 1

    def retire(self, clean_up: Callable[[], None]) -> None:
        if self.hold:
            self.kept.append(clean_up)
        else:
            clean_up()

    def room_bytes(self) -> float:
        return self.room

    def meter(self) -> tuple[int, int]:
        most, self.most = self.most, self.used
        return self.used, most

    def take(self, change: int) -> None:
        """Memory that a slice allocates, or frees."""
        self.used += change
        self.most = max(self.most, self.used)

    def collect(self) -> bool:
        if self.hold or not self.kept:
            return False
        kept, self.kept = self.kept, []
        for clean_up in kept:
            clean_up()
        return True


class Bench:
    """One executor and everything that came out of it."""

    def __init__(
        self,
        *pipelines: Pipeline,
        device: Device | None = None,
        give_way: Callable[[], bool] = lambda: False,
        yield_ms: float = 1.0,
        delay_ms: float = 25.0,
        on_yield: Callable[[], None] = lambda: None,
    ) -> None:
        self.now_s = 0.0
        self._yield_s = yield_ms / 1000
        self._on_yield = on_yield
        self.recording = Recording()
        self.out: list[tuple[int, Emitted]] = []
        self.gone: list[int] = []
        by_name: Mapping[str, Pipeline] = {pipeline.info.name: pipeline for pipeline in pipelines}
        self.executor = DeviceExecutor(
            by_name,
            Scheduler(delay_ms),
            device or InstantDevice(),
            Budget(60.0, delay_ms),
            self._emit,
            released=self.gone.append,
            clock=self._clock,
            cpu_clock=lambda: self.now_s,
            recording=self.recording,
            give_way=give_way,
        )
        self.intake = Intake(by_name, self.executor.inbox.post)
        self._ids = 0

    def _clock(self) -> float:
        self.now_s += self._yield_s
        return self.now_s

    def _emit(self, job: Job, chunk: Emitted) -> None:
        self.out.append((job.id, chunk))

    def send(self, message: Down) -> None:
        self.intake.take(message)

    def submit(
        self,
        job_class: JobClass = JobClass.STANDARD,
        what: Request | int = 1,
        *,
        pipeline: str = "toy",
        tenant: str = "local",
        credits: int = 1000,
        deadline_in_s: float = 0.0,
        committed: bool = True,
        consumer: int = 0,
        first: Input | None = None,
        session: str = "s",
    ) -> int:
        self._ids += 1
        wanted = request(what) if isinstance(what, int) else what
        self.send(
            Submit(
                self._ids,
                pipeline,
                session,
                f"turn-{self._ids}",
                tenant,
                job_class,
                wanted,
                credits,
                deadline_in_s,
                committed,
                consumer,
                first,
            )
        )
        return self._ids

    def update(self, job_id: int, value: Input) -> None:
        self.send(Update(job_id, value))

    def cancel(self, job_id: int) -> None:
        self.send(Cancel(job_id))

    def credit(self, job_id: int, count: int) -> None:
        self.send(Credits(job_id, count))

    def run(self, limit: int = 10_000) -> None:
        """Until there is nothing to do."""
        for _ in range(limit):
            if not self.executor.step():
                return
        raise AssertionError("the executor does not come to rest")

    def chunks(self, job_id: int) -> list[Emitted]:
        return [chunk for owner, chunk in self.out if owner == job_id]
