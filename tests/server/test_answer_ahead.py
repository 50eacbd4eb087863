"""Work ahead of the commit: what leaves, what never does, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.messages import Done, Failed, FinishReason, Message, PromptRevision, TextRequest, Usage
from server.allowance import BURST_S, SESSION_CHARS_PER_S
from server.events import Discarded, TurnDone
from server.foresight import TICK_PER_CHAR_S
from tests.fakes import EAR, STOP, TEXT, TIMINGS, tokens
from tests.server.session_bench import DONE, answering, inputs, last, said, typed

GRANTED = 256


def test_each_whole_word_is_answered_ahead_once() -> None:
    on = answering()
    for letter in "to be ":
        typed(on, letter)
    on.clock.advance(1)
    assert inputs(on) == [
        PromptRevision(1, "to ", False, GRANTED),
        PromptRevision(2, "to be ", False, GRANTED),
    ]


def test_the_answer_to_the_very_prompt_leaves_at_once() -> None:
    on = answering("completeness")
    typed(on, "Who is it?")
    on.link.emit(1, *tokens("A friend", 1))
    assert on.events() == []
    on.session.commit(None)
    assert said(on.events()) == "A friend"
    assert inputs(on)[-1] == PromptRevision(1, "Who is it?", final=True)
    on.link.emit(1, *tokens(" of yours", 1), DONE)
    assert said(on.events()) == " of yours"


def test_nothing_of_another_revision_leaves() -> None:
    on = answering()
    typed(on, "Who is ")
    on.link.emit(1, *tokens("stale and wrong", 1))
    on.events()
    on.session.append("it?")
    on.session.commit(None)
    on.link.emit(1, *tokens("stale too", 1))
    assert on.events() == []
    on.link.emit(1, *tokens("Me", 2), DONE)
    assert said(on.events()) == "Me"


def test_a_revision_back_to_the_same_words_is_a_new_answer() -> None:
    on = answering()
    typed(on, "red ")
    on.session.revise(0, "blue ")
    on.clock.advance(1)
    on.session.revise(0, "red ")
    on.session.commit(None)
    on.link.emit(1, *tokens("of the first red", 1))
    assert on.events() == []
    assert inputs(on)[-1] == PromptRevision(3, "red ", final=True)


def test_pause_is_asked_again_until_it_answers() -> None:
    on = answering("pause=300")
    typed(on, "Hi there")
    assert inputs(on) == [PromptRevision(1, "Hi there", False)]
    on.clock.advance(0.2)
    typed(on, "!")
    on.clock.advance(0.29)
    assert inputs(on)[-1] == PromptRevision(2, "Hi there!", False)
    on.clock.advance(0.02)
    assert inputs(on)[-1] == PromptRevision(3, "Hi there!", False, GRANTED)
    on.clock.advance(5)
    assert len(inputs(on)) == 3


def test_a_longer_prompt_is_sent_less_often() -> None:
    on = answering()
    on.session.append("word " * 20_000)
    on.clock.advance(1.9)
    assert on.link.sent == []
    on.clock.advance(0.2)
    assert len(inputs(on)) == 1


def test_a_flood_of_rewritten_prompts_is_bounded_and_its_commit_does_not_wait() -> None:
    on, chars, seconds = answering(), 8000, 10
    on.session.append("x " * (chars // 2))
    for ms in range(1000 * seconds):
        on.session.revise(0, f"{ms} " + "x " * (chars // 2))
        on.clock.advance(0.001)
    most = (BURST_S + seconds) * SESSION_CHARS_PER_S / chars
    assert 2 <= len(inputs(on)) <= most + 2
    sent = len(inputs(on))
    on.session.commit("Hi.")
    assert inputs(on)[sent:] == [PromptRevision(sent + 1, "Hi.", True)]


def test_what_is_only_appended_is_sent_each_time() -> None:
    on = answering()
    typed(on, "word " * 3000)
    on.clock.advance(1)
    for _ in range(50):
        on.session.append("more ")
        on.clock.advance(1)
    assert len(inputs(on)) == 51


def test_a_long_history_too_makes_revisions_rarer() -> None:
    said_before = (Message("user", "word " * 40), Message("assistant", "yes. " * 40))
    on = answering(history=said_before * 20)
    typed(on, "a ")
    on.clock.advance(5)
    request: Any = on.link.submitted(TextRequest)[0].request
    chars = sum(len(message.content) for message in request.history)
    assert chars >= 400
    on.session.append("b ")
    on.clock.advance(0.9 * TICK_PER_CHAR_S * chars)
    assert len(inputs(on)) == 1
    on.clock.advance(0.2 * TICK_PER_CHAR_S * chars)
    assert len(inputs(on)) == 2


def test_tokens_before_the_commit_on_request() -> None:
    on = answering(emit=True)
    typed(on, "Who is ")
    on.link.emit(1, *tokens("It is", 1))
    assert said(on.events()) == "It is"
    typed(on, "it ")
    assert [event.body for event in on.events()] == [Discarded(1)]
    on.link.emit(1, *tokens("late", 1), *tokens("It was", 2))
    assert said(on.events()) == "It was"
    on.session.commit(None)
    assert on.events() == []
    on.link.emit(1, *tokens(" me", 2), DONE)
    events = on.events()
    assert said(events) == " me"
    assert isinstance(events[-1].body, TurnDone)
    on.session.commit("And?")
    assert on.link.submitted(TextRequest)[1].request.history[-1] == Message("assistant", "It was me")  # type: ignore[union-attr]


def test_the_allowance_shrinks_with_committed_jobs_and_with_use() -> None:
    on = answering()
    typed(on, "one ")
    on.link.emit(1, *tokens(" ".join("x" * 60), 1))
    on.events()
    for _ in range(33):
        on.link.emit(1, *tokens(" ".join("x" * 60), 1))
        on.events()
    typed(on, "two ")
    (left,) = (each.answer_tokens for each in inputs(on)[1:])
    assert 0 < left < 100
    full = answering(jobs=9)
    for _ in range(8):
        full.admission.job(TEXT.name, "local")
    typed(full, "one ")
    assert inputs(full) == [PromptRevision(1, "one ", False)]


def test_work_ahead_never_keeps_committed_work_out() -> None:
    on = answering(jobs=1)
    typed(on, "one ")
    slot = on.admission.job(TEXT.name, "local")
    slot.leave()
    on.session.commit(None)
    assert not isinstance(on.events(), TurnDone)
    assert inputs(on)[-1].final
    assert on.dispatcher.busy(TEXT.name) == 1


def test_a_failure_ahead_is_not_the_turns() -> None:
    on = answering()
    typed(on, "one ")
    on.link.emit(1, *tokens("gone", 1, wasted=1), Failed("InvalidRequest", "prompt: too long", "prompt"))
    assert on.events() == []
    typed(on, "two ")
    assert len(on.link.submitted(TextRequest)) == 1
    on.session.commit(None)
    on.link.emit(2, *tokens("Two", 2), Done(STOP, Usage(wasted_tokens=2), TIMINGS))
    events = on.events()
    assert said(events) == "Two"
    assert last(events).usage.wasted_tokens == 3


def test_what_fails_ahead_takes_back_what_was_shown() -> None:
    on = answering(emit=True)
    typed(on, "one ")
    on.link.emit(1, *tokens("gone", 1), Failed("Exhausted", "no room"))
    assert said(on.events()) == "gone"
    on.session.commit(None)
    assert [event.body for event in on.events()] == [Discarded(1)]
    on.link.emit(2, *tokens("One", 2), DONE)
    assert said(on.events()) == "One"


def test_news_of_a_failure_ahead_behind_the_commit_is_not_the_turns() -> None:
    on = answering()
    typed(on, "much too long ")
    on.session.revise(0, "one")
    on.session.commit(None)
    on.link.emit(1, Failed("InvalidRequest", "prompt: too long", "prompt"))
    assert on.events() == []
    again = on.link.submitted(TextRequest)[1]
    assert (again.first, again.committed) == (PromptRevision(2, "one", True), True)
    on.link.emit(2, *tokens("One", 2), DONE)
    events = on.events()
    assert said(events) == "One"
    assert last(events).reason is STOP
    assert on.dispatcher.busy(TEXT.name) == 0


def test_a_committed_prompt_that_fails_is_tried_again_once() -> None:
    on = answering()
    typed(on, "one ")
    on.session.commit(None)
    for job in (1, 2):
        on.link.emit(job, Failed("InvalidRequest", "prompt: too long", "prompt"))
        events = on.events()
    assert last(events).reason is FinishReason.FAILED
    assert len(on.link.submitted(TextRequest)) == 2


def test_an_answer_that_has_begun_to_leave_is_not_begun_again() -> None:
    on = answering()
    typed(on, "one ")
    on.session.commit(None)
    on.link.emit(1, *tokens("One", 1), Failed("ModelBroken", "NaN"))
    events = on.events()
    assert said(events) == "One"
    assert last(events).reason is FinishReason.FAILED


def test_tokens_that_come_too_late_are_charged_all_the_same() -> None:
    on = answering()
    typed(on, "one ")
    typed(on, "two ")
    for _ in range(33):
        on.link.emit(1, *tokens(" ".join("x" * 60), 1))
        on.events()
    typed(on, "three ")
    assert 0 < inputs(on)[-1].answer_tokens < 100


def test_a_chunk_on_its_way_at_the_commit_is_not_for_nothing() -> None:
    on = answering()
    typed(on, "one ")
    on.link.emit(1, *tokens("a b", 1, wasted=2))
    typed(on, "two ")
    on.link.emit(1, *tokens("c d", 2, wasted=4))
    on.events()
    on.session.commit(None)
    on.link.emit(1, *tokens("e", 2, wasted=5))
    on.events()
    on.session.interrupt(0)
    assert last(on.events()).usage.wasted_tokens == 2


def test_a_turn_that_is_dropped_before_its_commit_tells_what_was_for_nothing() -> None:
    on = answering()
    typed(on, "one ")
    on.link.emit(1, *tokens("a b", 1, wasted=2))
    typed(on, "two ")
    on.link.emit(1, *tokens("c d e", 2, wasted=5))
    assert on.events() == []
    on.session.cancel("")
    (done,) = on.events()
    assert isinstance(done.body, TurnDone)
    assert done.body.usage == Usage(wasted_tokens=5)


@pytest.mark.parametrize(("ends", "wasted"), [("two ", 2), ("two three", 5)])
def test_what_the_committed_answer_took_over_was_not_for_nothing(ends: str, wasted: int) -> None:
    on = answering()
    typed(on, "one ")
    on.link.emit(1, *tokens("a b", 1, wasted=2))
    typed(on, "two ")
    on.link.emit(1, *tokens("c d e", 2, wasted=5))
    on.events()
    on.session.append(ends.removeprefix("two "))
    on.session.commit(None)
    on.events()
    on.session.interrupt(0)
    assert last(on.events()).usage.wasted_tokens == wasted


def test_a_client_that_goes_leaves_the_same_account() -> None:
    on = answering()
    typed(on, "one ")
    on.link.emit(1, *tokens("a b", 1, wasted=2))
    on.events()
    on.session.drop()
    assert [done.usage.wasted_tokens for done in on.finished] == [2]


def test_transcripts_come_through_the_same_door() -> None:
    on = answering(transcription=EAR, audio_sample_rate=16_000)
    on.session.audio(bytes(320), 0)
    assert on.link.submitted(TextRequest) == []
