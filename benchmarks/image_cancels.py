"""How soon the device is free after the last row of a slice is cancelled: what is left of the gap between two
preemption points when the cancel comes, and closing the slice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.image_runs import EVERYTHING, Runs
from benchmarks.stats import percentile
from pipelines.contract import Emission, Job
from pipelines.messages import ImageRequest, JobClass


def cancels_report(runs: Runs, count: int) -> dict[str, float]:
    """Milliseconds over `count` cancels at random moments of random slices, caches on."""
    order, free_ms = random.Random(5), list[float]()
    for number in range(count):
        job = _admitted(runs, number, order)
        for _ in range(order.randint(0, 5)):
            if runs.pipeline.ready(job):
                for _ in _slice(runs, job):
                    pass
        if runs.pipeline.ready(job):
            free_ms.append(_cancel(_slice(runs, job), order))
        runs.pipeline.release(job)
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "longest_ms": 1.0}
    found = {name: round(percentile(free_ms, share), 2) for name, share in shares.items()}
    print("cancel of the last row to a free device", found, flush=True)
    return {"cancels": float(len(free_ms)), **found}


def _admitted(runs: Runs, number: int, order: random.Random) -> Job:
    request = ImageRequest("a red circle", seed=number, cache_level=order.choice(("off", "balanced", "fast")))
    job = Job(100_000 + number, "image", "local", JobClass.STANDARD, request)
    runs.pipeline.admit(job, replace(runs.pipeline.prepare(request, None), steps=12))
    return job


def _slice(runs: Runs, job: Job) -> Iterator[Emission | None]:
    batch = runs.pipeline.plan(iter([job]), EVERYTHING)
    assert batch is not None
    return runs.pipeline.run(batch)


def _cancel(steps: Iterator[Emission | None], order: random.Random) -> float:
    """Milliseconds from a moment inside a random gap until the slice is closed."""
    gap_ms = 0.0
    for _ in range(order.randint(1, 60)):
        begin = time.thread_time()
        ended = next(steps, "end") == "end"
        gap_ms = 1000 * (time.thread_time() - begin)
        if ended:
            break
    begin = time.thread_time()
    steps.close()  # type: ignore[attr-defined]
    return order.random() * gap_ms + 1000 * (time.thread_time() - begin)
