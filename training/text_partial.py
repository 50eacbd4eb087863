"""Prompts that arrive piece by piece: infer, wait or answer, in the layout that is served.

The layout and the segmenters are those of `pipelines.simultaneous`; what to reply follows from the problem: a
step of a sum is inferred as soon as its numbers and its operation are told, all else is waited for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.messages import Message
from pipelines.simultaneous.layout import ANSWER, INFER, WAIT, Note, noted, opening, reply
from pipelines.simultaneous.segments import CHUNK_WORDS, clauses, segmenter, sentences
from training.text_conversation import Conversation, Turn
from training.text_facts import from_facts
from training.text_math import Problem, Step, draw_problem, reasoning

# Told by nobody's operation yet: both a sum and a comparison may follow.
_OPEN = re.compile(r"has \d+ \w+(?:\.| and) \w+ has \d+(?: \w+)?[.,]$")
BEFORE = (
    "Hello there!",
    "Good morning to you!",
    "Here is a little problem.",
    "Please solve this for me.",
    "I have a question for you.",
    "Can you help me with something?",
    "It was a sunny day.",
    "Listen to this one.",
)
AFTER = (
    "Please tell me quickly.",
    "Thank you very much.",
    "Just tell me the answer.",
    "I need to know it now.",
)


@dataclass(frozen=True, slots=True)
class Pieced:
    """A prompt in pieces: the notes on all but the last, the last one and its answer."""

    notes: tuple[Note, ...]
    last: str
    answer: str

    def turns(self) -> tuple[Turn, ...]:
        return turns_of(
            (*noted(self.notes), Message("user", self.last.strip()), Message("assistant", self.answer))
        )


def turns_of(messages: tuple[Message, ...]) -> tuple[Turn, ...]:
    """Alternating messages of user and assistant as turns; an open last one has an empty answer."""
    answers = [message.content for message in messages[1::2]] + [""]
    return tuple(Turn(asked.content, said) for asked, said in zip(messages[::2], answers, strict=False))


def system() -> str:
    """The system message of a conversation without one of its own."""
    return opening(())[0].content


def known_steps(steps: tuple[Step, ...], told: str) -> int:
    """How many of `steps` follow from `told`, a prompt's beginning that ends with a piece."""
    told = told.strip()
    if told[-1:] not in ".,;:!" or "costs" in told:
        return 0
    numbers = [int(number) for number in re.findall(r"\d+", told)]
    needed = [steps[0].left, *(step.right for step in steps)]
    for count in range(len(steps), 0, -1):
        wanted = needed[: count + 1]
        if all(numbers.count(number) >= wanted.count(number) for number in wanted):
            return 0 if count == 1 and len(numbers) == 2 and _OPEN.search(told) else count
    return 0


def _spelled(steps: tuple[Step, ...], known: int, upto: int) -> str:
    told = [("Then " if index else "") + steps[index].told() for index in range(known, upto)]
    return " ".join(told)


def pieced_problem(problem: Problem, pieces: list[str]) -> Pieced:
    """The replies to a word problem in `pieces`; the question may come before the last one."""
    steps, known, notes, told, asked = problem.steps, 0, [], "", False
    for piece in pieces[:-1]:
        told += piece
        now = max(known, known_steps(steps, told))
        if "?" in piece:
            said = reply(ANSWER, f"{_spelled(steps, known, len(steps))} {_final(steps)}")
            known, asked = len(steps), True
        elif now > known and not asked:
            said = reply(INFER, _spelled(steps, known, now))
            known = now
        else:
            said = reply(WAIT)
        notes.append(Note(piece, said))
    rest = _spelled(steps, known, len(steps))
    answer = reasoning(steps) if known == 0 else f"{rest} {_final(steps)}".strip()
    return Pieced(tuple(notes), pieces[-1], answer)


def _final(steps: tuple[Step, ...]) -> str:
    return f"The answer is {steps[-1].result}."


def waited(question: str, answer: str, cut: Callable[[str], list[str]]) -> Pieced:
    """Any other prompt: nothing follows before its question."""
    pieces, notes, asked = cut(question), [], False
    for piece in pieces[:-1]:
        if "?" in piece and not asked:
            notes.append(Note(piece, reply(ANSWER, answer)))
            asked = True
        else:
            notes.append(Note(piece, reply(WAIT)))
    return Pieced(tuple(notes), pieces[-1], answer)


def cutter(rng: random.Random) -> Callable[[str], list[str]]:
    """Sentences mostly; clauses and chunks of words at times."""
    roll = rng.random()
    if roll < 0.65:
        return sentences
    return clauses if roll < 0.85 else segmenter("chunk", CHUNK_WORDS)


def _dressed(rng: random.Random, text: str) -> str:
    before = f"{rng.choice(BEFORE)} " if rng.random() < 0.25 else ""
    after = f" {rng.choice(AFTER)}" if rng.random() < 0.15 else ""
    return before + text + after


def _unit(rng: random.Random, other: Callable[[random.Random], Conversation]) -> tuple[Turn, ...]:
    roll = rng.random()
    if roll < 0.72:
        problem = draw_problem(rng, False)
        text = _dressed(rng, problem.question)
        return pieced_problem(problem, cutter(rng)(text)).turns()
    made = from_facts(rng, False) if roll < 0.9 else other(rng)
    first = made.turns[0]
    return waited(_dressed(rng, first.user), first.assistant, cutter(rng)).turns()


def partial(rng: random.Random, other: Callable[[random.Random], Conversation]) -> Conversation:
    """One or two prompts in pieces, at times one that came whole; `other` draws those of other skills."""
    turns: tuple[Turn, ...] = ()
    for _ in range(rng.choice((1, 2, 2))):
        if rng.random() < 0.12:
            turns += (other(rng).turns[0],)
        turns += _unit(rng, other)
    return Conversation("partial", "partial", turns, system())
