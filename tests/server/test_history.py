"""What was said before, and what of it was heard."""

from __future__ import annotations

import time

import pytest

from pipelines.messages import Message
from server.history import History, heard

SYSTEM = Message("system", "Be kind.")


def _pair(number: int) -> tuple[Message, Message]:
    return Message("user", f"question {number}"), Message("assistant", f"answer {number}")


def test_all_of_it_where_there_is_room() -> None:
    history = History([SYSTEM], 0)
    history.add("question 1", "answer 1")
    assert history.messages(10) == (SYSTEM, *_pair(1))


def test_the_oldest_turns_are_dropped_first() -> None:
    history = History([SYSTEM], 25)
    for number in range(5):
        history.add(f"question {number}", f"answer {number}")
    assert history.messages(20) == (SYSTEM, *_pair(3), *_pair(4))
    assert history.messages(1000) == (SYSTEM,)


def test_the_budget_learns_how_long_tokens_are() -> None:
    history = History([SYSTEM], 25)
    for number in range(5):
        history.add(f"question {number}", f"answer {number}")
    history.observe(characters=100, tokens=80)
    assert history.messages(1) == (SYSTEM, *_pair(4))


def test_a_history_of_very_many_messages_takes_no_time() -> None:
    alternating = [Message(role, "a") for role in ("user", "assistant")] * 50_000
    history = History(alternating, 1000)
    begun_s = time.process_time()
    kept = history.messages(10)
    assert sum(len(message.content) for message in kept) == 2990
    assert kept[0].role == "user"
    assert len(History([Message("user", "a")] * 100_000, 0).messages(10)[0].content) == 199_999
    assert time.process_time() - begun_s < 2, "it is trimmed on the event loop"


def test_an_unheard_answer_leaves_the_question() -> None:
    history = History([], 0)
    history.add("first", "")
    history.add("second", "answer")
    assert history.messages(0) == (Message("user", "first\nsecond"), Message("assistant", "answer"))


def test_the_last_answer_is_trimmed() -> None:
    history = History([], 0)
    history.add("question", "a long answer")
    history.trim_last("a long")
    assert history.messages(0) == (Message("user", "question"), Message("assistant", "a long"))


@pytest.mark.parametrize(
    ("played_ms", "audio_ms", "complete", "expected"),
    [
        (1000, 1000, True, "one two three four"),
        (500, 1000, True, "one two"),
        (0, 1000, True, ""),
        (400, 9000, False, "one"),
        (5000, 5000, False, "one two three four"),
    ],
)
def test_heard(played_ms: float, audio_ms: float, complete: bool, expected: str) -> None:
    assert heard("one two three four", played_ms, audio_ms, complete) == expected
