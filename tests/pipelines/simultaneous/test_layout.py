"""The layout of thinking ahead: replies, notes and what the model sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.messages import Message
from pipelines.simultaneous import layout
from pipelines.simultaneous.layout import ANSWER, INFER, WAIT, Note


@pytest.mark.parametrize(
    ("said", "action", "text"),
    [
        ("infer. 3 plus 4 is 7.", INFER, "3 plus 4 is 7."),
        ("wait.", WAIT, ""),
        (" Wait", WAIT, ""),
        ("answer. The answer is 7.", ANSWER, "The answer is 7."),
        ("answer: 7", ANSWER, "7"),
        ("inferring nothing", INFER, "inferring nothing"),
        ("3 plus 4 is 7.", INFER, "3 plus 4 is 7."),
        ("", WAIT, ""),
        ("infer. two\nlines", INFER, "two\nlines"),
    ],
)
def test_replies(said: str, action: str, text: str) -> None:
    assert layout.parse(said) == (action, text)


@given(st.sampled_from(layout.ACTIONS), st.text("ab .\n", max_size=9).map(str.strip))
def test_what_is_written_is_read(action: str, text: str) -> None:
    assert layout.parse(layout.reply(action, text)) == (action, text)


def test_it_grows_at_the_end_only() -> None:
    notes = [Note("Ann has 3 cups. ", "infer. Ann has 3."), Note("Ben has 4. ", "wait.")]
    assert layout.noted(notes[:1]) == layout.noted(notes)[:2]
    assert layout.noted(notes)[2:] == (Message("user", "Ben has 4. ..."), Message("assistant", "wait."))


def test_the_instruction_stands_behind_the_system_message() -> None:
    said = (Message("system", "Be brief."), Message("user", "Hi"))
    assert layout.opening(said) == (Message("system", f"Be brief.\n{layout.INSTRUCTION}"), said[1])
    assert layout.opening(()) == (Message("system", layout.INSTRUCTION),)


def test_a_mismatch_truncates_the_notes() -> None:
    notes = (Note("One. ", "wait."), Note("Two. ", "wait."), Note("Three. ", "wait."))
    assert layout.holding(notes, "One. Two. Three. Four. ") == notes
    assert layout.holding(notes, "One. Tow. Three. ") == notes[:1]
    assert layout.holding(notes, "One. Two. ") == notes[:2]
    assert layout.holding(notes, "") == ()
