"""Word problems of one and two steps, reasoned aloud and ended by `The answer is N.`"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from training.text_conversation import Conversation, Turn, fill, spoken
from training.text_templates import table, words

NAMES = words(
    "Anna Ben Carla David Ella Farid Grace Hugo Ines Jonas Kofi Lena Maya Noah Olga Paul Rosa Sam Tara "
    "Umar Vera Wei Yusuf Zoe Amir Bella Clara Dina Emil Fiona Leo Mia Nina Omar Priya Ruth Tom Lucy Mark "
    "Jane John Mary Peter Sara "
)
THINGS = words(
    "apples books marbles stickers coins pencils cookies shells stamps cards flowers balloons eggs "
    "oranges cups stones beads toys tickets candles plums pears buttons ribbons keys muffins lemons "
    "postcards seeds hats photos "
)
BOXES = {
    "boxes": "box",
    "bags": "bag",
    "baskets": "basket",
    "shelves": "shelf",
    "jars": "jar",
    "trays": "tray",
    "drawers": "drawer",
    "packs": "pack",
    "crates": "crate",
    "bowls": "bowl",
}
SPOKEN_SIGN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
WRITTEN_SIGN = {"+": "+", "-": "-", "*": "x", "/": "/"}
KINDS = ("+", "+", "-", "-", "*", "*", "/", "++", "-+", "--", "*+", "*-")

_ANSWER = re.compile(r"[Tt]he answer is (-?\d+)")


@dataclass(frozen=True, slots=True)
class Step:
    """One operation and its result; every division is exact and no result is negative."""

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        if self.sign == "+":
            return self.left + self.right
        if self.sign == "-":
            return self.left - self.right
        return self.left * self.right if self.sign == "*" else self.left // self.right

    def told(self) -> str:
        return f"{self.left} {SPOKEN_SIGN[self.sign]} {self.right} is {self.result}."


def parsed_answer(text: str) -> int | None:
    """The number after the last `The answer is`, or None."""
    found = _ANSWER.findall(text)
    return int(found[-1]) if found else None


def draw_steps(rng: random.Random, kind: str) -> tuple[Step, ...]:
    """Steps for the signs of `kind`, numbers up to about 100."""
    top = 50 if rng.random() < 0.2 else 20
    a, b, c = rng.randint(1, top), rng.randint(1, top), rng.randint(1, 20)
    if kind[0] in "*/":
        a, b = rng.randint(2, 10), rng.randint(2, 10)
    rest = kind[1:]
    if kind[0] == "-":
        first = Step(a + b + (c if rest == "-" else 0), "-", b)
    else:
        first = Step(a * b if kind[0] == "/" else a, kind[0], b)
    if not rest:
        return (first,)
    return first, Step(first.result, rest, min(c, first.result) if rest == "-" else c)


def reasoning(steps: tuple[Step, ...]) -> str:
    """`3 plus 4 is 7. Then 7 minus 2 is 5. The answer is 5.`"""
    return " Then ".join(step.told() for step in steps) + f" The answer is {steps[-1].result}."


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem: its template, its text and the steps of its solution."""

    template: str
    question: str
    steps: tuple[Step, ...]


def draw_problem(rng: random.Random, held_out: bool) -> Problem:
    """One problem, every kind equally often."""
    templates = table("math")["held_out" if held_out else "train"]
    kind = rng.choice([kind for kind in KINDS if kind in templates])
    template = rng.choice(templates[kind])
    steps = draw_steps(rng, kind)
    people, boxes = rng.sample(NAMES, 3), rng.choice(list(BOXES))
    slots = {
        "t": rng.choice(THINGS),
        "n": boxes,
        "m": BOXES[boxes],
        "A": people[0],
        "B": people[1],
        "C": people[2],
    }
    numbers = {"x": steps[0].left, "y": steps[0].right, "z": steps[-1].right}
    return Problem(template, fill(rng, template, **slots, **numbers), steps)


def word_problem(rng: random.Random, held_out: bool) -> Conversation:
    """One problem; `expected` is the number as digits."""
    problem = draw_problem(rng, held_out)
    question = problem.question if held_out else spoken(rng, problem.question)
    turn = Turn(question, reasoning(problem.steps))
    return Conversation("math", problem.template, (turn,), expected=str(problem.steps[-1].result))


def plain_sum(rng: random.Random) -> Conversation:
    """`What is 12 plus 7?`, the drill under the word problems."""
    steps = draw_steps(rng, rng.choice("++--*/"))
    step = steps[0]
    sign = SPOKEN_SIGN[step.sign] if rng.random() < 0.66 else WRITTEN_SIGN[step.sign]
    template = "[what is|what's|how much is|calculate|work out|can you tell me] {x} {s} {y}?"
    question = fill(rng, template, x=step.left, s=sign, y=step.right)
    return Conversation(
        "sum", "sum", (Turn(spoken(rng, question), reasoning(steps)),), expected=str(step.result)
    )
