"""A given text is followed from the answer's beginning and found again where the answer has left it."""

from __future__ import annotations

import pytest

from pipelines.text.speculation.drafter import COPY_GRADES, Rates
from pipelines.text.speculation.given import LONGEST_MATCH, GivenText

PROMPT = [900, 901]
TEXT = list(range(20))


def sure() -> Rates:
    return Rates(COPY_GRADES, first_guess=1.0)


@pytest.mark.parametrize(
    ("answer", "next_tokens", "agreed"),
    [
        ([], [0, 1, 2], LONGEST_MATCH),
        ([0, 1, 2], [3, 4, 5], LONGEST_MATCH),
        ([0, 1, 99], [3, 4, 5], 0),
        ([0, 1, 99, 3, 4], [5, 6, 7], 2),
        ([0, 1, 99, 2], [3, 4, 5], 1),
        ([0, 1, 4], [5, 6, 7], 1),
        ([99, 98, 0, 1], [2, 3, 4], 2),
        ([*range(19)], [19], LONGEST_MATCH),
        ([*range(20), 50], [], 0),
    ],
    ids=[
        "nothing said yet",
        "followed",
        "one token changed",
        "and found again",
        "one put in",
        "two left out",
        "a new beginning",
        "near the end",
        "at the end",
    ],
)
def test_places(answer: list[int], next_tokens: list[int], agreed: int) -> None:
    at_once, in_steps = GivenText(TEXT, sure()), GivenText(TEXT, sure())
    at_once.follow([*PROMPT, *answer], 2)
    for end in range(len(answer) + 1):
        in_steps.follow([*PROMPT, *answer[:end]], 2)
    assert list(at_once.propose(3).tokens) == list(in_steps.propose(3).tokens) == next_tokens
    assert at_once.agreed == in_steps.agreed == agreed
