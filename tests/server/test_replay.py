"""What a resumed stream may still get."""

from __future__ import annotations

import pytest

from pipelines.errors import InvalidRequest, NotFound
from pipelines.messages import TokenChunk
from server.events import Event
from server.replay import ReplayBudget, ReplayLog


def _events(turn_id: str, count: int, size: int = 0) -> list[Event]:
    return [Event("s", turn_id, number, TokenChunk("x" * size, ())) for number in range(1, count + 1)]


def _log(*events: Event, limit: int = 1 << 20, budget: int = 1 << 20) -> ReplayLog:
    log = ReplayLog(ReplayBudget(budget), limit)
    for event in events:
        log.add(event)
    return log


def test_goes_on_behind_the_last_event() -> None:
    first, second = _events("a", 3), _events("b", 2)
    log = _log(*first, *second)
    assert log.after("a", 1) == [*first[1:], *second]
    assert log.after("b", 2) == []
    assert log.after("a", 0) == [*first, *second]


def test_unknown_and_future() -> None:
    log = _log(*_events("a", 3))
    with pytest.raises(NotFound, match="'b' cannot be resumed"):
        log.after("b", 0)
    with pytest.raises(InvalidRequest, match=r"resume.last_sequence: must be 0 to 3, not 4"):
        log.after("a", 4)


def test_what_was_dropped_is_not_replayed_with_a_hole() -> None:
    events = _events("a", 10, size=200)
    log = _log(*events, limit=3000)
    with pytest.raises(NotFound, match="not kept"):
        log.after("a", 0)
    assert log.after("a", 9) == events[9:]


def test_a_forgotten_turn_gives_its_bytes_back() -> None:
    budget = ReplayBudget(1 << 20)
    log = ReplayLog(budget, 1 << 20)
    for event in _events("a", 3) + _events("b", 1):
        log.add(event)
    log.forget("a")
    assert budget.used == 200
    with pytest.raises(NotFound):
        log.after("a", 0)
    log.clear()
    assert (budget.used, log.resumable) == (0, False)


def test_the_server_wide_budget_holds() -> None:
    budget = ReplayBudget(1000)
    logs = [ReplayLog(budget, 1 << 20) for _ in range(4)]
    for log in logs:
        for event in _events("a", 3):
            log.add(event)
    assert budget.used <= 1000
