"""A long random life of an executor: arrivals, input, cancels, slow readers, pressure, failures. In the end
every account is zero: no job, lease, place, wake-up, tenant or forecast is left.
"""

from __future__ import annotations

import logging
import random

import pytest

from pipelines.messages import Done, Failed, JobClass, Playback, PromptRevision
from tests.server.executor.bench import Bench, InstantDevice
from tests.server.executor.toy import ToyPipeline, request

PIPELINES = ("text", "speech", "image")


class Life:
    """Random events between the yields of one executor."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.device = InstantDevice()
        self.toys = [
            ToyPipeline(name, points=self.rng.randint(1, 6), room=self.rng.choice((2, 5, None)), max_rows=3)
            for name in PIPELINES
        ]
        self.toys[0].fail_at = 3
        self.bench = Bench(*self.toys, device=self.device, give_way=self.event, yield_ms=2.0)
        self.submitted: list[int] = []
        self.over = False

    def event(self) -> bool:
        """Something happens at this yield, or nothing; sometimes the slice is suspended."""
        if self.over:
            return False
        choice = self.rng.random()
        if choice < 0.15:
            self.submit()
        elif choice < 0.25 and self.submitted:
            self.bench.cancel(self.rng.choice(self.submitted))
        elif choice < 0.35 and self.submitted:
            self.bench.credit(self.rng.choice(self.submitted), self.rng.randint(1, 3))
        elif choice < 0.42 and self.submitted:
            self.bench.update(self.rng.choice(self.submitted), Playback(0, self.rng.choice((0, 200, 900))))
        elif choice < 0.44:
            self.device.hold = not self.device.hold
        elif choice < 0.445:
            self.toys[0].log.append("x")
        return self.rng.random() < 0.1

    def submit(self) -> None:
        rng, open_prompt = self.rng, self.rng.random() < 0.2
        job = self.bench.submit(
            rng.choice(list(JobClass)),
            request(rng.choice((0, 1, 2, 8))),
            pipeline=rng.choice((*PIPELINES, "nowhere")),
            tenant=rng.choice("abc"),
            credits=rng.choice((1, 2, 100)),
            deadline_in_s=rng.choice((0.0, 0.0, 0.001, 0.5, 60.0)),
            committed=not open_prompt,
            consumer=rng.choice(self.submitted) if self.submitted and rng.random() < 0.2 else 0,
        )
        self.submitted.append(job)
        if open_prompt and rng.random() < 0.7:
            self.bench.update(job, PromptRevision(1, "hello", rng.random() < 0.8))

    def live(self, steps: int) -> None:
        for _ in range(steps):
            if not self.bench.executor.step():
                self.event()
                self.bench.now_s += 0.01

    def end(self) -> None:
        """Whoever is left gets credits and input; whoever still waits then is cancelled."""
        self.over, self.device.hold = True, False
        for job in self.submitted:
            self.bench.update(job, PromptRevision(2, "end", True))
            self.bench.credit(job, 1000)
        self.bench.run(100_000)
        for job in self.submitted:
            self.bench.cancel(job)
        self.bench.run()
        self.device.collect()


@pytest.mark.parametrize("seed", range(6))
def test_in_the_end_every_account_is_zero(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        life = Life(seed)
        life.live(1_500)
        life.end()
    executor, scheduler = life.bench.executor, life.bench.executor._scheduler
    book, tenants = executor._book, executor._scheduler._tenants
    assert len(book) == 0 and not executor._suspended and len(scheduler) == 0
    assert not (book._finished or book._deferred or book._entered_s or book._completed)
    assert not book._producers
    assert not (tenants._cost or tenants._jobs or tenants._active)
    assert not (book.forecaster._expected or book.forecaster._sizes)
    assert [toy.used for toy in life.toys] == [0, 0, 0]
    scheduler.tick(1e12)
    assert not scheduler._wakes and not scheduler._wake_s
    ends = [owner for owner, chunk in life.bench.out if isinstance(chunk, Done | Failed)]
    assert len(ends) == len(set(ends)), "nobody ends twice"
    released = sorted(job for toy in life.toys for job in toy.released)
    assert released == sorted(set(released)) and len(released) > 50
