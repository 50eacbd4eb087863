"""Speaking, slice by slice: batching, cancelling at every yield, suspension, eviction."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract import Emission, Job
from pipelines.messages import Failed, FinishReason, JobClass, SpeechRequest
from pipelines.speech.settings import SpeechSettings
from pipelines.speech.spoken import SpokenState
from tests.pipelines.speech.fake_speaker import FakeSpeaker
from tests.pipelines.speech.speech_driver import (
    BUDGET,
    admitted,
    audio,
    done,
    drained,
    pipeline_of,
    planned,
    points,
    say,
    spoken,
)

TEXT = "Good morning. I came by train, as I always do, and then I walked. You?"
OVER = object()
OTHERS = ["One. Two and three.", "A somewhat longer text, with four words, of which none is short.", "Yes."]


def test_any_cut_into_pieces_gives_the_same_audio() -> None:
    whole = spoken(pipeline_of(FakeSpeaker()), TEXT)
    pipeline = pipeline_of(FakeSpeaker())
    job, emissions = admitted(pipeline), []
    for position, character in enumerate(TEXT):
        say(pipeline, job, character, final=position == len(TEXT) - 1)
        emissions += drained(pipeline, [job])
    assert np.array_equal(audio(emissions, job), whole)
    (end,) = done(emissions, job)
    assert end.reason is FinishReason.STOP
    assert (end.usage.characters, end.usage.audio_ms) == (len(TEXT), round(len(whole) / 16))


def test_speech_starts_with_the_first_clause() -> None:
    pipeline = pipeline_of(FakeSpeaker())
    job = admitted(pipeline)
    say(pipeline, job, "Good morning.", final=False)
    assert not pipeline.ready(job)
    say(pipeline, job, " I", final=False)
    assert pipeline.ready(job)
    emissions = drained(pipeline, [job])
    assert len(audio(emissions, job)) > 0
    assert not done(emissions, job)
    assert not pipeline.ready(job)


def test_prosody_is_carried_and_a_pause_stands_between_sentences() -> None:
    speaker = FakeSpeaker()
    heard = spoken(
        pipeline_of(speaker, SpeechSettings(sentence_pause_s=0.1)), "Ab. Cd.", SpeechRequest(rate=2.0)
    )
    first, second = speaker.begun
    assert first.before is None
    assert second.before is not None
    assert second.before.pitch_hz == 100.0 + speaker.phonemize("b").ids[0]
    assert not heard[300 : 300 + 800].any()
    assert len(heard) == 300 + 800 + 300


def test_slices_with_and_without_the_decoder_are_told_apart() -> None:
    """Their costs are learned apart, since one is several times the other."""
    speaker = FakeSpeaker()
    pipeline = pipeline_of(speaker)
    jobs = [admitted(pipeline, number) for number in range(2)]
    kinds = []
    for job in jobs:
        say(pipeline, job, OTHERS[1])
    for decoded in (0, 0, 2, 1, 0):
        speaker.decoded = decoded
        batch = planned(pipeline, jobs)
        assert batch is not None
        kinds.append((batch.kind, batch.units))
        list(pipeline.run(batch))
    letters = 2.0 * len(OTHERS[1])
    assert kinds[0][0] == "acoustic" and kinds[0][1] <= letters
    assert kinds[1:] == [("audio", 2.0), ("frames", 5.2), ("frames", 3.6), ("audio", 2.0)]


@pytest.mark.parametrize(
    ("urgent", "at_once", "rows"), [(1, 4, 4), (3, 4, 4), (4, 4, 4), (5, 4, 8), (1, 1, 1)]
)
def test_who_is_less_urgent_takes_free_places(urgent: int, at_once: int, rows: int) -> None:
    """Only the places in a call of the model that is made anyway, and none where a first sound is awaited."""
    speaker = FakeSpeaker()
    pipeline = pipeline_of(speaker)
    jobs = [admitted(pipeline, number) for number in range(12)]
    for job in jobs:
        say(pipeline, job, OTHERS[1])
    for _ in range(2):
        batch = planned(pipeline, jobs)
        assert batch is not None and len(batch.rows) == len(jobs)
        list(pipeline.run(batch))
    speaker.rows_at_once = at_once
    for job in jobs[urgent:]:
        job.rank = JobClass.INTERACTIVE
    batch = planned(pipeline, jobs)
    assert batch is not None and batch.rows == tuple(jobs[:rows])
    jobs[0].state.samples = 0
    batch = planned(pipeline, jobs)
    assert batch is not None and batch.rows == tuple(jobs[:urgent])


def test_rows_of_a_batch_equal_each_alone() -> None:
    pipeline = pipeline_of(FakeSpeaker())
    jobs = [admitted(pipeline, number) for number in range(len(OTHERS))]
    for job, text in zip(jobs, OTHERS, strict=True):
        say(pipeline, job, text)
    batch = planned(pipeline, jobs)
    assert batch is not None
    assert (batch.kind, len(batch.rows)) == ("acoustic", 3)
    emissions = drained(pipeline, jobs)
    for job, text in zip(jobs, OTHERS, strict=True):
        np.testing.assert_allclose(audio(emissions, job), spoken(pipeline_of(FakeSpeaker()), text), atol=1e-4)


def snapshot(jobs: list[Job]) -> list[dict[str, object]]:
    """All of the jobs' states but the splitter, which slices never touch."""
    names = [field.name for field in dataclasses.fields(SpokenState) if field.name != "splitter"]
    return [{name: copy.copy(getattr(job.state, name)) for name in names} for job in jobs]


def test_a_slice_closed_at_any_yield_changes_nothing() -> None:
    speaker = FakeSpeaker()
    pipeline = pipeline_of(speaker)
    jobs = [admitted(pipeline, number) for number in range(2)]
    for job in jobs:
        say(pipeline, job, TEXT)
    emissions: list[Emission] = []
    while (batch := planned(pipeline, jobs)) is not None:
        before = snapshot(jobs)
        for after in range(1, points(pipeline, batch) + 1):
            steps = pipeline.run(batch)
            assert [next(steps) for _ in range(after)] == [None] * after
            steps.close()  # type: ignore[attr-defined]
            assert snapshot(jobs) == before
        emissions += [step for step in pipeline.run(batch) if step is not None]
    expected = spoken(pipeline_of(FakeSpeaker()), TEXT)
    assert all(np.array_equal(audio(emissions, job), expected) for job in jobs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=5, max_size=60))
def test_two_suspended_slices_do_not_disturb_each_other(turns: list[bool]) -> None:
    pipeline = pipeline_of(FakeSpeaker())
    jobs = [admitted(pipeline, number) for number in range(2)]
    for job, text in zip(jobs, OTHERS, strict=False):
        say(pipeline, job, text)
    emissions: list[Emission] = []
    slices: list[Iterator[Emission | None]] = [iter(()), iter(())]
    while any(pipeline.ready(job) for job in jobs):
        for which in (int(turn) for turn in turns):
            step = next(slices[which], OVER)
            if isinstance(step, Emission):
                emissions.append(step)
            elif step is OVER and (batch := planned(pipeline, [jobs[which]])) is not None:
                slices[which] = pipeline.run(batch)
        turns = [not turn for turn in turns]
    for which, job in enumerate(jobs):
        emissions += [step for step in slices[which] if step is not None]
        assert np.array_equal(audio(emissions, job), spoken(pipeline_of(FakeSpeaker()), OTHERS[which]))


@pytest.mark.parametrize("slices_before", range(1, 9))
def test_eviction_changes_nothing_that_is_heard(slices_before: int) -> None:
    pipeline = pipeline_of(FakeSpeaker())
    job, emissions = admitted(pipeline), []
    say(pipeline, job, TEXT)
    for _ in range(slices_before):
        batch = planned(pipeline, [job])
        assert batch is not None
        emissions += [step for step in pipeline.run(batch) if step is not None]
    held = pipeline.leased(job)
    pipeline.evict(job, 0)
    assert pipeline.leased(job) == 0
    assert held > 0 or job.state.speaking is None
    pipeline.evict(job, 0)
    emissions += drained(pipeline, [job])
    assert np.array_equal(audio(emissions, job), spoken(pipeline_of(FakeSpeaker()), TEXT))
    assert len(done(emissions, job)) == 1


def test_text_that_ends_after_the_last_sound() -> None:
    pipeline = pipeline_of(FakeSpeaker())
    job = admitted(pipeline)
    say(pipeline, job, "Hello you. ", final=False)
    heard = drained(pipeline, [job])
    say(pipeline, job, "", final=True)
    batch = planned(pipeline, [job])
    assert batch is not None
    assert batch.kind == "end"
    after = drained(pipeline, [job])
    assert len(audio(heard, job)) > 0
    assert len(done(after, job)) == 1
    assert not pipeline.ready(job)


def test_marks_alone_are_silent_and_done() -> None:
    pipeline = pipeline_of(FakeSpeaker())
    job = admitted(pipeline)
    say(pipeline, job, "...")
    emissions = drained(pipeline, [job])
    assert len(audio(emissions, job)) == 0
    assert len(done(emissions, job)) == 1


def test_audio_that_is_not_finite_fails_its_row() -> None:
    pipeline = pipeline_of(FakeSpeaker(broken=True))
    job = admitted(pipeline)
    say(pipeline, job, "Hello.")
    (failure,) = drained(pipeline, [job])
    assert isinstance(failure.chunk, Failed)
    assert failure.chunk.kind == "ModelBroken"
    assert "not finite" in failure.chunk.message


def test_riders_join_only_within_the_budget() -> None:
    pipeline = pipeline_of(FakeSpeaker(), SpeechSettings(max_rows=3))
    jobs = [admitted(pipeline, number) for number in range(5)]
    for job in jobs:
        say(pipeline, job, "Hello you.")
    batch = planned(pipeline, jobs)
    assert batch is not None
    assert len(batch.rows) == 3
    for _ in range(10):
        pipeline.observe(batch, BUDGET.slice_ms * 0.9)
    batch = planned(pipeline, jobs)
    assert batch is not None
    assert len(batch.rows) == 3
    for _ in range(40):
        pipeline.observe(batch, BUDGET.slice_ms * 3)
    batch = planned(pipeline, jobs)
    assert batch is not None
    assert len(batch.rows) == 1
