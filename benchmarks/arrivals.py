"""Arrivals in real time through an executor, on any device: for `benchmarks.gpu_preemption`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines.contract import Budget, Emitted, Job, Pipeline
from pipelines.device import Device
from pipelines.messages import Done, Input, JobClass, Request, Submit
from server.executor.executor import DeviceExecutor
from server.executor.intake import Intake
from server.executor.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job and when it comes, in seconds from the start."""

    at_s: float
    pipeline: str
    job_class: JobClass
    request: Request
    first: Input | None


@dataclass(slots=True)
class Outcome:
    """Of one arm: seconds by job number."""

    first_s: dict[int, float] = field(default_factory=dict)
    done_s: dict[int, float] = field(default_factory=dict)
    busy_s: float = 0.0
    preemptions: int = 0
    longest_gap_ms: float = 0.0


def run(
    pipelines: dict[str, Pipeline],
    scheduler: Scheduler,
    plan: list[Arrival],
    device: Device,
    promised_ms: float,
) -> Outcome:
    """All arrivals under one policy, in real time, on this thread."""
    outcome = Outcome()
    began_s = time.perf_counter()

    def emit(job: Job, chunk: Emitted) -> None:
        now_s = time.perf_counter() - began_s
        outcome.first_s.setdefault(job.id, now_s)
        if isinstance(chunk, Done):
            outcome.done_s[job.id] = now_s

    pending: Iterator[tuple[int, Arrival]] = iter(enumerate(plan, 1))
    upcoming = next(pending, None)

    def arrive() -> bool:
        nonlocal upcoming
        while upcoming is not None and upcoming[1].at_s <= time.perf_counter() - began_s:
            number, each = upcoming
            turn = f"t{number}"
            intake.take(
                Submit(
                    number,
                    each.pipeline,
                    "s",
                    turn,
                    "local",
                    each.job_class,
                    each.request,
                    1 << 30,
                    first=each.first,
                )
            )
            upcoming = next(pending, None)
        return False

    budget = Budget(60.0, promised_ms)
    executor = DeviceExecutor(pipelines, scheduler, device, budget, emit, give_way=arrive)
    intake = Intake(pipelines, executor.inbox.post)
    while len(outcome.done_s) < len(plan):
        arrive()
        if not executor.step() and upcoming is not None:
            time.sleep(max(0.0, upcoming[1].at_s - (time.perf_counter() - began_s)))
    outcome.busy_s = executor.counters.busy_s
    outcome.preemptions = executor.counters.preemptions
    outcome.longest_gap_ms = executor.counters.gaps.longest_ms
    return outcome


def waits(plan: list[Arrival], outcome: Outcome, job_class: JobClass) -> list[float]:
    """Milliseconds to the first chunk of the class's jobs, in order of arrival."""
    numbered = ((number, each) for number, each in enumerate(plan, 1) if each.job_class is job_class)
    return [(outcome.first_s[number] - each.at_s) * 1000 for number, each in numbered]
