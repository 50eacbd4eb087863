"""Audio stays at most so far ahead of the listener."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.pacing import Pacer


def test_four_hundred_milliseconds_ahead_then_one_piece_at_a_time() -> None:
    pacer = Pacer()
    for _ in range(4):
        assert pacer.wait_s(100, 10.0) == 0
        pacer.wrote(100, 10.0)
    assert pacer.room_ms(10.0) == 0
    assert pacer.wait_s(100, 10.0) == pytest.approx(0.1)
    assert pacer.wait_s(100, 10.1) == pytest.approx(0.0)


def test_a_listener_who_ran_dry_waits() -> None:
    pacer = Pacer()
    pacer.wrote(100, 0.0)
    assert pacer.played_ms(5.0) == 100
    pacer.wrote(100, 5.0)
    assert pacer.played_ms(5.05) == pytest.approx(150)


def test_the_client_corrects_the_clock() -> None:
    pacer = Pacer()
    pacer.wrote(400, 0.0)
    pacer.reported(0, 0.3)
    assert pacer.room_ms(0.3) == 0
    assert pacer.wait_s(100, 0.3) == pytest.approx(0.1)
    pacer.reported(300, 0.3)
    assert pacer.room_ms(0.3) == 300


def test_a_report_beyond_what_was_written_is_clamped() -> None:
    pacer = Pacer()
    pacer.wrote(200, 0.0)
    pacer.reported(10_000_000, 0.0)
    assert pacer.played_ms(0.0) == 200
    assert pacer.room_ms(0.0) == 400


def test_unpaced() -> None:
    pacer = Pacer(math.inf)
    pacer.wrote(1e9, 0.0)
    assert pacer.wait_s(1e9, 0.0) == 0


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([20.0, 100.0]), st.integers(0, 2000)), max_size=60)
)
def test_never_more_than_the_lead_ahead(steps: list[tuple[float, float, int]]) -> None:
    pacer, now_s = Pacer(), 0.0
    for pause_s, piece_ms, played_ms in steps:
        now_s += pause_s
        if played_ms > 1500:
            pacer.reported(played_ms, now_s)
        if pacer.wait_s(piece_ms, now_s) == 0:
            pacer.wrote(piece_ms, now_s)
            assert pacer.buffered_ms(now_s) <= 400 + 1e-6 or played_ms > 1500
        assert 0 <= pacer.played_ms(now_s) <= pacer.written_ms
