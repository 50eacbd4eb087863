"""Small talk, telling about things (with a picture where one is wished for), and changing the last answer."""

from __future__ import annotations

import random

from training.text_conversation import Conversation, Turn, article, fill, joined, spoken
from training.text_draw import COLOURS, reserved
from training.text_facts import made_up
from training.text_math import NAMES
from training.text_templates import table, words

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


def _listed(rng: random.Random) -> tuple[Turn, list[tuple[str, str]]]:
    """A short list as the answer, and pairs of a word in it and one that could take its place."""
    lists = table("talk")["lists"]
    name, count = rng.choice(list(lists)), rng.randint(2, 4)
    drawn = rng.sample(words(lists[name]), count + 1)
    number = {2: "two", 3: "three", 4: "four"}[count]
    asked = fill(rng, "[name|give me|list|tell me] {n} {k}[, please|].", n=number, k=name)
    return Turn(asked, fill(rng, "{x}.", x=joined(drawn[:-1]))), [(word, drawn[-1]) for word in drawn[:-1]]


def _dictated(rng: random.Random, shortest: int = 1) -> tuple[Turn, list[tuple[str, str]]]:
    """Sentences repeated, and pairs of a word in them and one that could take its place."""
    lists = table("talk")["lists"]
    templates = rng.sample(table("talk")["sentences"], rng.randint(shortest, 4))
    said, pairs = [], []
    for template in templates:
        a, b, other = rng.sample(NAMES, 3)
        city, new_city = rng.sample(words(lists["cities"]), 2)
        day, new_day = rng.sample(words(lists["days"]), 2)
        item, new_item = rng.sample(words("lamp clock guitar bicycle camera boat carpet mirror ladder"), 2)
        if rng.random() < 0.15:
            a, other = made_up(rng).capitalize(), made_up(rng).capitalize()
        said.append(template.format(A=a, B=b, t=item, c=city, d=day, n=rng.randint(2, 9)))
        pairs += [(a, other), (city, new_city), (day, new_day), (item, new_item)]
    whole = " ".join(said)
    asked = fill(rng, "[repeat after me:|write this down:|say:|please write:] {x}", x=whole)
    return Turn(asked, whole), [(old, new) for old, new in pairs if old in whole]


def _told(rng: random.Random) -> tuple[Turn, list[tuple[str, str]]]:
    """A thing described, and its colour and another."""
    turn = tell(rng, held_out=False, draw=False).turns[0]
    colour = next(word for word in COLOURS if word in turn.assistant.lower().split())
    others = [other for other in COLOURS if other != colour]
    return turn, [(colour, rng.choice(others))]


def _swapped(text: str, old: str, new: str) -> str:
    start = text.lower().index(old.lower())
    changed = text[:start] + new + text[start + len(old) :]
    return changed[:1].upper() + changed[1:]


def rewrite(rng: random.Random, held_out: bool) -> Conversation:
    """An answer, then the same answer with one thing changed."""
    if held_out:
        first, pairs = _dictated(rng, shortest=2)
    else:
        first, pairs = rng.choice((_listed, _dictated, _dictated, _told))(rng)
    old, new = rng.choice(pairs)
    kind = "swap" if held_out else rng.choice(("swap", "swap", "swap", "swap", "swap", "upper", "same"))
    wish = rng.choice(table("talk")["changes"]["swap_held_out" if held_out else kind])
    said = first.assistant
    if kind == "upper" and len(said) > 60:
        kind, wish = "same", rng.choice(table("talk")["changes"]["same"])
    changed = {"swap": _swapped(said, old, new), "upper": said.upper(), "same": said}[kind]
    asked = fill(rng, wish, old=old, new=new)
    request = Turn(asked if held_out else spoken(rng, asked), changed)
    return Conversation("rewrite", wish, (first, request), expected=changed)
