"""How much may be generated and computed ahead of commits. Pure; time is given.

Rules
1. A session and its tenant have a bucket each, refilled at a rate, never holding more than BURST_S of it.
2. What may be generated is what the emptier one holds, times the share of the device that is free for it:
   1 - committed jobs / `full_at`. From `full_at` committed jobs on that is nothing.
3. What has been generated is charged as it arrives, so a bucket may fall below nothing by what was on
   its way.
4. What a revision changes of a prompt has to be computed again: its characters are charged to two more such
   buckets, and until both are out of debt no further revision is due. A typist never gets there; who rewrites
   a long prompt all the time does. A commit neither waits nor pays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BURST_S = 4.0
# Hundreds of times what anybody types or says.
SESSION_CHARS_PER_S = 4096.0
TENANT_CHARS_PER_S = 16 * SESSION_CHARS_PER_S


@dataclass(slots=True)
class Bucket:
    """Tokens or characters, `rate` more of them a second."""

    rate: float
    held: float = 0.0
    filled_s: float = float("-inf")

    def level(self, now_s: float) -> float:
        """What is in it by now."""
        most = self.rate * BURST_S
        self.held = min(most, self.held + self.rate * (now_s - self.filled_s))
        self.filled_s = now_s
        return self.held

    def debt_s(self, now_s: float) -> float:
        """In how many seconds nothing will be owed."""
        return max(0.0, -self.level(now_s) / self.rate)


@dataclass(slots=True)
class Allowance:
    """One session's. Owner: the session."""

    session: Bucket
    tenant: Bucket
    full_at: int
    session_chars: Bucket
    tenant_chars: Bucket

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

    def wait_s(self, now_s: float) -> float:
        """Rule 4: in how many seconds the next revision is due."""
        return max(self.session_chars.debt_s(now_s), self.tenant_chars.debt_s(now_s))

    def charge_prompt(self, chars: int, now_s: float) -> None:
        """Rule 4: a revision with so many changed characters is sent."""
        for bucket in (self.session_chars, self.tenant_chars):
            bucket.level(now_s)
            bucket.held -= chars


@dataclass(slots=True)
class Allowances:
    """All sessions'. Tokens a second; full_at 0 turns work ahead of a commit off."""

    session_rate: float = 512.0
    tenant_rate: float = 8192.0
    full_at: int = 8
    _tenants: dict[str, tuple[Bucket, Bucket]] = field(default_factory=dict)

    def session(self, tenant: str) -> Allowance:
        """A new session's."""
        tokens, chars = self._tenants.setdefault(
            tenant, (Bucket(self.tenant_rate), Bucket(TENANT_CHARS_PER_S))
        )
        return Allowance(Bucket(self.session_rate), tokens, self.full_at, Bucket(SESSION_CHARS_PER_S), chars)
