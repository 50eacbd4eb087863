"""The conversations that can be resumed: those with a stream, and for a while those that lost it."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.errors import NotFound
from server.attachment import Attachment
from server.clock import Clock, Timer
from server.session import RETENTION_S, Session

MAX_DETACHED = 10_000


class Sessions:
    """All sessions by id. Owner: the event loop."""

    def __init__(self, clock: Clock, max_detached: int = MAX_DETACHED) -> None:
        self._clock = clock
        self._max_detached = max_detached
        self._sessions: dict[str, Session] = {}
        self._timers: dict[str, Timer] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, session: Session) -> Attachment:
        """A new conversation."""
        self._sessions[session.session_id] = session
        return Attachment(session)

    def resume(self, tenant: str, session_id: str, turn_id: str, last_sequence: int) -> Attachment:
        """Another stream goes on with a conversation. Raises: NotFound, InvalidRequest."""
        session = self._sessions.get(session_id)
        if session is None or session.plan.tenant != tenant:
            raise NotFound(f"session {session_id!r} cannot be resumed (any more)", field="resume.session_id")
        session.replay(turn_id, last_sequence)
        timer = self._timers.pop(session_id, None)
        if timer is not None:
            timer.cancel()
        return Attachment(session)

    def detach(self, attachment: Attachment) -> None:
        """The stream is gone. Without a resume window a running turn is cancelled at once."""
        session = attachment.session
        if not attachment.held:
            return
        session.listener = None
        window_s = session.plan.resume_window_s
        if session.active is not None and window_s > 0:
            self._later(window_s, session, self._abandon)
        elif session.log.resumable:
            self._abandon(session)
        else:
            self._drop(session)

    def wake(self) -> None:
        """Every stream has something to find out."""
        for session in self._sessions.values():
            session.wake()

    def _abandon(self, session: Session) -> None:
        """No turn runs on; what has finished stays for a while."""
        self._timers.pop(session.session_id, None)
        session.cancel("")
        session.deafen()
        self._later(RETENTION_S, session, self._drop)

    def _later(self, delay_s: float, session: Session, then: Callable[[Session], None]) -> None:
        """The session is kept for so long; the one kept longest makes room."""
        self._timers[session.session_id] = self._clock.call_later(delay_s, lambda: then(session))
        if len(self._timers) > self._max_detached:
            self._drop(self._sessions[next(iter(self._timers))])

    def _drop(self, session: Session) -> None:
        timer = self._timers.pop(session.session_id, None)
        if timer is not None:
            timer.cancel()
        self._sessions.pop(session.session_id, None)
        session.drop()
