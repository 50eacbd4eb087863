"""What is read out, as a table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.speech.voice.normalise import MARKS, number_words, spoken

TABLE = [
    ("Hello, world!", "hello , world !"),
    ("It costs $3.50.", "it costs three dollars and fifty cents ."),
    ("£0.99 or €1", "ninety nine pence or one euro"),
    ("$2.5 million", "two point five million dollars"),
    ("at 7:05 pm", "at seven oh five p m"),
    ("at 9:00", "at nine o'clock"),
    ("at 14:30", "at fourteen thirty"),
    ("7 a.m. today", "seven a m today"),
    ("at 7:05 p.m.", "at seven oh five p m ."),
    ("at 7 pm. Then", "at seven p m . then"),
    ("on 2026-11-21.", "on november twenty first , twenty twenty six ."),
    ("May 3rd 2005", "may third , two thousand five"),
    ("in 1999 and 1900", "in nineteen ninety nine and nineteen hundred"),
    ("the 22nd", "the twenty second"),
    ("1,024 GPUs", "one thousand twenty four g p u's"),
    ("3.14159", "three point one four one five nine"),
    ("-5°C", "minus five degrees celsius"),
    ("120 km/h", "one hundred twenty kilometers per hour"),
    ("1 kg, 6 ft", "one kilogram , six feet"),
    ("12 in the list", "twelve in the list"),
    ("50% off & more", "fifty percent off and more"),
    ("1/2 cup, 3/4", "one half cup , three quarters"),
    ("room 007", "room zero zero seven"),
    ("Dr. Smith vs. Mrs. Jones", "doctor smith versus missus jones"),
    ("fruit, e.g. apples", "fruit , for example apples"),
    ("The BBC and NASA", "the b b c and nasa"),
    ("HELLO WORLD THERE", "hello world there"),
    ("mail bob@example.org", "mail bob at example dot org"),
    ("see https://www.example.com/a-b", "see w w w dot example dot com slash a dash b"),
    ("café “naïve” — yes…", "cafe , naive , yes ."),
    ("well-known (really)", "well known , really ,"),
    ("wait... what?!", "wait . what ?"),
    ("😀", ""),
    ("", ""),
]


@pytest.mark.parametrize(("written", "said"), TABLE)
def test_reads_out(written: str, said: str) -> None:
    assert " ".join(spoken(written)) == said


@given(st.text(max_size=60))
def test_any_text_gives_words_and_marks_alone(text: str) -> None:
    tokens = spoken(text)
    assert all(token in MARKS or token.strip("'").replace("'", "").isalpha() for token in tokens)
    assert not any(one in MARKS and two in MARKS for one, two in pairwise(tokens))


def test_a_very_long_number_is_read_digit_by_digit() -> None:
    assert spoken("9" * 40) == ["nine"] * 40


def test_threads_do_not_mix_their_numbers() -> None:
    texts = [f"{number} and {number * 7_919}" for number in range(1_000, 1_200)]
    alone = [spoken(text) for text in texts]
    number_words.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(spoken, texts)) == alone
