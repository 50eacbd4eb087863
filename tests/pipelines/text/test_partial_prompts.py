"""Prompts that arrive piece by piece and are revised: the same answer as the whole prompt, less work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import WrongState
from pipelines.messages import Message, Sampling
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver

Drive = Callable[..., Driver]
HOW = Sampling(max_tokens=8, temperature=0.7, seed=11)
HISTORY = (Message("user", "one two three"), Message("assistant", "four five six"))
TEXT = "what is seven plus five, and how many Äpfel are left over?"

pieces = st.text(st.sampled_from("seven plus  \nfiveÄ🙂?"), max_size=12)
edits = st.lists(st.tuples(st.integers(0, 60), pieces, st.integers(0, 3)), max_size=6)


@settings(
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.sampled_from("what is seven"), min_size=1, max_size=30), edits, st.booleans())
def test_any_edits_end_in_the_whole_prompts_answer(
    drive: Drive, start: str, script: list[tuple[int, str, int]], history: bool
) -> None:
    before = HISTORY if history else ()
    driver = drive(TextSettings(prefix_reuse=False, max_chunk=16))
    job = driver.admit(HOW, history=before)
    text, number = start, 0
    for place, replacement, slices in script:
        driver.revise(job, number, text)
        number += 1
        for _ in range(slices):
            if (batch := driver.plan([job])) is not None:
                driver.finish(batch)
        text = text[:place] + replacement
    text = text if text.strip() else "seven"
    driver.revise(job, number, text, final=True)
    driver.drain()
    whole = drive(TextSettings(prefix_reuse=False))
    twin = whole.submit(text, HOW, history=before)
    whole.drain()
    assert job.state.tokens == twin.state.tokens
    assert driver.text(job) == whole.text(twin)
    assert all(chunk.revision == number for chunk in driver.chunks(job))
    driver.release(job)
    assert driver.pipeline._memory.pool.free == driver.pipeline._memory.pool.size


def test_typing_leaves_little_to_do_at_commit(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(HOW, history=HISTORY)
    for end in range(1, len(TEXT)):
        driver.revise(job, end, TEXT[:end])
        driver.drain()
        assert driver.emitted[job.id] == []
        assert not driver.pipeline.ready(job), "not ready until more comes"
    driver.revise(job, len(TEXT), TEXT, final=True)
    # What remains: the last word, the token before it, and the template's closing tokens.
    assert job.state.pending <= 8
    driver.drain()
    usage = driver.done(job).usage
    assert usage.reused_tokens >= usage.prompt_tokens - 8
    assert usage.rolled_back_tokens <= 3


def test_a_revision_rolls_back_to_the_first_difference(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(HOW)
    driver.revise(job, 1, TEXT)
    driver.drain()
    cached = job.state.table.length
    changed = TEXT.replace("seven", "eight")
    driver.revise(job, 2, changed)
    kept = job.state.table.length
    assert 0 < kept < cached
    assert job.state.rolled_back == cached - kept
    driver.revise(job, 3, changed, final=True)
    driver.drain()
    usage = driver.done(job).usage
    assert usage.reused_tokens == kept
    assert usage.rolled_back_tokens == cached - kept


def test_a_burst_of_revisions_computes_only_the_last(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(HOW)
    for end in range(10, len(TEXT), 5):
        driver.revise(job, end, TEXT[:end])
    driver.drain()
    driver.revise(job, 99, TEXT, final=True)
    assert job.state.rolled_back == 0


def test_nothing_may_follow_the_commit(drive: Drive) -> None:
    driver = drive()
    job = driver.submit(TEXT, HOW)
    with pytest.raises(WrongState):
        driver.revise(job, 2, TEXT)
    driver.drain()
    with pytest.raises(WrongState):
        driver.revise(job, 3, TEXT, final=True)


def test_an_evicted_partial_prompt_is_computed_again(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(HOW)
    driver.revise(job, 1, TEXT)
    driver.drain()
    driver.pipeline.evict(job, 0)
    assert driver.pipeline.ready(job)
    driver.revise(job, 2, TEXT, final=True)
    driver.drain()
    twin = driver.submit(TEXT, HOW)
    driver.drain()
    assert driver.tokens(job) == driver.tokens(twin)
