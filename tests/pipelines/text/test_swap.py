"""KV that waits in host memory: the same bits come back, whatever happens meanwhile; and when it is moved."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from pipelines.contract import Batch, Budget, Job
from pipelines.cost import CostModel
from pipelines.messages import Done, PromptRevision, Sampling
from pipelines.text.kv_cache import BLOCK
from pipelines.text.memory import KvMemory
from pipelines.text.settings import TextSettings
from pipelines.text.swap import EVICT, RESTORE, Moved, Restore, Swap
from tests.server.executor.bench import Bench
from tests.text_driver import BUDGET, Driver

Drive = Callable[..., Driver]
LONG = "the quick brown fox jumps over the lazy dog and one two three " * 3
HOW = Sampling(max_tokens=12, temperature=0.8, seed=3)


def cached(driver: Driver, job: Job) -> list[torch.Tensor]:
    table = job.state.table
    return [layer[:, table.places(0, table.length)].clone() for layer in driver.pipeline._memory.cache]


def begun(drive: Drive, settings: TextSettings | None = None) -> tuple[Driver, Job]:
    driver = drive(settings) if settings else drive()
    job = driver.submit(LONG, HOW)
    driver.drain_until_first_token(job)
    return driver, job


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_same_bits_come_back(drive: Drive, share: float) -> None:
    driver, job = begun(drive)
    before, length = cached(driver, job), job.state.table.length
    keep = int(length * share)
    driver.pipeline.evict(job, keep)
    assert driver.pipeline.leased(job) == 0 and job.state.cached == keep
    for layer in driver.pipeline._memory.cache:
        layer.fill_(torch.nan)
    batch = driver.plan()
    assert batch is not None and batch.kind == RESTORE
    driver.finish(batch)
    assert job.state.table.length == keep and job.state.moved is None
    after = cached(driver, job)
    assert all(torch.equal(a, b[:, :keep]) for a, b in zip(after, before, strict=True))
    driver.drain()
    assert driver.tokens(job) == alone(drive)


def alone(drive: Drive) -> list[int]:
    driver, job = begun(drive)
    driver.drain()
    return driver.tokens(job)


@pytest.mark.parametrize("points", [0, 1, 2])
def test_a_restore_that_is_abandoned_loses_nothing(drive: Drive, points: int) -> None:
    driver, job = begun(drive)
    length = job.state.table.length
    driver.pipeline.evict(job, length)
    for _ in range(2):
        batch = driver.plan()
        assert batch is not None and isinstance(batch.work, Restore)
        steps = driver.pipeline.run(batch)
        for _ in range(points):
            assert next(steps) is None
        steps.close()  # type: ignore[attr-defined]
        assert job.state.cached == length and job.state.table.length == 0
        driver.pipeline.evict(job, driver.pipeline.keeps(job, BUDGET))
        assert not job.state.table.blocks
    driver.drain()
    assert driver.tokens(job) == alone(drive)


def test_a_prompt_that_is_revised_meanwhile_keeps_the_common_beginning(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(HOW, committed=False)
    driver.revise(job, 1, LONG)
    driver.drain()
    length = job.state.table.length
    driver.pipeline.evict(job, length)
    driver.revise(job, 2, LONG + "and then some", final=True)
    assert BLOCK < job.state.cached <= length
    driver.drain()
    fresh = drive()
    other = fresh.submit(LONG + "and then some", HOW)
    fresh.drain()
    assert driver.tokens(job) == fresh.tokens(other)
    driver.release(job)


def test_what_is_released_while_away_leaves_nothing(drive: Drive) -> None:
    driver, job = begun(drive, TextSettings(prefix_reuse=False))
    driver.pipeline.evict(job, job.state.table.length)
    driver.release(job)
    assert job.state.moved is None
    assert driver.pipeline._memory.pool.free == driver.pipeline._memory.pool.size


def test_only_the_first_comes_back(drive: Drive) -> None:
    driver = drive()
    first, second = driver.submit(LONG, HOW), driver.submit("one " + LONG, HOW)
    for job in (first, second):
        driver.drain_until_first_token(job)
    driver.pipeline.evict(second, second.state.table.length)
    batch = driver.plan()
    assert batch is not None and batch.rows == (first,), "the other waits for its turn"
    batch = driver.plan([second, first])
    assert batch is not None and (batch.kind, batch.rows) == (RESTORE, (second,))


def swap(evict_ms: float, restore_ms: float, again_ms: float) -> Swap:
    """Per token."""
    cost = CostModel()
    for tokens in (16, 64, 256, 1024):
        for kind, ms in ((EVICT, evict_ms), (RESTORE, restore_ms)):
            if ms:
                cost.observe(Batch("m", kind, (), tokens), tokens * ms)
    memory = KvMemory([torch.zeros(4, 64 * BLOCK, 8)] * 2, frozenset({0}), prefix_reuse=False)
    return Swap("m", memory, cost, lambda tokens, _: tokens * again_ms)


WORTH = [
    ("cheaper moved", (0.001, 0.001, 0.1), 512, 1024, 512),
    ("cheaper computed again", (0.01, 0.01, 0.015), 512, 1024, 0),
    ("no prompt was timed yet", (0.001, 0.001, 0.0), 512, 1024, 0),
    ("before a copy was timed", (0.0, 0.0, 0.1), 512, 1024, 512),
    ("as much as half a delay copies", (0.1, 0.1, 10.0), 512, 1024, 64),
    ("as much as the host has room for", (0.001, 0.001, 0.1), 512, 100, 100),
    ("less than a block is not worth it", (0.001, 0.001, 0.1), 15, 1024, 0),
]


@pytest.mark.parametrize(("what", "costs", "length", "room", "wanted"), WORTH, ids=[row[0] for row in WORTH])
def test_what_is_worth_moving(
    what: str, costs: tuple[float, float, float], length: int, room: int, wanted: int
) -> None:
    found = swap(*costs)
    found.account(1, Moved((), 64 * BLOCK - room))
    assert found.worth(length, Budget(60.0, 25.0)) == wanted
    found.account(1, None)
    found.account(2, Moved((), 64 * BLOCK - room))
    assert found.worth(length, Budget(60.0, 25.0)) == wanted


def test_without_the_switch_everything_is_computed_again(drive: Drive) -> None:
    driver, job = begun(drive, TextSettings(swap=False))
    driver.pipeline._cost.observe(Batch("m", "prefill", (), 16.0), 1e6)
    assert driver.pipeline.keeps(job, BUDGET) == 0


@pytest.mark.parametrize("swaps", [False, True])
def test_under_pressure_an_executor_swaps_and_everybody_says_what_they_always_say(
    drive: Drive, swaps: bool
) -> None:
    """Three jobs in memory for hardly one, suspended at every third yield."""
    driver = drive(TextSettings(kv_tokens=256, swap=swaps, drafters=()))
    yields = itertools.count(1)
    bench = Bench(driver.pipeline, give_way=lambda: next(yields) % 3 == 0, yield_ms=0.2)
    name, fresh = driver.pipeline.info.name, drive(TextSettings(drafters=()))
    texts = [number + LONG for number in ("one ", "two ", "three ")]
    jobs = [fresh.submit(text, HOW) for text in texts]
    fresh.drain()
    for job, text in zip(jobs, texts, strict=True):
        bench.submit(job.job_class, job.request, pipeline=name, first=PromptRevision(1, text, True))
    with torch.inference_mode():
        bench.run(50_000)
    for number, job in enumerate(jobs, 1):
        said = [token for chunk in bench.chunks(number)[:-1] for token in chunk.token_ids]  # type: ignore[union-attr]
        assert isinstance(bench.chunks(number)[-1], Done)
        assert said == [token for chunk in fresh.chunks(job) for token in chunk.token_ids]
    assert bench.executor.counters.evictions
    assert bool(bench.executor.counters.swaps) is swaps


def test_a_refusal_tells_how_many_blocks_are_short() -> None:
    memory = KvMemory([torch.zeros(2, 8 * BLOCK, 1)], frozenset({0}), prefix_reuse=False)
    held, wanting = memory.table(), memory.table()
    assert memory.reserve(held, 6 * BLOCK) and not memory.reserve(wanting, 5 * BLOCK)
    assert memory.short(wanting, 5 * BLOCK) == 3
