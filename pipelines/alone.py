"""One job of one pipeline from beginning to end, without an executor: for verifying and measuring."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pipelines.contract import Budget, Emitted, Job, Pipeline
from pipelines.messages import Done, Failed, Input, JobClass, Request

BUDGET = Budget(slice_ms=50.0, gap_ms=25.0)


def alone(pipeline: Pipeline, request: Request, value: Input | None = None) -> Iterator[Emitted]:
    """What the job emits, `Done` or `Failed` last. Raises: UpbeatError where it is refused."""
    job = Job(0, pipeline.info.name, "local", JobClass.INTERACTIVE, request)
    given = pipeline.prepare(request, None)
    later = pipeline.prepare(request, value) if value is not None else None
    pipeline.admit(job, given)
    try:
        with torch.inference_mode():
            if later is not None:
                pipeline.update(job, later)
            yield from _chunks(pipeline, job)
    finally:
        pipeline.release(job)


def _chunks(pipeline: Pipeline, job: Job) -> Iterator[Emitted]:
    while pipeline.ready(job):
        batch = pipeline.plan([job], BUDGET)
        assert batch is not None
        for emission in pipeline.run(batch):
            if emission is not None:
                yield emission.chunk
                if isinstance(emission.chunk, Done | Failed):
                    return
