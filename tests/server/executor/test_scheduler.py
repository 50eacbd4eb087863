"""The scheduler's specification, line by line, as tables; no threads and no clock."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from benchmarks.decisions import decisions
from pipelines.contract import Job
from pipelines.messages import JobClass, TextRequest
from server.executor.accounts import LEAD_MS
from server.executor.scheduler import (
    BEGIN_S,
    FLOORS,
    Resume,
    Running,
    Scheduler,
    Slot,
    Start,
)

R, I, S, B = JobClass  # noqa: E741
DELAY_MS = 25.0


def job(
    number: int,
    job_class: JobClass = S,
    *,
    pipeline: str = "p",
    tenant: str = "t",
    deadline_s: float = math.inf,
    committed: bool = True,
    consumer: Job | None = None,
) -> Job:
    made = Job(number, pipeline, tenant, job_class, TextRequest(), committed=committed, consumer=consumer)
    made.deadline_s = deadline_s
    return made


def suspended(*rows: Job, remaining_ms: float = 100.0) -> Running:
    first = min(rows, key=Scheduler(DELAY_MS).urgency)
    return Running(Slot(first.pipeline, Scheduler(DELAY_MS).urgency(first).rank), rows, remaining_ms)


ORDER = [
    ("class before deadline", [job(1, R), job(2, I, deadline_s=1)], [1, 2]),
    ("deadline before age", [job(1, S), job(2, S, deadline_s=5), job(3, S, deadline_s=2)], [3, 2, 1]),
    ("age last", [job(2, B), job(1, B)], [1, 2]),
    ("uncommitted one class lower", [job(1, I, committed=False), job(2, I)], [2, 1]),
    ("and behind every committed job there", [job(1, I, committed=False, deadline_s=1), job(2, S)], [2, 1]),
    ("but before the next class", [job(1, I, committed=False), job(2, B)], [1, 2]),
    ("uncommitted batch stays batch", [job(1, B, committed=False), job(2, B)], [2, 1]),
    ("consumer's class is inherited", [job(1, S, consumer=job(9, R)), job(2, I)], [1, 2]),
    (
        "consumer's deadline too",
        [job(1, S, deadline_s=3), job(2, S, consumer=job(9, S, deadline_s=1))],
        [2, 1],
    ),
]


@pytest.mark.parametrize(("what", "jobs", "order"), ORDER, ids=[row[0] for row in ORDER])
def test_order(what: str, jobs: list[Job], order: list[int]) -> None:
    for arrival in itertools.permutations(jobs):
        scheduler = Scheduler(DELAY_MS)
        for each in arrival:
            scheduler.offer(each)
        assert [each.id for each in scheduler.ready("p")] == order


def test_tenants_take_turns_by_served_cost() -> None:
    scheduler = Scheduler(DELAY_MS)
    greedy = [job(n, tenant="greedy") for n in range(1, 4)]
    modest = job(10, tenant="modest")
    for each in (*greedy, modest):
        scheduler.enter(each.tenant)
        scheduler.offer(each)
    scheduler.charge(suspended(greedy[0]), 50.0, ())
    assert next(scheduler.ready("p")) is modest


def test_a_tenant_who_was_away_starts_level_with_the_least_served() -> None:
    scheduler = Scheduler(DELAY_MS)
    for tenant in ("busy", "away"):
        scheduler.enter(tenant)
    scheduler.leave("away")
    busy = job(1, tenant="busy")
    scheduler.offer(busy)
    scheduler.charge(suspended(busy), 1000.0, ())
    scheduler.enter("away")
    back = job(2, tenant="away")
    scheduler.offer(back)
    assert list(scheduler.ready("p")) == [busy, back]
    scheduler.charge(suspended(busy), 1.0, ())
    assert list(scheduler.ready("p")) == [back, busy]


def test_accounts_are_settled_when_nobody_is_left() -> None:
    scheduler = Scheduler(DELAY_MS)
    scheduler.enter("a")
    scheduler.charge(suspended(job(1, tenant="a")), 5.0, ())
    scheduler.leave("a")
    assert scheduler.urgency(job(2, tenant="a")).tenant_cost == 0.0


DECIDE = [
    ("nothing", [], [], None),
    ("start", [job(1)], [], Start("p", S)),
    ("resume", [], [suspended(job(1))], Resume(Slot("p", S))),
    ("more urgent start beside a suspended slice", [job(2, R)], [suspended(job(1))], Start("p", R)),
    ("same slot is resumed first", [job(2, S, deadline_s=1)], [suspended(job(1))], Resume(Slot("p", S))),
    (
        "other pipeline by deadline",
        [job(2, S, pipeline="q", deadline_s=1)],
        [suspended(job(1))],
        Start("q", S),
    ),
    ("less urgent suspended waits", [job(2, I)], [suspended(job(1, B))], Start("p", I)),
    (
        "a slice is as urgent as its most urgent row",
        [job(3, I, pipeline="q")],
        [suspended(job(1, S), job(2, S, consumer=job(9, R)))],
        Resume(Slot("p", R)),
    ),
]


@pytest.mark.parametrize(("what", "ready", "waiting", "wanted"), DECIDE, ids=[row[0] for row in DECIDE])
def test_decide(what: str, ready: list[Job], waiting: list[Running], wanted: object) -> None:
    scheduler = Scheduler(DELAY_MS)
    for each in ready:
        scheduler.offer(each)
    assert scheduler.decide(waiting) == wanted


def test_a_blocked_slot_lets_the_next_class_of_its_pipeline_go() -> None:
    scheduler = Scheduler(DELAY_MS)
    scheduler.offer(job(1, R))
    scheduler.offer(job(2, S))
    assert scheduler.decide((), frozenset({Slot("p", R)})) == Start("p", S)


YIELD = [
    ("to a more urgent class of another pipeline", job(2, R, pipeline="q"), 1.0, True),
    ("to a more urgent class of its own, if long", job(2, R), 100.0, True),
    ("not if the slice is nearly over", job(2, R), 10.0, False),
    ("not to its own class", job(2, S, pipeline="q"), 100.0, False),
    ("not to a less urgent class", job(2, B, pipeline="q"), 100.0, False),
    ("within the class when slack goes negative", job(2, S, pipeline="q", deadline_s=0.05), 100.0, True),
    ("not while there is slack", job(2, S, pipeline="q", deadline_s=5.0), 100.0, False),
    (
        "never within the class for work ahead",
        job(2, I, pipeline="q", deadline_s=0.01, committed=False),
        99.0,
        False,
    ),
    ("own pipeline, own class joins the next slice", job(2, S, deadline_s=0.01), 100.0, False),
]


@pytest.mark.parametrize(("what", "other", "remaining_ms", "wanted"), YIELD, ids=[row[0] for row in YIELD])
def test_should_yield(what: str, other: Job, remaining_ms: float, wanted: bool) -> None:
    scheduler = Scheduler(DELAY_MS)
    scheduler.offer(other)
    running = suspended(job(1), remaining_ms=remaining_ms)
    assert scheduler.should_yield(0.0, running, False, ()) is wanted
    assert scheduler.should_yield(0.0, running, True, ()) is False


SLACK = [
    ("a first output hurries", -math.inf, S, 100.0, True),
    ("who has enough until the slice ends waits", 0.2, S, 100.0, False),
    ("who has not does not", 0.14, S, 100.0, True),
    ("an urgent slice that is nearly over is ended", -math.inf, I, DELAY_MS / 2, False),
    ("but not if it takes longer", -math.inf, I, DELAY_MS / 2 + 1, True),
    ("and no other class is ended so", -math.inf, S, 1.0, True),
]


@pytest.mark.parametrize(
    ("what", "dry_s", "running_class", "remaining_ms", "wanted"), SLACK, ids=[row[0] for row in SLACK]
)
def test_who_need_not_wait_for_a_slices_end(
    what: str, dry_s: float, running_class: JobClass, remaining_ms: float, wanted: bool
) -> None:
    scheduler = Scheduler(DELAY_MS)
    voice = job(2, R, pipeline="q")
    voice.dry_s = dry_s
    scheduler.tick(0.0)
    scheduler.offer(voice)
    running = suspended(job(1, running_class), remaining_ms=remaining_ms)
    assert scheduler.should_yield(0.0, running, False, ()) is wanted


def test_streams_go_by_what_is_left_to_hear_or_read() -> None:
    """New ones first: nobody has heard anything of them yet."""
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(5.0)
    near, far, new = job(1, R), job(2, R), job(3, R)
    near.dry_s, far.dry_s, new.arrived_s = 5.1, 5.2, 4.99
    for each in (far, near, new):
        scheduler.offer(each)
    assert ready(scheduler) == [3, 1, 2]


def test_text_of_a_voice_that_has_yet_to_begin_stands_behind_voices_that_are_heard() -> None:
    """A newcomer's prompt of a thousand tokens would else come before each chunk of those who speak. Its
    audio goes first, as ever, and its prompt is not put off for ever."""
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(5.0)
    heard, other, new = job(1, R), job(9, R, pipeline="q"), job(4, R)
    text, prompt = job(2, I, consumer=other), job(3, I, consumer=new)
    heard.dry_s, other.dry_s, new.arrived_s = 5.1, 5.12, 4.99
    for each in (prompt, text, heard, new):
        scheduler.offer(each)
    assert ready(scheduler) == [4, 1, 2, 3]
    heard.dry_s = other.dry_s = 5.0 + BEGIN_S
    for each in (text, heard):
        scheduler.offer(each)
    assert ready(scheduler) == [4, 3, 1, 2]


@pytest.mark.parametrize(("dry_s", "wanted"), [(5.2, False), (5.05, True)])
def test_who_is_heard_interrupts_a_first_prompt_only_where_it_would_fall_silent(
    dry_s: float, wanted: bool
) -> None:
    """And that one interrupts no voice, but all that is less urgent, at once."""
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(5.0)
    heard, new = job(1, R), job(2, I, pipeline="q", consumer=job(8, R))
    heard.dry_s, new.consumer.arrived_s = dry_s, 4.9  # type: ignore[union-attr]
    scheduler.offer(heard)
    assert scheduler.should_yield(5.0, Running(Slot("q", R), (new,), 100.0), False, ()) is wanted
    scheduler.withdraw(heard)
    scheduler.offer(new)
    assert not scheduler.should_yield(5.0, Running(Slot("p", R), (heard,), 100.0), False, ())
    assert scheduler.should_yield(5.0, Running(Slot("p", S), (job(3),), 100.0), False, ())


def test_who_is_heard_takes_no_memory_of_who_has_yet_to_begin() -> None:
    """That is over with the next chunk: two would take each other's for ever."""
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(5.0)
    heard, new = job(1, I, consumer=job(9, R)), job(2, I, consumer=job(8, R))
    heard.consumer.dry_s, new.consumer.arrived_s = 4.9, 4.8  # type: ignore[union-attr]
    for each in (heard, new):
        scheduler.offer(each)
    assert ready(scheduler) == [1, 2]
    assert scheduler.victims([new], lambda _: 1, heard) == []
    assert scheduler.victims([heard], lambda _: 1, new) == [heard]


def test_a_suspended_slice_that_becomes_urgent_takes_the_device_back() -> None:
    scheduler = Scheduler(DELAY_MS)
    row = job(1, S, pipeline="q")
    other = suspended(row)
    running = suspended(job(2, I))
    assert not scheduler.should_yield(0.0, running, False, [other])
    row.job_class = R
    assert scheduler.should_yield(0.0, running, False, [other])


@pytest.mark.parametrize("waiting", [(I,), (S,), (B,), (I, S), (I, B), (S, B), (I, S, B)])
def test_floors_under_a_realtime_flood(waiting: tuple[JobClass, ...]) -> None:
    """Exhaustive over the waiting classes: each gets its floor share, in quanta, and no more."""
    scheduler = Scheduler(DELAY_MS)
    voice = job(1, R, pipeline="voice")
    rows = {job_class: job(10 + job_class, job_class, pipeline=f"p{job_class}") for job_class in waiting}
    for each in (voice, *rows.values()):
        scheduler.offer(each)
    served = dict.fromkeys((R, *waiting), 0.0)
    for _ in range(20_000):
        choice = scheduler.decide(())
        assert isinstance(choice, Start)
        used = JobClass(choice.rank)
        ms = 5.0 if used is R else 10.0
        assert used is R or choice.quantum_ms <= DELAY_MS
        served[used] += ms
        scheduler.charge(suspended(rows.get(used, voice)), ms, ())
    total = sum(served.values())
    for job_class in waiting:
        assert served[job_class] / total >= FLOORS[job_class] * 0.8
        assert served[job_class] / total <= FLOORS[job_class] * 1.3


def test_without_floors_earned_nothing_jumps_the_queue() -> None:
    scheduler = Scheduler(DELAY_MS)
    scheduler.offer(job(1, R))
    scheduler.offer(job(2, B, pipeline="q"))
    assert scheduler.decide(()) == Start("p", R)


def taken_first(scheduler: Scheduler, leases: dict[Job, int], claimant: Job) -> Job | None:
    return next(iter(scheduler.victims(leases, Counter(leases).__getitem__, claimant)), None)


def test_victims_over_all_small_sets() -> None:
    """Exhaustive: idle leases first, then the least urgent ready one, never a more urgent one."""
    classes = (R, I, S, B)
    for claim, first, second in itertools.product(classes, repeat=3):
        for idle_first, idle_second in itertools.product((False, True), repeat=2):
            scheduler = Scheduler(DELAY_MS)
            claimant, one, two = job(1, claim), job(2, first), job(3, second)
            for each, idle in ((one, idle_first), (two, idle_second)):
                if not idle:
                    scheduler.offer(each)
            scheduler.offer(claimant)
            found = taken_first(scheduler, dict.fromkeys((claimant, one, two), 1), claimant)
            idle_jobs = [j for j, idle in ((one, idle_first), (two, idle_second)) if idle]
            if idle_jobs:
                assert found is max(idle_jobs, key=scheduler.urgency)
                continue
            least = max((one, two), key=scheduler.urgency)
            wanted = least if scheduler.urgency(least) > scheduler.urgency(claimant) else None
            assert found is wanted


def test_the_text_of_a_voice_keeps_its_memory_while_it_is_ahead_of_the_listener() -> None:
    """It is back in tenths of a second, when making it again, or room for it, would take too long."""
    scheduler = Scheduler(DELAY_MS)
    voice, begun, chat = job(1, R, pipeline="speech"), job(3, I), job(4, I)
    text = job(2, I, consumer=voice)
    voice.ahead_until_s, voice.dry_s, begun.dry_s = 10.0, 10.1, 6.0
    scheduler.tick(5.0)
    for each in (text, begun, chat):
        scheduler.offer(each)
    assert scheduler.urgency(text) > scheduler.urgency(begun)
    assert scheduler.victims([text, begun], lambda _: 1, chat) == [begun]


def on_floor(holds: dict[JobClass, int], claim: JobClass) -> tuple[Scheduler, dict[JobClass, Job]]:
    """Jobs that hold so much of one pipeline's memory; the claiming class has just been given its floor."""
    scheduler, flood = Scheduler(DELAY_MS), job(99, R, pipeline="flood")
    jobs = {each: job(10 + each, each, pipeline="text") for each in {*holds, claim}}
    for each in (flood, *jobs.values()):
        scheduler.offer(each)
    choice = scheduler.decide(())
    while not (isinstance(choice, Start) and choice.pipeline == "text" and choice.rank == claim):
        scheduler.charge(suspended(flood), 10.0, ())
        choice = scheduler.decide(())
        if isinstance(choice, Start) and choice.pipeline == "text" and choice.rank != claim:
            scheduler.charge(suspended(jobs[JobClass(choice.rank)]), 10.0, ())
    return scheduler, jobs


@pytest.mark.parametrize(
    ("what", "holds", "taken"),
    [
        ("of a more urgent class", {I: 3}, I),
        ("of the less urgent of two", {R: 3, I: 3}, I),
        ("of voices as well, where nobody else has any", {R: 3}, R),
        ("not where the class has half as much already", {I: 3, B: 2}, None),
        ("as long as it has less", {I: 5, B: 2}, I),
    ],
)
def test_a_class_on_its_floor_takes_memory(
    what: str, holds: dict[JobClass, int], taken: JobClass | None
) -> None:
    scheduler, jobs = on_floor(holds, B)
    leases = {jobs[each]: held for each, held in holds.items()}
    assert taken_first(scheduler, leases, jobs[B]) is (jobs[taken] if taken is not None else None), what


def test_on_its_floor_it_takes_from_one_after_the_other_until_it_has_half_as_much() -> None:
    scheduler, jobs = on_floor({I: 1}, B)
    chats = [job(20 + number, I, pipeline="text") for number in range(5)]
    for each in chats:
        scheduler.offer(each)
    leases = {jobs[B]: 2, **dict.fromkeys(chats, 2)}
    assert scheduler.victims(leases, Counter(leases).__getitem__, jobs[B]) == [chats[4], chats[3], chats[2]]


def test_who_is_not_on_its_floor_takes_nothing_of_more_urgent_ones() -> None:
    scheduler, jobs = on_floor({I: 3, S: 0}, B)
    assert scheduler.victims([jobs[I]], lambda _: 3, jobs[S]) == []


@pytest.mark.parametrize("held", [1, 3, 4])
def test_what_a_floor_has_got_it_keeps_while_others_have_as_much(held: int) -> None:
    """Against all but the most urgent, and until a slice of the class runs without its floor."""
    scheduler, jobs = on_floor({I: 3}, B)
    late = job(50, I, pipeline="text")
    scheduler.offer(late)
    leases = {jobs[I]: 3, jobs[B]: held}
    scheduler.charge(suspended(jobs[B]), 5.0, ())
    assert taken_first(scheduler, leases, late) is (None if held <= 3 else jobs[B])
    assert scheduler.victims(leases, Counter(leases).__getitem__, jobs[I]) == [jobs[B]]
    scheduler.decide(())
    scheduler.charge(suspended(jobs[B]), 5.0, ())
    assert taken_first(scheduler, leases, late) is jobs[B]


def test_the_most_urgent_job_never_waits_for_memory_that_a_floor_keeps() -> None:
    """Exhaustive over who holds how much, and whose memory was got on a floor."""
    scheduler, voice = Scheduler(DELAY_MS), job(1, R)
    behind = [job(2, I), job(3, S), job(4, B)]
    for each in (voice, *behind):
        scheduler.offer(each)
    for held in itertools.product((0, 1, 2, 5), repeat=3):
        for kept in itertools.product((False, True), repeat=3):
            rows = [each for each, was in zip(behind, kept, strict=True) if was]
            scheduler._floor_rows = {Slot("p", each.rank): frozenset({each.id}) for each in rows}
            leases = {each: units for each, units in zip(behind, held, strict=True) if units}
            while leases:
                victim = taken_first(scheduler, leases, voice)
                assert victim is not None
                del leases[victim]


def test_withdraw_and_offer_again_leave_no_trace() -> None:
    scheduler = Scheduler(DELAY_MS)
    jobs = [job(n, JobClass(n % 4), tenant=f"t{n % 3}", deadline_s=float(n % 5)) for n in range(60)]
    for each in jobs:
        scheduler.offer(each)
    for each in jobs[::2]:
        each.job_class = R
        scheduler.offer(each)
    for each in jobs:
        scheduler.withdraw(each)
        scheduler.withdraw(each)
    assert len(scheduler) == 0
    assert scheduler.decide(()) is None
    assert list(scheduler.ready("p")) == []


def test_a_decision_with_its_plan_among_ten_thousand_jobs_is_quick() -> None:
    """Asserted loosely; `benchmarks.sharing` says how long it takes (50 microseconds at p50 are the aim)."""
    spent = decisions(200)
    assert sorted(spent)[len(spent) // 2] < 5e-4


def ready(scheduler: Scheduler) -> list[int]:
    return [each.id for each in scheduler.ready("p")]


def test_work_that_is_ahead_of_its_listener_waits_until_it_no_longer_is() -> None:
    """Rule 2: one class lower and behind the committed jobs there; back in time without being offered."""
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(10.0)
    voice, chat = job(1, R), job(2, I)
    voice.ahead_until_s = 10.5
    for each in (voice, chat):
        scheduler.offer(each)
    assert ready(scheduler) == [2, 1] and voice.rank == I
    scheduler.tick(10.4)
    assert ready(scheduler) == [2, 1]
    scheduler.tick(10.5)
    assert ready(scheduler) == [1, 2] and voice.rank == R


def test_a_producer_may_wait_while_its_consumer_is_ahead() -> None:
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(0.0)
    voice = job(9, R)
    voice.ahead_until_s = 1.0
    producer, chat = job(1, I, consumer=voice), job(2, I)
    producer.ahead_until_s = 50.0
    for each in (producer, chat):
        scheduler.offer(each)
    assert ready(scheduler) == [2, 1]
    scheduler.tick(1.0)
    assert ready(scheduler) == [1, 2]


def test_a_suspended_slice_comes_back_when_its_row_is_no_longer_ahead() -> None:
    scheduler = Scheduler(DELAY_MS)
    row = job(1, R, pipeline="q")
    row.ahead_until_s = 2.0
    left, running = Running(Slot("q", R), (row,), 5.0), Running(Slot("p", I), (job(2, I),), 100.0)
    scheduler.tick(1.0)
    assert not scheduler.should_yield(1.0, running, False, [left])
    scheduler.tick(2.0)
    assert scheduler.should_yield(2.0, running, False, [left])


def test_patience_ends_before_later_jobs_with_deadlines() -> None:
    """Rule 7: without ageing the stream of jobs with deadlines would go first for ever."""
    scheduler = Scheduler(DELAY_MS)
    scheduler.tick(0.0)
    old = job(1, S)
    scheduler.offer(old)
    for number in range(2, 6):
        scheduler.tick(50.0 * number)
        newcomer = job(number, S, deadline_s=50.0 * number + 30)
        newcomer.arrived_s = 50.0 * number
        scheduler.offer(newcomer)
        if number == 2:
            assert ready(scheduler)[0] == 2
    assert ready(scheduler)[:2] == [1, 2]


def test_a_tenant_over_its_share_waits_whatever_its_deadlines() -> None:
    scheduler = Scheduler(DELAY_MS)
    flood, modest = job(1, S, tenant="flood", deadline_s=1.0), job(2, S, tenant="modest")
    for each in (flood, modest):
        scheduler.offer(each)
    scheduler.charge(suspended(flood), LEAD_MS, ())
    assert ready(scheduler) == [1, 2]
    scheduler.charge(suspended(flood), 1.0, ())
    assert ready(scheduler) == [2, 1]
    running = Running(Slot("q", S), (job(3, S, pipeline="q", tenant="modest"),), 1000.0)
    assert not scheduler.should_yield(0.9, running, False, ())


def test_a_tenant_is_lifted_when_it_becomes_active_and_not_while_it_is() -> None:
    scheduler = Scheduler(DELAY_MS)
    busy, parked = job(1, tenant="busy"), job(2, tenant="parked")
    for each in (busy, parked):
        scheduler.enter(each.tenant)
        scheduler.offer(each)
    scheduler.charge(suspended(busy), 100.0, ())
    scheduler.offer(parked)
    assert scheduler.urgency(parked).tenant_cost == 0.0
    scheduler.withdraw(parked)
    scheduler.charge(suspended(busy), 900.0, ())
    scheduler.offer(parked)
    assert scheduler.urgency(parked).tenant_cost == 1000.0
    parked.in_slice = True
    scheduler.withdraw(parked)
    scheduler.charge(suspended(busy), 50.0, ())
    scheduler.offer(parked)
    assert scheduler.urgency(parked).tenant_cost == 1000.0


def test_waking_keeps_no_job_and_no_endless_list() -> None:
    scheduler = Scheduler(DELAY_MS)
    one = job(1, I)
    for turn in range(1000):
        scheduler.tick(turn / 1000)
        one.ahead_until_s = turn / 1000 + 0.5
        scheduler.offer(one)
    assert len(scheduler._wakes) <= 3
    scheduler.withdraw(one)
    scheduler.tick(1e9)
    assert not scheduler._wakes and not scheduler._wake_s
