"""Previews by time."""

from __future__ import annotations

import numpy as np

from pipelines.contract import Job, RawImage
from pipelines.messages import ImageRequest, JobClass
from server.executor.previews import due


def picture(final: bool = False) -> RawImage:
    return RawImage(np.zeros((1, 1, 3), np.uint8), (1, 1), 1, 2, final)


def job_of(preview_ms: int) -> Job:
    return Job(1, "image", "local", JobClass.STANDARD, ImageRequest("red", preview_ms=preview_ms))


def test_so_far_apart() -> None:
    job, times = job_of(200), iter((5.0, 5.1, 5.19, 5.21, 5.3, 9.0))
    assert [due(job, picture(), lambda: next(times)) for _ in range(6)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip
    assert due(job, picture(final=True), lambda: 9.01)


def test_all_where_no_time_is_named() -> None:
    job = job_of(0)
    assert all(due(job, picture(), lambda: 5.0) for _ in range(3))
