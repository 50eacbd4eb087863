"""What `benchmarks.speculation` asks: requests with their history and, where the prompt is a changed form of
an earlier one, the answer to that one as the given draft."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.messages import Message
from training import text_coffee, text_math, text_talk
from training.data import data_dir, records
from training.text_conversation import Conversation

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "black", "white")
SHAPES = ("star", "house", "boat", "tree", "circle", "square", "heart", "moon")
PLACES = ("above", "below", "beside", "next to")
CHANGING = (
    "Could you draw me a {a} {x} {p} a {b} {y}?",
    "Please draw a big {a} {x} {p} a small {b} {y}.",
    "Hi, can I get a {a} {x} and a {b} {y}?",
    "Please tell me about the {a} {x} on the water, and draw it for me.",
    "{n} has {i} shells and finds {j} more. How many shells does {n} have?",
)

Ask = Callable[[list[Message]], str]


@dataclass(frozen=True, slots=True)
class Question:
    """One request. before: the answer to the prompt as it stood, "" where there is none."""

    history: tuple[Message, ...]
    prompt: str
    before: str = ""


def talks(made: Iterator[Conversation], ask: Ask) -> Iterator[Question]:
    """The users' turns of conversations, each with the model's own answers so far."""
    for conversation in made:
        history: list[Message] = []
        for turn in conversation.turns:
            yield Question(tuple(history), turn.user)
            history += [Message("user", turn.user)]
            history += [Message("assistant", ask(history) or ".")]


def _dialogue(seed: int, ask: Ask) -> Iterator[Question]:
    rng = random.Random(seed)

    def conversations() -> Iterator[Conversation]:
        while True:
            yield text_coffee.order(rng, held_out=True)
            yield text_talk.chat(rng, held_out=True)
            yield text_talk.tell(rng, held_out=True, draw=True)

    return talks(conversations(), ask)


def _word_problems(seed: int, ask: Ask) -> Iterator[Question]:
    rng = random.Random(seed)
    return talks((text_math.word_problem(rng, held_out=True) for _ in itertools.count()), ask)


def _change_one_thing(seed: int, ask: Ask) -> Iterator[Question]:
    """A prompt is answered as it stands, then one word of it changes: the first answer is the draft."""
    rng = random.Random(seed)
    while True:
        template = rng.choice(CHANGING)
        (a, c), (x, y) = rng.sample(COLOURS, 2), rng.sample(SHAPES, 2)
        n, m = rng.sample(("Sara", "Ben", "Anna", "Tom", "Maya"), 2)
        slots = {"x": x, "y": y, "p": rng.choice(PLACES), "b": rng.choice(COLOURS)}
        slots |= {"i": str(rng.randint(2, 40)), "j": str(rng.randint(2, 40))}
        before = template.format(a=a, n=n, **slots)
        yield Question((), template.format(a=c, n=m, **slots), ask([Message("user", before)]))


def _human_eval(seed: int, ask: Ask) -> Iterator[Question]:
    return _shuffled(seed, [record["prompt"] for record in records(_prompts() / "humaneval.jsonl")])


def _spec_bench(seed: int, ask: Ask) -> Iterator[Question]:
    kept = [record["turns"][0] for record in records(_prompts() / "specbench_clean.jsonl")]
    return _shuffled(seed, [prompt for prompt in kept if len(prompt) < 2_000])


def _shuffled(seed: int, prompts: list[str]) -> Iterator[Question]:
    random.Random(seed).shuffle(prompts)
    return (Question((), prompt) for prompt in prompts)


def _prompts() -> Path:
    folder = data_dir()
    assert folder is not None
    return folder / "prompts"


def workloads() -> dict[str, Callable[[int, Ask], Iterator[Question]]]:
    """By name; the published prompt sets only where the data folder is."""
    own: dict[str, Callable[[int, Ask], Iterator[Question]]] = {
        "dialogue": _dialogue,
        "word problems": _word_problems,
        "change one thing": _change_one_thing,
    }
    if data_dir() is None:
        return own
    return own | {"HumanEval": _human_eval, "Spec-Bench": _spec_bench}
