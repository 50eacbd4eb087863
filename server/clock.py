"""Time for the gateway, injected so that tests own it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """The call does not come."""


class Clock(Protocol):
    """Seconds from an arbitrary start, only growing, and calls to come."""

    def now(self) -> float:
        """Seconds."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """`callback()` on the event loop, `delay_s` seconds from now."""


class LoopClock:
    """The running event loop's timers. Its own `time()` may count whole milliseconds only, which is too
    coarse to measure with."""

    def now(self) -> float:
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)
