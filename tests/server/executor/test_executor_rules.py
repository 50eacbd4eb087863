"""The ten rules of ARCHITECTURE.md, each with the test that fails when the rule is removed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from functools import partial

import pytest

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import (
    DeviceTimings,
    Done,
    Failed,
    FinishReason,
    JobClass,
    Promote,
    PromptRevision,
    Stop,
    TokenChunk,
)
from server.executor.executor import IDLE_S, MEMORY_S
from tests.server.executor.bench import Bench, InstantDevice
from tests.server.executor.toy import ToyPipeline, request

R, I, S, B = JobClass  # noqa: E741


def tokens(bench: Bench, job_id: int) -> list[str]:
    return [chunk.text for chunk in bench.chunks(job_id) if isinstance(chunk, TokenChunk)]


def alone(slices: int, job_id: int = 1) -> list[str]:
    """What a job says when it has the device to itself."""
    bench = Bench(ToyPipeline())
    for _ in range(job_id - 1):
        bench.cancel(bench.submit())
    bench.submit(what=slices)
    bench.run()
    return tokens(bench, job_id)


def preempting(*arrivals: JobClass) -> tuple[Bench, ToyPipeline, ToyPipeline]:
    """A background job on `slow` with jobs of these classes arriving on `quick`, one at each yield."""
    slow, quick = ToyPipeline("slow", points=6, cost_ms=100.0), ToyPipeline("quick", points=2)
    pending = list(arrivals)

    def give_way() -> bool:
        if pending:
            bench.submit(pending.pop(0), pipeline="quick")
            bench.executor._drain()
        return False

    bench = Bench(slow, quick, give_way=give_way)
    return bench, slow, quick


def test_rule_1_a_closed_slice_falls_back_to_the_last_commit() -> None:
    """Evicted in mid-slice at every yield: the result is that of running alone."""
    for at in range(1, 9):
        yields = itertools.count(1)
        toy = ToyPipeline(points=4)
        bench = Bench(toy, give_way=partial(reaches, yields, at))
        job = bench.submit(what=2)
        while not bench.executor._suspended and bench.executor.step():
            continue
        for piece in bench.executor._suspended:
            bench.executor._suspended.fall_back(piece)
        bench.run()
        assert tokens(bench, job) == result_of(points=4, slices=2)


def reaches(yields: Iterator[int], at: int) -> bool:
    return next(yields) == at


def result_of(points: int, slices: int) -> list[str]:
    bench = Bench(ToyPipeline(points=points))
    job = bench.submit(what=slices)
    bench.run()
    return tokens(bench, job)


@pytest.mark.parametrize("classes", list(itertools.product((R, I, S, B), repeat=3)))
def test_rule_2_suspended_slices_form_a_set(classes: tuple[JobClass, ...]) -> None:
    """Exhaustive over three arrivals: at most one suspended slice a pipeline and class, all are resumed."""
    toy = ToyPipeline(points=5, max_rows=1, cost_ms=1000.0)
    pending = list(classes)
    seen: list[int] = []

    def give_way() -> bool:
        if pending:
            bench.submit(pending.pop(0), what=2)
            bench.executor._drain()
        seen.append(len(bench.executor._suspended))
        return False

    bench = Bench(toy, give_way=give_way)
    bench.submit(S, what=2)
    bench.run()
    rising = len({c for c in classes if c < S})
    assert max(seen) <= 1 + rising
    for job in range(1, 5):
        assert isinstance(bench.chunks(job)[-1], Done)
    assert sorted(toy.released) == [1, 2, 3, 4]
    assert not bench.executor._suspended


def test_rule_3_across_classes_the_device_changes_hands_at_a_yield() -> None:
    bench, _slow, _ = preempting(R)
    bench.submit(S, pipeline="slow")
    bench.run()
    assert [job for job, chunk in bench.out if isinstance(chunk, Done)] == [2, 1]
    done = bench.chunks(1)[-1]
    assert isinstance(done, Done) and done.timings.preemptions == 1


def test_rule_3_within_a_class_it_does_not() -> None:
    bench, _, _ = preempting(S, B)
    bench.submit(S, pipeline="slow")
    bench.run()
    assert [job for job, chunk in bench.out if isinstance(chunk, Done)] == [1, 2, 3]


def test_rule_4_background_work_moves_at_its_floor_under_a_flood() -> None:
    flood, background = ToyPipeline("flood", points=4, max_rows=1), ToyPipeline("background", points=4)
    bench = Bench(flood, background)
    bench.submit(B, what=2, pipeline="background")
    for _ in range(400):
        bench.submit(R, pipeline="flood")
    bench.run()
    order = [job for job, chunk in bench.out if isinstance(chunk, Done)]
    assert order.index(1) < 400


def test_rule_4_uncommitted_work_is_promoted_at_commit() -> None:
    ahead, other = ToyPipeline("ahead"), ToyPipeline("other", points=3)
    bench = Bench(ahead, other)
    job = bench.submit(I, pipeline="ahead", committed=False)
    bench.update(job, PromptRevision(1, "hello", True))
    bench.submit(S, pipeline="other")
    bench.run()
    assert [each for each, chunk in bench.out if isinstance(chunk, Done)] == [job, 2]


def test_rule_4_a_job_that_ran_ahead_is_promoted_with_its_turn() -> None:
    voice, text = ToyPipeline("speech"), ToyPipeline("text", max_rows=1)
    bench = Bench(voice, text)
    speech = bench.submit(R, pipeline="speech", committed=False, credits=0)
    first = PromptRevision(1, "ahead", True)
    early = bench.submit(S, pipeline="text", committed=False, first=first)
    rival = bench.submit(S, pipeline="text")
    bench.send(Promote(early, consumer=speech))
    bench.send(Promote(speech))
    bench.send(Promote(99))
    bench.run()
    order = [job for job, chunk in bench.out if isinstance(chunk, Done)]
    assert order == [early, rival]


def test_rule_5_a_producer_inherits_its_consumers_deadline() -> None:
    speech, text = ToyPipeline("speech"), ToyPipeline("text", max_rows=1)
    bench = Bench(speech, text)
    voice, later = (bench.submit(R, pipeline="speech", committed=False) for _ in range(2))
    rival = bench.submit(I, pipeline="text", consumer=later)
    producer = bench.submit(I, pipeline="text", consumer=voice)
    bench.run()
    order = [job for job, chunk in bench.out if isinstance(chunk, Done)]
    assert order.index(producer) < order.index(rival)


def test_rule_5_nobody_inherits_from_a_consumer_that_is_gone() -> None:
    speech, text = ToyPipeline("speech"), ToyPipeline("text", max_rows=1)
    bench = Bench(speech, text)
    voice = bench.submit(R, pipeline="speech", committed=False)
    producer = bench.submit(S, pipeline="text", consumer=voice)
    rival = bench.submit(I, pipeline="text")
    bench.cancel(voice)
    bench.run()
    assert [job for job, chunk in bench.out if isinstance(chunk, Done)] == [rival, producer]


@pytest.mark.parametrize("cancelled", [c for n in range(4) for c in itertools.combinations((1, 2, 3), n)])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_rule_6_rows_are_cancelled_not_batches(cancelled: tuple[int, ...], at: int) -> None:
    """Exhaustive over which rows of three go, and at which yield: the others say what they always say."""
    toy = ToyPipeline(points=3)
    yields = itertools.count(1)

    def cancel() -> bool:
        if next(yields) == at:
            for job in cancelled:
                bench.cancel(job)
            bench.executor._drain()
        return False

    bench = Bench(toy, give_way=cancel)
    for _ in range(3):
        bench.submit(what=2)
    bench.run()
    for job in (1, 2, 3):
        if job in cancelled:
            assert bench.chunks(job) == []
        else:
            assert tokens(bench, job) == alone(2, job)
            assert isinstance(bench.chunks(job)[-1], Done)
    assert sorted(toy.released) == [1, 2, 3]
    assert toy.log.count("observed 3") == {0: 2, 3: 0}.get(len(cancelled), 1)


def test_rule_7_memory_returns_by_event() -> None:
    device = InstantDevice()
    toy = ToyPipeline(room=1)
    bench = Bench(toy, device=device)
    device.hold = True
    bench.submit()
    bench.run()
    assert toy.released == [] and toy.used == 1
    device.hold = False
    bench.executor.step()
    assert toy.released == [1] and toy.used == 0


def test_rule_7_what_came_back_is_there_for_who_arrives() -> None:
    """The gateway knows that the job is gone, and sends the next one: it found the place still taken."""

    class OnePlace(ToyPipeline):
        def admit(self, job: Job, prepared: object) -> None:
            if self.admitted:
                raise Exhausted("one place")
            ToyPipeline.admit(self, job, prepared)

    device = InstantDevice()
    bench = Bench(OnePlace(), device=device)
    device.hold = True
    bench.submit()
    bench.run()
    device.hold = False
    later = bench.submit()
    bench.run()
    assert isinstance(bench.chunks(later)[-1], Done)


def test_rule_7_who_waits_for_memory_does_not_sleep_long() -> None:
    device, slept = InstantDevice(), list[float]()
    bench = Bench(ToyPipeline(room=1), device=device)
    device.hold = True
    bench.submit()
    bench.run()
    waiting = bench.submit()

    def wait(timeout_s: float) -> None:
        slept.append(timeout_s)
        device.hold = False
        if bench.chunks(waiting):
            bench.send(Stop())

    bench.executor.inbox.wait = wait  # type: ignore[method-assign]
    bench.executor.run()
    assert slept[0] == MEMORY_S and slept[-1] == IDLE_S


def test_rule_8_every_stretch_of_launches_is_bounded() -> None:
    device = InstantDevice()
    bench = Bench(ToyPipeline(points=7), device=device)
    bench.submit()
    bench.run()
    assert device.segments >= 7


@pytest.mark.parametrize("credits", [1, 2, 3])
@pytest.mark.parametrize("grants", list(itertools.product((0, 1, 2), repeat=3)))
def test_rule_9_a_job_without_credits_is_parked(credits: int, grants: tuple[int, ...]) -> None:
    """Exhaustive over small credits and grants: never more chunks than credits, the same in the end."""
    bench = Bench(ToyPipeline())
    job = bench.submit(what=4, credits=credits)
    other = bench.submit(what=4)
    bench.run()
    assert isinstance(bench.chunks(other)[-1], Done)
    allowed = credits
    assert len(tokens(bench, job)) == min(4, allowed)
    for grant in grants:
        bench.credit(job, grant)
        bench.run()
        allowed += grant
        assert len(tokens(bench, job)) == min(4, allowed)
    bench.credit(job, 10)
    bench.run()
    assert tokens(bench, job) == alone(4)


@pytest.mark.parametrize("classes", list(itertools.product((R, I, S), repeat=3)))
@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("swaps", [False, True])
def test_rule_10_pressure_never_deadlocks(
    classes: tuple[JobClass, ...], room: int, parked: bool, swaps: bool
) -> None:
    """Exhaustive over classes, room, a parked holder and how leases are evicted: everything ends, with its
    own result."""
    toy = ToyPipeline(room=room, max_rows=2, swaps=swaps)
    bench = Bench(toy)
    holder = bench.submit(classes[0], what=2, credits=1 if parked else 10)
    bench.executor.step()
    others = [bench.submit(job_class, what=2) for job_class in classes[1:]]
    bench.run()
    for job in others:
        assert tokens(bench, job) == alone(2, job)
    bench.credit(holder, 5)
    bench.run()
    assert tokens(bench, holder) == alone(2, holder)
    assert toy.used == 0


def test_rule_10_the_least_urgent_lease_goes_first() -> None:
    toy = ToyPipeline(room=2, max_rows=1, points=2)
    bench = Bench(toy)
    urgent, idle = bench.submit(I, what=3, credits=1), bench.submit(B, what=3, credits=1)
    bench.run()
    bench.submit(R)
    bench.run()
    bench.credit(urgent, 9)
    bench.credit(idle, 9)
    bench.run()
    evictions = {job: bench.chunks(job)[-1].timings.evictions for job in (urgent, idle)}  # type: ignore[union-attr]
    assert evictions == {urgent: 0, idle: 1}


def test_a_model_that_throws_fails_its_rows_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = ToyPipeline("broken", fail_at=0), ToyPipeline("sound")
    bench = Bench(broken, sound)
    bench.submit(pipeline="broken")
    bench.submit(pipeline="sound", what=2)
    with caplog.at_level(logging.CRITICAL):
        bench.run()
    assert bench.chunks(1) == [
        Failed("ModelBroken", "the model failed on this request, see the server's log")
    ]
    assert isinstance(bench.chunks(2)[-1], Done)
    assert broken.released == [1]


def test_bad_input_ends_the_job_that_sent_it() -> None:
    bench = Bench(ToyPipeline())
    bench.submit(what=request(0))
    bench.submit(what=1, pipeline="nowhere")
    bench.submit(what=1)
    bench.run()
    first, second = bench.chunks(1)[0], bench.chunks(2)[0]
    assert isinstance(first, Failed) and first.field == "sampling.max_tokens"
    assert isinstance(second, Failed) and second.kind == "NotFound"
    assert isinstance(bench.chunks(3)[-1], Done)


def test_input_for_a_job_in_a_slice_waits_for_its_commit() -> None:
    toy = ToyPipeline(points=3)
    yields = itertools.count(1)

    def revise() -> bool:
        if next(yields) == 2:
            bench.update(1, PromptRevision(2, "abc", True))
            bench.executor._drain()
        return False

    bench = Bench(toy, give_way=revise)
    bench.submit(what=2)
    bench.run()
    assert len(tokens(bench, 1)) == 2
    assert tokens(bench, 1)[0] == alone(2)[0] and tokens(bench, 1)[1] != alone(2)[1]


def test_timings_tell_what_happened() -> None:
    bench, _, _ = preempting(R)
    bench.submit(S, pipeline="slow")
    bench.run()
    done = bench.chunks(1)[-1]
    assert isinstance(done, Done) and done.reason is FinishReason.STOP
    assert isinstance(done.timings, DeviceTimings)
    assert done.timings.device_ms > 0 and done.timings.queue_ms > 0 and done.timings.slices == 1
