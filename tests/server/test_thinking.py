"""Thinking ahead: notes on complete segments."""

from __future__ import annotations

import pytest

from pipelines.errors import DeviceLost
from pipelines.messages import Cancel, Done, Failed, Message, PromptRevision, TextRequest, Usage
from pipelines.simultaneous import layout
from server.events import Thought
from server.plan import Ahead, Mode
from tests.fakes import STOP, TEXT, TIMINGS, tokens
from tests.server.session_bench import DONE, Bench, inputs, last, said, thinking, typed


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


def test_thoughts_of_a_turn_without_a_commit_were_for_nothing() -> None:
    on = thinking()
    typed(on, "Ann has 3 cups. H")
    on.link.emit(1, *tokens("wait."), Done(STOP, Usage(completion_tokens=2), TIMINGS))
    on.events()
    typed(on, "ere are 4. Ho")
    on.link.emit(3, *tokens("infer. 7"))
    on.events()
    on.session.cancel("")
    assert last(on.events()).usage.wasted_tokens == 2 + 2


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
