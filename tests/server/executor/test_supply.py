"""Whether one more voice could be kept supplied: the arithmetic, and what the executor makes of it."""

from __future__ import annotations

import pytest

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import Done, Failed, JobClass, SpeechRequest, SpeechText, TextRequest
from pipelines.speech.loading import LoadedSpeaker
from pipelines.speech.pipeline import SpeechPipeline
from server.executor.forecast import FEWEST
from server.executor.supply import KEPT, Supply
from tests.pipelines.speech.fake_speaker import FakeSpeaker
from tests.server.executor.bench import Bench

R, I, S, B = JobClass  # noqa: E741
TEXT = SpeechText("one two three red boat, and a blue house. Seven, eight; nine?", True)


def voice(number: int, job_class: JobClass = R, *, arrived_s: float = 0.0, committed: bool = True) -> Job:
    job = Job(number, "p", "t", job_class, SpeechRequest(), committed=committed)
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


def test_voices_beyond_what_the_device_speaks_are_refused_and_may_return() -> None:
    """A device of which a voice takes about a third: two of a crowd are let in, and another when the refusal
    said."""
    pipeline = SpeechPipeline("speech", LoadedSpeaker(FakeSpeaker(), "fake", 0))
    bench = Bench(pipeline, yield_ms=1.0)
    for _ in range(FEWEST):
        bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
        bench.run()
    bench._yield_s *= 0.35 / bench.executor._book._supply._share("speech")[0]
    for _ in range(KEPT):
        job = bench.submit(R, SpeechRequest(), pipeline="speech", first=TEXT)
        bench.run()
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
