"""What an earlier revision's work is still worth: the common beginning, and the answer as a draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def common_prefix(left: Sequence[Item], right: Sequence[Item]) -> int:
    """Length of the longest common beginning of two of a type; by bisection, since prompts may be long."""
    assert type(left) is type(right), "slices of different types are never equal"
    same, end = 0, min(len(left), len(right))
    while same < end:
        middle = (same + end + 1) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            end = middle - 1
    return same


def next_draft(answer: Sequence[Item], draft: Sequence[Item]) -> list[Item]:
    """The draft for the next revision: the answer so far, and what of the draft behind it was neither
    confirmed nor refuted (PredGen; Li et al., 2025, keeps the confirmed part alone)."""
    agrees = common_prefix(answer, draft) == len(answer)
    return [*answer, *draft[len(answer) :]] if agrees else list(answer)
