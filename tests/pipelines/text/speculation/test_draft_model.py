"""The small model: it is asked where that pays, stays in step with its jobs, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.contract import Batch
from pipelines.errors import ModelBroken
from pipelines.messages import Sampling
from pipelines.text.memory import token_bytes
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.asking import MOST_ROWS, RETRY
from pipelines.text.speculation.draft_model import CHUNK, KIND, DraftModel
from tests.text_driver import Driver, Folders, make_tokenizer

PROMPT = "one two three four five six seven eight nine ten; "
LONG = PROMPT * 5
Asking = Callable[..., Driver]


@pytest.fixture
def asking(folders: Folders) -> Asking:
    """A driver whose small model is the large one itself, or that of `draft`; nothing else guesses."""

    def make(draft: Path | None = None, **overrides: Any) -> Driver:
        shape = {"eos_token_id": 319, **overrides}
        settings = TextSettings(drafters=(), draft=str(draft or folders(**shape)))
        return Driver(TextPipeline.load(folders(**shape), name="tiny", settings=settings))

    return make


def run(driver: Driver, small_ms: float = 0.05, most: int = 10_000) -> list[Batch]:
    """Slices until all is said, as long as they are made to have taken."""
    batches: list[Batch] = []
    while len(batches) < most and (batch := driver.plan()) is not None:
        driver.finish(batch)
        small = batch.kind == KIND
        driver.pipeline.observe(batch, small_ms * small_model(driver).passes(batch) if small else 1.0)
        batches.append(batch)
    return batches


def small_model(driver: Driver) -> DraftModel:
    model = driver.pipeline._draft
    assert model is not None
    return model


def kinds(batches: list[Batch]) -> set[str]:
    return {batch.kind for batch in batches}


def plain(folders: Folders, text: str, how: Sampling) -> list[int]:
    settings = TextSettings(drafters=())
    driver = Driver(TextPipeline.load(folders(eos_token_id=319), name="tiny", settings=settings))
    job = driver.submit(text, how)
    driver.drain()
    return driver.tokens(job)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_model_that_drafts_for_itself_is_always_right(
    asking: Asking, folders: Folders, temperature: float
) -> None:
    how = Sampling(max_tokens=40, temperature=temperature, seed=3)
    driver = asking()
    job = driver.submit(PROMPT, how)
    run(driver)
    usage = driver.done(job).usage
    assert driver.tokens(job) == plain(folders, PROMPT, how)
    assert usage.drafted_tokens == usage.accepted_tokens > 20, "the noise is that of the position"


def test_it_is_not_asked_where_it_costs_too_much(asking: Asking) -> None:
    driver = asking()
    driver.submit(PROMPT, Sampling(max_tokens=120))
    batches = run(driver, small_ms=5.0)
    asked = [number for number, batch in enumerate(batches) if batch.kind == KIND]
    assert len(asked) <= 3, "only until the cost is known"


def test_it_is_not_asked_where_it_is_wrong_but_tried_again(asking: Asking, folders: Folders) -> None:
    driver = asking(folders(seed=9, num_hidden_layers=1, eos_token_id=319))
    answered = 0
    batches: list[Batch] = []
    while answered < 2 * RETRY:
        job = driver.submit(PROMPT, Sampling(max_tokens=150, temperature=1.0, seed=answered))
        batches += run(driver, small_ms=0.4)
        answered += len(driver.tokens(job))
        driver.release(job)
    late = batches[len(batches) // 2 :]
    assert 1 <= sum(batch.kind == KIND for batch in late) <= 4


def test_rows_are_asked_together(asking: Asking) -> None:
    driver = asking()
    for number in range(4):
        driver.submit(PROMPT + str(number), Sampling(max_tokens=30))
    assert max(len(batch.rows) for batch in run(driver) if batch.kind == KIND) == 4


def test_large_slices_ask_nobody(asking: Asking) -> None:
    driver = asking()
    for number in range(MOST_ROWS + 1):
        driver.submit(PROMPT + str(number), Sampling(max_tokens=30))
    batches = run(driver)
    assert all(len(batch.rows) <= MOST_ROWS for batch in batches if batch.kind == KIND)


def test_evicted_it_catches_up_and_says_the_same(asking: Asking, folders: Folders) -> None:
    how = Sampling(max_tokens=40)
    driver = asking()
    job = driver.submit(LONG, how)
    run(driver, most=8)
    assert job.state.draft_row.ids
    driver.pipeline.evict(job, 0)
    assert not job.state.draft_row.table.length
    batches = run(driver)
    assert KIND in kinds(batches)
    assert driver.tokens(job) == plain(folders, LONG, how)
    usage = driver.done(job).usage
    assert usage.drafted_tokens == usage.accepted_tokens


def test_a_revised_prompt_crops_its_kv(asking: Asking, folders: Folders) -> None:
    how = Sampling(max_tokens=48)
    driver = asking()
    job = driver.admit(how, committed=False)
    driver.revise(job, 1, LONG + "seven", ahead=44)
    run(driver)
    assert job.state.draft_row.ids
    driver.revise(job, 2, LONG + "naive", final=True)
    job.state.expect(())
    run(driver)
    assert driver.tokens(job) == plain(folders, LONG + "naive", how)
    row = job.state.draft_row
    assert row.ids[: job.state.prompt_length] == job.state.tokens[: job.state.prompt_length]


def test_a_closed_slice_leaves_nothing_and_a_cancelled_row_keeps_nothing(asking: Asking) -> None:
    driver = asking()
    jobs = [driver.submit(LONG + str(number), Sampling(max_tokens=30)) for number in range(3)]
    while (batch := driver.plan()) is not None and batch.kind != KIND:
        driver.finish(batch)
        driver.pipeline.observe(batch, 1.0)
    assert batch is not None
    with torch.inference_mode():
        for stop_after in range(6):
            running = driver.pipeline.run(batch)
            for _, _ in zip(range(stop_after + 1), running, strict=False):
                pass
            running.close()  # type: ignore[attr-defined]
            assert not any(job.state.draft_row.ids or job.state.draft_row.drafted for job in jobs)
        jobs[1].cancelled = True
        driver.finish(batch)
    assert [bool(job.state.draft_row.drafted) for job in jobs] == [True, False, True]
    for job in jobs:
        driver.release(job)
    memory = small_model(driver)._memory
    assert memory.room() == memory.pool.size


def test_suspended_slices_draft_the_same(asking: Asking) -> None:
    """Two slices of the small model in turns, a yield each; then each in one go."""
    found: list[list[tuple[int, ...]]] = []
    for interleaved in (True, False):
        driver = asking()
        jobs = [driver.submit(LONG + str(number), Sampling(max_tokens=30)) for number in range(2)]
        batches = []
        for job in jobs:
            while (batch := driver.plan([job])) is not None and batch.kind != KIND:
                driver.finish(batch)
                driver.pipeline.observe(batch, 1.0)
            assert batch is not None
            batches.append(batch)
        with torch.inference_mode():
            running = [driver.pipeline.run(batch) for batch in batches]
            if interleaved:
                while any([next(each, "end") != "end" for each in running]):  # noqa: C419
                    pass
            else:
                for each in running:
                    list(each)
        found.append([job.state.draft_row.drafted for job in jobs])
    assert found[0] == found[1]
    assert all(found[0])


def test_recorded_batches_are_done_again_without_a_plan(asking: Asking) -> None:
    """As a replay does: `run` reserves what the plan has reserved."""
    how = Sampling(max_tokens=40)
    driver, again = asking(), asking()
    job, twin = driver.submit(LONG, how), again.submit(LONG, how)
    batches = run(driver)
    assert KIND in kinds(batches)
    for batch in batches:
        again.finish(replace(batch, rows=(twin,)))
    assert again.tokens(twin) == driver.tokens(job)


def test_a_long_prompt_is_caught_up_with_points_between(asking: Asking) -> None:
    driver = asking(max_position_embeddings=1024)
    job = driver.submit(PROMPT * 30, Sampling(max_tokens=100))
    while (batch := driver.plan()) is not None and batch.kind != KIND:
        driver.finish(batch)
        driver.pipeline.observe(batch, 1.0)
    assert batch is not None
    assert batch.work.behind > 2 * CHUNK
    with torch.inference_mode():
        points = sum(1 for _ in driver.pipeline.run(batch))
    assert points >= batch.work.behind // CHUNK
    assert job.state.draft_row.drafted


def test_nan_of_the_small_model_harms_nobody(asking: Asking, folders: Folders) -> None:
    how = Sampling(max_tokens=30)
    driver = asking()
    small_model(driver)._decoder.weights.embedding.fill_(math.nan)
    job = driver.submit(PROMPT, how)
    batches = run(driver)
    assert KIND in kinds(batches)
    assert driver.tokens(job) == plain(folders, PROMPT, how)
    assert driver.done(job).usage.drafted_tokens == 0


def test_without_memory_it_is_left_out(asking: Asking, folders: Folders) -> None:
    driver = asking()
    pool = small_model(driver)._memory.pool
    pool.take(pool.free)
    how = Sampling(max_tokens=20)
    job = driver.submit(PROMPT, how)
    assert KIND not in kinds(run(driver))
    assert driver.tokens(job) == plain(folders, PROMPT, how)


def test_another_tokenizer_is_refused(folders: Folders, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in folders().iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    make_tokenizer(300).save(str(other / "tokenizer.json"))
    settings = TextSettings(draft=str(other))
    with pytest.raises(ModelBroken, match="tokenizer of the model that it drafts for"):
        TextPipeline.load(folders(), name="tiny", settings=settings)


def test_its_kv_counts(asking: Asking) -> None:
    driver = asking()
    config = driver.pipeline._config
    assert token_bytes(torch.float32, config, config) == 2 * token_bytes(torch.float32, config)
    assert small_model(driver)._memory.pool.size == driver.pipeline._memory.pool.size
