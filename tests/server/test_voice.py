"""The voice ahead of the commit: a first clause is spoken early and heard only if it holds."""

from __future__ import annotations

import pytest

from pipelines.messages import Cancel, Promote, SpeechRequest, SpeechText, TextRequest
from server.events import TurnDone
from tests.fakes import SPEECH, STOP, audio, tokens
from tests.server.session_bench import DONE, Bench, answering, last, said, typed


def speaks() -> tuple[Bench, int, int]:
    """A first clause has been given to the voice ahead of the commit."""
    on = answering(speech=SPEECH)
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


@pytest.mark.parametrize("answer", ["", " ", "<draw>a ball</draw>"])
@pytest.mark.parametrize("ahead", [False, True])
def test_an_answer_without_words_is_not_spoken_and_no_failure(answer: str, ahead: bool) -> None:
    on = answering(speech=SPEECH)
    typed(on, "Who is " if ahead else "")
    on.session.commit("Who?")
    speech, text = on.link.submitted(SpeechRequest)[0].job_id, on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens(answer, 2 if ahead else 1), DONE)
    assert last(on.events()).reason is STOP
    assert on.link.cancelled() == [speech]
