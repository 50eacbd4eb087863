"""Whether one more listener could be kept supplied, judged when the job comes, or at its commit. Pure.

A REALTIME voice has a deadline that no client sends: its listener must not run dry. What a second of audio
costs the device is learned from whole jobs; while those are few, from what they who speak have said so far,
which costs a tenth or two more. Every voice needs that share of the device for as long as it speaks; what the
floors promise to the other classes is not there. The sum is judged on its p90, as deadlines are (`forecast`).
So a device has places for voices, and tenants share them.

Rules
1. A newcomer that would make all listeners run dry is refused, with the time after which enough of them will
   probably have ended. Nothing is refused before `FEWEST` voices have been heard, to their ends or for more
   than `ENOUGH_S`: half a second after a crowd has come to a device that has just started.
2. The last quarter of the places is for tenants that have fewer voices than an equal share (`shares`).
3. While another tenant's voices are more than the whole device could speak, as may be if they came before
   enough was known, a newcomer's tenant may have an equal share: that much time the scheduler gives it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import JobClass, SpeechRequest
from server.executor.accounts import FLOORS
from server.executor.forecast import FEWEST
from server.shares import Asked, must_end

Heard = list[tuple[float, float]]
"""Of each voice, the share of the device that it takes, and how many seconds it has spoken."""

KEPT = 64
ENOUGH_S = 1.0
SHARE = 1.0 - sum(floor for job_class, floor in FLOORS.items() if job_class is not JobClass.REALTIME)


class Supply:
    """Owner: the executor thread. A device has one pipeline that speaks."""

    def __init__(self) -> None:
        self._heard: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._asked = Asked()

    def learn(self, job: Job, audio_ms: float) -> None:
        """The job has done everything, which was so much audio."""
        if audio_ms > 0 and job.served_ms > 0 and isinstance(job.request, SpeechRequest):
            self._heard.append((job.served_ms / audio_ms, audio_ms / 1000))

    def check(self, job: Job, live: Iterable[Job], now_s: float) -> None:
        """`job` is new or just committed, `live` are all others. Raises: Exhausted."""
        if not _listened_to(job):
            return
        self._asked.note(job.tenant, now_s)
        speaking = [other for other in live if _listened_to(other)]
        heard = self._known(speaking)
        if len(heard) < FEWEST:
            return
        held = Counter(other.tenant for other in speaking)
        own, places, about = held.pop(job.tenant, 0), _places(heard, SHARE), self._asked.about(held, now_s)
        count = len(speaking)
        if max(held.values(), default=0) > _places(heard, 1.0):
            why = _kept(count, own)
            behind = own + 1 - max(1, places // about)
            speaking = [other for other in speaking if other.tenant == job.tenant]
        else:
            full = count >= places
            why = f"with {count + 1} voices at once, listeners would run dry" if full else _kept(count, own)
            behind = max(count + 1 - places, must_end(own, about, count, places))
        if behind > 0:
            when_s = _ended_s(heard, speaking, behind, now_s)
            raise Exhausted(f"{job.pipeline}: {why}", retry_after_s=max(0.1, when_s))

    def _known(self, speaking: list[Job]) -> Heard:
        """Voices that were heard to their ends; while those are few, also who speaks, half way through as far
        as anybody knows."""
        if len(self._heard) >= FEWEST:
            return list(self._heard)
        begun = [job for job in speaking if job.given_s > ENOUGH_S]
        return [*self._heard, *((job.served_ms / job.given_s / 1000, 2 * job.given_s) for job in begun)]


def _places(heard: Heard, share: float) -> int:
    """How many voices this share of the device keeps supplied: n medians, and the root of n squares of what
    lies between median and p90."""
    costs = sorted(cost for cost, _ in heard)
    median, high = costs[len(costs) // 2], costs[len(costs) * 9 // 10]
    more = high - median
    root = 2 * share / (more + math.sqrt(more * more + 4 * median * share))
    return max(1, math.floor(root * root + 1e-9))


def _ended_s(heard: Heard, voices: list[Job], count: int, now_s: float) -> float:
    """Until so many of the voices will have ended, if they say as much as they usually do."""
    lengths = sorted(length for _, length in heard)
    usual_s = lengths[len(lengths) // 2]
    left_s = sorted(usual_s - (now_s - each.arrived_s) for each in voices)
    return left_s[min(count, len(left_s)) - 1]


def _kept(count: int, own: int) -> str:
    return f"{count} voices speak, {own} of them this tenant's: the rest is kept for tenants that have less"


def _listened_to(job: Job) -> bool:
    return isinstance(job.request, SpeechRequest) and job.job_class is JobClass.REALTIME and job.committed
