"""What tenants were served and what classes have earned, in milliseconds of device time. Pure.

Rules
1. Fairness (Virtual Token Counter; Sheng et al., 2024): a tenant's counter grows by the device time of its
   rows. A tenant whose first job becomes active is lifted to the least of the active tenants, so that having
   been away earns nothing. Who is `LEAD_MS` beyond the least served active tenant is over its share.
2. Floors. While a class waits, it earns its floor share of the device time that others use, up to a few
   quanta; what it uses is taken off.
3. Work ahead. A session's work on prompts that are not committed may take `AHEAD_SHARE` of the device and
   `AHEAD_BURST_MS` at once; while it owes time, such work runs in spare time only (`SPARE`).

Owner: the executor thread, through the scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from pipelines.messages import JobClass

FLOORS = {JobClass.REALTIME: 0.20, JobClass.INTERACTIVE: 0.10, JobClass.STANDARD: 0.05, JobClass.BATCH: 0.02}
QUANTA_KEPT = 4.0
LEAD_MS = 100.0
# Typists at 600 characters a minute take one to two hundredths each of a device that 64 of them fill.
AHEAD_SHARE = 0.03
AHEAD_BURST_MS = 250.0
SESSIONS_KEPT = 4096


class TenantAccounts:
    """Active is a tenant with a job that could run, or runs."""

    def __init__(self) -> None:
        self._cost: dict[str, float] = {}
        self._jobs: dict[str, int] = {}
        self._active: dict[str, set[int]] = {}
        self._least: float | None = None

    def enter(self, tenant: str) -> None:
        """A job is admitted."""
        self._jobs[tenant] = self._jobs.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """A job is released. When nobody is left, all accounts are settled."""
        self._jobs[tenant] -= 1
        if not self._jobs[tenant]:
            del self._jobs[tenant]
        if not self._jobs:
            self._cost.clear()
            self._least = None

    def activate(self, tenant: str, job_id: int) -> None:
        """Rule 1. Repeating it changes nothing."""
        if tenant not in self._active:
            self._cost[tenant] = max(self._cost.get(tenant, 0.0), self._least_served())
            self._active[tenant] = set()
            self._least = None
        self._active[tenant].add(job_id)

    def rest(self, tenant: str, job_id: int) -> None:
        """The job cannot run now. Repeating it changes nothing."""
        jobs = self._active.get(tenant)
        if jobs is not None:
            jobs.discard(job_id)
            if not jobs:
                del self._active[tenant]
                self._least = None

    def charge(self, tenant: str, ms: float) -> None:
        """A row of the tenant's has used the device."""
        self._cost[tenant] = self._cost.get(tenant, 0.0) + ms
        self._least = None

    def cost(self, tenant: str) -> float:
        """Milliseconds served, after lifts."""
        return self._cost.get(tenant, 0.0)

    def over(self, tenant: str) -> bool:
        """Whether the tenant had so much that the others go first, whatever the deadlines."""
        return self._cost.get(tenant, 0.0) > self._least_served() + LEAD_MS

    def _least_served(self) -> float:
        if self._least is None:
            self._least = min((self._cost.get(tenant, 0.0) for tenant in self._active), default=0.0)
        return self._least


class ClassFloors:
    """quantum_ms: what a class needs to have earned to go first."""

    def __init__(self, quantum_ms: float) -> None:
        self._quantum_ms = quantum_ms
        self._earned_ms: dict[int, float] = dict.fromkeys(JobClass, 0.0)

    def charge(self, used: int, waiting: Collection[int], ms: float) -> None:
        """A slice of class `used` has had the device while `waiting` classes had work."""
        for job_class in JobClass:
            if job_class == used:
                self._earned_ms[job_class] = max(0.0, self._earned_ms[job_class] - ms)
            elif job_class in waiting:
                earned = self._earned_ms[job_class] + ms * FLOORS[job_class]
                self._earned_ms[job_class] = min(earned, QUANTA_KEPT * self._quantum_ms)
            else:
                self._earned_ms[job_class] = 0.0

    def owed(self, ranks: Collection[int]) -> int | None:
        """The least urgent of these classes that has earned a quantum, if it would not go first by itself."""
        owed = [rank for rank in ranks if self._earned_ms.get(rank, 0.0) >= self._quantum_ms]
        return max(owed) if owed and max(owed) > min(ranks) else None


class AheadAccounts:
    """Rule 3, by session: a bucket of device milliseconds that time refills. It outlives the session's jobs:
    ending a turn settles nothing."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, float]] = {}
        self._most = SESSIONS_KEPT

    def charge(self, session: str, ms: float, now_s: float) -> None:
        """A row that runs ahead has used the device."""
        self._held[session] = (self._level(session, now_s) - ms, now_s)
        if len(self._held) > self._most:
            full = [each for each in self._held if self._level(each, now_s) >= AHEAD_BURST_MS]
            for each in full:
                del self._held[each]
            # Where few are, looking again at each charge would cost milliseconds.
            self._most = max(SESSIONS_KEPT, 2 * len(self._held))

    def free_s(self, session: str, now_s: float) -> float:
        """From when on the session owes nothing; -inf if it does not."""
        level = self._level(session, now_s)
        return -math.inf if level >= 0.0 else now_s - level / (1000.0 * AHEAD_SHARE)

    def _level(self, session: str, now_s: float) -> float:
        held, since_s = self._held.get(session, (AHEAD_BURST_MS, now_s))
        return min(AHEAD_BURST_MS, held + 1000.0 * AHEAD_SHARE * max(0.0, now_s - since_s))


def divided(shares: Iterable[float], ms: float) -> list[float]:
    """The milliseconds of a slice by what each row makes of it."""
    each = list(shares)
    return [ms * share / sum(each) for share in each]
