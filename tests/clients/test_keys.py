from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.keys import Key, Line, edit


@pytest.mark.parametrize(
    ("typed", "text", "ended"),
    [
        (b"boat", "boat", []),
        (b"boax\x7ft", "boat", []),
        (b"a red boat\x17ship", "a red ship", []),
        (b"wrong\x15right", "right", []),
        (b"one\ntwo\rthree", "three", [(Key.ENTER, "one"), (Key.ENTER, "two")]),
        (b"\x04", "", [(Key.END, "")]),
        (b"x\x04", "x", []),
        (b"a\x1b[Db\x1b[1;5Cc\x1bOPd\x1b[3~e\x1bxf", "abcdef", []),
        ("grün\x08".encode(), "grü", []),
        (b"\x00\x01tab\t", "tab", []),
    ],
)
@pytest.mark.parametrize("cut", [True, False])
def test_keystrokes(typed: bytes, text: str, ended: list[tuple[Key, str]], cut: bool) -> None:
    line = Line()
    pieces = [typed[i : i + 1] for i in range(len(typed))] if cut else [typed]
    assert [end for piece in pieces for end in line.feed(piece)] == ended
    assert line.text == text


@given(st.text(), st.text())
def test_an_edit_makes_one_text_of_the_other(sent: str, wanted: str) -> None:
    change = edit(sent, wanted)
    if change is None:
        assert sent == wanted
    else:
        from_char, text = change
        assert sent[:from_char] + text == wanted
        assert from_char <= len(sent)
