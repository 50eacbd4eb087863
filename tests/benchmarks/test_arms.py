"""The four policies of the preemption benchmark, each told apart by what goes first."""

from __future__ import annotations

from benchmarks.arms import ARMS
from pipelines.contract import Job
from pipelines.messages import JobClass, TextRequest
from server.executor.scheduler import Running, Scheduler, Slot, Start


def job(number: int, job_class: JobClass, pipeline: str, slices: int = 0) -> Job:
    made = Job(number, pipeline, "t", job_class, TextRequest())
    made.slices = slices
    return made


def first(scheduler: Scheduler, *jobs: Job) -> str:
    for each in jobs:
        scheduler.offer(each)
    decision = scheduler.decide(())
    assert isinstance(decision, Start)
    return decision.pipeline


def test_who_goes_first_and_who_gives_way() -> None:
    found = {}
    for name, make in ARMS.items():
        image, voice = job(1, JobClass.STANDARD, "image"), job(2, JobClass.REALTIME, "voice")
        begun = job(3, JobClass.BATCH, "begun", slices=1)
        waiting = make(25.0)
        waiting.offer(voice)
        gives_way = waiting.should_yield(0.0, Running(Slot("image", 2), (image,), 100.0), False, ())
        found[name] = (first(make(25.0), image, voice), first(make(25.0), voice, begun), gives_way)
    assert found == {
        "first come, first served": ("image", "voice", False),
        "priority admission": ("voice", "begun", False),
        "at tokens and steps": ("voice", "voice", False),
        "at layers and blocks": ("voice", "voice", True),
    }
