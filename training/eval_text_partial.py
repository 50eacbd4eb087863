"""Word problems that arrive sentence by sentence: does thinking ahead cost answers, and what is done when."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from pipelines.messages import Message
from pipelines.simultaneous.layout import ACTIONS, Note, more, noted, opening, parse
from pipelines.simultaneous.segments import sentences
from training.text_answers import Answer, Answerer
from training.text_conversation import Conversation
from training.text_figures import Figure, interval
from training.text_math import Problem, draw_problem, parsed_answer, reasoning
from training.text_partial import turns_of

SEED = 41
LONGEST_NOTE = 60


@dataclass(slots=True)
class _Arriving:
    """A problem, its pieces and the notes taken on them so far."""

    problem: Problem
    pieces: list[str]
    notes: list[Note] = field(default_factory=list)

    def conversation(self, piece: Message) -> Conversation:
        messages = (*noted(self.notes), piece)
        return Conversation("partial", "partial", turns_of(messages), opening(())[0].content)

    def right(self, answer: Answer) -> bool:
        return answer.ended and parsed_answer(answer.text) == self.problem.steps[-1].result


def problems(count: int, draw: int = 0) -> list[Problem]:
    """`count` word problems of held-out templates, another lot for every `draw`."""
    rng = random.Random(f"partial/{SEED + draw}")
    return [draw_problem(rng, True) for _ in range(count)]


def whole(answerer: Answerer, asked: list[Problem]) -> list[bool]:
    """Which of the problems are solved where the prompt comes whole."""
    prompts = [
        Conversation("math", each.template, turns_of((Message("user", each.question),))) for each in asked
    ]
    answers = answerer.answers(prompts)
    return [
        answer.ended and parsed_answer(answer.text) == each.steps[-1].result
        for each, answer in zip(asked, answers, strict=True)
    ]


def in_pieces(answerer: Answerer, asked: list[Problem]) -> tuple[list[bool], list[Counter[str]], list[int]]:
    """Which are solved after thinking ahead; the actions by position; the tokens of the last answers."""
    arriving = [_Arriving(each, sentences(each.question)) for each in asked]
    actions: list[Counter[str]] = []
    for position in range(max(len(each.pieces) for each in arriving) - 1):
        waiting = [each for each in arriving if position < len(each.pieces) - 1]
        asks = [each.conversation(Message("user", more(each.pieces[position]))) for each in waiting]
        replies = answerer.answers(asks, LONGEST_NOTE)
        actions.append(Counter(parse(reply.text)[0] for reply in replies))
        for each, reply in zip(waiting, replies, strict=True):
            each.notes.append(Note(each.pieces[position], reply.text.strip()))
    answers = answerer.answers(
        [each.conversation(Message("user", each.pieces[-1].strip())) for each in arriving]
    )
    lengths = [len(answerer.encoder.text(answer.text)) + 1 for answer in answers]
    return [each.right(answer) for each, answer in zip(arriving, answers, strict=True)], actions, lengths


def measure(answerer: Answerer, count: int, draw: int) -> list[Figure]:
    """The figures on `count` problems."""
    asked = problems(count, draw)
    before = whole(answerer, asked)
    after, actions, lengths = in_pieces(answerer, asked)
    full = [len(answerer.encoder.text(reasoning(each.steps))) + 1 for each in asked]
    figures = [
        interval("word problems, unseen templates", [float(each) for each in before]),
        interval("the same in pieces, thinking ahead", [float(each) for each in after]),
        interval("pieces minus whole", [float(b) - float(a) for a, b in zip(before, after, strict=True)]),
        interval("tokens left to say after the last piece", [float(each) for each in lengths]),
        interval("tokens of a whole solution", [float(each) for each in full]),
    ]
    for position, seen in enumerate(actions, start=1):
        for action in ACTIONS:
            share = [1.0] * seen[action] + [0.0] * (seen.total() - seen[action])
            figures.append(interval(f"piece {position}: {action}", share))
    return figures
