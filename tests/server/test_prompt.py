"""The partial prompt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InvalidRequest, WrongState
from server.prompt import Prompt


def test_appended_revised_committed() -> None:
    prompt = Prompt(100)
    prompt.append("Hello wrold")
    prompt.revise(6, "world")
    prompt.append("!")
    prompt.commit()
    assert (prompt.text, prompt.committed) == ("Hello world!", True)


def test_offsets_count_code_points() -> None:
    prompt = Prompt(100)
    prompt.append("né🙂x")
    prompt.revise(3, "y")
    assert prompt.text == "né🙂y"
    with pytest.raises(InvalidRequest, match=r"revise.from_char: must be 0 to 4, not 5"):
        prompt.revise(5, "z")


def test_nothing_changes_after_the_commit() -> None:
    prompt = Prompt(100)
    prompt.append("Hi")
    prompt.commit()
    changes: list[Callable[[], None]] = [
        lambda: prompt.append("x"),
        lambda: prompt.revise(0, "x"),
        prompt.commit,
    ]
    for change in changes:
        with pytest.raises(WrongState):
            change()
    assert prompt.text == "Hi"


def test_an_empty_prompt_cannot_be_committed() -> None:
    with pytest.raises(InvalidRequest, match=r"commit.text: the prompt must not be empty"):
        Prompt(100).commit()


def test_the_limit() -> None:
    prompt = Prompt(3)
    prompt.append("abc")
    with pytest.raises(InvalidRequest, match=r"append.text: the prompt may have 3 characters"):
        prompt.append("d")
    assert prompt.text == "abc"


@given(st.lists(st.tuples(st.integers(0, 20), st.text(max_size=5)), max_size=20))
def test_is_what_slicing_makes(edits: list[tuple[int, str]]) -> None:
    prompt, expected = Prompt(1000), ""
    for at, text in edits:
        at = min(at, len(expected))
        prompt.revise(at, text)
        expected = expected[:at] + text
    assert prompt.text == expected
