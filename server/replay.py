"""A session's latest events, kept so that a client who lost the stream can go on behind the last one.

Rules:
  1. What is kept is bounded: bytes a session, bytes over all sessions, and `retention_s` after a turn's end.
  2. What was dropped is never replayed with a hole: the answer is NotFound.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipelines.errors import InvalidRequest, NotFound
from server.events import Event


@dataclass(slots=True)
class ReplayBudget:
    """Bytes over all sessions."""

    limit: int
    used: int = 0


@dataclass(slots=True)
class _Kept:
    """One turn's events; the oldest may have been dropped."""

    events: deque[Event]
    latest: int = 0


class ReplayLog:
    """One session's events by turn, oldest first. Owner: the session."""

    def __init__(self, budget: ReplayBudget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self._turns: dict[str, _Kept] = {}
        self._used = 0

    @property
    def resumable(self) -> bool:
        """Whether any turn is known."""
        return bool(self._turns)

    @property
    def latest(self) -> str:
        """The youngest turn's id; empty if there is none."""
        return next(reversed(self._turns), "")

    def knows(self, turn_id: str) -> bool:
        return turn_id in self._turns

    def add(self, event: Event) -> None:
        """An event is leaving."""
        kept = self._turns.setdefault(event.turn_id, _Kept(deque()))
        kept.events.append(event)
        kept.latest = event.sequence
        self._count(event.size)
        while self._used > self._limit or (self._budget.used > self._budget.limit and self._used):
            oldest = next(each for each in self._turns.values() if each.events)
            self._count(-oldest.events.popleft().size)

    def forget(self, turn_id: str) -> None:
        """The turn cannot be resumed any more."""
        kept = self._turns.pop(turn_id, None)
        if kept is not None:
            self._count(-sum(event.size for event in kept.events))

    def clear(self) -> None:
        """The session is over."""
        self._turns.clear()
        self._count(-self._used)

    def after(self, turn_id: str, sequence: int) -> list[Event]:
        """All events behind that one, those of later turns included.

        Raises: NotFound for a turn that is not kept (in full), InvalidRequest for a sequence to come.
        """
        if turn_id not in self._turns:
            raise NotFound(f"turn {turn_id!r} cannot be resumed (any more)", field="resume.turn_id")
        if sequence > self._turns[turn_id].latest:
            latest = self._turns[turn_id].latest
            raise InvalidRequest("resume.last_sequence", f"must be 0 to {latest}, not {sequence}")
        found: list[Event] = []
        names = list(self._turns)
        for name in names[names.index(turn_id) :]:
            kept = self._turns[name]
            rest = [event for event in kept.events if event.sequence > sequence]
            if len(rest) != kept.latest - sequence:
                raise NotFound(f"events of turn {name!r} are not kept any more", field="resume.last_sequence")
            found += rest
            sequence = 0
        return found

    def _count(self, size: int) -> None:
        self._used += size
        self._budget.used += size
