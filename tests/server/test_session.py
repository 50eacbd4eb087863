"""The conversation's state machine: whole event lists, forced interleavings, no waiting."""

from __future__ import annotations

import pytest

from pipelines.errors import NotFound, WrongState
from pipelines.messages import (
    Cancel,
    FinishReason,
    ImageRequest,
    Message,
    Playback,
    PromptRevision,
    SpeechRequest,
    SpeechText,
    Submit,
    TextRequest,
    TokenChunk,
)
from server.events import ImagePart, TurnDone
from server.foresight import TICK_S
from server.plan import Ahead, Mode
from tests.fakes import Device, audio, picture, tokens
from tests.server.session_bench import AT_ONCE, DONE, Bench, drawing, last, said, spoken


def test_a_burst_of_keystrokes_is_one_revision() -> None:
    bench = Bench()
    for letter in "Hello":
        bench.session.append(letter)
    assert bench.link.sent == []
    bench.clock.advance(TICK_S)
    (submit,) = bench.link.submitted(TextRequest)
    assert (submit.first, submit.committed) == (PromptRevision(1, "Hello", final=False), False)
    bench.session.append(" wrold")
    bench.session.revise(6, "world")
    bench.clock.advance(TICK_S)
    bench.session.append("!")
    bench.session.commit(None)
    assert bench.link.inputs(1) == [
        PromptRevision(1, "Hello", final=False),
        PromptRevision(2, "Hello world", final=False),
        PromptRevision(3, "Hello world!", final=True),
    ]
    bench.clock.advance(1)
    assert len(bench.link.inputs(1)) == 3


def test_a_prompt_committed_at_once_is_one_job_without_a_revision() -> None:
    bench = Bench()
    bench.session.append("Hi")
    bench.session.commit(None)
    (submit,) = bench.link.sent
    assert isinstance(submit, Submit)
    assert (submit.first, submit.committed) == (PromptRevision(1, "Hi", final=True), True)


def test_mode_off_begins_at_the_commit() -> None:
    bench = Bench(ahead=Ahead(mode=Mode.OFF))
    bench.session.append("Hi")
    bench.clock.advance(1)
    assert bench.link.sent == []
    bench.session.commit(None)
    assert [type(message) for message in bench.link.sent] == [Submit]


def test_tokens_that_are_there_together_are_one_event() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one two three", 1))
    (event,) = bench.events()
    assert event.body == TokenChunk("one two three", (0, 1, 2), 1)
    bench.link.emit(1, *tokens(" four", 1), DONE)
    assert [event.sequence for event in bench.events()] == [2, 3]
    assert bench.session.active is None


def test_tokens_of_an_older_revision_do_not_leave() -> None:
    bench = Bench()
    bench.session.append("Hi")
    bench.clock.advance(TICK_S)
    bench.session.append(" there")
    bench.session.commit(None)
    bench.link.emit(1, *tokens("stale", 1), *tokens("fresh", 2), DONE)
    assert said(bench.events()) == "fresh"


def test_timings_count_from_the_commit() -> None:
    bench = Bench()
    bench.session.append("Hi")
    bench.clock.advance(5)
    bench.session.commit(None)
    bench.clock.advance(0.25)
    bench.link.emit(1, *tokens("a", 2))
    bench.events()
    bench.clock.advance(0.25)
    bench.link.emit(1, *tokens("b", 2), DONE)
    timings = last(bench.events()).timings
    assert (timings.first_token_ms, timings.last_token_ms, timings.total_ms) == pytest.approx((250, 500, 500))


def test_speech_is_paced_and_the_device_is_told() -> None:
    bench = spoken()
    bench.session.commit("Hi")
    speech, text = bench.link.submitted(SpeechRequest)[0].job_id, bench.link.submitted(TextRequest)[0].job_id
    bench.link.emit(text, *tokens("Hello you", 1), DONE)
    bench.link.emit(speech, audio(0, 700))
    events = bench.events()
    assert said(events) == "Hello you"
    assert [each for each in bench.link.inputs(speech) if isinstance(each, SpeechText)] == [
        SpeechText("Hello you", True)
    ]
    assert [each for each in bench.link.inputs(speech) if isinstance(each, Playback)] == [
        Playback(0, ahead) for ahead in (100, 200, 300, 400)
    ]
    assert bench.attachment.wait_s(bench.clock.now()) == pytest.approx(0.1)
    bench.clock.advance(0.101)
    assert len(bench.events()) == 1
    bench.session.playback(0)
    assert bench.link.inputs(speech)[-1] == Playback(0, 500)
    bench.link.emit(speech, DONE)
    bench.clock.advance(10)
    assert isinstance(bench.events()[-1].body, TurnDone)


def test_interrupt_ends_the_turn_at_once_and_keeps_what_was_heard() -> None:
    bench = spoken()
    bench.session.commit("Tell me")
    speech, text = bench.link.submitted(SpeechRequest)[0].job_id, bench.link.submitted(TextRequest)[0].job_id
    bench.link.emit(text, *tokens("one two three four five", 1))
    bench.link.emit(speech, audio(0, 1000))
    bench.events()
    bench.link.emit(text, *tokens(" six", 1))
    bench.session.interrupt(300)
    (event,) = bench.events()
    assert isinstance(event.body, TurnDone)
    assert event.body.reason is FinishReason.INTERRUPTED
    assert sorted(bench.link.cancelled()) == sorted([speech, text])
    bench.session.commit("Go on")
    assert bench.link.submitted(TextRequest)[1].request == TextRequest(
        (Message("user", "Tell me"), Message("assistant", "one"))
    )


def test_interrupt_behind_turn_done_still_trims_the_history() -> None:
    bench = spoken(AT_ONCE)
    bench.session.commit("Tell me")
    for _ in range(30):
        bench.events()
        bench.clock.advance(0.1)
    assert bench.session.active is None
    bench.session.interrupt(600)
    bench.session.commit("And?")
    request = bench.link.submitted(TextRequest)[1].request
    assert isinstance(request, TextRequest)
    assert request.history == (Message("user", "Tell me"), Message("assistant", "Hello"))


def test_cancel_leaves_no_history_and_the_next_turn_may_begin_at_once() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1))
    bench.session.cancel("")
    bench.session.append("Again")
    bench.session.commit(None)
    bench.link.emit(2, *tokens("two", 1), DONE)
    events = bench.events()
    assert [(event.turn_id, event.sequence) for event in events] == [("s.1", 1), ("s.2", 1), ("s.2", 2)]
    assert [done.reason for done in bench.finished] == [FinishReason.CANCELLED, FinishReason.STOP]
    assert bench.link.submitted(TextRequest)[1].request == TextRequest()
    assert bench.link.sent[1] == Cancel(1)


def test_cancel_of_a_finished_turn_is_ignored_of_an_unknown_one_not() -> None:
    bench = Bench(AT_ONCE)
    bench.turn("Hi")
    bench.session.cancel("s.1")
    with pytest.raises(NotFound):
        bench.session.cancel("s.2")


def test_interrupt_and_playback_between_turns_do_nothing() -> None:
    bench = Bench()
    bench.session.interrupt(5)
    bench.session.playback(5)
    assert (bench.events(), bench.link.sent) == ([], [])


@pytest.mark.parametrize("action", ["append", "revise", "commit", "audio"])
def test_after_the_commit_the_prompt_stands(action: str) -> None:
    bench = Bench(transcription=None)
    bench.session.commit("Hi")
    with pytest.raises(WrongState):
        {
            "append": lambda: bench.session.append("x"),
            "revise": lambda: bench.session.revise(0, "x"),
            "commit": lambda: bench.session.commit(None),
            "audio": lambda: bench.session.audio(b"12", 0),
        }[action]()


def test_a_prompt_that_is_still_being_written_cannot_be_interrupted() -> None:
    bench = spoken(AT_ONCE)
    bench.session.commit("Tell me")
    for _ in range(30):
        bench.events()
        bench.clock.advance(0.1)
    bench.session.append("Wait")
    bench.session.interrupt(600)
    assert bench.events() == []
    bench.session.commit(None)
    request = bench.link.submitted(TextRequest)[1].request
    assert isinstance(request, TextRequest)
    assert request.history[-1] == Message("assistant", "Hello")


def test_the_end_of_the_requests_drops_what_is_not_committed() -> None:
    bench = Bench()
    bench.session.append("Hi")
    bench.clock.advance(TICK_S)
    bench.session.end_input()
    assert last(bench.events()).reason is FinishReason.CANCELLED
    assert bench.attachment.ended
    assert bench.link.cancelled() == [1]


def test_the_end_of_the_requests_waits_for_the_answer() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.session.end_input()
    assert not bench.attachment.ended
    bench.link.emit(1, DONE)
    assert last(bench.events()).reason is FinishReason.STOP
    assert bench.attachment.ended


def test_one_image_a_turn_with_the_models_caption() -> None:
    bench = drawing(draw_on_request=True, drawing=ImageRequest("", steps=4))
    bench.session.commit("Draw")
    bench.link.emit(1, *tokens("ok <draw>a b</draw> <draw>c</draw>", 1), DONE)
    assert said(bench.events()) == "ok  "
    (image,) = bench.link.submitted(ImageRequest)
    assert image.request == ImageRequest("a b", steps=4)
    bench.link.emit(image.job_id, picture(False, 2), picture(True), DONE)
    bodies = [event.body for event in bench.events()]
    assert [body.final for body in bodies if isinstance(body, ImagePart)] == [False, True]
    assert isinstance(bodies[-1], TurnDone)


def test_the_users_prompt_is_drawn_where_none_is_given() -> None:
    for given, expected in (("", "A hat"), ("a cat", "a cat")):
        bench = drawing(drawing=ImageRequest(given))
        bench.session.commit("A hat")
        assert [each.request for each in bench.link.submitted(ImageRequest)] == [ImageRequest(expected)]


def test_the_stream_deadline_reaches_the_jobs() -> None:
    bench = Bench()
    bench.session.deadline_s = bench.clock.now() + 7
    bench.clock.advance(2)
    bench.session.commit("Hi")
    assert bench.link.submitted(TextRequest)[0].deadline_in_s == pytest.approx(5)


def test_a_device_that_answers_everything_gives_its_slots_back() -> None:
    bench = Bench(Device(), jobs=1)
    for _ in range(3):
        assert last(bench.turn("Hi")).reason is FinishReason.STOP
