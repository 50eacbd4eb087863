"""Clauses: where they end, and that the way the text arrives changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.speech.clauses import Border, ClauseLimits, ClauseSplitter, TextClause

WORDS = ["Dr.", "etc.", "p.m.", "e.g.", "No.", "3,000", "2.5", "1.", "Yes,", "well;", "and", "but", "a-b"]
WORDS += ["-", "Then", "http://x.org/a.b?c=1,2", "stop.", "Why?", "ok...", '"Go!"', "\n", "\n\n", "- ", "I"]
WORDS += ["J.", "—", "。", "U.S.", "x" * 70, "word", "The", "12:30", "5", ")", "é", "."]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=40).flatmap(
    lambda words: st.sampled_from([" ", "", "  "]).map(lambda gap: gap.join(words))
)


def split(pieces: list[str], limits: ClauseLimits | None = None) -> list[TextClause]:
    splitter = ClauseSplitter(limits or ClauseLimits())
    return [clause for piece in pieces for clause in splitter.push(piece)] + splitter.finish()


def texts(text: str) -> list[str]:
    return [clause.text.strip() for clause in split([text])]


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.data())
def test_any_cut_into_pieces_gives_the_same_clauses(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    limits = ClauseLimits(words=3, characters=60, first_words=1, first_characters=30, longest_word=80)
    whole = split([text], limits)
    assert split(pieces, limits) == whole
    assert split(list(text), limits) == whole
    assert "".join(clause.text for clause in whole) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi there. How are you?", ["Hi there.", "How are you?"]),
        ("It costs 3,000 or 2.5 at most. Fine.", ["It costs 3,000 or 2.5 at most.", "Fine."]),
        ("Dr. Smith met Mrs. Jones. Good.", ["Dr. Smith met Mrs. Jones.", "Good."]),
        ("Ask J. R. R. Tolkien. Now.", ["Ask J. R. R. Tolkien.", "Now."]),
        ("Tools, e.g. hammers, help. Yes.", ["Tools, e.g. hammers,", "help.", "Yes."]),
        ("Come at 5 p.m. on Monday. Bye.", ["Come at 5 p.m. on Monday.", "Bye."]),
        ("Come at 5 p.m. Then eat.", ["Come at 5 p.m.", "Then eat."]),
        ("See No. 5 there. No. I do not.", ["See No. 5 there.", "No.", "I do not."]),
        ("Look at https://a.org/x.y?z=1,2 and go. Ok.", ["Look at https://a.org/x.y?z=1,2 and go.", "Ok."]),
        ('He said "Stop." Then left.', ['He said "Stop."', "Then left."]),
        ("Well... fine?! Good", ["Well...", "fine?!", "Good"]),
        ("1. Wash it.\n2. Dry it.", ["1. Wash it.", "2. Dry it."]),
        ("You need\n- salt\n- oil", ["You need", "- salt", "- oil"]),
        ("one line\nwraps here. End", ["one line\nwraps here.", "End"]),
        ("At 10:30 sharp", ["At 10:30 sharp"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_where_clauses_end(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


def test_the_first_clause_is_shorter() -> None:
    assert texts("Of course, here you are, my friend, and now we go on to the end, right here.") == [
        "Of course,",
        "here you are, my friend,",
        "and now we go on to the end,",
        "right here.",
    ]


def test_long_text_without_marks_is_cut_between_words() -> None:
    found = split([" ".join(f"word{n}" for n in range(200))])
    assert all(len(clause.text) <= 181 for clause in found)
    assert all(clause.border is Border.LENGTH for clause in found[:-1])
    assert all(word.startswith("word") for clause in found for word in clause.text.split())


def test_a_cut_prefers_a_joining_word() -> None:
    text = "we walked slowly along the wide river for a long time and talked about all of the old things"
    assert texts(text)[1] == "and talked about all of the old things"


def test_a_word_without_end_is_cut() -> None:
    assert [len(clause.text) for clause in split(["a" * 1000])] == [240, 240, 240, 240, 40]


def test_a_clause_is_out_with_the_character_that_decides_it() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("Good morning.") == []
    assert splitter.push(" ") == [TextClause("Good morning.", Border.SENTENCE)]
    assert splitter.held == 1
    assert splitter.push("I came at noon, as usual, ") == [
        TextClause(" I came at noon, as usual,", Border.PHRASE)
    ]
