"""Suspension never changes a bit (determinism contract), on a pipeline of integers; the real ones follow
in tests/test_determinism.py. The test must notice a pipeline that keeps state on itself.
"""

from __future__ import annotations

import random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.messages import JobClass, PromptRevision
from server.executor.recording import Committed, Recording, replay
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline


def disturbed(seed: int, toys: list[ToyPipeline]) -> Recording:
    """At least three rows a batch, forced suspensions, a cancel, a promotion, an eviction."""
    rng = random.Random(seed)
    names = [toy.name for toy in toys]
    left = 14

    def give_way() -> bool:
        nonlocal left
        if left and rng.random() < 0.4:
            left -= 1
            bench.submit(rng.choice(list(JobClass)), what=rng.randint(2, 4), pipeline=rng.choice(names))
        return rng.random() < 0.5

    bench = Bench(*toys, give_way=give_way, yield_ms=0.1)
    first = [bench.submit(JobClass.BATCH, what=3, pipeline=names[0]) for _ in range(4)]
    ahead = bench.submit(JobClass.INTERACTIVE, what=2, pipeline=names[0], committed=False)
    for step in range(10_000):
        if step == 3:
            bench.cancel(rng.choice(first))
        if step == 5:
            bench.update(ahead, PromptRevision(1, "now", True))
        if not bench.executor.step():
            break
    return bench.recording


def bits(events: Recording, toys: list[ToyPipeline]) -> bool:
    wanted = [out for event in events.events if isinstance(event, Committed) for out in event.emissions]
    return replay(events.events, {toy.name: toy for toy in toys}) == wanted


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_replay_without_suspension_is_bit_equal(seed: int) -> None:
    recorded = disturbed(seed, [ToyPipeline("a", room=6), ToyPipeline("b", points=5)])
    assume(recorded.suspensions >= 5)  # a few seeds of ten thousand end early
    assert any(len(e.rows) >= 3 for e in recorded.events if isinstance(e, Committed))
    assert bits(recorded, [ToyPipeline("a", room=6), ToyPipeline("b", points=5)])


def test_the_test_notices_shared_state() -> None:
    def broken() -> list[ToyPipeline]:
        return [ToyPipeline("a", shared_scratch=True), ToyPipeline("b", shared_scratch=True)]

    assert not all(bits(disturbed(seed, broken()), broken()) for seed in range(30))
