"""One thing changed: whole words, the first of them, and everything else as it was."""

from __future__ import annotations

import random
from difflib import SequenceMatcher

import pytest

from training.text_rewrite import rewrite, swapped


@pytest.mark.parametrize(
    ("text", "old", "new", "expected"),
    [
        ("Ben sees Benno.", "Benno", "Ida", "Ben sees Ida."),
        ("Cats and dogs.", "cats", "bees", "Bees and dogs."),
        ("She is in Rome.", "rome", "Oslo", "She is in Oslo."),
        ("A rose, a rose.", "rose", "tree", "A tree, a rose."),
        ("He buys 3 lamps.", "lamp", "clock", "He buys 3 clocks."),
    ],
)
def test_the_first_whole_word_is_swapped(text: str, old: str, new: str, expected: str) -> None:
    assert swapped(text, old, new) == expected


@pytest.mark.parametrize("unseen", [False, True])
def test_each_answer_is_the_last_one_with_at_most_one_place_changed(unseen: bool) -> None:
    rng = random.Random(3)
    for _ in range(400):
        made = rewrite(rng, unseen)
        assert made.expected == made.turns[-1].assistant
        for before, after in zip(made.turns, made.turns[1:], strict=False):
            old, new = before.assistant.split(), after.assistant.split()
            changes = [part for part in SequenceMatcher(None, old, new).get_opcodes() if part[0] != "equal"]
            assert len(changes) <= 1, after


def test_unseen_wishes_change_something() -> None:
    rng = random.Random(4)
    for first, second in (rewrite(rng, True).turns for _ in range(200)):
        assert first.assistant != second.assistant
        assert first.assistant in first.user
