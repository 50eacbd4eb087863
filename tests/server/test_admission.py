"""How many may come in, and when to come back."""

from __future__ import annotations

import pytest

from pipelines.errors import Exhausted
from server.admission import Admission
from tests.fakes import FakeClock


def test_limits_over_all_and_per_tenant() -> None:
    admission = Admission(3, 2, 9, FakeClock().now)
    slots = [admission.stream("a"), admission.stream("a"), admission.stream("b")]
    with pytest.raises(Exhausted, match="3 streams are open, the limit is 3"):
        admission.stream("b")
    slots[2].leave()
    with pytest.raises(Exhausted, match="2 streams of this tenant are open, the limit is 2"):
        admission.stream("a")
    assert admission.open_streams == 2


def test_a_slot_is_left_once() -> None:
    admission = Admission(2, 2, 9, FakeClock().now)
    slot = admission.stream("a")
    admission.stream("a")
    slot.leave()
    slot.leave()
    assert admission.open_streams == 1


def test_retry_after_follows_what_was_observed() -> None:
    clock = FakeClock()
    admission = Admission(9, 9, 4, clock.now)
    for _ in range(40):
        slots = [admission.job("text", "local") for _ in range(4)]
        clock.advance(8.0)
        for slot in slots:
            slot.leave()
    slots = [admission.job("text", "local") for _ in range(4)]
    with pytest.raises(Exhausted) as caught:
        admission.job("text", "local")
    assert caught.value.retry_after_s == pytest.approx(2.0, rel=0.05)
    admission.job("image", "local")
