"""Small talk, and telling about things, with a picture where one is wished for."""

from __future__ import annotations

import random

from training.text_conversation import Conversation, Turn, article, fill, spoken
from training.text_draw import COLOURS, reserved
from training.text_math import NAMES
from training.text_templates import table

FIRST = (
    "[Here is|Imagine|Picture|Look at|I see] {x}[, {m}|].",
    "There is {x}[, {m}|].",
    "{x} is a [lovely|fine|pretty|happy] sight[, {m}|].",
)


def chat(rng: random.Random, held_out: bool) -> Conversation:
    """One exchange of small talk."""
    if held_out:
        template = rng.choice(table("talk")["chat_held_out"])
        return Conversation("chat", template, (Turn(fill(rng, template), ""),), expected="")
    colour = rng.choice(COLOURS)
    mood = rng.choice(table("topics")["moods"][colour])
    slots = {"A": rng.choice(NAMES), "c": colour, "C": colour.capitalize(), "m": mood}
    entry = rng.choice(table("talk")["chat"])
    turn = Turn(spoken(rng, fill(rng, entry["ask"], **slots)), fill(rng, entry["answer"], **slots))
    return Conversation("chat", entry["ask"], (turn,), expected="")


def topic(rng: random.Random, held_out: bool) -> Conversation:
    """Two or three sentences about an everyday thing, in words alone."""
    name = rng.choice(list(table("topics")["topics"]))
    sentences = table("topics")["topics"][name]
    kept = sorted(rng.sample(range(1, len(sentences)), min(len(sentences) - 1, rng.choice((1, 2, 2)))))
    answer = " ".join([sentences[0], *(sentences[index] for index in kept)])
    template = rng.choice(table("talk")["tell_held_out" if held_out else "tell"])
    question = fill(rng, template, x=name)
    turn = Turn(question if held_out else spoken(rng, question), answer)
    return Conversation("topic", template, (turn,), expected="")


def subject(rng: random.Random) -> tuple[str, str]:
    """A thing to tell about, with its article, its colour and often its place; and its noun."""
    noun, places = rng.choice(list(table("topics")["looks"])), table("topics")["places"]
    size = rng.choice(("", "", "", "small ", "big "))
    place = f" {rng.choice(places[noun])}" if noun in places and rng.random() < 0.65 else ""
    return f"{article(f'{size}{rng.choice(COLOURS)} {noun}')}{place}", noun


def described(rng: random.Random, wanted: str, noun: str) -> str:
    """Two or three sentences on `wanted`, which names its colour."""
    colour = next(word for word in wanted.split() if word in COLOURS)
    first = fill(rng, rng.choice(FIRST), x=wanted, m=rng.choice(table("topics")["moods"][colour]))
    return " ".join([first, *rng.sample(table("topics")["looks"][noun], rng.choice((1, 2, 2)))])


def definite(rng: random.Random, wanted: str) -> str:
    """At times `the red star` where the caption has `a red star`."""
    first, rest = wanted.split(" ", 1)
    return f"the {rest}" if first in ("a", "an") and rng.random() < 0.4 else wanted


def tell(rng: random.Random, held_out: bool, draw: bool) -> Conversation:
    """A thing described and, with `draw`, drawn. The demo's question is never made."""
    names = ("tell_draw", "tell_draw_held_out") if draw else ("describe", "tell_held_out")
    template = rng.choice(table("talk")[names[int(held_out)]])
    while True:
        wanted, noun = subject(rng)
        question = fill(rng, template, x=definite(rng, wanted))
        if not reserved(question):
            break
    answer = described(rng, wanted, noun) + (f" <draw>{wanted}</draw>" if draw else "")
    turn = Turn(question if held_out else spoken(rng, question), answer)
    return Conversation("tell-draw" if draw else "tell", template, (turn,), expected=wanted if draw else "")
