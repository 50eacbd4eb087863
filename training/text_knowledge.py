"""Plain questions that a newcomer asks first, a verse, a story, and saying so when Upbeat does not know."""

from __future__ import annotations

import random

from training.text_conversation import Conversation, Turn, fill, spoken
from training.text_math import NAMES
from training.text_templates import table

_OUTER = "|"


def _one_of(rng: random.Random, asks: str) -> str:
    """One of the questions in `asks`, which are parted by bars outside brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(asks):
        depth += (letter == "[") - (letter == "]")
        if letter == _OUTER and depth == 0:
            parts.append(asks[start:index])
            start = index + 1
    return rng.choice([*parts, asks[start:]])


def known(rng: random.Random) -> Conversation:
    """A question of general knowledge with its answer."""
    entry = rng.choice(table("knowledge")["known"])
    key = rng.choice(list(entry["pairs"]))
    question = fill(rng, _one_of(rng, entry["ask"]), k=key)
    answer = fill(rng, entry["answer"], k=key, v=entry["pairs"][key])
    return Conversation("known", entry["ask"], (Turn(spoken(rng, question), answer),))


def unknown(rng: random.Random) -> Conversation:
    """A question beyond the model: it says so kindly."""
    topic = rng.choice(table("knowledge")["unknown_topics"].split("|"))
    template = rng.choice(table("knowledge")["unknown_ask"])
    answer = rng.choice(table("knowledge")["unknown_answer"])
    verb = (
        "are"
        if topic.endswith("s") and topic not in ("chess", "politics", "economics", "quantum physics")
        else "is"
    )
    turn = Turn(
        spoken(rng, fill(rng, template, x=topic)), fill(rng, answer.replace("[is|are]", verb), x=topic)
    )
    return Conversation("unknown", template, (turn,))


def verse(rng: random.Random) -> Conversation:
    """A verse on a wish."""
    verses = table("knowledge")["verses"]
    name = rng.choice(list(verses["about"]))
    question = fill(rng, _one_of(rng, verses["ask"]), x=name)
    return Conversation("verse", verses["ask"], (Turn(spoken(rng, question), verses["about"][name]),))


def story(rng: random.Random) -> Conversation:
    """A story of three sentences."""
    stories = table("knowledge")["stories"]
    question = fill(rng, _one_of(rng, stories["ask"]))
    answer = rng.choice(stories["told"]).format(n=rng.choice(NAMES))
    return Conversation("story", stories["ask"], (Turn(spoken(rng, question), answer),))
