"""Whether one more voice could be kept supplied: the arithmetic, and what the executor makes of it."""

from __future__ import annotations

from contextlib import suppress
from statistics import median

import pytest

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import Done, Failed, JobClass, Promote, SpeechRequest, SpeechText, TextRequest
from pipelines.speech.loading import LoadedSpeaker
from pipelines.speech.pipeline import SpeechPipeline
from server.executor.forecast import FEWEST
from server.executor.supply import ENOUGH_S, KEPT, Supply
from server.shares import ABOUT_S
from tests.pipelines.speech.fake_speaker import FakeSpeaker
from tests.server.executor.bench import Bench

R, I, S, B = JobClass  # noqa: E741
TEXT = SpeechText("one two three red boat, and a blue house. Seven, eight; nine?", True)


def voice(
    number: int,
    job_class: JobClass = R,
    *,
    arrived_s: float = 0.0,
    committed: bool = True,
    tenant: str = "t",
) -> Job:
    job = Job(number, "p", tenant, job_class, SpeechRequest(), committed=committed)
    job.arrived_s = arrived_s
    return job


def taught(share: float, seconds: float = 4.0, times: int = FEWEST) -> Supply:
    """A voice needs this share of the device and speaks for so long."""
    supply = Supply()
    for number in range(times):
        job = voice(1000 + number)
        job.served_ms = share * seconds * 1000
        supply.learn(job, seconds * 1000)
    return supply


FITS = [
    ("the first voice, whatever it costs", 2.0, [], voice(1), True),
    ("as many as the floors leave", 0.2, [voice(n) for n in range(3)], voice(9), True),
    ("not one more", 0.2, [voice(n) for n in range(4)], voice(9), False),
    (
        "what waits for its commit needs nothing yet",
        0.4,
        [voice(1), voice(2, committed=False)],
        voice(9),
        True,
    ),
    ("nobody listens in time to other classes", 0.4, [voice(n) for n in range(9)], voice(9, S), True),
    ("and they take no share", 0.4, [voice(1), voice(2, B), voice(3, S)], voice(9), True),
    ("only voices", 0.4, [voice(n) for n in range(9)], Job(9, "p", "t", R, TextRequest()), True),
]


@pytest.mark.parametrize(("what", "share", "live", "new", "fits"), FITS, ids=[row[0] for row in FITS])
def test_who_comes_in(what: str, share: float, live: list[Job], new: Job, fits: bool) -> None:
    supply = taught(share)
    if fits:
        supply.check(new, live, 0.0)
        return
    with pytest.raises(Exhausted, match="listeners would run dry"):
        supply.check(new, live, 0.0)


def test_nobody_is_refused_before_enough_was_heard() -> None:
    taught(0.4, times=FEWEST - 1).check(voice(1), [voice(n) for n in range(9)], 0.0)


@pytest.mark.parametrize(("ended", "given_s", "fits"), [(0, 2.0, False), (3, 2.0, False), (0, 1.0, True)])
def test_before_five_have_ended_those_who_speak_show_what_voices_cost(
    ended: int, given_s: float, fits: bool
) -> None:
    """Each takes 0.15 of the device, so that four could be kept supplied; six came at once when nothing was
    known."""
    supply, live = taught(0.15, times=ended), [voice(number) for number in range(6)]
    for each in live:
        each.served_ms, each.given_s = 150 * given_s, given_s
    if fits:
        supply.check(voice(9), live, 1.0)
        return
    with pytest.raises(Exhausted, match="with 7 voices at once") as raised:
        supply.check(voice(9), live, 1.0)
    assert raised.value.retry_after_s == pytest.approx(3.0), "they are taken to be half way through"


def test_a_crowd_that_comes_to_a_new_device_is_let_in_until_the_first_are_heard() -> None:
    """Long before the first has ended."""
    bench = Bench(SpeechPipeline("speech", LoadedSpeaker(FakeSpeaker(), "fake", 0)), yield_ms=3.0)
    crowd = [bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT, credits=16) for _ in range(8)]
    bench.run()
    assert all(job.given_s > ENOUGH_S for job in bench.executor._book.live("speech"))
    late = bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
    bench.executor.step()
    assert not any(isinstance(chunk, Done | Failed) for job in crowd for chunk in bench.chunks(job))
    assert [type(chunk) for chunk in bench.chunks(late)] == [Failed]


def test_it_says_when_the_first_will_have_ended() -> None:
    supply, live = taught(0.4, seconds=4.0), [voice(1, arrived_s=9.0), voice(2, arrived_s=7.5)]
    with pytest.raises(Exhausted) as raised:
        supply.check(voice(9), live, 10.0)
    assert raised.value.retry_after_s == pytest.approx(1.5)


def test_what_varies_needs_more_room() -> None:
    supply = taught(0.2, times=16)
    for _ in range(2):
        job = voice(1)
        job.served_ms = 800.0
        supply.learn(job, 1000.0)
    with pytest.raises(Exhausted):
        supply.check(voice(9), [voice(1), voice(2)], 0.0)


def costs_a_third(bench: Bench) -> None:
    """FEWEST voices have been heard: from now on each takes about a third of the device."""
    bench._yield_s *= 0.35 / median(cost for cost, _ in bench.executor._book._supply._heard)
    for _ in range(KEPT):
        bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
        bench.run()


def test_voices_beyond_what_the_device_speaks_are_refused_and_may_return() -> None:
    """A device of which a voice takes about a third: two of a crowd are let in, and another when the refusal
    said."""
    pipeline = SpeechPipeline("speech", LoadedSpeaker(FakeSpeaker(), "fake", 0))
    bench = Bench(pipeline, yield_ms=1.0)
    for _ in range(FEWEST):
        bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
        bench.run()
    costs_a_third(bench)
    crowd = [bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT, credits=1) for _ in range(6)]
    bench.run()
    last = [bench.chunks(job)[-1] for job in crowd]
    refused = [chunk for chunk in last if isinstance(chunk, Failed)]
    assert len(refused) == 4 and {chunk.kind for chunk in refused} == {"Exhausted"}
    bench.now_s += refused[0].retry_after_s
    for job in crowd:
        bench.credit(job, 1000)
    bench.run()
    again = bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
    bench.run()
    assert isinstance(bench.chunks(again)[-1], Done)


def test_a_voice_that_ran_ahead_is_judged_at_its_commit() -> None:
    bench = Bench(SpeechPipeline("speech", LoadedSpeaker(FakeSpeaker(), "fake", 0)), yield_ms=1.0)
    for _ in range(FEWEST):
        bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
        bench.run()
    costs_a_third(bench)
    ahead = [
        bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT, committed=False, credits=1)
        for _ in range(4)
    ]
    bench.run()
    for job in ahead:
        bench.send(Promote(job))
        bench.run()
    assert [isinstance(bench.chunks(job)[-1], Failed) for job in ahead] == [False, False, True, True]
    assert bench.gone[-2:] == ahead[2:]


def let_in(supply: Supply, live: list[Job], tenant: str, now_s: float) -> int:
    """How many of 100 voices; they join the live ones."""
    before = len(live)
    for _ in range(100):
        with suppress(Exhausted):
            job = voice(len(live), tenant=tenant, arrived_s=now_s)
            supply.check(job, live, now_s)
            live.append(job)
    return len(live) - before


def test_who_is_alone_may_have_all_and_then_what_ends_is_for_others() -> None:
    supply, live = taught(0.05), list[Job]()
    assert let_in(supply, live, "flood", 0.0) == 16
    with pytest.raises(Exhausted, match="with 17 voices at once") as raised:
        supply.check(voice(99, tenant="modest"), live, 1.0)
    assert raised.value.retry_after_s == pytest.approx(3.0), "when the first will have ended"
    del live[:6]
    assert let_in(supply, live, "flood", 4.0) == 2, "of the last quarter it has none"
    assert let_in(supply, live, "modest", 4.0) == 4
    del live[:4]
    assert let_in(supply, live, "flood", 8.0) == 0
    assert let_in(supply, live, "modest", 8.0) == 4, "an equal share"
    live.clear()
    assert let_in(supply, live, "flood", 9.0 + ABOUT_S) == 16, "nobody else has asked for long"


def test_a_refusal_says_what_is_kept_and_for_how_long() -> None:
    supply = taught(0.05)
    supply.check(voice(99, tenant="modest"), [], 0.0)
    live = [voice(number, arrived_s=number / 10) for number in range(12)]
    with pytest.raises(
        Exhausted, match="12 voices speak, 12 of them this tenant's: the rest is kept"
    ) as raised:
        supply.check(voice(99), live, 2.0)
    assert raised.value.retry_after_s == pytest.approx(2.0)


def test_others_have_their_share_beside_more_voices_than_the_device_speaks() -> None:
    """All came before enough was known."""
    supply = taught(0.05)
    live = [voice(number, tenant="flood") for number in range(60)]
    assert let_in(supply, live, "modest", 1.0) == 8
    assert let_in(supply, live, "flood", 1.0) == 0
    live = [voice(number, tenant="flood") for number in range(18)]
    assert let_in(supply, live, "modest", 1.0) == 0, "whom the device can speak nobody may make run dry"


def test_a_modest_tenant_is_heard_beside_a_flood_that_came_before_anything_was_known() -> None:
    bench = Bench(SpeechPipeline("speech", LoadedSpeaker(FakeSpeaker(), "fake", 0)), yield_ms=1.0)
    for _ in range(8):
        bench.submit(R, SpeechRequest(), pipeline="speech", tenant="flood", first=TEXT, credits=1)
    bench.run()
    for _ in range(FEWEST):
        bench.submit(R, SpeechRequest(), pipeline="speech", tenant="flood", first=TEXT)
    bench.run()
    costs_a_third(bench)
    for tenant, last in (("flood", Failed), ("modest", Done)):
        job = bench.submit(R, SpeechRequest(), pipeline="speech", tenant=tenant, first=TEXT)
        bench.run()
        assert isinstance(bench.chunks(job)[-1], last), tenant
