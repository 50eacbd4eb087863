"""How tenants share places: the rules, over all small cases."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest

from pipelines.errors import Exhausted
from pipelines.messages import JobClass, TextRequest
from server.admission import LONGEST_RETRY_S, Admission, Slot
from server.dispatch import Dispatcher, Work
from server.executor.link import JobOrder
from server.shares import ABOUT_S, Shares
from tests.fakes import TEXT, FakeClock, FakeLink


def opened(admission: Admission, tenant: str, most: int = 1000) -> list[Slot]:
    """As many jobs as the tenant gets, but at most so many."""
    slots: list[Slot] = []
    try:
        while len(slots) < most:
            slots.append(admission.job("text", tenant))
    except Exhausted:
        pass
    return slots


def test_one_tenant_with_many_long_jobs_does_not_keep_the_others_out() -> None:
    clock = FakeClock()
    admission = Admission(9, 9, 64, clock.now)
    first = opened(admission, "a")
    assert len(first) == 64, "alone it may have all"
    clock.advance(30.0)
    with pytest.raises(Exhausted, match="64 jobs of text are open, the limit is 64"):
        admission.job("text", "b")
    first.pop().leave()
    with pytest.raises(Exhausted, match="this tenant has 63 of them: the rest is kept"):
        admission.job("text", "a")
    clock.advance(LONGEST_RETRY_S)
    assert len(opened(admission, "b")) == 1
    for slot in first[:20]:
        slot.leave()
    assert len(opened(admission, "a")) == 4
    assert len(opened(admission, "b")) == 16, "the last quarter is for those who have less than a share"


def test_the_places_of_the_device_are_shared_where_they_are_fewer() -> None:
    admission = Admission(9, 9, 256, FakeClock().now)
    admission.job("ear", "b", places=2).leave()
    admission.job("ear", "a", places=2)
    with pytest.raises(Exhausted, match="1 jobs of ear are open, the limit is 2"):
        admission.job("ear", "a", places=2)
    admission.job("ear", "b", places=2)


def test_jobs_are_submitted_and_committed_in_their_tenants_share() -> None:
    link = FakeLink((msgspec.structs.replace(TEXT, places=2),))
    dispatcher = Dispatcher(link, Admission(9, 9, 9, FakeClock().now))

    def submitted(tenant: str, committed: bool = True) -> Work:
        order = JobOrder(
            TEXT.name, "s", "s.1", tenant, JobClass.INTERACTIVE, TextRequest(), committed=committed
        )
        return dispatcher.submit(order)

    submitted("b").cancel()
    early = submitted("a", committed=False)
    submitted("a")
    with pytest.raises(Exhausted, match="1 jobs of fake-text are open, the limit is 2"):
        submitted("a")
    with pytest.raises(Exhausted):
        early.promote()
    submitted("b")


def test_who_has_not_asked_for_long_keeps_nobody_waiting() -> None:
    clock = FakeClock()
    admission = Admission(9, 9, 8, clock.now)
    admission.job("text", "b").leave()
    assert len(opened(admission, "a")) == 6
    clock.advance(ABOUT_S + 1)
    assert len(opened(admission, "a")) == 2
    assert ABOUT_S > LONGEST_RETRY_S


def test_a_refusal_says_when_enough_will_have_ended() -> None:
    clock = FakeClock()
    admission = Admission(9, 9, 8, clock.now)
    opened(admission, "a", 8)
    clock.advance(40.0)
    with pytest.raises(Exhausted) as full:
        admission.job("text", "b")
    with pytest.raises(Exhausted) as over:
        admission.job("text", "a")
    assert full.value.retry_after_s == pytest.approx(40 / 8), "they have been open for 40 s already"
    assert over.value.retry_after_s == pytest.approx(3 * 40 / 8)


def test_the_rule_over_all_small_cases() -> None:
    for places, (a, b, c) in product(range(1, 9), product(range(9), repeat=3)):
        used, held = a + b + c, {"a": a, "b": b, "c": c}
        if used >= places:
            continue
        shares = Shares(FakeClock().now)
        for tenant, count in held.items():
            for _ in range(count):
                shares.take(tenant)
        kept = max(1, places // 4) if places > 1 else 0
        about = sum(1 for tenant, count in held.items() if count or tenant == "a")
        just = used < places - kept or about == 1 or a < places / about
        must_end = shares.must_end("a", used, places)
        assert (must_end == 0) == just, (places, held)
        assert must_end <= used
        assert a or not must_end, "who holds none is never told to wait while a place is free"
