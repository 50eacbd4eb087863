"""What is seen of a policy: who used the device, and how long urgent work waited for a running slice."""

from __future__ import annotations

import pytest

from benchmarks.arms import AtSliceEnds
from benchmarks.delays import Watched, watching
from pipelines.contract import Job
from pipelines.messages import JobClass, TextRequest
from server.executor.scheduler import Running, Scheduler, Slot

R, I, S, B = JobClass  # noqa: E741


def job(number: int, job_class: JobClass) -> Job:
    return Job(number, "p", "t", job_class, TextRequest())


@pytest.mark.parametrize("policy", [Scheduler, AtSliceEnds])
def test_delays_are_those_of_new_urgent_jobs_under_less_urgent_slices(policy: type[Scheduler]) -> None:
    now_s, seen = 0.0, Watched()
    scheduler = watching(policy, lambda: now_s, seen)(25.0)
    image, voice, chat = job(1, S), job(2, R), job(3, I)
    running = Running(Slot("q", S), (image,), 50.0)
    scheduler.offer(voice)
    now_s = 0.004
    scheduler.offer(voice)
    scheduler.offer(chat)
    scheduler.offer(job(4, B))
    now_s = 0.010
    scheduler.charge(running, 10.0, ())
    assert seen.delays_ms == pytest.approx([10.0, 6.0])
    scheduler.charge(running, 5.0, ())
    assert len(seen.delays_ms) == 2, "each is counted once"
    voice.slices = 1
    scheduler.offer(voice)
    scheduler.charge(Running(Slot("q", I), (chat,), 1.0), 2.0, ())
    assert len(seen.delays_ms) == 2, "whoever has begun waits for other reasons"
    assert seen.used_ms == pytest.approx({R: 0.0, I: 2.0, S: 15.0, B: 0.0})
