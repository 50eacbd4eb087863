"""Whether a deadline can be met: the arithmetic as tables, and what the executor makes of it."""

from __future__ import annotations

import math

import pytest

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import (
    Failed,
    ImageRequest,
    JobClass,
    ModelInfo,
    Sampling,
    SpeechRequest,
    TextRequest,
)
from server.executor.forecast import FADES_S, FEWEST, Forecast, Forecaster, check, goes_before, size_of
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741
INFO = ModelInfo("m", "image", "f", 0, sizes=((128, 64),), default_steps=10)


def job(number: int, job_class: JobClass = S, served_ms: float = 0.0) -> Job:
    made = Job(number, "p", "t", job_class, TextRequest())
    made.served_ms = served_ms
    return made


def taught(ms: float = 100.0, times: int = FEWEST) -> Forecaster:
    forecaster = Forecaster()
    for number in range(times):
        each = job(1000 + number, served_ms=ms)
        forecaster.enter(each, 8.0)
        forecaster.leave(each, completed=True)
    return forecaster


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (TextRequest((), Sampling(max_tokens=40)), 40),
        (ImageRequest("x"), 10 * 128 * 64),
        (ImageRequest("x", width=64, height=32, steps=4), 4 * 64 * 32),
        (SpeechRequest(), 1),
    ],
)
def test_sizes(request_: TextRequest | ImageRequest | SpeechRequest, size: float) -> None:
    assert size_of(INFO, request_) == size


def test_nothing_is_said_before_enough_jobs_have_been_seen() -> None:
    assert taught(times=FEWEST - 1).forecast(job(1), 8.0, ()) is None
    assert taught().forecast(job(1), 8.0, ()) == Forecast(pytest.approx(100.0), pytest.approx(100.0))  # type: ignore[arg-type]


def test_jobs_that_were_cut_short_teach_nothing() -> None:
    forecaster = taught()
    cut = job(1, served_ms=1.0)
    forecaster.enter(cut, 8.0)
    forecaster.leave(cut, completed=False)
    found = forecaster.forecast(job(2), 8.0, ())
    assert found is not None and found.p90_ms == pytest.approx(100.0)


def test_what_is_left_of_the_jobs_ahead_adds_up() -> None:
    forecaster = taught()
    ahead = [job(1), job(2, served_ms=30.0), job(3, served_ms=500.0)]
    for each in ahead:
        forecaster.enter(each, 8.0)
    found = forecaster.forecast(job(9), 16.0, ahead)
    assert found is not None
    assert found.own_ms == pytest.approx(200.0)
    assert found.p90_ms == pytest.approx(200 + 100 + 70)


def test_the_share_of_more_urgent_classes_makes_it_longer() -> None:
    forecaster = taught()
    for number in range(1000):
        forecaster.used(R, FADES_S * 1000 / 400, number * FADES_S / 200)
    urgent, patient = (forecaster.forecast(job(1, c), 8.0, ()) for c in (R, S))
    assert urgent is not None and urgent.p90_ms == pytest.approx(100.0)
    assert patient is not None and patient.p90_ms == pytest.approx(200.0, rel=0.1)


@pytest.mark.parametrize(
    ("found", "left_ms", "retry_s"),
    [
        (None, 1.0, None),
        (Forecast(100.0, 50.0), 100.0, None),
        (Forecast(5100.0, 50.0), 100.0, 5.0),
        (Forecast(101.0, 50.0), 100.0, 0.1),
        (Forecast(5100.0, 200.0), 100.0, 0.0),
    ],
)
def test_refusals_and_when_to_come_back(
    found: Forecast | None, left_ms: float, retry_s: float | None
) -> None:
    if retry_s is None:
        check(found, left_ms, "m")
        return
    with pytest.raises(Exhausted) as raised:
        check(found, left_ms, "m")
    assert raised.value.retry_after_s == pytest.approx(retry_s)


def test_who_goes_before() -> None:
    new, early, late, urgent = job(1), job(2), job(3), job(4, R)
    new.deadline_s, early.deadline_s, late.deadline_s = 5.0, 4.0, math.inf
    assert goes_before(early, new)
    assert not goes_before(late, new) and not goes_before(urgent, new)


def queued(deadline: float) -> tuple[Bench, Failed | None]:
    """Twenty jobs wait that take as long as `alone`; one more comes with a deadline of so many of these."""
    bench = Bench(ToyPipeline(max_rows=1), yield_ms=1.0)
    for _ in range(FEWEST):
        bench.submit(what=10)
    bench.run()
    alone_s = bench.now_s / FEWEST
    for _ in range(20):
        bench.submit(what=10, deadline_in_s=1e6)
        bench.executor._drain()
    for job_ in bench.executor._book.live("toy"):
        job_.deadline_s = 0.0
    last = bench.submit(what=10, deadline_in_s=alone_s * deadline)
    bench.run()
    first = bench.chunks(last)[0]
    return bench, first if isinstance(first, Failed) else None


def test_a_deadline_that_cannot_be_met_is_refused_and_told_when_it_could_be() -> None:
    assert queued(40.0)[1] is None
    _, refusal = queued(5.0)
    assert refusal is not None and refusal.kind == "Exhausted"
    assert refusal.retry_after_s > 0.1


def test_a_job_that_alone_takes_longer_is_told_that_it_is_pointless() -> None:
    _, refusal = queued(0.1)
    assert refusal is not None and refusal.retry_after_s == 0.0 and "alone" in refusal.message
