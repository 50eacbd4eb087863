"""Rule 10, all small states: whoever is suspended, parked or cancelled where, memory for one or two of three
jobs is enough for all of them to end, with their own results."""

from __future__ import annotations

import itertools

import pytest

from pipelines.messages import Done, JobClass, TokenChunk
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741
SLICES, YIELDS = 2, 4


def said(bench: Bench, job_id: int) -> list[str]:
    return [chunk.text for chunk in bench.chunks(job_id) if isinstance(chunk, TokenChunk)]


def expected() -> dict[int, list[str]]:
    """Of each of three jobs alone."""
    bench = Bench(ToyPipeline(points=2))
    jobs = [bench.submit(what=SLICES) for _ in range(3)]
    bench.run()
    return {job: said(bench, job) for job in jobs}


@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("swaps", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_no_deadlock_wherever_slices_are_suspended(room: int, swaps: bool, rows: int) -> None:
    """Over the classes of three jobs, which arrive one at each yield, and over which yields suspend."""
    wanted = expected()
    for classes in itertools.product((R, S, B), repeat=3):
        for suspends in itertools.product((False, True), repeat=YIELDS):
            toy = ToyPipeline(points=2, room=room, swaps=swaps, max_rows=rows, cost_ms=100.0)
            bench = disturbed(toy, classes, suspends, cancel_at=-1)
            for job in (1, 2, 3):
                assert said(bench, job) == wanted[job]
                assert isinstance(bench.chunks(job)[-1], Done)
            assert toy.used == 0 and sorted(toy.released) == [1, 2, 3]


@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("swaps", [False, True])
def test_nor_where_somebody_is_cancelled(room: int, swaps: bool) -> None:
    """Over classes, suspensions of the first two yields, and the yield at which the second job goes."""
    wanted = expected()
    for classes in itertools.product((R, B), repeat=3):
        for first, second, cancel_at in itertools.product((False, True), (False, True), range(2, 6)):
            toy = ToyPipeline(points=2, room=room, swaps=swaps, cost_ms=100.0)
            bench = disturbed(toy, classes, (first, second), cancel_at)
            assert [said(bench, job) for job in (1, 3)] == [wanted[1], wanted[3]]
            assert toy.used == 0 and sorted(toy.released) == [1, 2, 3]


@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("swaps", [False, True])
def test_nor_where_floors_take_and_keep_memory(room: int, swaps: bool) -> None:
    """Over the classes of three jobs beside a flood that holds none: the promised delay, and with it what a
    floor has to earn, is a millisecond, so that floors are paid again and again."""
    wanted, taken = expected(), 0
    for classes in itertools.product((I, S, B), repeat=3):
        toy = ToyPipeline(points=2, room=room, swaps=swaps, max_rows=1)
        bench = Bench(toy, ToyPipeline("flood", max_rows=1), delay_ms=1.0)
        jobs = [bench.submit(job_class, what=SLICES) for job_class in classes]
        for _ in range(40):
            bench.submit(R, pipeline="flood")
        bench.run()
        for job in jobs:
            assert said(bench, job) == wanted[job]
        assert toy.used == 0
        taken += bench.executor.counters.evictions
    assert taken > 0


def disturbed(
    toy: ToyPipeline, classes: tuple[JobClass, ...], suspends: tuple[bool, ...], cancel_at: int
) -> Bench:
    """Three jobs on it, to the end."""
    pending, yields = list(classes), itertools.count()

    def give_way() -> bool:
        now = next(yields)
        if pending:
            bench.submit(pending.pop(0), what=SLICES)
        if now == cancel_at:
            bench.cancel(2)
        return now < len(suspends) and suspends[now]

    bench = Bench(toy, give_way=give_way)
    bench.submit(pending.pop(0), what=SLICES)
    bench.run()
    return bench
