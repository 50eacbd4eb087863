"""What is kept of an earlier revision's work."""

from __future__ import annotations

import pytest

from pipelines.simultaneous.alignment import common_prefix, next_draft


@pytest.mark.parametrize(("left", "right", "length"), [("abc", "abd", 2), ("", "a", 0), ("ab", "abc", 2)])
def test_common_prefix(left: str, right: str, length: int) -> None:
    assert common_prefix(left, right) == length


@pytest.mark.parametrize(
    ("answer", "draft", "expected"),
    [
        ([], [1, 2, 3], [1, 2, 3]),
        ([1, 2], [1, 2, 3], [1, 2, 3]),
        ([1, 9], [1, 2, 3], [1, 9]),
        ([1, 2, 3], [1], [1, 2, 3]),
        ([], [], []),
    ],
)
def test_the_draft_keeps_what_is_not_refuted(
    answer: list[int], draft: list[int], expected: list[int]
) -> None:
    assert next_draft(answer, draft) == expected
