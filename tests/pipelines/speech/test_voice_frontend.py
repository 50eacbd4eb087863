"""Words to symbols, with a lexicon of a few words."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.speech.speaker import Symbols
from pipelines.speech.voice.frontend import Frontend, pack
from pipelines.speech.voice.letters import REACH, one_stress, windows
from pipelines.speech.voice.wordparts import Spelling, from_parts

PHONEMES = (",", ".", "?", "!", "D", "@2", "I2", "k", "a", "t", "s", "z", "aI")
LEXICON: dict[str, Spelling] = {
    "the": ("D", "@2"),
    "the+": ("D", "I2"),
    "cat": ("k", "'a", "t"),
    "i": ("aI",),
}


def guess(word: str) -> Spelling:
    return tuple(letter for letter in word if letter in "kts")


FRONT = Frontend(PHONEMES, LEXICON, guess)


def test_symbols_carry_phoneme_stress_and_word_end() -> None:
    assert FRONT.symbols("The cat.") == Symbols(
        (
            pack(4, 0, False),
            pack(5, 0, True),
            pack(7, 0, False),
            pack(8, 2, False),
            pack(9, 0, True),
            pack(1, 0, True),
        ),
        True,
    )


def test_an_open_clause_ends_in_a_comma() -> None:
    symbols = FRONT.symbols("the cat")
    assert symbols.ids[-1] == pack(0, 0, True)
    assert not symbols.ends_sentence


def test_the_before_a_vowel() -> None:
    assert FRONT.spelling("the", "i") == ("D", "I2")
    assert FRONT.spelling("the", "cat") == ("D", "@2")


def test_possessives_and_unknown_words() -> None:
    assert FRONT.spelling("cat's", ".") == ("k", "'a", "t", "s")
    assert FRONT.spelling("kits", ".") == ("k", "t", "s")


def test_nothing_to_say() -> None:
    assert FRONT.symbols("") == Symbols((), False)
    assert FRONT.symbols("... !") == Symbols((), False)


def test_letter_windows() -> None:
    around = windows("ab")
    assert around.shape == (2, 2 * REACH + 1)
    assert list(around[0][REACH:]) == [1, 2, 0, 0, 0]
    assert np.array_equal(around[1][: REACH + 1], [0, 0, 0, 1, 2])


def test_one_primary_stress() -> None:
    assert one_stress(["'a", "t", "'aI"]) == ("'a", "t", ",aI")
    assert one_stress([",a", "t", ",aI"]) == ("'a", "t", ",aI")
    assert one_stress(["t", "a", "s", "aI"]) == ("t", "'a", "s", "aI")
    assert one_stress(["t", "s"]) == ("t", "s")


KNOWN: dict[str, Spelling] = {
    "bake": ("b", "'eI", "k"),
    "box": ("b", "'0", "k", "s"),
    "stop": ("s", "t", "'0", "p"),
    "try": ("t", "r", "'aI"),
    "web": ("w", "'E", "b"),
}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("boxes", ("b", "'0", "k", "s", "I#", "z")),
        ("box's", ("b", "'0", "k", "s", "I#", "z")),
        ("webs", ("w", "'E", "b", "z")),
        ("baking", ("b", "'eI", "k", "I", "N")),
        ("stopped", ("s", "t", "'0", "p", "t")),
        ("retried", None),
        ("tried", ("t", "r", "'aI", "d")),
        ("webbox", ("w", "'E", "b", "b", ",0", "k", "s")),
        ("restop", ("r", "i:", "s", "t", "'0", "p")),
        ("ing", None),
        ("xyzzy", None),
    ],
)
def test_words_from_parts(word: str, said: Spelling | None) -> None:
    assert from_parts(word, KNOWN) == said
