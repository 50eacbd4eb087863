"""Whose message is prepared next: tenants take turns by the time that theirs took.

Rules:
  1. One tenant's messages are taken in the order in which they came.
  2. Next is the tenant whose messages took least of the preparing thread's time since none waited at all.
     Who had none waiting is lifted to where the others are, so that having been away earns nothing.
  3. So nobody waits for more than one message of each other tenant's, however many of them wait.
"""

from __future__ import annotations

import threading
from collections import deque

from pipelines.messages import Down, StartTrace, Stop, Submit

NOBODY = ""
"""Whose the messages are that belong to no job."""


class Turns:
    """Thread-safe: any thread puts and forgets, one takes and charges."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Down]] = {}
        self._used_s: dict[str, float] = {}
        self._reached_s = 0.0
        self._tenants: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, message: Down) -> None:
        """Behind its tenant's others."""
        with self._lock:
            tenant = self._tenant(message)
            if not self._lines:
                self._used_s.clear()
                self._reached_s = 0.0
            if tenant not in self._lines:
                self._lines[tenant] = deque()
                self._used_s[tenant] = max(self._used_s.get(tenant, 0.0), self._reached_s)
            self._lines[tenant].append(message)

    def take(self) -> tuple[str, Down] | None:
        """The next message and its tenant, who is to be charged for it; None where none waits."""
        with self._lock:
            if not self._lines:
                return None
            tenant = min(self._lines, key=self._used_s.__getitem__)
            self._reached_s = self._used_s[tenant]
            line = self._lines[tenant]
            message = line.popleft()
            if not line:
                del self._lines[tenant]
            return tenant, message

    def charge(self, tenant: str, seconds: float) -> None:
        """So long the message took."""
        with self._lock:
            self._used_s[tenant] = self._used_s.get(tenant, 0.0) + seconds

    def forget(self, job_id: int) -> None:
        """The job has ended: what still comes for it does nothing and needs no order."""
        with self._lock:
            self._tenants.pop(job_id, None)

    def _tenant(self, message: Down) -> str:
        if isinstance(message, Submit):
            self._tenants[message.job_id] = message.tenant
            return message.tenant
        if isinstance(message, Stop | StartTrace):
            return NOBODY
        return self._tenants.get(message.job_id, NOBODY)
