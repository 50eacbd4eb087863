"""One stream's hold on a session."""

from __future__ import annotations

import asyncio
import math

from pipelines.errors import DeadlinePassed, WrongState
from server.events import Event
from server.session import Session


class Attachment:
    """Gives the session's events to one stream as long as no other has taken over.

    `signal` is set when there may be one. Owner: the stream's handler.
    """

    def __init__(self, session: Session) -> None:
        self.signal = asyncio.Event()
        self.session = session
        self._idle_s = 0.0
        session.wake()
        session.listener = self.signal
        self.signal.set()

    @property
    def held(self) -> bool:
        return self.session.listener is self.signal

    @property
    def ended(self) -> bool:
        return self.held and self.session.ended

    def expire(self, idle_s: float, now_s: float) -> bool:
        """Nothing has been said for so long: the stream ends, unless a turn runs. One that only waits for its
        listener does not: reports that the listener stands still would keep its places for ever. Returns
        whether the stream ends."""
        active = self.session.active
        if active is not None and active.committed and math.isinf(active.turn.wait_s(now_s)):
            return False
        self._idle_s = idle_s
        self.signal.set()
        return True

    def next(self, now_s: float) -> Event | None:
        """The next event. Raises: WrongState, once another stream has resumed the session; DeadlinePassed,
        when it has been idle for too long."""
        if self._idle_s:
            raise DeadlinePassed(f"nothing was said for {self._idle_s:g} s")
        if not self.held:
            raise WrongState("another stream has resumed this conversation", field="resume")
        return self.session.next(now_s)

    def wait_s(self, now_s: float) -> float:
        return self.session.wait_s(now_s) if self.held else 0.0
