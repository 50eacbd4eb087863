"""Whether one more listener could be kept supplied, judged when the job comes. Pure.

A REALTIME voice has a deadline that no client sends: its listener must not run dry. What a second of audio
costs the device is learned from whole jobs. Every voice needs that share of the device for as long as it
speaks; what the floors promise to the other classes is not there. The sum is judged on its p90, as deadlines
are (`forecast`). A newcomer that would make all of them stutter is refused, with the time after which the
first of them will probably have ended. Nothing is refused before `FEWEST` voices have been heard.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import JobClass, SpeechRequest
from server.executor.accounts import FLOORS
from server.executor.forecast import FEWEST

KEPT = 64
SHARE = 1.0 - sum(floor for job_class, floor in FLOORS.items() if job_class is not JobClass.REALTIME)


class Supply:
    """Owner: the executor thread."""

    def __init__(self) -> None:
        self._heard: dict[str, deque[tuple[float, float]]] = {}

    def learn(self, job: Job, audio_ms: float) -> None:
        """The job has done everything, which was so much audio."""
        if audio_ms > 0 and isinstance(job.request, SpeechRequest):
            kept = self._heard.setdefault(job.pipeline, deque(maxlen=KEPT))
            kept.append((job.served_ms / audio_ms, audio_ms / 1000))

    def check(self, job: Job, live: Iterable[Job], now_s: float) -> None:
        """`job` is new, `live` are all others. Raises: Exhausted."""
        if not self._speaks(job):
            return
        speaking = [other for other in live if self._speaks(other)]
        median, squares = 0.0, 0.0
        for each in (*speaking, job):
            low, high = self._share(each.pipeline)
            median, squares = median + low, squares + (high - low) ** 2
        needed = median + math.sqrt(squares)
        if speaking and needed > SHARE:
            soonest_s = min(self._left_s(each, now_s) for each in speaking)
            message = f"{job.pipeline}: with {len(speaking) + 1} voices at once, listeners would run dry"
            raise Exhausted(message, retry_after_s=max(0.1, soonest_s))

    def _speaks(self, job: Job) -> bool:
        if not isinstance(job.request, SpeechRequest) or job.job_class is not JobClass.REALTIME:
            return False
        return job.committed and len(self._heard.get(job.pipeline, ())) >= FEWEST

    def _share(self, pipeline: str) -> tuple[float, float]:
        """Median and p90 of the device that a voice needs."""
        costs = sorted(cost for cost, _ in self._heard[pipeline])
        return costs[len(costs) // 2], costs[len(costs) * 9 // 10]

    def _left_s(self, job: Job, now_s: float) -> float:
        """Until the voice will have ended, if it says as much as they usually do."""
        lengths = sorted(length for _, length in self._heard[job.pipeline])
        return lengths[len(lengths) // 2] - (now_s - job.arrived_s)
