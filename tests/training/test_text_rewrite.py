"""One thing changed: whole words, wherever they stand, and everything else as it was."""

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
        ("A rose, a rose.", "rose", "tree", "A tree, a tree."),
        ("Rose, a rosebud.", "rose", "ash tree", "Ash tree, a rosebud."),
        ("At 2 o'clock the clock.", "clock", "boat", "At 2 o'clock the boat."),
        ("He buys 3 lamps.", "lamp", "clock", "He buys 3 clocks."),
    ],
)
def test_every_whole_word_is_swapped_and_marked(text: str, old: str, new: str, expected: str) -> None:
    changed, keys = swapped(text, old, new)
    assert changed == expected
    assert [changed[start : end - 1].lower() for start, end in keys] == [new.lower()] * len(keys)
    assert keys


@pytest.mark.parametrize("unseen", [False, True])
def test_each_answer_is_the_last_one_with_at_most_one_thing_changed(unseen: bool) -> None:
    rng = random.Random(3)
    for _ in range(400):
        made = rewrite(rng, unseen)
        assert made.expected == made.turns[-1].assistant
        for before, after in zip(made.turns, made.turns[1:], strict=False):
            old, new = before.assistant.split(), after.assistant.split()
            changed = {
                (old[i1], new[j1])
                for kind, i1, _, j1, _ in SequenceMatcher(None, old, new).get_opcodes()
                if kind != "equal"
            }
            assert len({tuple(word.strip(".,!").lower() for word in pair) for pair in changed}) <= 1, after


def test_unseen_wishes_change_something() -> None:
    rng = random.Random(4)
    for first, second in (rewrite(rng, True).turns for _ in range(200)):
        assert first.assistant != second.assistant
        assert first.assistant in first.user
