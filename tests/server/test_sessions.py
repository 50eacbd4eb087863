"""Streams get lost; conversations go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipelines.errors import NotFound, WrongState
from pipelines.messages import FinishReason
from server.events import TurnDone
from server.services.conversation import _read
from server.session import RETENTION_S
from tests.fakes import tokens
from tests.server.session_bench import AT_ONCE, DONE, Bench, last, said


def test_a_lost_stream_without_a_window_cancels_at_once() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1))
    bench.events()
    bench.sessions.detach(bench.attachment)
    assert bench.link.cancelled() == [1]
    assert bench.finished[0].reason is FinishReason.CANCELLED


def test_a_stream_that_said_nothing_leaves_nothing() -> None:
    bench = Bench()
    bench.sessions.detach(bench.attachment)
    assert len(bench.sessions) == 0


def test_a_turn_goes_on_for_the_window_and_is_resumed_behind_the_last_event() -> None:
    bench = Bench(resume_window_s=5.0)
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1))
    first = bench.events()
    bench.link.emit(1, *tokens(" two", 1))
    second = bench.events()
    bench.sessions.detach(bench.attachment)
    bench.clock.advance(4)
    bench.link.emit(1, *tokens(" three", 1), DONE)
    attachment = bench.sessions.resume("local", "s", "s.1", first[-1].sequence)
    bench.clock.advance(60)
    rest = bench.events(attachment)
    assert rest[0] == second[0]
    assert [event.sequence for event in rest] == [2, 3, 4]
    assert said(rest) == " two three"


def test_without_a_stream_the_outbox_fills_and_parks_the_job() -> None:
    bench = Bench(resume_window_s=5.0)
    bench.session.commit("Hi")
    bench.sessions.detach(bench.attachment)
    bench.link.emit(1, *tokens("x " * 99 + "x", 1), DONE)
    assert len(bench.link.jobs[1].waiting) == 100 - 64 + 1
    events = bench.events(bench.sessions.resume("local", "s", "", 0))
    assert said(events) == "x " * 99 + "x"
    assert last(events).reason is FinishReason.STOP


def test_the_window_closes() -> None:
    bench = Bench(resume_window_s=5.0)
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1))
    bench.events()
    bench.sessions.detach(bench.attachment)
    bench.clock.advance(5.1)
    assert bench.link.cancelled() == [1]
    events = bench.events(bench.sessions.resume("local", "s", "s.1", 1))
    assert [type(event.body) for event in events] == [TurnDone]
    assert last(events).reason is FinishReason.CANCELLED


def test_a_finished_turn_stays_for_a_minute() -> None:
    bench = Bench(AT_ONCE)
    events = bench.turn("Hi")
    bench.sessions.detach(bench.attachment)
    bench.clock.advance(RETENTION_S - 1)
    attachment = bench.sessions.resume("local", "s", "s.1", 0)
    assert bench.events(attachment) == events
    bench.session.commit("Again")
    assert last(bench.events(attachment)).reason is FinishReason.STOP
    bench.clock.advance(2)
    with pytest.raises(NotFound, match=r"turn 's.1'"):
        bench.sessions.resume("local", "s", "s.1", 0)
    bench.sessions.detach(attachment)
    bench.clock.advance(RETENTION_S + 1)
    assert len(bench.sessions) == 0
    with pytest.raises(NotFound, match="session 's'"):
        bench.sessions.resume("local", "s", "s.2", 0)


def test_nobody_resumes_anothers_conversation() -> None:
    bench = Bench(AT_ONCE)
    bench.turn("Hi")
    with pytest.raises(NotFound, match="session 's'"):
        bench.sessions.resume("other", "s", "s.1", 0)


def test_the_newer_stream_takes_over() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1))
    bench.events()
    newer = bench.sessions.resume("local", "s", "s.1", 1)
    with pytest.raises(WrongState, match="another stream"):
        bench.attachment.next(bench.clock.now())
    bench.sessions.detach(bench.attachment)
    bench.link.emit(1, *tokens(" two", 1), DONE)
    assert said(bench.events(newer)) == " two"


async def test_the_end_of_a_stream_that_was_taken_over_ends_nothing() -> None:
    bench = Bench(resume_window_s=5.0)
    bench.session.append("Hi")
    unused: Any = None

    async def lost() -> AsyncIterator[Any]:
        return
        yield

    reading = asyncio.create_task(_read(lost(), bench.attachment, unused, unused))
    await asyncio.sleep(0)
    bench.sessions.resume("local", "s", "", 0)
    await reading
    assert bench.session.active is not None


def test_the_oldest_detached_session_makes_room() -> None:
    bench = Bench(AT_ONCE)
    bench.sessions._max_detached = 0
    bench.turn("Hi")
    bench.sessions.detach(bench.attachment)
    assert len(bench.sessions) == 0


def test_the_oldest_session_with_a_running_turn_makes_room_too() -> None:
    bench = Bench(resume_window_s=5.0)
    bench.sessions._max_detached = 0
    bench.session.commit("Hi")
    bench.sessions.detach(bench.attachment)
    assert len(bench.sessions) == 0
    assert bench.link.cancelled() == [1]
