"""Work ahead of the commit: what leaves, what never does, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import DeviceLost
from pipelines.messages import (
    Cancel,
    Done,
    Failed,
    ImageRequest,
    Message,
    Promote,
    PromptRevision,
    SpeechRequest,
    SpeechText,
    TextRequest,
    Usage,
)
from pipelines.simultaneous import layout
from pipelines.simultaneous.policies import policy
from server.allowance import BURST_S, SESSION_CHARS_PER_S
from server.events import Discarded, Thought, TurnDone
from server.foresight import TICK_PER_CHAR_S, TICK_S
from server.plan import Ahead, Mode
from tests.fakes import EAR, IMAGE, SPEECH, STOP, TEXT, TIMINGS, audio, picture, tokens
from tests.server.session_bench import DONE, Bench, last, said

GRANTED = 256


def bench(name: str = "wait_k=1", *, emit: bool = False, jobs: int = 9, **plan: Any) -> Bench:
    ahead = Ahead(mode=Mode.ANSWER_AHEAD, policy=policy(name, ""), emit_before_commit=emit)
    return Bench(None, jobs=jobs, ahead=ahead, **plan)


def thinking(**plan: Any) -> Bench:
    return Bench(None, ahead=Ahead(mode=Mode.THINK_AHEAD, thoughts=True), **plan)


def typed(on: Bench, text: str) -> None:
    on.session.append(text)
    on.clock.advance(TICK_S + TICK_PER_CHAR_S * 200)


def inputs(on: Bench, kind: type = TextRequest, number: int = 0) -> list[Any]:
    return on.link.inputs(on.link.submitted(kind)[number].job_id)


def test_each_whole_word_is_answered_ahead_once() -> None:
    on = bench()
    for letter in "to be ":
        typed(on, letter)
    on.clock.advance(1)
    assert inputs(on) == [
        PromptRevision(1, "to ", False, GRANTED),
        PromptRevision(2, "to be ", False, GRANTED),
    ]


def test_the_answer_to_the_very_prompt_leaves_at_once() -> None:
    on = bench("completeness")
    typed(on, "Who is it?")
    on.link.emit(1, *tokens("A friend", 1))
    assert on.events() == []
    on.session.commit(None)
    assert said(on.events()) == "A friend"
    assert inputs(on)[-1] == PromptRevision(1, "Who is it?", final=True)
    on.link.emit(1, *tokens(" of yours", 1), DONE)
    assert said(on.events()) == " of yours"


def test_nothing_of_another_revision_leaves() -> None:
    on = bench()
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
    on = bench()
    typed(on, "red ")
    on.session.revise(0, "blue ")
    on.clock.advance(1)
    on.session.revise(0, "red ")
    on.session.commit(None)
    on.link.emit(1, *tokens("of the first red", 1))
    assert on.events() == []
    assert inputs(on)[-1] == PromptRevision(3, "red ", final=True)


def test_pause_is_asked_again_until_it_answers() -> None:
    on = bench("pause=300")
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
    on = bench()
    on.session.append("word " * 20_000)
    on.clock.advance(1.9)
    assert on.link.sent == []
    on.clock.advance(0.2)
    assert len(inputs(on)) == 1


def test_a_flood_of_rewritten_prompts_is_bounded_and_its_commit_does_not_wait() -> None:
    on, chars, seconds = bench(), 8000, 10
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
    on = bench()
    typed(on, "word " * 3000)
    on.clock.advance(1)
    for _ in range(50):
        on.session.append("more ")
        on.clock.advance(1)
    assert len(inputs(on)) == 51


def test_a_long_history_too_makes_revisions_rarer() -> None:
    said_before = (Message("user", "word " * 40), Message("assistant", "yes. " * 40))
    on = bench(history=said_before * 20)
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
    on = bench(emit=True)
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
    on = bench()
    typed(on, "one ")
    on.link.emit(1, *tokens(" ".join("x" * 60), 1))
    on.events()
    for _ in range(33):
        on.link.emit(1, *tokens(" ".join("x" * 60), 1))
        on.events()
    typed(on, "two ")
    (left,) = (each.answer_tokens for each in inputs(on)[1:])
    assert 0 < left < 100
    full = bench(jobs=9)
    for _ in range(8):
        full.admission.job(TEXT.name)
    typed(full, "one ")
    assert inputs(full) == [PromptRevision(1, "one ", False)]


def test_work_ahead_never_keeps_committed_work_out() -> None:
    on = bench(jobs=1)
    typed(on, "one ")
    slot = on.admission.job(TEXT.name)
    slot.leave()
    on.session.commit(None)
    assert not isinstance(on.events(), TurnDone)
    assert inputs(on)[-1].final
    assert on.dispatcher.busy(TEXT.name) == 1


def test_a_failure_ahead_is_not_the_turns() -> None:
    on = bench()
    typed(on, "one ")
    on.link.emit(1, *tokens("gone", 1), Failed("InvalidRequest", "prompt: too long", "prompt"))
    assert on.events() == []
    typed(on, "two ")
    assert len(on.link.submitted(TextRequest)) == 1
    on.session.commit(None)
    on.link.emit(2, *tokens("Two", 2), Done(STOP, Usage(wasted_tokens=2), TIMINGS))
    events = on.events()
    assert said(events) == "Two"
    assert last(events).usage.wasted_tokens == 3


# --- speech ----------------------------------------------------------------------------------------------


def speaks() -> tuple[Bench, int, int]:
    """A first clause has been given to the voice ahead of the commit."""
    on = bench(speech=SPEECH)
    typed(on, "Who is ")
    speech, text = on.link.submitted(SpeechRequest)[0].job_id, on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("Well now, it is you", 1))
    on.events()
    assert on.link.inputs(speech) == [SpeechText("Well now, ", final=False)]
    assert not on.link.submitted(SpeechRequest)[0].committed
    on.link.emit(speech, audio(0, 200))
    assert on.events() == []
    return on, speech, text


def test_a_first_clause_spoken_ahead_is_heard_once_the_answer_confirms_it() -> None:
    on, speech, text = speaks()
    on.session.append("it?")
    on.session.commit(None)
    assert Promote(speech) in on.link.sent
    assert on.events() == []
    on.link.emit(text, *tokens("Well now", 2))
    assert said(on.events()) == "Well now"
    on.link.emit(text, *tokens(", it was me.", 2), DONE)
    events = on.events()
    assert said(events) == ", it was me."
    assert on.link.inputs(speech)[1:2] == [SpeechText("it was me.", final=True)]
    assert [type(event.body).__name__ for event in events].count("AudioChunk") == 2


def test_a_first_clause_that_turns_out_wrong_is_never_heard() -> None:
    on, speech, text = speaks()
    on.session.append("it?")
    on.session.commit(None)
    on.link.emit(text, *tokens("No one.", 2))
    assert said(on.events()) == "No one."
    on.link.emit(text, DONE)
    on.events()
    again = on.link.submitted(SpeechRequest)[1]
    assert Cancel(speech) in on.link.sent
    assert again.committed
    assert on.link.inputs(again.job_id) == [SpeechText("No one.", False), SpeechText("", True)]
    assert Promote(text, again.job_id) in on.link.sent
    on.link.emit(speech, audio(200, 200))
    assert on.events() == []
    on.link.emit(again.job_id, audio(0, 50), DONE)
    on.clock.advance(1)
    assert isinstance(on.events()[-1].body, TurnDone)


def test_another_answer_ahead_speaks_again() -> None:
    on, speech, text = speaks()
    typed(on, "she ")
    on.link.emit(text, *tokens("She is a friend. Yes", 2))
    on.events()
    assert Cancel(speech) in on.link.sent
    second = on.link.submitted(SpeechRequest)[1].job_id
    assert on.link.inputs(second) == [SpeechText("She is a friend. ", final=False)]
    on.session.commit(None)
    assert Promote(text, second) in on.link.sent


def test_an_answer_shorter_than_what_was_spoken_is_not_spoken_wrong() -> None:
    on, _, text = speaks()
    on.session.commit("Who?")
    on.link.emit(text, *tokens("Well now", 2), DONE)
    on.events()
    again = on.link.submitted(SpeechRequest)[1].job_id
    assert on.link.inputs(again) == [SpeechText("Well now", final=True)]


# --- images ----------------------------------------------------------------------------------------------


def test_an_image_begun_ahead_goes_on_at_the_commit() -> None:
    on = bench("completeness", image=IMAGE)
    typed(on, "A red ball.")
    (early,) = on.link.submitted(ImageRequest)
    assert (early.committed, early.credits) == (False, 1)
    on.link.emit(early.job_id, picture(False, 4), picture(True))
    assert on.events() == []
    on.session.commit(None)
    assert Promote(early.job_id) in on.link.sent
    assert len(on.events()) == 2
    assert len(on.link.submitted(ImageRequest)) == 1


def test_an_image_begun_ahead_of_other_words_is_thrown_away() -> None:
    on = bench("completeness", image=IMAGE)
    typed(on, "A red ball.")
    (early,) = on.link.submitted(ImageRequest)
    on.link.emit(early.job_id, picture(False, 4))
    on.session.append(" And a box.")
    on.session.commit(None)
    assert on.events() == []
    assert Cancel(early.job_id) in on.link.sent
    assert on.link.submitted(ImageRequest)[1].request == ImageRequest("A red ball. And a box.")


def test_the_models_caption_is_drawn_ahead() -> None:
    on = bench(image=IMAGE, draw_on_request=True)
    typed(on, "Please draw ")
    text = on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("Here: <draw>a ball</draw>", 1))
    on.events()
    (early,) = on.link.submitted(ImageRequest)
    assert (early.request, early.committed) == (ImageRequest("a ball"), False)
    on.session.append("it")
    on.session.commit(None)
    on.link.emit(text, *tokens("Here: <draw>a ball</draw>", 2), DONE)
    assert said(on.events()) == "Here: "
    assert Promote(early.job_id) in on.link.sent


def test_a_caption_that_is_not_asked_for_after_all_is_not_drawn() -> None:
    on = bench(image=IMAGE, draw_on_request=True)
    typed(on, "Please draw ")
    text = on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("<draw>a ball</draw>", 1))
    on.events()
    on.session.append("no more")
    on.session.commit(None)
    on.link.emit(text, *tokens("Fine.", 2), DONE)
    assert last(on.events()).reason is STOP
    assert Cancel(on.link.submitted(ImageRequest)[0].job_id) in on.link.sent


# --- thinking --------------------------------------------------------------------------------------------


def test_complete_segments_are_thought_about_one_thought_at_a_time() -> None:
    on = thinking()
    typed(on, "Ann has 3 cups. Ben has 4. How")
    thought, answer = on.link.submitted(TextRequest)
    assert thought.request.history == (Message("system", layout.INSTRUCTION),)  # type: ignore[union-attr]
    assert (thought.first, thought.committed) == (
        PromptRevision(1, "Ann has 3 cups. Ben has 4. ...", final=True),
        False,
    )
    assert answer.first == PromptRevision(1, "Ann has 3 cups. Ben has 4. ", False)
    on.link.emit(thought.job_id, *tokens("infer. 3 plus 4 is 7."), Done(STOP, Usage(), TIMINGS))
    assert [event.body for event in on.events()] == [Thought(0, "infer", "3 plus 4 is 7.")]
    note = (Message("user", "Ann has 3 cups. Ben has 4. ..."), Message("assistant", "infer. 3 plus 4 is 7."))
    on.session.append(" many?")
    on.session.commit(None)
    assert inputs(on, number=1)[-1] == PromptRevision(2, "How many?", final=True, notes=note)
    on.link.emit(answer.job_id, *tokens("7", 2), DONE)
    events = on.events()
    assert said(events) == "7"
    assert last(events).timings.jobs["thought"].slices == TIMINGS.slices


def test_a_changed_piece_takes_its_notes_with_it() -> None:
    on = thinking()
    typed(on, "Ann has 3 cups. H")
    on.link.emit(1, *tokens("wait."), Done(STOP, Usage(completion_tokens=2), TIMINGS))
    on.events()
    on.session.revise(8, "4 cups. Ho")
    on.clock.advance(1)
    third = on.link.submitted(TextRequest)[2]
    assert third.first == PromptRevision(1, "Ann has 4 cups. ...", final=True)
    on.session.append("w?")
    on.session.commit(None)
    assert Cancel(third.job_id) in on.link.sent
    assert inputs(on, number=1)[-1] == PromptRevision(4, "Ann has 4 cups. How?", final=True)
    on.link.emit(2, *tokens("x", 4), DONE)
    assert last(on.events()).usage.wasted_tokens == 2


def test_a_thinker_of_its_own() -> None:
    large = type(TEXT)("large", "text", "llama", 9, context_tokens=512)
    ahead = Ahead(mode=Mode.THINK_AHEAD, thinker=large)
    on = Bench(None, ahead=ahead)
    on.link.loaded = (*on.link.loaded, large)
    typed(on, "Ann has 3 cups. H")
    assert [each.pipeline for each in on.link.submitted(TextRequest)] == ["large", TEXT.name]
    on.link.emit(1, *tokens("wait."), DONE)
    assert on.events() == []


def test_a_thought_that_fails_ends_thinking_only() -> None:
    on = thinking()
    typed(on, "Ann has 3 cups. H")
    on.link.emit(1, Failed("Exhausted", "no room", retry_after_s=1.0))
    assert on.events() == []
    typed(on, "ow many? No")
    assert len(on.link.submitted(TextRequest)) == 2
    on.session.commit(None)
    on.link.emit(2, *tokens("3", on.link.inputs(2)[-1].number), DONE)  # type: ignore[attr-defined]
    assert said(on.events()) == "3"


def test_a_lost_device_is_told_though_nothing_was_committed() -> None:
    on = thinking()
    typed(on, "Ann has 3 cups. H")
    on.link.die()
    with pytest.raises(DeviceLost):
        on.events()


def test_transcripts_come_through_the_same_door() -> None:
    on = bench(transcription=EAR, audio_sample_rate=16_000)
    on.session.audio(bytes(320), 0)
    assert on.link.submitted(TextRequest) == []
