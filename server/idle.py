"""Notices that nothing has happened for a while."""

from __future__ import annotations

from collections.abc import Callable

from server.clock import Clock, Timer


class Idle:
    """Calls `expired()` when nothing has been touched for `limit_s`, and again after as long where it returns
    false. Owner: one stream's handler."""

    def __init__(self, clock: Clock, limit_s: float, expired: Callable[[], bool]) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._expired = expired
        self._last_s = clock.now()
        self._timer: Timer = clock.call_later(limit_s, self._check)

    def touch(self) -> None:
        """Something has happened."""
        self._last_s = self._clock.now()

    def stop(self) -> None:
        """Never mind."""
        self._timer.cancel()

    def _check(self) -> None:
        left_s = self._last_s + self._limit_s - self._clock.now()
        if left_s > 0:
            self._timer = self._clock.call_later(left_s, self._check)
        elif not self._expired():
            self._timer = self._clock.call_later(self._limit_s, self._check)
