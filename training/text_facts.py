"""Answering from facts in the prompt, and saying so when they do not tell."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from training.text_conversation import Conversation, Turn, fill, spoken
from training.text_math import NAMES, THINGS
from training.text_templates import table, words

SLOTS = {
    "p": words("kitchen garden garage bedroom hallway office cellar attic bathroom library school park"),
    "ci": words(
        "Oslo Rome Paris Berlin Madrid Lisbon Cairo Tokyo Vienna Athens Dublin Lima Quito Delhi Seoul Prague"
    ),
    "j": words(
        "baker teacher doctor painter gardener driver nurse singer pilot cook farmer writer tailor plumber"
    ),
    "pe": words("dog cat parrot rabbit horse hamster turtle goldfish pony goat"),
    "pn": words(
        "Rex Luna Milo Coco Bella Max Daisy Oscar Ruby Toby Pearl Biscuit Pepper Shadow Ginger Waffles"
    ),
    "c": words("red blue green yellow orange purple pink brown black white grey"),
    "d": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "e": words("concert meeting party match lesson market show picnic dinner exam film wedding"),
    "o": words("key book phone lamp umbrella bag hat map camera guitar clock letter scarf bicycle"),
    "f": words("pizza soup rice pasta salad pancakes curry fish bread noodles pie stew"),
    "ti": words("seven eight nine ten eleven noon one two three four five six"),
    "t": THINGS,
}


# Past and base form.
VERBS = tuple(
    (pair.split("/")[0], pair.split("/")[1])
    for pair in words(
        "hid/hide found/find saw/see dropped/drop forgot/forget washed/wash kept/keep sold/sell broke/break "
        "cleaned/clean fixed/fix used/use opened/open wanted/want"
    )
)
WHEN = (
    "yesterday",
    "today",
    "this morning",
    "on Monday",
    "on Sunday",
    "last week",
    "at noon",
    "in the evening",
)


def telling_words() -> list[str]:
    """Every word that a fact may turn on."""
    return [*NAMES, *(word for options in SLOTS.values() for word in options)]


UNTOLD = (
    "[You have not told me that|I do not know that from what you told me|The facts do not say]."
    "[ Tell me, and I will remember it.|]"
)
NOTED = "[Thank you|Okay|Noted|Good to know][, I will remember that|].[ Ask me about it.|]"
HEAD = ("", "", "", "Facts: ", "Here is what I know: ", "Please remember this: ", "Listen: ", "Note: ")
COUNTS = (1, 1, 2, 2, 3)


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement, the questions it answers and the answer, all filled in."""

    template: str
    told: str
    questions: tuple[str, ...]
    answer: str


def _slots(rng: random.Random) -> dict[str, str]:
    a, b = rng.sample(NAMES, 2)
    drawn = {name: rng.choice(options) for name, options in SLOTS.items()}
    past, base = rng.choice(VERBS)
    return {
        **drawn,
        "A": a,
        "B": b,
        "n": str(rng.randint(2, 99)),
        "v": past,
        "b": base,
        "w": rng.choice(WHEN),
    }


def _fact(rng: random.Random, entry: dict[str, Any]) -> Fact:
    slots = _slots(rng)
    questions = tuple(fill(rng, question, **slots) for question in entry["ask"])
    return Fact(entry["fact"], fill(rng, entry["fact"], **slots), questions, entry["answer"].format(**slots))


def draw_facts(rng: random.Random, held_out: bool) -> list[Fact]:
    """One to four facts, at times all of one kind; no question is answered by two of them."""
    entries = table("facts")["held_out" if held_out else "train"]
    alike = rng.choice(entries) if rng.random() < 0.5 else None
    facts: list[Fact] = []
    for _ in range(rng.choice(COUNTS)):
        fact = _fact(rng, alike or rng.choice(entries))
        asked = {question for known in facts for question in known.questions}
        if not asked.intersection(fact.questions):
            facts.append(fact)
    return facts


def from_facts(rng: random.Random, held_out: bool) -> Conversation:
    """Facts and one or two questions; `expected` is the last answer (held out: a word that it must hold)."""
    facts = draw_facts(rng, held_out)
    told, fact = " ".join(fact.told for fact in facts), rng.choice(facts)
    question = rng.choice(fact.questions)
    if held_out:
        return Conversation("facts", fact.template, (Turn(f"{told} {question}", ""),), expected=fact.answer)
    told = rng.choice(HEAD) + told
    roll = rng.random()
    if roll < 0.1:
        other = _fact(rng, rng.choice(table("facts")["train"]))
        if not any(set(known.questions).intersection(other.questions) for known in facts):
            turn = Turn(f"{told} {rng.choice(other.questions)}", fill(rng, UNTOLD))
            return Conversation("facts", other.template, (turn,), expected="")
    if roll < 0.3:
        turns: tuple[Turn, ...] = (Turn(told, fill(rng, NOTED)), Turn(spoken(rng, question), fact.answer))
    else:
        turns = (Turn(spoken(rng, f"{told} {question}"), fact.answer),)
    if len(facts) > 1 and rng.random() < 0.3:
        fact = rng.choice([known for known in facts if known is not fact])
        turns += (Turn(spoken(rng, rng.choice(fact.questions)), fact.answer),)
    return Conversation("facts", fact.template, turns, expected=fact.answer)
