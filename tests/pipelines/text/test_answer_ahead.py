"""Answers to prompts that are not committed: never said too early, a draft at best, never another answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.contract import Job
from pipelines.errors import Exhausted
from pipelines.messages import Done, FinishReason, Message, Sampling, TokenChunk
from pipelines.simultaneous.alignment import common_prefix
from pipelines.text.kv_cache import BLOCK
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver

Drive = Callable[..., Driver]
TEXT = "what is seven plus five?"
NOTES = (Message("user", "one two ..."), Message("assistant", "infer. three"))

pieces = st.text(st.sampled_from("seven plus  five?"), max_size=8)
# Where the text is cut, what follows, how much of an answer is wanted, slices until the next edit.
edits = st.lists(
    st.tuples(st.integers(0, 40), pieces, st.sampled_from([0, 3, 99]), st.integers(0, 9)), max_size=6
)
sampling = st.builds(
    Sampling,
    max_tokens=st.just(10),
    temperature=st.sampled_from([0.0, 0.8]),
    seed=st.integers(0, 3),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    stop=st.sampled_from([(), ("e",)]),
)


@settings(
    deadline=None, derandomize=True, max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(edits, sampling, st.booleans(), st.booleans(), st.booleans())
def test_any_edits_end_in_the_whole_prompts_answer(
    drive: Drive,
    script: list[tuple[int, str, int, int]],
    how: Sampling,
    again: bool,
    noted: bool,
    evict: bool,
) -> None:
    driver = drive(TextSettings(prefix_reuse=False, max_chunk=16))
    job, notes = driver.admit(how), NOTES if noted else ()
    text, number = "what ", 1
    driver.revise(job, number, text, ahead=5)
    for place, replacement, ahead, slices in script:
        text, number = text[:place] + replacement, number + 1
        driver.revise(job, number, text, ahead=ahead if text.strip() else 0, notes=notes)
        for _ in range(slices):
            if (batch := driver.plan([job])) is not None:
                driver.finish(batch)
        if evict:
            driver.pipeline.evict(job, 0)
    assert not any(isinstance(chunk, Done) for chunk in driver.emitted[job.id])
    if not (again and script and text.strip()):
        text, number = text.strip() or "seven", number + 1
    driver.revise(job, number, text, final=True, notes=notes if script else ())
    driver.drain()
    whole = drive(TextSettings(prefix_reuse=False))
    twin = whole.admit(how)
    whole.revise(twin, 1, text, final=True, notes=notes if script else ())
    whole.drain()
    assert job.state.tokens == twin.state.tokens
    held = [chunk for chunk in driver.chunks(job) if chunk.revision == number]
    assert "".join(chunk.text for chunk in held) == whole.text(twin)
    assert driver.done(job).reason == whole.done(twin).reason
    driver.release(job)
    assert driver.pipeline._memory.pool.free == driver.pipeline._memory.pool.size


def test_an_answer_that_is_complete_ends_without_a_forward_pass(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(Sampling(max_tokens=6))
    driver.revise(job, 1, TEXT, ahead=99)
    driver.drain()
    assert driver.tokens(job) and not driver.pipeline.ready(job)
    driver.revise(job, 1, TEXT, final=True)
    batch = driver.plan()
    assert batch is not None
    assert batch.kind == "end"
    driver.finish(batch)
    done = driver.done(job)
    assert done.reason is FinishReason.LENGTH
    assert (done.usage.completion_tokens, done.usage.accepted_tokens, done.usage.wasted_tokens) == (6, 6, 0)


def test_an_answer_ahead_stops_at_its_limit(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(Sampling(max_tokens=20))
    driver.revise(job, 1, TEXT, ahead=4)
    driver.drain()
    assert job.state.drawn == 4
    assert [chunk.revision for chunk in driver.chunks(job)] == [1] * len(driver.chunks(job))
    driver.revise(job, 1, TEXT, final=True)
    driver.drain()
    assert job.state.drawn == 20


def test_the_answer_ahead_is_checked_in_one_pass(drive: Drive) -> None:
    driver = drive()
    plain = driver.submit("seven", Sampling(max_tokens=12))
    driver.drain()
    answer = driver.tokens(plain)
    job = driver.admit(Sampling(max_tokens=12))
    driver.revise(job, 1, "seve", ahead=12)
    driver.drain([job])
    job.state.tokens[job.state.prompt_length :] = answer
    job.state.ending = None
    driver.revise(job, 2, "seven", final=True)
    passes = 0
    while (batch := driver.plan([job])) is not None:
        driver.finish(batch)
        passes += 1
    assert driver.tokens(job) == answer
    assert passes <= 2
    assert driver.done(job).usage.accepted_tokens >= 10


def test_what_was_generated_for_nothing_is_counted(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(Sampling(max_tokens=5))
    driver.revise(job, 1, "where is the naïve fox", ahead=5)
    driver.drain()
    driver.revise(job, 2, TEXT, final=True)
    driver.drain()
    assert driver.done(job).usage.wasted_tokens == 5 - agreeing(driver, job, 5)
    told = [chunk.wasted for chunk in driver.chunks(job) if isinstance(chunk, TokenChunk)]
    assert (max(told), told[-1]) == (5, 5 - agreeing(driver, job, 5))


def agreeing(driver: Driver, job: Job, most: int) -> int:
    """How many leading tokens of the answer the one before it had too."""
    return common_prefix(job.state.draft[:most], driver.tokens(job))


def test_what_other_drafters_guess_is_no_answer_ahead_made_use_of(drive: Drive) -> None:
    """A table that has seen the committed prompt's answer gets it right; the answer ahead was for nothing."""
    driver = drive()
    for _ in range(4):
        driver.submit(TEXT, Sampling(max_tokens=24))
        driver.drain()
    job = driver.admit(Sampling(max_tokens=24))
    driver.revise(job, 1, "where is the naïve fox", ahead=5)
    driver.drain()
    driver.revise(job, 2, TEXT, final=True)
    driver.drain()
    usage = driver.done(job).usage
    assert usage.accepted_tokens > 5
    assert usage.wasted_tokens == 5 - agreeing(driver, job, 5)


def test_an_answer_that_outlives_revisions_is_counted_once(drive: Drive) -> None:
    """But for the one token that each pass over a draft draws behind it."""
    driver = drive()
    job = driver.admit(Sampling(max_tokens=12))
    for number, ahead in enumerate((12, 12, 12), 1):
        driver.revise(job, number, TEXT + " " * (number - 1), ahead=ahead)
        driver.drain()
    driver.revise(job, 4, TEXT, final=True)
    driver.drain()
    assert 12 <= job.state.early <= 14
    assert job.state.kept == 11
    assert driver.done(job).usage.wasted_tokens == job.state.early - 11


def test_work_ahead_keeps_no_committed_job_out(drive: Drive) -> None:
    driver = drive(TextSettings(max_jobs=2))
    for _ in range(2):
        early = driver.admit(committed=False)
        driver.revise(early, 1, TEXT)
    with pytest.raises(Exhausted):
        driver.admit(committed=False)
    for _ in range(2):
        driver.submit(TEXT)
    with pytest.raises(Exhausted):
        driver.submit(TEXT)


def test_chunks_of_an_answer_ahead_begin_anew_with_the_revision(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(Sampling(max_tokens=8))
    driver.revise(job, 1, "seven", ahead=8)
    driver.drain()
    driver.revise(job, 2, "seven ", ahead=8)
    driver.drain()
    texts: dict[int, str] = {}
    for chunk in driver.chunks(job):
        assert isinstance(chunk, TokenChunk)
        texts[chunk.revision] = texts.get(chunk.revision, "") + chunk.text
    assert texts[1] == texts[2]


def test_a_slice_that_only_ends_an_answer_teaches_the_cost_models_nothing(drive: Drive) -> None:
    driver = drive()
    job = driver.admit(Sampling(max_tokens=2))
    driver.revise(job, 1, TEXT, ahead=9)
    driver.drain()
    driver.revise(job, 1, TEXT, final=True)
    batch = driver.plan()
    assert batch is not None
    driver.finish(batch)
    driver.pipeline.observe(batch, 0.01)


def test_a_prompt_that_grows_under_its_answers_lies_in_one_piece_and_is_shared(drive: Drive) -> None:
    driver = drive()
    words = [
        "where",
        "is",
        "the",
        "naïve",
        "fox",
        "and",
        "what",
        "does",
        "it",
        "eat,",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
    ]
    job = driver.admit(Sampling(max_tokens=4))
    for number in range(1, len(words)):
        driver.revise(job, number, " ".join(words[:number]) + " ", ahead=4)
        driver.drain()
    index = driver.pipeline._memory.index
    assert index is not None
    assert len(job.state.table.blocks) > 2
    assert isinstance(job.state.table.places(0, job.state.table.length), slice)
    assert len(index) == job.state.sound // BLOCK or len(index) == job.state.sound // BLOCK - 1
    driver.revise(job, len(words), " ".join(words), final=True)
    driver.drain()
    twin = driver.submit(" ".join(words), Sampling(max_tokens=4))
    driver.drain()
    assert twin.state.reused >= BLOCK
    assert driver.tokens(twin) == driver.tokens(job)
