"""What a cold reader of the executor found once, so that it stays found."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from pipelines.contract import Batch, Budget, Job, Pressure
from pipelines.messages import Done, Failed, JobClass, StartTrace, TextRequest
from server.executor.scheduler import Resume, Running, Scheduler, Slot, Start
from tests.server.executor.bench import Bench, InstantDevice
from tests.server.executor.toy import ToyPipeline


def job(number: int, job_class: JobClass, pipeline: str = "p", tenant: str = "t") -> Job:
    return Job(number, pipeline, tenant, job_class, TextRequest())


def test_two_tenants_do_not_take_each_others_memory_for_ever() -> None:
    """Whoever was served less would evict the other, whose next slice would turn that round."""
    scheduler = Scheduler(25.0)
    first, second = job(1, JobClass.STANDARD, tenant="a"), job(2, JobClass.STANDARD, tenant="b")
    for each in (first, second):
        scheduler.enter(each.tenant)
        scheduler.offer(each)
    for served in (first, second):
        scheduler.charge(Running(Slot("p", 2), (served,), 1.0), 100.0, ())
        assert scheduler.victims([first], lambda _: 1, second) == []
        assert scheduler.victims([second], lambda _: 1, first) == [second]


@pytest.mark.parametrize(
    ("short", "yield_ms", "evicted"), [(1, 1.0, 1), (2, 1.0, 2), (3, 1.0, 3), (3, 20.0, 1)]
)
def test_who_arrives_is_heard_between_evictions(short: int, yield_ms: float, evicted: int) -> None:
    """A job that needs what many hold stopped the device for as long as all of their evictions took. So many
    as half a promised delay allows are one step."""

    class Whole(ToyPipeline):
        def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
            rows = list(ready)
            if rows[0].job_class is JobClass.REALTIME and self.used:
                raise Pressure(self.name, short)
            return ToyPipeline.plan(self, rows, budget)

    toy = Whole()
    bench = Bench(toy, yield_ms=yield_ms)
    for _ in range(4):
        bench.submit(what=2, credits=1)
    bench.run()
    urgent = bench.submit(JobClass.REALTIME)
    bench.executor.step()
    bench.cancel(urgent)
    bench.run()
    assert bench.executor.counters.evictions == evicted


def test_an_arrival_that_breaks_leaves_the_running_slice_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Brittle(ToyPipeline):
        def admit(self, job: Job, prepared: object) -> None:
            if job.id == 2:
                raise RuntimeError("broken")
            ToyPipeline.admit(self, job, prepared)

    pending = [JobClass.STANDARD]

    def give_way() -> bool:
        if pending:
            bench.submit(pending.pop())
        return False

    bench = Bench(Brittle(), give_way=give_way)
    with caplog.at_level(logging.CRITICAL):
        bench.submit(what=2)
        bench.run()
    assert isinstance(bench.chunks(1)[-1], Done)
    assert [type(chunk) for chunk in bench.chunks(2)] == [Failed]


def test_a_slot_without_memory_goes_on_when_memory_returns_by_event() -> None:
    device = InstantDevice()
    bench = Bench(ToyPipeline(room=1), device=device)
    device.hold = True
    bench.submit()
    waiting = bench.submit()
    bench.run()
    assert bench.chunks(waiting) == []
    device.hold = False
    bench.run()
    assert isinstance(bench.chunks(waiting)[-1], Done)


def test_a_job_whose_slot_is_taken_lends_its_urgency_to_the_slice_there() -> None:
    scheduler = Scheduler(25.0)
    left = Running(Slot("p", 0), (job(1, JobClass.BATCH),), 50.0)
    scheduler.offer(job(2, JobClass.REALTIME))
    scheduler.offer(job(3, JobClass.INTERACTIVE, "q"))
    assert scheduler.decide([left]) == Resume(Slot("p", 0))


def test_nobody_gives_way_to_a_job_that_has_no_memory() -> None:
    scheduler = Scheduler(25.0)
    scheduler.offer(job(1, JobClass.REALTIME))
    running = Running(Slot("q", 2), (job(2, JobClass.STANDARD, "q"),), 50.0)
    assert scheduler.should_yield(0.0, running, False, ())
    assert not scheduler.should_yield(0.0, running, False, (), frozenset({Slot("p", 0)}))


def test_an_overdue_slice_is_not_taken_for_nearly_over() -> None:
    scheduler = Scheduler(25.0)
    scheduler.offer(job(1, JobClass.REALTIME))
    row = job(2, JobClass.STANDARD)
    assert not scheduler.should_yield(0.0, Running(Slot("p", 2), (row,), 0.0), False, ())
    assert scheduler.should_yield(0.0, Running(Slot("p", 2), (row,), 0.0, overdue=True), False, ())


def test_a_victim_is_never_a_cancelled_row() -> None:
    """The most urgent claimant meets a suspended slice of which one row is cancelled."""
    toy = ToyPipeline(room=2, points=4)
    yields = itertools.count(1)

    def give_way() -> bool:
        if next(yields) == 2:
            bench.cancel(2)
            bench.submit(JobClass.REALTIME)
            return True
        return False

    bench = Bench(toy, give_way=give_way)
    for _ in range(2):
        bench.submit(JobClass.BATCH, what=2)
    bench.run()
    assert isinstance(bench.chunks(1)[-1], Done)
    assert isinstance(bench.chunks(3)[-1], Done)
    assert bench.chunks(2) == []
    assert sorted(toy.released) == [1, 2, 3]


def test_many_arrivals_do_not_stretch_the_gap() -> None:
    """Draining stops after half a promised delay; what is left waits for the next yield."""
    bench = Bench(ToyPipeline(points=50, max_rows=100), yield_ms=1.0, delay_ms=10.0)
    bench.executor._cpu_clock = bench._clock
    for _ in range(60):
        bench.submit()
    bench.executor._drain()
    assert len(bench.executor._book) < 60
    bench.run()
    assert len({owner for owner, chunk in bench.out if isinstance(chunk, Done)}) == 60


@pytest.mark.parametrize(("yield_ms", "most"), [(0.1, 20), (1.0, 100)])
def test_yields_close_to_each_other_are_passed_over(yield_ms: float, most: int) -> None:
    """The executor listens fifty times within a promised delay of 25 ms and no more often, and a cancel is
    noticed then."""
    toy = ToyPipeline(points=100)
    bench = Bench(toy, yield_ms=yield_ms)
    asked = 0

    class Asked(Scheduler):
        def should_yield(self, *told: Any) -> bool:
            nonlocal asked
            asked += 1
            if asked == 10:
                bench.cancel(1)
            return super().should_yield(*told)

    bench.executor._scheduler.__class__ = Asked
    bench.submit()
    bench.submit()
    bench.run()
    assert most * 0.8 <= asked <= most
    assert bench.chunks(1) == [] and isinstance(bench.chunks(2)[-1], Done)


def test_a_trace_is_sent_when_its_time_is_up() -> None:
    sent: list[bytes] = []
    bench = Bench(ToyPipeline())
    bench.executor._send_trace = sent.append
    bench.send(StartTrace(0.2))
    bench.submit(what=50)
    bench.run()
    assert len(sent) == 1
    assert b'"toy x1"' in sent[0]


def test_urgent_work_starts_beside_a_suspended_slice_of_lower_class() -> None:
    scheduler = Scheduler(25.0)
    scheduler.offer(job(1, JobClass.REALTIME))
    left = Running(Slot("p", 2), (job(2, JobClass.STANDARD),), 50.0)
    assert scheduler.decide([left]) == Start("p", 0)


def test_a_suspended_slice_that_nobody_wants_gives_its_memory_back_at_once() -> None:
    toy = ToyPipeline(points=4)
    bench = Bench(toy, give_way=lambda: True)
    bench.submit(JobClass.STANDARD)
    bench.executor.step()
    assert len(bench.executor._suspended) == 1
    bench.cancel(1)
    bench.executor._drain()
    assert not bench.executor._suspended
    assert toy.released == [1]


def test_voice_and_chat_run_on_the_urgent_stream_and_images_do_not() -> None:
    seen: list[bool] = []

    class Watched(InstantDevice):
        def switch_to(self, urgent: bool) -> None:
            seen.append(urgent)

    for job_class in JobClass:
        bench = Bench(ToyPipeline(), device=Watched())
        bench.submit(job_class)
        bench.run()
    assert seen == [True, True, False, False]
