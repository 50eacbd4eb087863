"""How many streams and jobs may be open at once, and when to come back if there are too many. Pure.

Rules:
  1. A slot is left exactly once, whatever happened.
  2. Work ahead of a commit has places of its own, as many as committed work: it never keeps that out.
  3. `retry_after_s` is an estimate from what was observed: with n slots in use, each held for s seconds on
     average, one becomes free every s / n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import Exhausted

FIRST_GUESS_S = 2.0
SHORTEST_RETRY_S = 0.1
LONGEST_RETRY_S = 60.0
WEIGHT = 0.2


class Slots:
    """At most `limit` of one thing at a time."""

    def __init__(self, what: str, limit: int) -> None:
        self.used = 0
        self._what = what
        self._limit = limit
        self._held_s = FIRST_GUESS_S

    def check(self) -> None:
        """Raises: Exhausted, if all slots are taken."""
        if self.used >= self._limit:
            raise Exhausted(
                f"{self.used} {self._what} are open, the limit is {self._limit}",
                retry_after_s=self.retry_after_s(),
            )

    def leave(self, held_s: float) -> None:
        self.used -= 1
        self._held_s += WEIGHT * (held_s - self._held_s)

    def retry_after_s(self) -> float:
        """When a slot will probably be free, in seconds."""
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, self._held_s / max(1, self.used)))


@dataclass(slots=True)
class Slot:
    """A place taken in one or more `Slots`; `leave` gives it back, once."""

    _slots: tuple[Slots, ...]
    _since_s: float
    _now: Callable[[], float]
    left: bool = False

    def leave(self) -> None:
        if not self.left:
            self.left = True
            for slots in self._slots:
                slots.leave(self._now() - self._since_s)


class Admission:
    """Who may come in. Owner: the event loop."""

    def __init__(self, streams: int, streams_per_tenant: int, jobs: int, now: Callable[[], float]) -> None:
        self._streams = Slots("streams", streams)
        self._tenants = defaultdict[str, Slots](lambda: Slots("streams of this tenant", streams_per_tenant))
        self._jobs: dict[tuple[str, bool], Slots] = {}
        self._job_limit = jobs
        self._now = now

    @property
    def open_streams(self) -> int:
        return self._streams.used

    def stream(self, tenant: str) -> Slot:
        """Raises: Exhausted."""
        return self._take(self._streams, self._tenants[tenant])

    def job(self, pipeline: str, committed: bool = True) -> Slot:
        """Raises: Exhausted."""
        return self._take(self._slots(pipeline, committed))

    def busy(self, pipeline: str) -> int:
        """Committed jobs that run."""
        return self._slots(pipeline, committed=True).used

    def _slots(self, pipeline: str, committed: bool) -> Slots:
        key = pipeline, committed
        if key not in self._jobs:
            what = f"jobs of {pipeline}" if committed else f"jobs of {pipeline} ahead of their commit"
            self._jobs[key] = Slots(what, self._job_limit)
        return self._jobs[key]

    def _take(self, *slots: Slots) -> Slot:
        for each in slots:
            each.check()
        for each in slots:
            each.used += 1
        return Slot(slots, self._now(), self._now)
