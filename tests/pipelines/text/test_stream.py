"""Streaming text: characters whole, stop strings removed, tokens with the text they complete."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import Drawn
from pipelines.text.stream import Piece, TextStream

texts = st.text(st.sampled_from("abé你🙂 .\ufffd"), max_size=30)


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    """Pieces of the given sizes; the rest in one."""
    pieces = []
    for size in sizes:
        pieces.append(content[:size])
        content = content[size:]
    return [*pieces, content]


def play(pieces: list[bytes], stops: tuple[str, ...]) -> list[Piece]:
    stream = TextStream(stops)
    out: list[Piece] = []
    for number, content in enumerate(pieces):
        out.append(stream.push(Drawn(number, True), content))
        if out[-1].stopped:
            return out
    return [*out, stream.finish()]


@settings(deadline=None, derandomize=True)
@given(texts, st.lists(st.integers(0, 4), max_size=40))
def test_text_survives_any_cut(text: str, sizes: list[int]) -> None:
    pieces = cut(text.encode(), sizes)
    out = play(pieces, ())
    assert "".join(piece.text for piece in out) == text
    assert [token.id for piece in out for token in piece.tokens] == list(range(len(pieces)))


@settings(deadline=None, derandomize=True)
@given(texts, st.lists(st.integers(0, 4), max_size=40))
def test_a_token_comes_with_the_character_it_completes(text: str, sizes: list[int]) -> None:
    pieces = cut(text.encode(), sizes)
    given_bytes, total = 0, 0
    ends = []
    for content in pieces:
        total += len(content)
        ends.append(total)
    for piece in play(pieces, ())[:-1]:
        given_bytes += len(piece.text.encode())
        for token in piece.tokens:
            assert ends[token.id] <= given_bytes


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=20), st.lists(st.integers(0, 3), max_size=20))
def test_broken_bytes_become_replacement_characters(content: bytes, sizes: list[int]) -> None:
    out = play(cut(content, sizes), ())
    assert "".join(piece.text for piece in out) == content.decode(errors="replace")


@settings(deadline=None, derandomize=True)
@given(
    st.text("ab", max_size=20),
    st.lists(st.integers(0, 3), max_size=20),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_are_removed_however_the_text_is_cut(
    text: str, sizes: list[int], stops: list[str]
) -> None:
    ends = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    expected = text[: min(ends)[1]] if ends else text
    out = play(cut(text.encode(), sizes), tuple(stops))
    assert "".join(piece.text for piece in out) == expected
    assert out[-1].stopped == bool(ends)


def test_what_may_begin_a_stop_string_waits() -> None:
    stream = TextStream(("\n\n", "END"))
    texts = [
        stream.push(Drawn(i, True), part.encode()).text for i, part in enumerate(["a\n", "b", "E", "N", "x"])
    ]
    assert texts == ["a", "\nb", "", "", "ENx"]
    assert stream.push(Drawn(5, True), b"yEND more") == Piece("y", (), True)


def test_the_space_that_marks_the_first_word_is_dropped() -> None:
    stream = TextStream((), strips_space=True)
    assert [stream.push(Drawn(i, True), part).text for i, part in enumerate([b"", b" one", b" two"])] == [
        "",
        "one",
        " two",
    ]
