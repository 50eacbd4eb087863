"""The drawing tag leaves the text however it is cut."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from server.drawing import MAX_CAPTION, DrawFilter, Shown

PIECES = st.sampled_from(
    ["<draw>", "</draw>", "<", "<d", "draw>", "</", "a", " b", "é", "\n", "<<draw>", "<draw"]
)


def _fed(pieces: list[str]) -> tuple[str, list[str]]:
    filter_ = DrawFilter()
    shown = [filter_.feed(piece) for piece in pieces] + [filter_.close()]
    return "".join(each.text for each in shown), [caption for each in shown for caption in each.captions]


def _expected(text: str) -> tuple[str, list[str]]:
    """The same, with all of the text at hand."""
    tag = re.compile(r"<draw>(.*?)(?:</draw>|\Z)", re.DOTALL)
    captions = [found[:MAX_CAPTION].strip() for found in tag.findall(text)]
    return tag.sub("", text), [caption for caption in captions if caption]


@given(st.lists(PIECES, max_size=12).map("".join), st.data())
def test_cuts_do_not_matter(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert _fed(pieces) == _expected(text)


def test_plain_text_passes_at_once() -> None:
    assert DrawFilter().feed("Hello. ") == Shown("Hello. ")


def test_only_a_possible_beginning_is_held_back() -> None:
    filter_ = DrawFilter()
    assert filter_.feed("a <dr") == Shown("a ")
    assert filter_.feed("ip") == Shown("<drip")
    assert filter_.feed("<draw>a cat</dr") == Shown()
    assert filter_.feed("aw>!") == Shown("!", ("a cat",))


def test_a_tag_that_is_never_closed_ends_with_the_text() -> None:
    assert _fed(["go <draw>a cat"]) == ("go ", ["a cat"])


def test_a_long_caption_is_cut() -> None:
    assert _fed(["<draw>", *["x" * 700] * 3, "</draw>."]) == (".", ["x" * MAX_CAPTION])
