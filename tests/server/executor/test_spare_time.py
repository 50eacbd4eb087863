"""Work ahead of a session that has taken more than its share of the device; no threads, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.contract import SPARE, Batch, Budget, Job
from pipelines.messages import JobClass, PromptRevision, TextRequest
from server.executor.accounts import AHEAD_BURST_MS, AHEAD_SHARE, SESSIONS_KEPT, AheadAccounts
from server.executor.scheduler import Running, Scheduler, Slot, Start
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741
DELAY_MS = 25.0


def job(number: int, job_class: JobClass = S, tenant: str = "t") -> Job:
    return Job(number, "p", tenant, job_class, TextRequest())


def ahead(number: int, session: str) -> Job:
    return Job(number, "p", "t", I, TextRequest(), session_id=session, committed=False)


def in_debt(scheduler: Scheduler, *jobs: Job) -> None:
    """Their sessions have taken a second of the device each."""
    scheduler.tick(0.0)
    for each in jobs:
        scheduler.charge(Running(Slot("p", S), (each,), 1.0), 1000.0, ())
        scheduler.offer(each)


def test_work_ahead_of_a_session_in_debt_goes_last_and_rides_with_nobody() -> None:
    scheduler = Scheduler(DELAY_MS)
    greedy, modest, batch = ahead(1, "greedy"), ahead(2, "modest"), job(3, B)
    in_debt(scheduler, greedy)
    for each in (modest, batch):
        scheduler.offer(each)
    assert [each.id for each in scheduler.ready("p")] == [2, 3]
    assert scheduler.decide(()) == Start("p", S)
    for each in (modest, batch):
        scheduler.withdraw(each)
    assert scheduler.decide(()) == Start("p", SPARE)
    assert [each.id for each in scheduler.ready("p", SPARE)] == [1]


def test_spare_time_ends_when_anybody_comes() -> None:
    scheduler = Scheduler(DELAY_MS)
    greedy = ahead(1, "greedy")
    in_debt(scheduler, greedy)
    scheduler.withdraw(greedy)
    running = Running(Slot("p", SPARE), (greedy,), 1.0)
    assert not scheduler.should_yield(0.0, running, False, ())
    scheduler.offer(job(2, B))
    assert scheduler.should_yield(0.0, running, False, ()), "though the slice is nearly over"


def test_spare_time_earns_no_floor_and_none_is_owed_to_it() -> None:
    scheduler = Scheduler(DELAY_MS)
    greedy, voice = ahead(1, "greedy"), job(2, R)
    in_debt(scheduler, greedy)
    scheduler.offer(voice)
    for _ in range(10_000):
        scheduler.charge(Running(Slot("p", R), (voice,), 1.0), 5.0, ())
        assert scheduler.decide(()) == Start("p", R)


def test_debts_are_paid_by_time_and_end_with_the_commit() -> None:
    scheduler = Scheduler(DELAY_MS)
    one, two = ahead(1, "one"), ahead(2, "two")
    in_debt(scheduler, one, two)
    assert scheduler.decide(()) == Start("p", SPARE)
    two.committed = True
    scheduler.offer(two)
    assert scheduler.decide(()) == Start("p", I)
    scheduler.withdraw(two)
    owed_s = (1.0 - AHEAD_BURST_MS / 1000) / AHEAD_SHARE
    scheduler.tick(owed_s - 0.1)
    assert scheduler.decide(()) == Start("p", SPARE)
    scheduler.tick(owed_s + 0.1)
    assert scheduler.decide(()) == Start("p", S), "nobody had to offer it again"


def test_a_session_keeps_its_debt_beyond_its_jobs() -> None:
    scheduler = Scheduler(DELAY_MS)
    first = ahead(1, "greedy")
    scheduler.enter(first.tenant)
    in_debt(scheduler, first)
    scheduler.withdraw(first)
    scheduler.leave(first.tenant)
    scheduler.offer(ahead(2, "greedy"))
    scheduler.offer(ahead(3, "modest"))
    assert [each.id for each in scheduler.ready("p")] == [3]


def test_sessions_out_of_debt_are_forgotten() -> None:
    accounts = AheadAccounts()
    for number in range(3 * SESSIONS_KEPT):
        accounts.charge(str(number), 1.0, float(number))
    assert len(accounts._held) <= SESSIONS_KEPT + 1


def test_where_none_is_out_of_debt_they_are_not_looked_through_at_each_charge() -> None:
    class Counting(AheadAccounts):
        looked = 0

        def _level(self, session: str, now_s: float) -> float:
            self.looked += 1
            return super()._level(session, now_s)

    accounts = Counting()
    for number in range(3 * SESSIONS_KEPT):
        accounts.charge(str(number), 1.0, 0.0)
    assert accounts.looked < 10 * SESSIONS_KEPT
    for number in range(6 * SESSIONS_KEPT):
        accounts.charge(str(number), 1.0, 100.0 + number)
    assert len(accounts._held) <= SESSIONS_KEPT + 1


def test_rows_pay_for_their_own_part_of_a_slice() -> None:
    scheduler = Scheduler(DELAY_MS)
    long, short, gone = job(1, tenant="long"), job(2, tenant="short"), job(3, tenant="gone")
    gone.cancelled = True
    scheduler.charge(Running(Slot("p", S), (long, short, gone), 1.0, shares=(9.0, 1.0, 5.0)), 50.0, ())
    assert (long.served_ms, short.served_ms, gone.served_ms) == (45.0, 5.0, 0.0)
    assert scheduler.urgency(long).tenant_cost == 45.0


def test_of_revisions_that_come_during_a_slice_the_last_one_counts() -> None:
    class Noting(ToyPipeline):
        def update(self, job: Job, prepared: object) -> None:
            assert isinstance(prepared, PromptRevision)
            seen.append(prepared.number)
            job.state.waiting_for_text = False

    def give_way() -> bool:
        if bench.executor.counters.slices == 0:
            for number in range(2, 9):
                bench.update(typed, PromptRevision(number, "x", final=number == 8))
        return False

    seen: list[int] = []
    bench = Bench(Noting(points=1), give_way=give_way)
    typed = bench.submit(I, 2, committed=False, first=PromptRevision(1, "x", final=False))
    bench.run()
    assert seen == [1, 8]


def test_slices_in_spare_time_are_short_where_others_may_come() -> None:
    class Sizing(ToyPipeline):
        def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
            batch = super().plan(ready, budget)
            if batch is not None and batch.rows[0].rank == SPARE:
                sizes.append(budget.slice_ms)
            return batch

        def update(self, job: Job, prepared: object) -> None:
            job.state.waiting_for_text = False

    sizes: list[float] = []
    bench = Bench(Sizing(points=1), yield_ms=100.0)
    bench.submit(I, 10, committed=False, first=PromptRevision(1, "x", final=False))
    bench.run()
    alone, sizes[:] = set(sizes), ()
    bench.submit(B, 1, credits=0, session="other")
    bench.run()
    bench.submit(I, 10, committed=False, first=PromptRevision(1, "x", final=False))
    bench.run()
    assert (alone, set(sizes)) == ({60.0}, {DELAY_MS / 4})
