"""What the text model learns from: right sums, pictures only when asked, held-out templates unseen."""

from __future__ import annotations

import random
import re
from itertools import islice

import pytest

from training import text_draw, text_facts, text_math
from training.text_conversation import Conversation, article, choose, fill, joined
from training.text_generator import HELD_OUT, held_out, stream
from training.text_home import Command, reply
from training.text_templates import table

DRAWING = {"draw", "redraw", "tell-draw"}


@pytest.fixture(scope="module")
def made() -> list[Conversation]:
    return list(islice(stream(None, 5), 3000))


def test_choices_nest_and_slots_are_not_templates() -> None:
    rng = random.Random(1)
    assert {choose(rng, "[a|b[c|d]] e") for _ in range(60)} == {"a e", "bc e", "bd e"}
    assert fill(rng, "so {x}. {x}", x="[a|b]") == "So [a|b]. [a|b]"


def test_words() -> None:
    assert (article("orange star"), article("star")) == ("an orange star", "a star")
    assert (joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])) == ("a", "a and b", "a, b and c")


def test_equal_seeds_give_equal_conversations() -> None:
    assert list(islice(stream(None, 3), 50)) == list(islice(stream(None, 3), 50))


def test_nothing_is_left_unfilled(made: list[Conversation]) -> None:
    for turn in (turn for conversation in made for turn in conversation.turns):
        assert turn.user
        assert turn.assistant
        assert not re.search(r"[{}\[\]|]", turn.user + turn.assistant), turn


@pytest.mark.parametrize("kind", text_math.KINDS)
def test_steps_are_right(kind: str) -> None:
    rng = random.Random(7)
    for _ in range(200):
        steps = text_math.draw_steps(rng, kind)
        assert "".join(step.sign for step in steps) == kind
        for step in steps:
            exact = {"+": step.left + step.right, "-": step.left - step.right, "*": step.left * step.right}
            assert (
                step.result * step.right == step.left if step.sign == "/" else step.result == exact[step.sign]
            )
            assert step.result >= 0
        assert [after.left for after in steps[1:]] == [before.result for before in steps[:-1]]


@pytest.mark.parametrize("unseen", [False, True])
def test_word_problems_tell_their_numbers_and_end_in_the_answer(unseen: bool) -> None:
    rng = random.Random(8)
    for _ in range(300):
        problem = text_math.word_problem(rng, unseen)
        (turn,) = problem.turns
        assert str(text_math.parsed_answer(turn.assistant)) == problem.expected
        first = re.match(r"(\d+) \D+ (\d+) is", turn.assistant)
        assert first is not None
        assert set(first.groups()) <= set(re.findall(r"\d+", turn.user)), turn


def test_pictures_are_drawn_when_and_only_when_asked(made: list[Conversation]) -> None:
    rng = random.Random(9)
    for _ in range(200):
        asked = text_draw.ask_to_draw(rng, False)
        assert text_draw.drawn(asked.turns[0].assistant) == [asked.expected]
        changed = text_draw.redraw(rng)
        assert text_draw.drawn(changed.turns[-1].assistant) == [changed.expected]
        assert text_draw.drawn(text_draw.talk_of_shapes(rng, False).turns[0].assistant) == []
    for turn in (turn for conversation in made for turn in conversation.turns):
        assert (
            turn.assistant.count("<draw>")
            == turn.assistant.count("</draw>")
            == len(text_draw.drawn(turn.assistant))
        )


@pytest.mark.parametrize(
    ("question", "kept_out"),
    [
        ("Please tell me about the red boat on the water, and draw it for me.", True),
        ("Draw a red boat and describe it", True),
        ("Draw a red boat.", False),
        ("Tell me about a blue boat and draw it.", False),
    ],
)
def test_the_demo_is_kept_out(question: str, kept_out: bool) -> None:
    assert text_draw.reserved(question) is kept_out


def test_no_training_conversation_is_reserved(made: list[Conversation]) -> None:
    assert not any(text_draw.reserved(turn.user) for conversation in made for turn in conversation.turns)


def test_no_two_facts_answer_one_question() -> None:
    rng = random.Random(10)
    for _ in range(300):
        questions = [question for fact in text_facts.draw_facts(rng, False) for question in fact.questions]
        assert len(questions) == len(set(questions))


@pytest.mark.parametrize("name", ["math", "draw", "facts", "talk", "coffee"])
def test_held_out_templates_are_disjoint(name: str) -> None:
    content = table(name)
    seen, unseen = _texts(content, False), _texts(content, True)
    assert unseen
    assert not seen & unseen


def _texts(content: object, unseen: bool, inside: bool = False) -> set[str]:
    if isinstance(content, dict):
        parts = [_texts(part, unseen, inside or "held_out" in key) for key, part in content.items()]
        return set().union(*parts)
    if isinstance(content, list):
        return set().union(*(_texts(part, unseen, inside) for part in content))
    return {str(content)} if inside is unseen and " " in str(content) else set()


@pytest.mark.parametrize("skill", sorted(HELD_OUT))
def test_held_out_questions_are_never_trained_on(skill: str, made: list[Conversation]) -> None:
    trained = {turn.user for conversation in made for turn in conversation.turns}
    asked = held_out(skill, 30)
    assert asked == held_out(skill, 30)
    assert not trained & {conversation.turns[0].user for conversation in asked}


def test_home_replies_prefer_the_slots_that_are_there() -> None:
    rng = random.Random(2)
    lights = Command("turn off the kitchen lights", "iot_hue_lightoff", {"house_place": "kitchen"})
    assert "the kitchen lights are off" in str(reply(rng, lights))
    assert "the lights are off" in str(reply(rng, Command("lights off", "iot_hue_lightoff", {})))
    assert reply(rng, Command("x", "no_such_intent", {})) is None
