"""Copying drafts what stood in the context behind the same three tokens."""

from __future__ import annotations

from training.text_copying import LONGEST, copied


def test_nothing_to_copy() -> None:
    assert copied([1, 2, 3], [4, 5, 6, 7]) == (0, 0)


def test_a_repeated_text_is_accepted_whole() -> None:
    text = list(range(10, 40))
    checked, accepted = copied([*text, 1], text)
    # Three tokens are said before copying begins, and one of the target's own follows each full draft.
    drafts = -(-(len(text) - 3) // (LONGEST + 1))
    assert (checked, accepted) == (len(text) - 3 - drafts + 1, len(text) - 3 - drafts + 1)


def test_a_changed_token_costs_one_check() -> None:
    text = [10, 11, 12, 13, 14, 15, 16, 17, 18]
    changed = [10, 11, 12, 13, 99, 15, 16, 17, 18]
    # Behind 10 11 12: 13 accepted, 14 refused; behind 15 16 17: 18 accepted.
    assert copied([*text, 1, 2], changed) == (3, 2)


def test_the_first_occurrence_is_copied() -> None:
    assert copied([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], [7]) == (1, 1)
    assert copied([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], [8]) == (1, 0)
