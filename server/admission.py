"""How many streams and jobs may be open at once, and when to come back if there are too many. Pure.

Rules:
  1. A slot is left exactly once, whatever happened.
  2. Work ahead of a commit has places of its own, as many as committed work: it never keeps that out.
  3. `retry_after_s` is an estimate from what was observed: with n slots in use, each held for s seconds on
     average (no less than those in use have been held for), one becomes free every s / n.
  4. Tenants share the places of a pipeline as `shares` says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import Exhausted
from server.shares import Shares

FIRST_GUESS_S = 2.0
SHORTEST_RETRY_S = 0.1
LONGEST_RETRY_S = 60.0
WEIGHT = 0.2


class Slots:
    """At most `limit` of one thing at a time."""

    def __init__(self, what: str, limit: int, now: Callable[[], float]) -> None:
        self.used = 0
        self._what = what
        self._limit = limit
        self._now = now
        self._held_s = FIRST_GUESS_S
        self._since_s = 0.0  # summed over those in use
        self._shares = Shares(now)

    def check(self) -> None:
        """Raises: Exhausted, if all slots are taken."""
        if self.used >= self._limit:
            raise Exhausted(
                f"{self.used} {self._what} are open, the limit is {self._limit}",
                retry_after_s=self.retry_after_s(),
            )

    def check_share(self, tenant: str, places: int) -> None:
        """places: how many the device has, 0 for the limit. Raises: Exhausted, if the tenant has its part of
        them and the rest is kept for others."""
        places = min(places or self._limit, self._limit)
        must_end = self._shares.must_end(tenant, self.used, places)
        if must_end:
            raise Exhausted(
                f"{self.used} {self._what} are open, the limit is {places}, and this tenant has "
                f"{self._shares.held(tenant)} of them: the rest is kept for tenants that have less",
                retry_after_s=self.retry_after_s(must_end),
            )

    def take(self, tenant: str, now_s: float) -> None:
        self.used += 1
        self._since_s += now_s
        self._shares.take(tenant)

    def leave(self, tenant: str, since_s: float) -> None:
        self.used -= 1
        self._since_s -= since_s
        self._shares.leave(tenant)
        self._held_s += WEIGHT * (self._now() - since_s - self._held_s)

    def retry_after_s(self, must_end: int = 1) -> float:
        """When so many will probably have been left, in seconds."""
        used = max(1, self.used)
        held_s = max(self._held_s, self._now() - self._since_s / used) if self.used else self._held_s
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, held_s * must_end / used))


@dataclass(slots=True)
class Slot:
    """A place taken in one or more `Slots`; `leave` gives it back, once."""

    _slots: tuple[Slots, ...]
    _tenant: str
    _since_s: float
    left: bool = False

    def leave(self) -> None:
        if not self.left:
            self.left = True
            for slots in self._slots:
                slots.leave(self._tenant, self._since_s)


class Admission:
    """Who may come in. Owner: the event loop."""

    def __init__(self, streams: int, streams_per_tenant: int, jobs: int, now: Callable[[], float]) -> None:
        self._streams = Slots("streams", streams, now)
        self._tenants = defaultdict[str, Slots](
            lambda: Slots("streams of this tenant", streams_per_tenant, now)
        )
        self._jobs: dict[tuple[str, bool], Slots] = {}
        self._job_limit = jobs
        self._now = now

    @property
    def open_streams(self) -> int:
        return self._streams.used

    def stream(self, tenant: str) -> Slot:
        """Raises: Exhausted."""
        return self._take(tenant, self._streams, self._tenants[tenant])

    def job(self, pipeline: str, tenant: str, committed: bool = True, places: int = 0) -> Slot:
        """places: how many jobs the pipeline admits, 0 where that is not known. Raises: Exhausted."""
        slots = self._slots(pipeline, committed)
        slots.check_share(tenant, places)
        return self._take(tenant, slots)

    def busy(self, pipeline: str) -> int:
        """Committed jobs that run."""
        return self._slots(pipeline, committed=True).used

    def _slots(self, pipeline: str, committed: bool) -> Slots:
        key = pipeline, committed
        if key not in self._jobs:
            what = f"jobs of {pipeline}" if committed else f"jobs of {pipeline} ahead of their commit"
            self._jobs[key] = Slots(what, self._job_limit, self._now)
        return self._jobs[key]

    def _take(self, tenant: str, *slots: Slots) -> Slot:
        for each in slots:
            each.check()
        since_s = self._now()
        for each in slots:
            each.take(tenant, since_s)
        return Slot(slots, tenant, since_s)
