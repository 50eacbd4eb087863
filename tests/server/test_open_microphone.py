"""A microphone that stays open: speech ends answers and begins turns, silence is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import DeviceLost, Draining, Exhausted, InvalidRequest
from pipelines.messages import (
    Failed,
    FinishReason,
    Message,
    SpeechAudio,
    SpeechRequest,
    TextRequest,
    TranscribeRequest,
    TranscriptChunk,
)
from server.events import Event, TurnDone
from tests.fakes import EAR, SPEECH, audio, tokens
from tests.server.session_bench import DONE, Bench, inputs, last, listening, said

PCM = b"\0\0" * 1600  # 100 ms


def open_microphone(**plan: Any) -> Bench:
    """Somebody has opened it, and says nothing yet; its job is 1."""
    on = listening(commit_on_silence=True, interrupt_on_speech=True, **plan)
    on.session.audio(PCM, 0)
    return on


def begun(start_ms: int = 0) -> TranscriptChunk:
    return TranscriptChunk("", 0.0, False, start_ms, start_ms + 300)


def heard(text: str, final: bool = False, end_ms: int = 0, cut: bool = False) -> TranscriptChunk:
    return TranscriptChunk(text, 1.0 if final else 0.5, final, 0, end_ms, cut=cut)


def asks(on: Bench, text: str, job: int = 1) -> list[Event]:
    on.link.emit(job, begun(), heard(text), heard(text, final=True))
    return on.events()


def told(events: list[Event]) -> list[tuple[str, int, str]]:
    """Turn, sequence, and what was heard or how it ended."""
    found = []
    for event in events:
        body = event.body
        what = body.reason.name if isinstance(body, TurnDone) else getattr(body, "text", type(body).__name__)
        found.append((event.turn_id, event.sequence, what))
    return found


def places(on: Bench) -> tuple[int, int]:
    """Of those that listen: at work, and at rest."""
    slots = on.admission._jobs
    return tuple(
        slots[EAR.name, at_work].used if (EAR.name, at_work) in slots else 0 for at_work in (True, False)
    )  # type: ignore[return-value]


def test_silence_begins_no_turn_and_takes_no_place() -> None:
    on = open_microphone()
    (ear,) = on.link.submitted(TranscribeRequest)
    assert (ear.request, ear.committed) == (TranscribeRequest(16_000, open=True), True)
    for _ in range(36_000):
        on.session.audio(PCM, 0)
        on.clock.advance(0.1)
    assert (on.events(), on.session.active, places(on)) == ([], None, (0, 1))
    microphone = on.session._microphone
    assert microphone is not None
    assert len(microphone.arrivals._ends_ms) <= 601


def test_speech_interrupts_the_answer_and_is_the_next_turn() -> None:
    on = open_microphone(speech=SPEECH)
    assert told(asks(on, "Tell me")) == [("s.1", 1, ""), ("s.1", 2, "Tell me"), ("s.1", 3, "Tell me")]
    assert places(on) == (0, 1)
    speech, text = on.link.submitted(SpeechRequest)[0].job_id, on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("one two three four five"))
    on.link.emit(speech, audio(0, 1000))
    on.events()
    on.session.audio(PCM, 0)
    on.clock.advance(0.3)
    on.link.emit(text, *tokens(" six"))
    on.link.emit(1, begun(2000), heard("Stop"))
    assert told(on.events()) == [("s.1", 9, "INTERRUPTED"), ("s.2", 1, ""), ("s.2", 2, "Stop")]
    assert sorted(on.link.cancelled()) == sorted([speech, text])
    assert places(on) == (1, 0)
    on.link.emit(1, heard("Stop", final=True))
    on.events()
    assert on.link.submitted(TextRequest)[1].request == TextRequest(
        (Message("user", "Tell me"), Message("assistant", "one"))
    )
    assert len(on.link.submitted(TranscribeRequest)) == 1


def test_the_client_may_correct_what_was_heard_of_an_interrupted_answer() -> None:
    on = open_microphone(speech=SPEECH)
    asks(on, "Tell me")
    speech, text = on.link.submitted(SpeechRequest)[0].job_id, on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("one two three four five"))
    on.link.emit(speech, audio(0, 1000))
    on.events()
    on.clock.advance(0.3)
    on.link.emit(1, begun())
    on.events()
    on.session.interrupt(0)
    on.link.emit(1, heard("Why", final=True))
    on.events()
    assert on.link.submitted(TextRequest)[1].request == TextRequest((Message("user", "Tell me"),))


@pytest.mark.parametrize(("after_s", "kept"), [(0.1, "one two"), (1.0, "one two three four")])
def test_speech_behind_an_answer_begins_a_turn_and_keeps_what_was_heard(after_s: float, kept: str) -> None:
    on = open_microphone(speech=SPEECH)
    asks(on, "Tell me")
    speech, text = on.link.submitted(SpeechRequest)[0].job_id, on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("one two three four"), DONE)
    on.link.emit(speech, audio(0, 400), DONE)
    assert last(on.events()).reason is FinishReason.STOP
    on.clock.advance(after_s + 0.1)
    on.link.emit(1, begun())
    assert told(on.events()) == [("s.2", 1, "")]
    on.link.emit(1, heard("And", final=True))
    on.events()
    request = on.link.submitted(TextRequest)[1].request
    assert isinstance(request, TextRequest)
    assert request.history[-1] == Message("assistant", kept)


def test_where_nothing_is_understood_the_turn_waits_and_says_no_more() -> None:
    on = open_microphone()
    on.link.emit(1, begun(), heard("", final=True))
    assert told(on.events()) == [("s.1", 1, "")]
    assert places(on) == (0, 1)
    for _ in range(3):
        on.link.emit(1, begun(), heard("", final=True))
    assert on.events() == []
    assert told(asks(on, "Hello")) == [("s.1", 2, "Hello"), ("s.1", 3, "Hello")]
    assert on.link.submitted(TextRequest)


def test_speech_goes_on_behind_what_was_typed() -> None:
    on = open_microphone()
    on.session.append("Say: ")
    on.link.emit(1, begun(), heard("", final=True))
    on.events()
    on.session.append("loudly ")
    asks(on, "good morning")
    assert inputs(on)[-1].text == "Say: loudly good morning"


def test_only_silence_commits_not_a_cut() -> None:
    on = open_microphone()
    on.link.emit(1, begun(), heard("a very long", final=True, cut=True))
    on.events()
    assert on.session.active is not None
    assert not on.session.active.committed
    on.link.emit(1, heard("", final=True))
    on.events()
    assert inputs(on)[-1].text == "a very long"


def test_the_clients_commit_ends_what_is_being_said() -> None:
    on = open_microphone()
    on.session.commit(None)
    on.link.emit(1, begun())
    on.events()
    on.session.commit(None)
    assert on.link.inputs(1)[-1] == SpeechAudio(b"", final=True)
    on.session.audio(PCM, 0)
    assert [ear.job_id for ear in on.link.submitted(TranscribeRequest)] == [1, 2]
    on.link.emit(1, heard("Hello", final=True), DONE)
    on.events()
    assert on.session.active is not None
    assert on.session.active.prompt.committed
    assert told(asks(on, "Stop", job=2))[:2] == [("s.1", 3, "INTERRUPTED"), ("s.2", 1, "")]


def test_a_committed_text_stands_for_what_is_being_said() -> None:
    on = open_microphone()
    on.link.emit(1, begun(), heard("Hallo"))
    on.events()
    on.session.commit("Hello")
    on.session.audio(PCM, 0)
    assert (on.link.cancelled(), len(on.link.submitted(TranscribeRequest))) == ([1], 2)


def test_cancel_drops_what_is_being_said_and_listens_on() -> None:
    on = open_microphone()
    on.link.emit(1, begun())
    on.events()
    on.session.cancel("")
    assert told(on.events()) == [("s.1", 2, "CANCELLED")]
    on.session.audio(PCM, 0)
    assert (on.link.cancelled(), len(on.link.submitted(TranscribeRequest))) == ([1], 2)


def test_the_end_of_the_requests_is_heard_out() -> None:
    on = open_microphone()
    on.session.end_input()
    assert not on.attachment.ended
    on.link.emit(1, begun(), heard("Bye", final=True), DONE)
    assert told(on.events()) == [("s.1", 1, ""), ("s.1", 2, "Bye")]
    on.link.emit(2, *tokens("bye"), DONE)
    assert said(on.events()) == "bye"
    assert on.attachment.ended


@pytest.mark.parametrize("chunks", [(), (begun(), heard("", final=True))], ids=["silence", "noise"])
def test_the_end_of_the_requests_without_words(chunks: tuple[TranscriptChunk, ...]) -> None:
    on = open_microphone()
    on.link.emit(1, *chunks)
    on.events()
    on.session.end_input()
    on.link.emit(1, DONE)
    assert [what for _, _, what in told(on.events())] == ["CANCELLED"] * bool(chunks)
    assert on.attachment.ended


def test_where_all_listen_to_others_the_turn_fails_and_says_so() -> None:
    on = open_microphone(jobs=1)
    on.admission.job(EAR.name, "another")
    on.link.emit(1, begun())
    done = last(on.events())
    assert (done.reason, type(done.error)) == (FinishReason.FAILED, Exhausted)
    assert on.link.cancelled() == [1]
    on.session.audio(PCM, 0)
    assert len(on.link.submitted(TranscribeRequest)) == 2


def test_what_ends_the_listening_ends_the_stream() -> None:
    on = open_microphone()
    on.link.emit(1, Failed("DeviceLost", "gone"))
    with pytest.raises(DeviceLost):
        on.events()
    assert places(on) == (0, 0)


def test_a_server_that_goes_waits_for_no_microphone() -> None:
    on = open_microphone()
    on.dispatcher.draining = True
    with pytest.raises(Draining):
        on.events()
    on.sessions.detach(on.attachment)
    assert places(on) == (0, 0)


def test_an_utterance_is_bounded_silence_is_not() -> None:
    on = open_microphone()
    hour = bytes(2 * 16_000 * 3600)
    on.session.audio(hour, 0)
    on.link.emit(1, begun(3_600_100))
    on.events()
    on.session.audio(bytes(2 * 16_000 * 601), 0)
    with pytest.raises(InvalidRequest, match=r"audio.pcm16: a spoken prompt may last 600 s"):
        on.session.audio(PCM, 0)
    with pytest.raises(InvalidRequest, match=r"audio.sample_rate: must stay 16000, not 8000"):
        on.session.audio(PCM, 8000)


@pytest.mark.parametrize("window_s", [0.0, 5.0])
@pytest.mark.parametrize("speaks", [False, True])
def test_a_lost_stream_gives_the_places_back(window_s: float, speaks: bool) -> None:
    on = open_microphone(resume_window_s=window_s)
    if speaks:
        on.link.emit(1, begun())
        on.events()
    on.sessions.detach(on.attachment)
    assert sum(places(on)) == (1 if speaks and window_s else 0)
    on.clock.advance(6)
    assert places(on) == (0, 0)


def test_who_comes_back_in_the_midst_of_speech_is_heard_out() -> None:
    on = open_microphone(resume_window_s=5.0)
    on.link.emit(1, begun())
    on.events()
    on.sessions.detach(on.attachment)
    again = on.sessions.resume("local", "s", "s.1", 1)
    on.session.audio(PCM, 0)
    on.link.emit(1, heard("Hello", final=True))
    assert told(on.events(again)) == [("s.1", 2, "Hello")]
    assert len(on.link.submitted(TranscribeRequest)) == 1
