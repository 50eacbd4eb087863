"""Whether a job's deadline can be met, judged when it comes. Pure.

What a whole job costs the device is learned by pipeline and size, like what a slice costs. A newcomer waits
for what is left of the jobs that go before it, and for the share of the device that more urgent classes
have been using. The sum is judged on its p90: medians add up, and so do the squares of what lies between
median and p90. Nothing is refused before `FEWEST` jobs of the pipeline have been seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.contract import SPARE, Batch, Estimate, Job
from pipelines.cost import CostModel
from pipelines.errors import Exhausted
from pipelines.messages import ImageRequest, JobClass, ModelInfo, Request, TextRequest

FEWEST = 5
FADES_S = 5.0
LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Forecast:
    """Milliseconds from now: the end at the p90, and the part of it that is the job's own."""

    p90_ms: float
    own_ms: float


def size_of(info: ModelInfo, request: Request) -> float:
    """What a job's cost grows with: tokens at most, or steps times pixels; 1 where it is not known before."""
    if isinstance(request, TextRequest):
        return float(request.sampling.max_tokens)
    if isinstance(request, ImageRequest):
        width, height = info.sizes[0] if info.sizes else (1, 1)
        return float((request.steps or info.default_steps or 1) * (request.width or width)) * (
            request.height or height
        )
    return 1.0


class Forecaster:
    """Owner: the executor thread."""

    def __init__(self) -> None:
        self._models: dict[str, CostModel] = {}
        self._seen: dict[str, int] = {}
        self._expected: dict[int, Estimate] = {}
        self._sizes: dict[int, float] = {}
        self._used_ms = dict.fromkeys(JobClass, 0.0)
        self._since_s: float | None = None

    def enter(self, job: Job, size: float) -> None:
        """The job is admitted."""
        self._sizes[job.id] = size
        estimate = self._estimate(job.pipeline, size)
        if estimate is not None:
            self._expected[job.id] = estimate

    def leave(self, job: Job, completed: bool) -> None:
        """The job is gone; only a whole one teaches what jobs cost."""
        size = self._sizes.pop(job.id)
        self._expected.pop(job.id, None)
        if completed:
            self._seen[job.pipeline] = self._seen.get(job.pipeline, 0) + 1
            model = self._models.setdefault(job.pipeline, CostModel())
            model.observe(Batch(job.pipeline, "job", (), size), job.served_ms)

    def used(self, rank: int, ms: float, now_s: float) -> None:
        """A class has had the device."""
        if self._since_s is not None:
            faded = math.exp((self._since_s - now_s) / FADES_S)
            for job_class in JobClass:
                self._used_ms[job_class] *= faded
        self._since_s = now_s
        if rank < SPARE:
            self._used_ms[JobClass(rank)] += ms

    def forecast(self, job: Job, size: float, ahead: Iterable[Job]) -> Forecast | None:
        """When the job would be done behind those `ahead`; None where too little is known."""
        own = self._estimate(job.pipeline, size)
        if own is None:
            return None
        median_ms, squares = own.median_ms, (own.p90_ms - own.median_ms) ** 2
        for other in ahead:
            expected = self._expected.get(other.id)
            if expected is not None:
                median_ms += max(0.0, expected.median_ms - other.served_ms)
                squares += (expected.p90_ms - expected.median_ms) ** 2
        share = max(LEAST_SHARE, 1.0 - self._urgent_share(job.rank))
        return Forecast((median_ms + math.sqrt(squares)) / share, own.p90_ms / share)

    def _estimate(self, pipeline: str, size: float) -> Estimate | None:
        if self._seen.get(pipeline, 0) < FEWEST:
            return None
        return self._models[pipeline].estimate(Batch(pipeline, "job", (), size))

    def _urgent_share(self, rank: int) -> float:
        """Of the last seconds' time: a busy device's whole is FADES_S."""
        used = sum(ms for job_class, ms in self._used_ms.items() if job_class < rank)
        return used / (FADES_S * 1000)


def check(found: Forecast | None, left_ms: float, model: str) -> None:
    """Raises: Exhausted, where the deadline cannot be met; with the time after which it could be, 0 where the
    job alone takes longer."""
    if found is None or found.p90_ms <= left_ms:
        return
    when = f"{model}: done in {found.p90_ms / 1000:.1f} s, the deadline is in {left_ms / 1000:.1f} s"
    if found.own_ms > left_ms:
        raise Exhausted(f"{when}, and the job alone takes {found.own_ms / 1000:.1f} s", retry_after_s=0.0)
    raise Exhausted(when, retry_after_s=max(0.1, (found.p90_ms - left_ms) / 1000))


def goes_before(other: Job, job: Job) -> bool:
    """Whether `job`, new and of a finite deadline, waits for `other`. Of more urgent classes it is the share
    of the device that counts; a job without a deadline goes later."""
    return other.rank == job.rank and other.deadline_s <= job.deadline_s and not other.cancelled
