"""Slices as transactions: abandoned ones leave nothing, rows don't disturb each other, memory comes back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from pipelines.contract import Budget, Emission, Job, Pressure
from pipelines.errors import Exhausted
from pipelines.messages import FinishReason, Message, Sampling
from pipelines.text.kv_cache import BLOCK
from pipelines.text.model import Decoder
from pipelines.text.settings import TextSettings
from tests.text_driver import BUDGET, Driver

Drive = Callable[..., Driver]
LONG = "one two three four five six seven eight nine ten; " * 3
SAMPLINGS = (
    Sampling(max_tokens=12),
    Sampling(max_tokens=9, temperature=0.8, seed=5, top_p=0.9),
    Sampling(max_tokens=14, temperature=1.2, seed=6, top_k=20, repetition_penalty=1.3, logprobs=2),
)
PROMPTS = ("what is seven plus five?", LONG, "wieviel Äpfel 🙂")


def alone(drive: Drive, text: str, sampling: Sampling) -> list[int]:
    driver = drive()
    job = driver.submit(text, sampling)
    driver.drain()
    return driver.tokens(job)


def test_a_batch_says_what_each_row_says_alone(drive: Drive) -> None:
    driver = drive()
    jobs = [driver.submit(text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    driver.drain()
    for job, text, how in zip(jobs, PROMPTS, SAMPLINGS, strict=True):
        assert driver.tokens(job) == alone(drive, text, how)
        assert driver.done(job).usage.completion_tokens == len(driver.tokens(job))


def test_logits_in_a_batch_are_those_of_a_row_alone(drive: Drive) -> None:
    how = Sampling(max_tokens=6, logprobs=20)
    together, single = drive(), drive()
    jobs = [together.submit(text, how) for text in PROMPTS]
    together.drain()
    for job, text in zip(jobs, PROMPTS, strict=True):
        one = single.submit(text, how)
        single.drain()
        for left, right in zip(together.chunks(job), single.chunks(one), strict=True):
            assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)


def test_seeds_reproduce_and_differ(drive: Drive) -> None:
    def said(seed: int) -> list[int]:
        return alone(drive, LONG, Sampling(max_tokens=16, temperature=1.0, seed=seed))

    assert said(1) == said(1)
    assert said(1) != said(2)


def snapshot(job: Job) -> tuple[object, ...]:
    state = job.state
    return (tuple(state.tokens), state.table.length, state.finished, state.stream._held, tuple(state.keys))


def test_closing_at_every_yield_leaves_the_job_as_before(drive: Drive) -> None:
    expected = [alone(drive, text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    driver = drive()
    jobs = [driver.submit(text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    closings = 0
    while (batch := driver.plan()) is not None:
        before = [snapshot(job) for job in jobs]
        for stop_after in range(100):
            with torch.inference_mode():
                running = driver.pipeline.run(batch)
                seen = [item for _, item in zip(range(stop_after + 1), running, strict=False)]
                running.close()  # type: ignore[attr-defined]
            if seen and isinstance(seen[-1], Emission):
                break
            if len(seen) <= stop_after:
                break
            assert [snapshot(job) for job in jobs] == before
            closings += 1
        if [snapshot(job) for job in jobs] == before:
            driver.finish(batch)
    assert closings > 50
    assert [driver.tokens(job) for job in jobs] == expected


def test_suspended_slices_of_other_jobs_do_not_meet(drive: Drive) -> None:
    expected = [alone(drive, text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    driver = drive()
    jobs = [driver.submit(text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    while any(driver.pipeline.ready(job) for job in jobs):
        running = []
        for job in jobs:
            batch = driver.plan([job])
            if batch is not None:
                job.in_slice = True
                running.append(driver.pipeline.run(batch))
        while running:
            for slice_ in list(running):
                with torch.inference_mode():
                    item = next(slice_, running)
                if item is running:
                    running.remove(slice_)
                elif isinstance(item, Emission):
                    driver.take(item)
        for job in jobs:
            job.in_slice = False
    assert [driver.tokens(job) for job in jobs] == expected


def test_a_cancelled_row_says_nothing_more(drive: Drive) -> None:
    driver = drive()
    first, second = driver.submit(PROMPTS[0], SAMPLINGS[0]), driver.submit(PROMPTS[2], SAMPLINGS[0])
    batch = driver.plan()
    assert batch is not None
    running = driver.pipeline.run(batch)
    with torch.inference_mode():
        assert next(running) is None
        first.cancelled = True
        for emission in running:
            driver.take(emission)
    assert driver.emitted[first.id] == []
    driver.release(first)
    driver.drain()
    assert driver.tokens(second) == alone(drive, PROMPTS[2], SAMPLINGS[0])


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_eviction_changes_nothing(drive: Drive, kept: float) -> None:
    """Dropped, moved in part, or moved."""
    expected = [alone(drive, text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    driver = drive()
    jobs = [driver.submit(text, how) for text, how in zip(PROMPTS, SAMPLINGS, strict=True)]
    for turn in range(200):
        batch = driver.plan()
        if batch is None:
            break
        driver.finish(batch)
        victim = jobs[turn % 3]
        if turn % 2 and driver.pipeline.ready(victim):
            room = driver.pipeline._memory.room()
            leased = driver.pipeline.leased(victim)
            driver.pipeline.evict(victim, int(kept * victim.state.table.length))
            assert driver.pipeline._memory.room() == room + leased
            assert driver.pipeline.leased(victim) == 0
    assert [driver.tokens(job) for job in jobs] == expected


def test_all_memory_comes_back(drive: Drive) -> None:
    driver = drive(TextSettings(prefix_reuse=False))
    jobs = [driver.submit(text) for text in PROMPTS]
    driver.finish(driver.plan())  # type: ignore[arg-type]
    for job in jobs:
        driver.release(job)
    assert driver.pipeline._memory.pool.free == driver.pipeline._memory.pool.size


@pytest.mark.parametrize("prefix_reuse", [False, True])
def test_pressure_comes_before_the_most_urgent_row_is_left_out(drive: Drive, prefix_reuse: bool) -> None:
    driver = drive(TextSettings(kv_tokens=256, prefix_reuse=prefix_reuse))
    texts, how = ("one ", "two ", "three "), Sampling(max_tokens=60, temperature=1.0)
    jobs = [driver.submit(text + LONG, how) for text in texts]
    evictions = 0
    while jobs_left := [job for job in driver.jobs if not job.state.finished]:
        ready = [job for job in jobs_left if driver.pipeline.ready(job)]
        try:
            batch = driver.pipeline.plan(ready, BUDGET)
        except Pressure:
            victim = max((job for job in ready[1:]), key=driver.pipeline.leased)
            assert driver.pipeline.leased(victim) > 0
            driver.pipeline.evict(victim, 0)
            evictions += 1
            continue
        assert batch is not None
        assert batch.rows[0] is ready[0]
        driver.finish(batch)
        for job in [job for job in driver.jobs if job.state.finished]:
            driver.release(job)
    assert evictions
    assert [driver.tokens(job) for job in jobs] == [alone(drive, text + LONG, how) for text in texts]


def test_admission_is_bounded_and_says_when_to_return(drive: Drive) -> None:
    driver = drive(TextSettings(max_jobs=2))
    first = driver.submit(PROMPTS[0])
    driver.submit(PROMPTS[1])
    with pytest.raises(Exhausted) as refused:
        driver.submit(PROMPTS[2])
    assert refused.value.retry_after_s > 0
    driver.release(first)
    driver.submit(PROMPTS[2])


def test_nan_fails_its_row_only(drive: Drive) -> None:
    driver = drive()
    decoder = driver.pipeline._decoder
    assert isinstance(decoder, Decoder)
    weights = decoder.weights
    broken, healthy = driver.submit("naïve café"), driver.submit("one two three")
    token = next(iter(set(broken.state.tokens) - set(healthy.state.tokens)))
    weights.embedding[token] = math.nan
    driver.drain()
    assert driver.failure(broken).kind == "ModelBroken"
    assert driver.done(healthy).reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert driver.tokens(healthy) == alone(drive, "one two three", Sampling(max_tokens=16))
    driver.release(broken)
    index = driver.pipeline._memory.index
    assert index is not None
    assert len(index) == len(healthy.state.keys) - 1, "broken KV is not shared"


def test_the_context_ends_the_answer(drive: Drive) -> None:
    driver = drive(TextSettings(context_tokens=64), eos_token_id=9999)
    job = driver.submit("one two three four five six seven eight", Sampling(max_tokens=60))
    driver.drain()
    assert driver.done(job).reason is FinishReason.LENGTH
    assert len(job.state.tokens) == 64


def test_an_end_token_stops_and_is_not_said(drive: Drive) -> None:
    first = alone(drive, PROMPTS[0], Sampling(max_tokens=8))
    driver = drive(eos_token_id=[first[4]])
    job = driver.submit(PROMPTS[0], Sampling(max_tokens=8))
    driver.drain()
    place = first.index(first[4])
    assert driver.done(job).reason is FinishReason.STOP
    assert driver.tokens(job) == first[: place + 1]
    said = [i for chunk in driver.chunks(job) for i in chunk.token_ids]
    assert said == first[:place]


def test_a_stop_string_ends_the_answer(drive: Drive) -> None:
    driver = drive()
    whole = driver.submit(PROMPTS[0], Sampling(max_tokens=30))
    driver.drain()
    text = driver.text(whole)
    stop = text[6:9]
    job = driver.submit(PROMPTS[0], Sampling(max_tokens=30, stop=(stop,)))
    driver.drain()
    assert driver.text(job) == text[: text.index(stop)]
    assert driver.done(job).reason is FinishReason.STOP


def test_the_next_turn_reuses_the_last(drive: Drive) -> None:
    driver = drive()
    first = driver.submit(LONG, Sampling(max_tokens=40))
    driver.drain()
    answer = driver.text(first)
    driver.release(first)
    history = (Message("user", LONG), Message("assistant", answer))
    second = driver.submit("and then?", history=history)
    stranger = driver.submit("and then?", history=history, tenant="other")
    driver.drain()
    assert driver.done(second).usage.reused_tokens >= first.state.prompt_length // BLOCK * BLOCK
    assert driver.done(stranger).usage.reused_tokens == 0
    cold = drive(TextSettings(prefix_reuse=False))
    expected = cold.submit("and then?", history=history)
    cold.drain()
    assert driver.tokens(second) == driver.tokens(stranger) == cold.tokens(expected)


def test_a_long_prompt_never_stalls_decoding(drive: Drive) -> None:
    driver = drive(eos_token_id=9999)
    talking = driver.submit(PROMPTS[0], Sampling(max_tokens=40))
    driver.drain_until_first_token(talking)
    long = driver.submit(LONG, Sampling(max_tokens=2))
    budget = Budget(slice_ms=5.0, gap_ms=2.0)
    slices = 0
    while driver.pipeline.ready(long) and not long.state.drawn:
        drawn = talking.state.drawn
        batch = driver.plan([long, talking], budget)
        assert batch is not None
        assert batch.rows == (long, talking)
        driver.finish(batch)
        driver.pipeline.observe(batch, 0.3 * sum(batch.work.counts))
        assert talking.state.drawn == drawn + 1
        slices += 1
    assert slices > 3, "the long prompt came in chunks"
