"""Pictures of mixed sizes and steps that arrive at random, under three ways to share a device.

The same Poisson arrivals, caches on in all: continuous batching (a row joins and leaves at any evaluation),
one picture after the other, and static batches (what waits is drawn together to its end). The clock is
virtual: it runs while a slice runs and jumps to the next arrival where nothing is to be done.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.image_runs import EVERYTHING, ROWS, Runs
from benchmarks.stats import percentile
from pipelines.contract import Job
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.state import state_of
from pipelines.messages import ImageRequest, JobClass

LOAD = 0.9
SIDES = (64, 96, 128)
STEPS = (12, 20, 28)
LEVEL = "balanced"


@dataclass(slots=True)
class Work:
    """One picture of an arm; seconds from the start."""

    job: Job
    at_s: float
    begun_s: float = -1.0
    done_s: float = -1.0


@dataclass(slots=True)
class Arm:
    """Which of the waiting pictures may run now, in order."""

    choose: Callable[[list[Work]], list[Work]]
    waits_s: list[float] = field(default_factory=list)
    takes_s: list[float] = field(default_factory=list)
    busy_s: float = 0.0


def continuous(waiting: list[Work]) -> list[Work]:
    """All, oldest first: the pipeline's own plan."""
    return waiting


def one_by_one(waiting: list[Work]) -> list[Work]:
    """The oldest."""
    return waiting[:1]


def static(waiting: list[Work]) -> list[Work]:
    """What has begun together; when that is done, the oldest and those of its size."""
    begun = [work for work in waiting if work.begun_s >= 0]
    if begun:
        return begun
    plan = state_of(waiting[0].job).plan
    alike = [
        w for w in waiting if (p := state_of(w.job).plan).width == plan.width and p.height == plan.height
    ]
    return alike[:ROWS]


def requests(captions: Sequence[str], count: int, seed: int) -> list[ImageRequest]:
    """A mix of sizes and steps."""
    rng = random.Random(seed)
    return [
        ImageRequest(
            captions[number % len(captions)],
            width=(side := rng.choice(SIDES)),
            height=side,
            steps=rng.choice(STEPS),
            seed=number,
            cache_level=LEVEL,
        )
        for number in range(count)
    ]


def run(
    pipeline: ImagePipeline, arm: Arm, asked: Sequence[ImageRequest], arrivals_s: Sequence[float]
) -> None:
    """All of them, to the end."""
    clock_s, waiting = 0.0, list[Work]()
    coming = list(enumerate(zip(asked, arrivals_s, strict=True), 1))
    while coming or waiting:
        if not waiting:
            clock_s = max(clock_s, coming[0][1][1])
        while coming and coming[0][1][1] <= clock_s:
            number, (request, at_s) = coming.pop(0)
            job = Job(number, pipeline.info.name, "local", JobClass.STANDARD, request)
            pipeline.admit(job, pipeline.prepare(request, None))
            waiting.append(Work(job, at_s))
        chosen = arm.choose(waiting)
        batch = pipeline.plan(iter([work.job for work in chosen]), EVERYTHING)
        assert batch is not None
        running = [work for work in chosen if arm.choose is static or work.job in batch.rows]
        for work in running:
            if work.begun_s < 0:
                work.begun_s = clock_s
        began = time.thread_time()
        for _ in pipeline.run(batch):
            pass
        took = time.thread_time() - began
        pipeline.observe(batch, took * 1000)
        clock_s += took
        arm.busy_s += took
        for work in [work for work in running if not pipeline.ready(work.job)]:
            arm.waits_s.append(work.begun_s - work.at_s)
            arm.takes_s.append(clock_s - work.at_s)
            pipeline.release(work.job)
            waiting.remove(work)


def arrivals_report(runs: Runs, captions: Sequence[str], count: int) -> dict[str, dict[str, float]]:
    """One row an arm: pictures a second of busy time, waits to the first slice, times to the picture."""
    pipeline = runs.pipeline
    warm = Arm(one_by_one)
    run(pipeline, warm, requests(captions, 6, 1), [0.0] * 6)
    asked = requests(captions, count, 2)
    capacity = Arm(one_by_one)
    run(pipeline, capacity, asked, [0.0] * count)
    rng, at_s, arrivals = random.Random(3), 0.0, []
    for _ in asked:
        at_s += rng.expovariate(LOAD * count / capacity.busy_s)
        arrivals.append(at_s)
    rows: dict[str, dict[str, float]] = {}
    for name, choose in (("one by one", one_by_one), ("static batches", static), ("continuous", continuous)):
        arm = Arm(choose)
        run(pipeline, arm, asked, arrivals)
        rows[name] = {
            "pictures_per_busy_s": round(count / arm.busy_s, 2),
            "wait_p50_ms": round(1000 * percentile(arm.waits_s, 0.5), 1),
            "wait_p99_ms": round(1000 * percentile(arm.waits_s, 0.99), 1),
            "done_mean_ms": round(1000 * sum(arm.takes_s) / count, 1),
            "done_p99_ms": round(1000 * percentile(arm.takes_s, 0.99), 1),
        }
        print(name, rows[name], flush=True)
    return rows
