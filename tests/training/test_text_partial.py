"""Prompts in pieces: what may be inferred is inferred at once, and nothing before it is told."""

from __future__ import annotations

import random

import pytest

from pipelines.simultaneous.layout import ANSWER, INFER, INSTRUCTION, MORE, WAIT, parse
from pipelines.simultaneous.segments import clauses, sentences
from training.text_conversation import Conversation, Turn
from training.text_math import Problem, Step, draw_problem, parsed_answer
from training.text_partial import known_steps, partial, pieced_problem, waited

TWO = (Step(12, "+", 5), Step(17, "-", 3))


def small_talk(rng: random.Random) -> Conversation:
    return Conversation("chat", "chat", (Turn("Hello there, my friend! How are you?", "Well, thank you!"),))


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("Anna has 12 shells.", 0),
        ("Anna has 12 shells. Ben gives her 5 more.", 1),
        ("Anna has 12 shells. Ben gives her 5", 0),
        ("Anna has 12 shells. Ben gives her 5 more. Anna loses 3.", 2),
        ("Anna has 12 shells. Ben has 5 shells.", 0),
        ("Anna has 12 shells and Ben has 5.", 0),
        ("Anna has 12 shells. Ben has 5 more shells than Anna.", 1),
        ("A cup costs 12 dollars and a plate costs 5 dollars.", 0),
    ],
)
def test_a_step_is_known_when_its_numbers_and_its_operation_are(told: str, known: int) -> None:
    assert known_steps(TWO, told) == known


def test_one_number_told_once_is_not_two() -> None:
    assert known_steps((Step(7, "+", 7),), "Anna has 7 shells.") == 0


def test_the_replies_to_a_problem_in_sentences() -> None:
    problem = Problem("", "", TWO)
    told = "Here we go. Anna has 12 shells. Ben gives her 5 more. Anna loses 3. How many are left?"
    made = pieced_problem(problem, sentences(told))
    assert [note.reply for note in made.notes] == [
        "wait.",
        "wait.",
        "infer. 12 plus 5 is 17.",
        "infer. Then 17 minus 3 is 14.",
    ]
    assert made.answer == "The answer is 14."
    assert "".join(note.piece for note in made.notes) + made.last == told


def test_a_question_before_the_last_piece_is_answered_there() -> None:
    told = "Anna has 12 shells and finds 5. She loses 3 shells. How many has she? Thank you very much."
    made = pieced_problem(Problem("", "", TWO), sentences(told))
    assert parse(made.notes[-1].reply) == (ANSWER, "The answer is 14.")
    assert made.answer == "The answer is 14."


def test_what_only_the_question_tells_is_waited_for() -> None:
    made = waited("The key is in the hall. Where is the key?", "In the hall.", sentences)
    assert [note.action for note in made.notes] == [WAIT]
    assert made.turns()[-1] == Turn("Where is the key?", "In the hall.")


@pytest.mark.parametrize("cut", [sentences, clauses])
@pytest.mark.parametrize("unseen", [False, True])
def test_every_problem_ends_in_its_answer_and_infers_only_its_own_steps(cut: object, unseen: bool) -> None:
    rng = random.Random(3)
    inferred = 0
    for _ in range(300):
        problem = draw_problem(rng, unseen)
        made = pieced_problem(problem, (sentences if cut is sentences else clauses)(problem.question))
        assert parsed_answer(made.answer) == problem.steps[-1].result
        notes = " ".join(note.text for note in made.notes if note.action == INFER)
        whole = " ".join((*(note.text for note in made.notes), made.answer))
        assert all(step.told() in whole for step in problem.steps)
        inferred += bool(notes)
    assert inferred > 50


def test_a_conversation_in_pieces_is_in_the_served_layout() -> None:
    made = partial(random.Random(1), small_talk)
    assert made.system == INSTRUCTION
    assert any(turn.user.endswith(MORE) for turn in made.turns)
    assert all(turn.user and turn.assistant for turn in made.turns)
