"""How many tokens may be generated ahead of commits. Pure; time is given.

Rules
1. A session and its tenant have a bucket each, refilled at a rate, never holding more than BURST_S of it.
2. What may be generated is what the emptier one holds, times the share of the device that is free for it:
   1 - committed jobs / `full_at`. From `full_at` committed jobs on that is nothing.
3. What has been generated is charged as it arrives, so a bucket may fall below nothing by what was on
   its way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BURST_S = 4.0


@dataclass(slots=True)
class Bucket:
    """Tokens, `rate` more of them a second."""

    rate: float
    held: float = 0.0
    filled_s: float = float("-inf")

    def level(self, now_s: float) -> float:
        """What is in it by now."""
        most = self.rate * BURST_S
        self.held = min(most, self.held + self.rate * (now_s - self.filled_s))
        self.filled_s = now_s
        return self.held


@dataclass(slots=True)
class Allowance:
    """One session's. Owner: the session."""

    session: Bucket
    tenant: Bucket
    full_at: int

    def grant(self, wanted: int, committed_jobs: int, now_s: float) -> int:
        """Rule 2: at most `wanted`."""
        free = max(0.0, 1.0 - committed_jobs / self.full_at) if self.full_at else 0.0
        held = min(self.session.level(now_s), self.tenant.level(now_s))
        return max(0, int(min(wanted, held) * free))

    def charge(self, tokens: int, now_s: float) -> None:
        """Rule 3."""
        for bucket in (self.session, self.tenant):
            bucket.level(now_s)
            bucket.held -= tokens


@dataclass(slots=True)
class Allowances:
    """All sessions'. Tokens a second; full_at 0 turns work ahead of a commit off."""

    session_rate: float = 512.0
    tenant_rate: float = 8192.0
    full_at: int = 8
    _tenants: dict[str, Bucket] = field(default_factory=dict)

    def session(self, tenant: str) -> Allowance:
        """A new session's."""
        shared = self._tenants.setdefault(tenant, Bucket(self.tenant_rate))
        return Allowance(Bucket(self.session_rate), shared, self.full_at)
