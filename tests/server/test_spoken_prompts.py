"""Audio prompts: transcripts come out as events and go in as the prompt."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import InvalidRequest, WrongState
from pipelines.messages import (
    PromptRevision,
    SpeechAudio,
    TextRequest,
    TranscribeRequest,
    TranscriptChunk,
)
from server.foresight import TICK_S
from server.listening import Arrivals
from tests.fakes import EAR, tokens
from tests.server.session_bench import DONE, Bench, answering, inputs, last, listening, said

PCM = b"\0\0" * 1600  # 100 ms


def _heard(text: str, final: bool, end_ms: int = 0, paused: bool = False) -> TranscriptChunk:
    return TranscriptChunk(text, 1.0 if final else 0.5, final, 0, end_ms, paused)


def test_transcripts_are_events_and_revisions() -> None:
    bench = listening()
    bench.session.audio(PCM, 0)
    (ear,) = bench.link.submitted(TranscribeRequest)
    assert ear.request == TranscribeRequest(16_000)
    bench.link.emit(ear.job_id, _heard("good", False))
    assert [event.body for event in bench.events()] == [_heard("good", False)]
    bench.clock.advance(TICK_S)
    bench.session.audio(PCM, 0)
    bench.session.commit(None)
    assert bench.link.inputs(ear.job_id) == [
        SpeechAudio(PCM, False),
        SpeechAudio(PCM, False),
        SpeechAudio(b"", True),
    ]
    bench.clock.advance(1)
    bench.link.emit(ear.job_id, _heard("good morning", True), DONE)
    bench.events()
    (text,) = bench.link.submitted(TextRequest)
    assert bench.link.inputs(text.job_id) == [
        PromptRevision(1, "good", final=False),
        PromptRevision(2, "good morning", final=True),
    ]
    bench.link.emit(text.job_id, *tokens("hello", 2), DONE)
    done = last(bench.events())
    assert set(done.timings.jobs) == {"text", "transcription"}
    assert done.timings.total_ms == pytest.approx(1000)


def test_silence_commits_at_the_last_voiced_sample() -> None:
    bench = listening(commit_on_silence=True)
    for _ in range(10):
        bench.session.audio(PCM, 0)
        bench.clock.advance(0.1)
    (ear,) = bench.link.submitted(TranscribeRequest)
    bench.link.emit(ear.job_id, _heard("good morning", True, end_ms=400))
    bench.events()
    assert bench.link.cancelled() == [ear.job_id]
    bench.session.audio(PCM, 0)
    (text,) = bench.link.submitted(TextRequest)
    bench.link.emit(text.job_id, *tokens("hello", 1), DONE)
    events = bench.events()
    assert said(events) == "hello"
    assert last(events).timings.first_token_ms == pytest.approx(700)
    bench.session.audio(PCM, 0)
    assert len(bench.link.submitted(TranscribeRequest)) == 2


def _speaking(policy: str = "wait_k", **plan: Any) -> Bench:
    """A question that is answered ahead while it is spoken; the ear's job is 1."""
    on = answering(policy, transcription=EAR, audio_sample_rate=16_000, **plan)
    on.session.audio(PCM, 0)
    return on


def _says(on: Bench, chunk: TranscriptChunk) -> list[PromptRevision]:
    """What the device has been sent of the prompt, once the ear has said so."""
    on.link.emit(1, chunk)
    on.events()
    on.clock.advance(TICK_S + 0.01)
    return inputs(on) if on.link.submitted(TextRequest) else []


@pytest.mark.parametrize("policy", ["wait_k", "hold_n", "sentence", "pause=5000"])
def test_at_a_pause_all_that_was_said_is_answered_ahead(policy: str) -> None:
    on = _speaking(policy, commit_on_silence=True)
    _says(on, _heard("who are", False))
    (*_, ahead) = _says(on, _heard("who are you", False, 900, paused=True))
    assert (ahead.text, ahead.answer_tokens) == ("who are you", 256)
    on.link.emit(2, *tokens("a friend", ahead.number))
    assert on.events() == []
    on.link.emit(1, _heard("who are you", True, 900))
    assert said(on.events()) == "a friend"
    assert inputs(on)[-1] == PromptRevision(ahead.number, "who are you", final=True)


def test_who_goes_on_behind_a_pause_is_read_like_before() -> None:
    on = _speaking()
    _says(on, _heard("a large coffee", False, paused=True))
    (*_, longer) = _says(on, _heard("a large coffee with milk", False))
    assert (longer.text, longer.answer_tokens) == ("a large coffee with ", 256)


def test_a_whole_utterance_is_answered_ahead_of_the_clients_commit() -> None:
    on = _speaking()
    (whole,) = _says(on, _heard("who are you", True, 900))
    assert (whole.text, whole.answer_tokens, whole.final) == ("who are you", 256, False)
    on.link.emit(2, *tokens("a friend", whole.number))
    on.session.commit(None)
    on.link.emit(1, DONE)
    assert said(on.events()) == "a friend"


def test_nothing_understood_fails_the_turn() -> None:
    bench = listening()
    bench.session.audio(PCM, 0)
    bench.session.commit(None)
    bench.link.emit(1, _heard("", True), DONE)
    assert isinstance(last(bench.events()).error, InvalidRequest)


def test_the_client_may_correct_what_was_understood() -> None:
    bench = listening()
    bench.session.append("Say: ")
    bench.session.audio(PCM, 0)
    (ear,) = bench.link.submitted(TranscribeRequest)
    bench.link.emit(ear.job_id, _heard("God morning", True))
    bench.events()
    assert bench.session.active is not None
    assert bench.session.active.prompt.text == "Say: God morning"
    with pytest.raises(WrongState, match="spoken"):
        bench.session.append("!")
    bench.session.commit("Say: Good morning")
    (text,) = bench.link.submitted(TextRequest)
    assert bench.link.inputs(text.job_id)[-1] == PromptRevision(1, "Say: Good morning", final=True)
    assert bench.link.cancelled() == [ear.job_id]


def test_the_end_of_the_requests_ends_the_utterance() -> None:
    bench = listening(commit_on_silence=True)
    bench.session.audio(PCM, 0)
    bench.session.end_input()
    assert bench.link.inputs(1)[-1] == SpeechAudio(b"", True)
    bench.link.emit(1, _heard("hi", True), DONE)
    bench.events()
    (text,) = bench.link.submitted(TextRequest)
    bench.link.emit(text.job_id, DONE)
    bench.events()
    assert bench.attachment.ended


def test_bad_audio() -> None:
    bench = listening()
    with pytest.raises(
        InvalidRequest, match=r"audio.pcm16: 16-bit samples need an even number of bytes, not 3"
    ):
        bench.session.audio(b"123", 0)
    bench.session.audio(PCM, 0)
    with pytest.raises(InvalidRequest, match=r"audio.sample_rate: must stay 16000, not 8000"):
        bench.session.audio(PCM, 8000)
    with pytest.raises(InvalidRequest, match=r"audio.pcm16: a spoken prompt may last 600 s"):
        bench.session.audio(bytes(2 * 16_000 * 601), 0)
    with pytest.raises(WrongState, match="no audio was announced"):
        Bench().session.audio(PCM, 0)


def test_crumbs_of_audio_take_no_memory() -> None:
    heard = Arrivals(16_000)
    for number in range(10_000):
        heard.add(2, 50.0 + number * 1e-5)
    assert len(heard._arrived_s) <= 21
    assert heard.arrival_s(0.0, 99.0) == 50.0
    assert 50.05 < heard.arrival_s(620.0, 99.0) <= 50.1
    on = listening()
    on.session.audio(b"", 0)
    assert (on.session.active, on.link.sent) == (None, [])
