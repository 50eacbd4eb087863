"""Who floods slows down nobody but himself: tenants and classes, on the executor, in simulated time."""

from __future__ import annotations

import pytest

from pipelines.messages import Done, JobClass
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741
EVERY_S, JOBS = 0.1, 40


def modest_series(flooding: int, job_class: JobClass, deadline_in_s: float) -> float:
    """Seconds until a tenant who asks for a job each 100 ms, a third of the device, has all of them."""
    sent = 0

    def arrive() -> bool:
        nonlocal sent
        while sent < JOBS and bench.now_s >= sent * EVERY_S:
            sent += 1
            bench.submit(job_class, what=8, tenant="modest")
        return False

    toy = ToyPipeline(points=2, max_rows=1, cost_ms=4.0)
    bench = Bench(toy, give_way=arrive, yield_ms=0.5)
    for _ in range(flooding):
        bench.submit(job_class, what=8, tenant="flood", deadline_in_s=deadline_in_s)
    mine = 0
    while mine < JOBS:
        arrive()
        if not bench.executor.step():
            bench.now_s += 0.001
        mine = sum(isinstance(chunk, Done) and owner > flooding for owner, chunk in bench.out)
        assert bench.now_s < 60
    return bench.now_s


@pytest.mark.parametrize("job_class", [R, I, S, B])
@pytest.mark.parametrize("deadline_in_s", [0.0, 0.5])
def test_a_flooding_tenant_slows_another_by_less_than_a_tenth(
    job_class: JobClass, deadline_in_s: float
) -> None:
    """Also where the flood brings the earlier deadlines."""
    alone = modest_series(0, job_class, 0.0)
    assert modest_series(600, job_class, deadline_in_s) < 1.1 * alone


def test_batch_moves_at_its_floor_under_a_realtime_flood() -> None:
    flood, background = ToyPipeline("flood", points=4, max_rows=1), ToyPipeline("background", points=4)
    bench = Bench(flood, background, yield_ms=1.0)
    floor = bench.submit(B, what=100_000, pipeline="background")
    for _ in range(600):
        bench.submit(R, what=4, pipeline="flood")
    for _ in range(3000):
        bench.executor.step()
    served = {job.id: job.served_ms for job in bench.executor._book.live("background")}
    assert served[floor] / (bench.now_s * 1000) > 0.014, "its floor is 2 %, in quanta of half a delay"


def test_batch_moves_at_its_floor_where_chats_hold_the_memory() -> None:
    """Chats that have not begun go before those that have, so that hundreds of them hold all there is."""
    flood, text = ToyPipeline("flood", points=4, max_rows=1), ToyPipeline("text", room=8, max_rows=1)
    bench = Bench(flood, text, yield_ms=1.0)
    for _ in range(600):
        bench.submit(R, what=4, pipeline="flood")
    for _ in range(400):
        bench.submit(I, what=8, pipeline="text")
    long = bench.submit(B, what=100_000, pipeline="text")
    for _ in range(3000):
        bench.executor.step()
    assert text.used == text.room
    (found,) = (job for job in bench.executor._book.live("text") if job.id == long)
    assert found.served_ms / (bench.executor.counters.busy_s * 1000) > 0.014
    assert found.evictions <= 1, "what it has got on its floor it keeps"
