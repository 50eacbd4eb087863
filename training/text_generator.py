"""The endless stream of conversations that the text model learns from, and the held-out ones that judge it.

Held-out conversations use templates that training never sees, not only other numbers and names.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from training import (
    text_coffee,
    text_draw,
    text_facts,
    text_home,
    text_knowledge,
    text_math,
    text_orders,
    text_partial,
    text_rewrite,
    text_talk,
)
from training.data import records
from training.data_split import split_of
from training.text_conversation import Conversation
from training.text_home import Command
from training.text_orders import Dialogue

Maker = Callable[[random.Random], Conversation]

# Relative frequency of each skill while training.
WEIGHTS = {
    "math": 40, "sum": 4, "facts": 44, "look-up": 4, "repeat": 2, "rewrite": 72, "draw": 36, "no-draw": 36,
    "redraw": 3, "tell-draw": 14, "tell": 1, "topic": 4, "coffee": 14, "menu": 3, "chat": 10, "known": 2,
    "unknown": 2, "verse": 1, "story": 1, "home": 14, "order": 10, "partial": 48,
}  # fmt: skip
# Share of the long talks, which reach about 500 tokens.
LONG = 0.04
SYSTEMS = (
    "You are Upbeat, a friendly little model.",
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are Upbeat.",
)


def commands(folder: Path | None) -> list[Command]:
    """The training split of the open intent sets, where a reply of ours exists."""
    if folder is None:
        return []
    found = []
    for name in ("clinc150", "nlu_eval_home", "snips"):
        for record in records(folder / "nlu" / f"{name}.jsonl"):
            slots = {key: str(value).strip() for key, value in (record.get("s") or {}).items()}
            command = Command(record["t"].strip(), record["i"], slots)
            kept = split_of(f"{name}/{record['t']}") == "train" and record.get("split", "train") == "train"
            if kept and text_home.reply(random.Random(0), command) is not None:
                found.append(command)
    return found


def orders(folder: Path | None) -> list[Dialogue]:
    """The training dialogues of Taskmaster-4 that end in an order."""
    if folder is None:
        return []
    found = text_orders.dialogues(folder / "lm" / "tm4_train.jsonl")
    return [dialogue for dialogue in found if split_of(dialogue.key) == "train"]


class Generator:
    """Draws training conversations: by `WEIGHTS`, or `even` over the skills.

    Holds the intent sets; every draw takes its own random source.
    """

    def __init__(self, folder: Path | None, even: bool = False) -> None:
        home, ordered = commands(folder), orders(folder)
        makers: dict[str, Maker] = {
            "math": partial(text_math.word_problem, held_out=False),
            "sum": text_math.plain_sum,
            "draw": partial(text_draw.ask_to_draw, held_out=False),
            "no-draw": partial(text_draw.talk_of_shapes, held_out=False),
            "redraw": text_draw.redraw,
            "tell-draw": partial(text_talk.tell, held_out=False, draw=True),
            "tell": partial(text_talk.tell, held_out=False, draw=False),
            "topic": partial(text_talk.topic, held_out=False),
            "coffee": partial(text_coffee.order, held_out=False),
            "menu": text_coffee.menu,
            "facts": partial(text_facts.from_facts, held_out=False),
            "look-up": text_facts.look_up,
            "repeat": text_facts.repeat,
            "rewrite": partial(text_rewrite.rewrite, held_out=False),
            "chat": partial(text_talk.chat, held_out=False),
            "known": text_knowledge.known,
            "unknown": text_knowledge.unknown,
            "verse": text_knowledge.verse,
            "story": text_knowledge.story,
            "partial": partial(text_partial.partial, other=self._short),
        }
        if home:
            makers["home"] = partial(text_home.home, commands=home)
        if ordered:
            makers["order"] = partial(text_orders.order_said_back, known=ordered)
        self._makers = list(makers.values())
        self._weights = [1 if even else WEIGHTS[name] for name in makers]

    def one(self, rng: random.Random) -> Conversation:
        """One conversation of one skill; those that training must not see are drawn again."""
        while True:
            made = rng.choices(self._makers, self._weights)[0](rng)
            if not any(text_draw.reserved(turn.user) for turn in made.turns):
                return made

    def _short(self, rng: random.Random) -> Conversation:
        """A conversation of one turn and no system message."""
        while len((made := self.one_plain(rng)).turns) > 1:
            continue
        return made

    def mixed(self, rng: random.Random) -> Conversation:
        """What the model trains on: one skill, or several in a row as in a longer talk."""
        made = self.one(rng)
        turns, system = list(made.turns), made.system
        again = 0.0 if made.skill == "partial" else 0.9 if rng.random() < LONG else 0.2
        while rng.random() < again and len(turns) < 16:
            turns.extend(self.one_plain(rng).turns)
        if system is None and rng.random() < 0.06:
            system = rng.choice(SYSTEMS)
        return Conversation(made.skill, made.template, tuple(turns), system)

    def one_plain(self, rng: random.Random) -> Conversation:
        """One conversation without a system message, so that it can follow another."""
        while (made := self.one(rng)).system is not None:
            continue
        return made


def stream(folder: Path | None, seed: int, even: bool = False) -> Iterator[Conversation]:
    """Training conversations without end; equal for equal seeds, data and `even`."""
    generator, rng = Generator(folder, even), random.Random(seed)
    while True:
        yield generator.mixed(rng)


HELD_OUT_SEED: Final = 20_000_003
HELD_OUT: dict[str, Maker] = {
    "math": partial(text_math.word_problem, held_out=True),
    "facts": partial(text_facts.from_facts, held_out=True),
    "draw": partial(text_draw.ask_to_draw, held_out=True),
    "no-draw": partial(text_draw.talk_of_shapes, held_out=True),
    "tell-draw": partial(text_talk.tell, held_out=True, draw=True),
    "topic": partial(text_talk.topic, held_out=True),
    "chat": partial(text_talk.chat, held_out=True),
    "coffee": partial(text_coffee.order, held_out=True),
    "rewrite": partial(text_rewrite.rewrite, held_out=True),
}


def held_out(skill: str, count: int, seed: int = HELD_OUT_SEED) -> list[Conversation]:
    """`count` conversations of `skill` from its held-out templates."""
    rng = random.Random(f"{skill}/{seed}")
    return [HELD_OUT[skill](rng) for _ in range(count)]
