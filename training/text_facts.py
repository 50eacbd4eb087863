"""Answering from facts in the prompt, and saying so when they do not tell."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from training.text_conversation import Conversation, Turn, fill, spoken
from training.text_math import NAMES, THINGS
from training.text_templates import table, words

SLOTS = {
    "p": words(
        "kitchen garden garage bedroom hallway office cellar attic bathroom library school park shop barn "
        "museum station tower harbour market hotel"
    ),
    "ci": words(
        "Oslo Rome Paris Berlin Madrid Lisbon Cairo Tokyo Vienna Athens Dublin Lima Quito Delhi Seoul Prague "
        "London Boston Milan Geneva Sydney Havana"
    ),
    "j": words(
        "baker teacher doctor painter gardener driver nurse singer pilot cook farmer writer tailor plumber "
        "waiter dancer judge sailor lawyer chemist"
    ),
    "pe": words("dog cat parrot rabbit horse hamster turtle goldfish pony goat duck sheep mouse"),
    "pn": words(
        "Rex Luna Milo Coco Bella Max Daisy Oscar Ruby Toby Pearl Biscuit Pepper Shadow Ginger Waffles "
        "Rusty Misty Bruno Felix Honey Lucky"
    ),
    "c": words("red blue green yellow orange purple pink brown black white grey golden silver"),
    "d": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "e": words(
        "concert meeting party match lesson market show picnic dinner exam film wedding race visit fair play"
    ),
    "o": words(
        "key book phone lamp umbrella bag hat map camera guitar clock letter scarf bicycle cup knife chair "
        "ticket wallet radio ladder mirror basket blanket ring"
    ),
    "f": words(
        "pizza soup rice pasta salad pancakes curry fish bread noodles pie stew cake cheese beans eggs apples"
    ),
    "ti": words("seven eight nine ten eleven noon one two three four five six"),
    "k": words("number code colour room word team song prize seat grade name gift size wish plan game"),
    "t": THINGS,
}
ONSETS, VOWELS, ENDS = words("b d f g k l m n p r s t v z br dr kr st tr sh"), "aeiou", words("l n r s x k m")


# Past and base form.
VERBS = tuple(
    (pair.split("/")[0], pair.split("/")[1])
    for pair in words(
        "hid/hide found/find saw/see dropped/drop forgot/forget washed/wash kept/keep sold/sell broke/break "
        "cleaned/clean fixed/fix used/use opened/open wanted/want bought/buy brought/bring carried/carry "
        "caught/catch drew/draw filled/fill held/hold lent/lend liked/like missed/miss needed/need "
        "ordered/order packed/pack picked/pick pulled/pull pushed/push returned/return sent/send "
        "showed/show stole/steal threw/throw touched/touch tried/try wrapped/wrap ate/eat built/build"
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
    known = [*NAMES, *(word for options in SLOTS.values() for word in options)]
    return [*known, *(word.capitalize() for word in known if word.islower())]


UNTOLD = (
    "[You have not told me that|I do not know that from what you told me|The facts do not say]."
    "[ Tell me, and I will remember it.|]"
)
NOTED = "[Thank you|Okay|Noted|Good to know][, I will remember that|].[ Ask me about it.|]"
HEAD = ("", "", "", "Facts: ", "Here is what I know: ", "Please remember this: ", "Listen: ", "Note: ")
# How many facts a held-out prompt tells; training is asked to find one among more.
COUNTS = (1, 1, 2, 2, 3)
TRAIN_COUNTS = (1, 2, 2, 3, 3, 4)


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement, and the questions it answers with their answers, all filled in."""

    template: str
    told: str
    answers: tuple[tuple[str, str], ...]

    @property
    def questions(self) -> set[str]:
        return {question for question, _ in self.answers}


def made_up(rng: random.Random) -> str:
    """A word that is none, such as `brimol`: nothing but the prompt can tell it."""
    syllables = (rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2))))
    return "".join(syllables) + (rng.choice(ENDS) if rng.random() < 0.6 else "")


def anything(rng: random.Random) -> str:
    """Any word: of the lists, made up, or a number."""
    roll = rng.random()
    if roll < 0.2:
        return made_up(rng)
    if roll < 0.4:
        return str(rng.randint(2, 999))
    word = str(rng.choice(SLOTS[rng.choice(list(SLOTS))]))
    return f"{rng.choice(SLOTS['c'])} {word}" if roll < 0.5 else word


def _names(rng: random.Random, held_out: bool) -> list[str]:
    return [
        made_up(rng).capitalize() if rng.random() < 0.2 and not held_out else name
        for name in rng.sample(NAMES, 2)
    ]


def _slots(rng: random.Random, held_out: bool) -> dict[str, str]:
    a, b = _names(rng, held_out)
    drawn: dict[str, str] = {name: rng.choice(options) for name, options in SLOTS.items()}
    past, base = rng.choice(VERBS)
    if not held_out and rng.random() < 0.35:
        base = made_up(rng)
        past = base + ("ed" if base[-1] not in VOWELS else "d")
    when, any_word = rng.choice(WHEN), anything(rng)
    other_day = rng.choice([day for day in SLOTS["d"] if day != drawn["d"]])
    return {
        **drawn,
        "A": a,
        "B": b,
        "C": drawn["c"].capitalize(),
        "F": drawn["f"].capitalize(),
        "d2": other_day,
        "n": str(rng.randint(2, 99)),
        "q": any_word,
        "Q": any_word[:1].upper() + any_word[1:],
        "v": past,
        "b": base,
        "w": when,
        "W": when[:1].upper() + when[1:],
    }


def _fact(rng: random.Random, entry: dict[str, Any], held_out: bool) -> Fact:
    slots = _slots(rng, held_out)
    told = fill(rng, entry["fact"], **slots)
    if held_out:
        answers = [(fill(rng, ask, **slots), entry["answer"].format(**slots)) for ask in entry["ask"]]
    else:
        pairs = [ask.split(" > ") for ask in entry["ask"]]
        answers = [(fill(rng, ask, **slots), answer.format(**slots)) for ask, answer in pairs]
    return Fact(entry["fact"], told, tuple(answers))


def draw_facts(rng: random.Random, held_out: bool) -> list[Fact]:
    """One to four facts, at times all of one kind; no question is answered by two of them."""
    entries = table("facts")["held_out" if held_out else "train"]
    alike = rng.choice(entries) if rng.random() < 0.5 else None
    facts: list[Fact] = []
    for _ in range(rng.choice(COUNTS if held_out else TRAIN_COUNTS)):
        fact = _fact(rng, alike or rng.choice(entries), held_out)
        if not any(known.questions & fact.questions for known in facts):
            facts.append(fact)
    return facts


LISTS = ("The numbers are", "Here is a list", "Remember these", "Note", "The codes are", "Who has what")
LOOK_UP = ("{x}?", "{x}?", "what does {x} have?", "and {x}?", "what about {x}?", "tell me {x}.")


def look_up(rng: random.Random) -> Conversation:
    """A list of pairs and one question after another: nothing but the list can tell."""
    count = rng.randint(3, 7)
    names = [made_up(rng).capitalize() if rng.random() < 0.3 else name for name in rng.sample(NAMES, count)]
    if rng.random() < 0.4:
        names = rng.sample(SLOTS["o"], count)
    values = [anything(rng) for _ in names]
    mark, stop = rng.choice(((": ", ", "), (" ", ", "), (" has ", ". "), (" is ", ". "), (" = ", "; ")))
    listed = stop.join(name + mark + value for name, value in zip(names, values, strict=True))
    pairs = list(zip(names, values, strict=True))
    rng.shuffle(pairs)
    said = [
        _told(fill(rng, rng.choice(LOOK_UP), x=name), f"{value[:1].upper()}{value[1:]}.")
        for name, value in pairs
    ]
    told = f"{rng.choice(LISTS)}: {listed}."
    first = _told(f"{told} {said[0].user}", said[0].assistant)
    return Conversation("look-up", "look-up", (first, *said[1:]))


def repeat(rng: random.Random) -> Conversation:
    """Words without sense, said again: the drill under every copy."""
    said = any_words(rng, rng.randint(4, 24))
    asked = fill(rng, "[repeat|say|write|repeat after me|say again]: {x}", x=said)
    return Conversation("repeat", "repeat", (Turn(asked, said),), expected=said)


def any_words(rng: random.Random, count: int) -> str:
    """Words, numbers and names in a row."""
    return " ".join(anything(rng) if rng.random() < 0.5 else rng.choice(NAMES) for _ in range(count))


def _told(question: str, answer: str) -> Turn:
    """All of the answer decides."""
    return Turn(question, answer, ((0, len(answer)),))


def from_facts(rng: random.Random, held_out: bool) -> Conversation:
    """Facts and one or more questions; `expected` is the last answer (held out: a word that it must hold)."""
    facts = draw_facts(rng, held_out)
    told, fact = " ".join(fact.told for fact in facts), rng.choice(facts)
    question, answer = rng.choice(fact.answers)
    if held_out:
        return Conversation("facts", fact.template, (Turn(f"{told} {question}", ""),), expected=answer)
    told = rng.choice(HEAD) + told
    roll = rng.random()
    if roll < 0.04:
        other = _fact(rng, rng.choice(table("facts")["train"]), False)
        if not any(known.questions & other.questions for known in facts):
            turn = Turn(f"{told} {rng.choice(other.answers)[0]}", fill(rng, UNTOLD))
            return Conversation("facts", other.template, (turn,), expected="")
    if roll < 0.25:
        turns: tuple[Turn, ...] = (Turn(told, fill(rng, NOTED)), _told(spoken(rng, question), answer))
    else:
        turns = (_told(spoken(rng, f"{told} {question}"), answer),)
    while rng.random() < 0.75 and len(turns) < 8:
        question, answer = rng.choice(rng.choice(facts).answers)
        turns += (_told(spoken(rng, question), answer),)
    return Conversation("facts", fact.template, turns, expected=answer)
