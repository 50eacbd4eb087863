"""Speculation is lossless: whatever is drafted, however slices are cut, closed, evicted and batched."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import Drawn
from pipelines.contract import Budget, Job
from pipelines.messages import FinishReason, Sampling
from pipelines.text.model import Decoder
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.draft_model import KIND
from pipelines.text.speculation.drafter import Draft, Rates
from pipelines.text.speculation.drafters import DRAFTERS, JobDrafters
from tests.text_driver import Driver, Folders

Drive = Callable[..., Driver]
LONG = "one two three four five six seven eight nine ten; " * 2
PROMPTS = ("what is seven plus five?", LONG, "wieviel Äpfel 🙂", "naïve café, the lazy dog")
SAMPLINGS = (
    Sampling(max_tokens=24),
    Sampling(max_tokens=17, temperature=0.8, seed=5),
    Sampling(max_tokens=20, temperature=0.8, seed=9, top_p=0.9, logprobs=3),
    Sampling(max_tokens=24, repetition_penalty=1.3, presence_penalty=0.5),
    Sampling(max_tokens=20, temperature=1.2, seed=6, top_k=20, frequency_penalty=0.4, logprobs=1),
)
PLAIN = TextSettings(drafters=())
Said = tuple[list[int], str, FinishReason, list[float]]


def said(driver: Driver, job: Job) -> Said:
    logprobs = [value for chunk in driver.chunks(job) for value in chunk.logprobs]
    return driver.tokens(job), driver.text(job), driver.done(job).reason, logprobs


@pytest.fixture(scope="module")
def plain() -> dict[tuple[str, Sampling], Said]:
    return {}


def expected(drive: Drive, plain: dict[tuple[str, Sampling], Said], text: str, how: Sampling) -> Said:
    if (text, how) not in plain:
        driver = drive(PLAIN)
        job = driver.submit(text, how)
        driver.drain()
        plain[text, how] = said(driver, job)
    return plain[text, how]


def damaged(rng: random.Random, tokens: Sequence[int]) -> list[int]:
    """The text with some tokens changed, left out and put in; or quite another one."""
    if rng.random() < 0.2:
        return rng.choices(range(320), k=30)
    kept: list[int] = []
    for token in tokens:
        chance = rng.random()
        if chance < 0.1:
            kept.append(rng.randrange(320))
        elif chance < 0.15:
            kept += [rng.randrange(320), token]
        elif chance > 0.05:
            kept.append(token)
    return kept


class Adversary:
    """Sure of itself and mostly wrong: anything, of any length, end tokens too."""

    def __init__(self, rng: random.Random) -> None:
        self.rates = Rates(1, first_guess=1.0)
        self._rng = rng
        self._place = 0

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        self._place = len(tokens)
        self._last = tokens[-1]

    def propose(self, most: int) -> Draft:
        count = self._rng.randint(0, most)
        tokens = self._rng.choices((self._last, 0, 1, 319, self._rng.randrange(320)), k=count)
        return Draft(self._place, tokens, [0] * count, [1.0] * count)


def disturbed(driver: Driver, rng: random.Random) -> None:
    """Slices of random rows and sizes until all is said; some are closed half way, some leases taken."""
    while ready := [job for job in driver.jobs if driver.pipeline.ready(job)]:
        rows = rng.sample(ready, rng.randint(1, len(ready)))
        batch = driver.plan(rows, Budget(rng.choice((2.0, 50.0)), 25.0))
        assert batch is not None
        if rng.random() < 0.2:
            with torch.inference_mode():
                running = driver.pipeline.run(batch)
                next(running, None)
                running.close()  # type: ignore[attr-defined]
        else:
            driver.finish(batch)
            driver.pipeline.observe(batch, 0.1 if batch.kind == KIND else 0.3 * batch.units)
        if rng.random() < 0.1:
            victim = rng.choice(driver.jobs)
            driver.pipeline.evict(victim, rng.choice((0, victim.state.table.length)))


@settings(
    deadline=None,
    derandomize=True,
    max_examples=16,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(0, 1_000_000),
    st.booleans(),
    st.sampled_from((16, 512)),
    st.sampled_from((DRAFTERS, ("copy",), ("ngrams",), ("given",), "adversary", "itself", "stranger")),
)
def test_any_draft_in_any_batch_says_the_same(
    drive: Drive,
    folders: Folders,
    plain: dict[tuple[str, Sampling], Said],
    seed: int,
    prefix_reuse: bool,
    chunk: int,
    drafters: tuple[str, ...] | str,
) -> None:
    rng = random.Random(seed)
    names = DRAFTERS if isinstance(drafters, str) else drafters
    model = {"itself": str(folders()), "stranger": str(folders(seed=1, num_hidden_layers=1))}
    small = model.get(drafters, "") if isinstance(drafters, str) else ""
    driver = drive(TextSettings(prefix_reuse=prefix_reuse, max_chunk=chunk, drafters=names, draft=small))
    wanted: dict[int, Said] = {}
    for _ in range(rng.randint(1, 5)):
        text, how = rng.choice(PROMPTS), rng.choice(SAMPLINGS)
        answer = expected(drive, plain, text, how)
        if rng.random() < 0.3 and len(answer[1]) > 8:
            place = rng.randrange(len(answer[1]) - 3)
            how = msgspec.structs.replace(how, stop=(answer[1][place : place + 3],))
            answer = expected(drive, plain, text, how)
        job = driver.submit(text, how)
        job.state.expect(damaged(rng, answer[0]))
        if drafters == "adversary":
            job.state.drafters = JobDrafters([Adversary(rng)])
        wanted[job.id] = answer
    if rng.random() < 0.3:
        cancelled = driver.submit(LONG, SAMPLINGS[0])
        cancelled.state.expect(rng.choices(range(320), k=9))
        driver.finish(driver.plan([cancelled]))  # type: ignore[arg-type]
        driver.release(cancelled)
    disturbed(driver, rng)
    for job in list(driver.jobs):
        tokens, text, reason, logprobs = said(driver, job)
        assert (tokens, text, reason) == wanted[job.id][:3]
        assert logprobs == pytest.approx(wanted[job.id][3], abs=1e-4)
        driver.release(job)
    memory = driver.pipeline._memory
    assert memory.room() == memory.pool.size
    if small:
        assert driver.pipeline._draft._memory.room() == driver.pipeline._draft._memory.pool.size  # type: ignore[union-attr]


def test_a_right_draft_is_checked_in_one_pass(drive: Drive) -> None:
    how = Sampling(max_tokens=12, temperature=0.8, seed=3)
    first = drive(PLAIN)
    job = first.submit(PROMPTS[0], how)
    first.drain()
    answer = first.tokens(job)
    assert len(answer) == 12
    driver = drive()
    again = driver.submit(PROMPTS[0], how)
    again.state.expect(answer)
    batch = driver.plan()
    assert batch is not None
    assert batch.work.drafts == (tuple(answer[:11]),)
    driver.finish(batch)
    assert driver.tokens(again) == answer
    usage = driver.done(again).usage
    assert (usage.drafted_tokens, usage.accepted_tokens) == (11, 11)
    assert len(driver.chunks(again)) == 1, "one chunk a slice"


def test_an_end_token_inside_a_draft_ends_the_answer(drive: Drive) -> None:
    first = drive(PLAIN)
    job = first.submit(PROMPTS[0], Sampling(max_tokens=12))
    first.drain()
    answer = first.tokens(job)
    driver = drive(eos_token_id=[answer[4]])
    again = driver.submit(PROMPTS[0], Sampling(max_tokens=12))
    again.state.expect(answer)
    driver.drain()
    end = answer.index(answer[4])
    assert driver.tokens(again) == answer[: end + 1]
    assert driver.done(again).reason is FinishReason.STOP
    assert driver.done(again).usage.accepted_tokens == end
    assert again.state.table.length == again.state.prompt_length + end


def test_nan_where_drafts_are_checked_is_checked_without_them(drive: Drive) -> None:
    driver = drive()
    job = driver.submit(PROMPTS[0], Sampling(max_tokens=12))
    job.state.expect([50, 60])
    assert driver.plan() is not None
    cached = job.state.table.length
    drawn = [Drawn(50, True), Drawn(60, True), Drawn(0, False)]
    assert driver.pipeline._committer.commit(job.state, job.state.pending, (50, 60), drawn) == []
    assert (job.state.table.length, driver.tokens(job), job.state.finished) == (cached, [], False)
    batch = driver.plan()
    assert batch is not None
    assert not any(batch.work.drafts)


def test_a_draft_that_computes_nan_fails_nobody(drive: Drive) -> None:
    plain = drive(PLAIN)
    job = plain.submit(PROMPTS[0], Sampling(max_tokens=12))
    plain.drain()
    answer = plain.tokens(job)
    driver = drive()
    again = driver.submit(PROMPTS[0], Sampling(max_tokens=12))
    wrong = next(token for token in range(300) if token not in {*answer, *again.state.tokens})
    decoder = driver.pipeline._decoder
    assert isinstance(decoder, Decoder)
    decoder.weights.embedding[wrong] = math.nan
    again.state.expect([answer[0], wrong, *answer[2:]])
    driver.drain()
    assert driver.tokens(again) == answer


def test_nan_at_a_wrong_draft_is_not_read(drive: Drive) -> None:
    driver = drive()
    job = driver.submit(PROMPTS[0], Sampling(max_tokens=12))
    assert driver.plan() is not None
    drawn = [Drawn(50, True), Drawn(0, False), Drawn(0, False)]
    driver.pipeline._committer.commit(job.state, job.state.pending, (51, 60), drawn)
    assert driver.tokens(job) == [50]
    assert not job.state.finished


def test_without_room_in_the_budget_nothing_is_drafted(drive: Drive) -> None:
    driver = drive(TextSettings(max_chunk=16))
    jobs = [driver.submit(PROMPTS[0], Sampling(max_tokens=40)) for _ in range(16)]
    for job in jobs:
        driver.drain_until_first_token(job)
        job.state.expect(range(100, 140))
    batch = driver.plan()
    assert batch is not None
    assert batch.kind == "decode"
    assert not any(batch.work.drafts)


def test_a_draft_without_memory_is_dropped_and_the_row_runs(drive: Drive) -> None:
    driver = drive(TextSettings(kv_tokens=256, prefix_reuse=False), eos_token_id=9999)
    first = driver.submit(LONG, Sampling(max_tokens=40))
    driver.drain_until_first_token(first)
    pool = driver.pipeline._memory.pool
    taken = pool.take(pool.free)
    while first.state.table.length % 16 != 12:
        driver.finish(driver.plan())  # type: ignore[arg-type]
    first.state.expect([0] * (first.state.drawn + 20))
    batch = driver.plan()
    assert batch is not None
    assert batch.work.drafts == ((),)
    assert taken
