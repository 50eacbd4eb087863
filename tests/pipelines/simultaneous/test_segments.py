"""Segments of prompts that grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.simultaneous import segments

TEXTS = st.text('ab1, .!?;:-\n")', max_size=60)
NAMES = st.sampled_from(sorted(segments.SEGMENTERS))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sentence", "Ann has 3.5 cups. How many? ", ["Ann has 3.5 cups. ", "How many? "]),
        ("sentence", 'She said "no way." Then she left', ['She said "no way." ', "Then she left"]),
        ("sentence", "No. It is 1,000 in all! Or", ["No. It is 1,000 in all! ", "Or"]),
        ("clause", "Ann has 1,000 cups, and Ben 3, 4 or", ["Ann has 1,000 cups, ", "and Ben 3, 4 or"]),
        (
            "clause",
            "I mean this one: the red box - or not",
            ["I mean this one: ", "the red box - ", "or not"],
        ),
        ("chunk", "one two three", ["one two three"]),
        ("chunk", " ".join("abcdefghijklmno"), ["a b c d e f g h i j k l ", "m n o"]),
        ("sentence", "", []),
    ],
)
def test_cuts(name: str, text: str, expected: list[str]) -> None:
    assert segments.segmenter(name)(text) == expected


@given(NAMES, TEXTS)
def test_segments_are_the_text(name: str, text: str) -> None:
    assert "".join(segments.segmenter(name)(text)) == text


@given(NAMES, TEXTS, TEXTS)
def test_what_has_been_cut_stays_cut(name: str, text: str, rest: str) -> None:
    segmenter = segments.segmenter(name)
    before = segmenter(text)[:-1]
    assert segmenter(text + rest)[: len(before)] == before


def test_the_last_segment_is_withheld() -> None:
    assert segments.complete(segments.sentences, "Ann has 3 cups. ") == ""
    assert segments.complete(segments.sentences, "Ann has 3 cups. B") == "Ann has 3 cups. "
