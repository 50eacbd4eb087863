"""Sentences that the embedded voice learns from: generated everyday talk, and openly licensed sets where
present.

The generated part is the *domain* of the evaluation: home commands, coffee orders, times, small talk and
descriptions of pictures. It needs no data folder. An id is `voice/KIND/TEXT`, so that equal texts fall on
the same side of `split_of`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SLOTS: dict[str, tuple[str, ...]] = {
    "room": ("kitchen", "bedroom", "bathroom", "living room", "hallway", "office", "garage", "garden"),
    "thing": ("lights", "lamp", "radio", "heating", "fan", "television", "music", "coffee machine"),
    "color": ("red", "blue", "green", "yellow", "white", "black", "orange", "purple", "brown", "pink"),
    "shape": ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond"),
    "animal": ("cat", "dog", "horse", "bird", "sheep", "rabbit", "mouse", "cow"),
    "object": ("table", "chair", "cup", "book", "window", "bottle", "boat", "house", "tree", "car"),
    "size": ("small", "medium", "large"),
    "drink": ("latte", "cappuccino", "espresso", "mocha", "hot chocolate", "iced coffee", "green tea"),
    "milk": ("whole milk", "oat milk", "almond milk", "soy milk", "no milk"),
    "extra": ("vanilla syrup", "caramel", "whipped cream", "cinnamon", "two sugars", "an extra shot"),
    "number": (
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "twelve",
        "twenty",
    ),
    "day": (
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "today",
        "tomorrow",
    ),
    "weather": ("sunny", "cloudy", "rainy", "windy", "cold", "warm", "foggy"),
    "place": ("top left", "top right", "bottom left", "bottom right", "middle"),
    "side": ("left of", "right of", "above", "below", "behind", "in front of"),
    "task": ("call my mother", "buy some bread", "water the plants", "send the letter", "feed the dog"),
    "food": ("bread", "apples", "cheese", "soup", "salad", "pasta", "rice", "butter"),
    "feeling": ("happy", "tired", "hungry", "ready", "sorry", "glad"),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "home": (
        "please turn on the {thing} in the {room}",
        "turn off the {thing} in the {room}",
        "could you turn the {thing} down a little",
        "make the {room} lights {color}",
        "set the {room} to {number} degrees",
        "is the {thing} in the {room} still on?",
        "i have turned on the {thing} in the {room}",
        "the {thing} is off, and the {room} is {weather}",
    ),
    "coffee": (
        "i would like a {size} {drink} with {milk}",
        "can i have {number} {size} {drink}s, please?",
        "one {drink} with {extra} and {milk}, please",
        "your {size} {drink} with {extra} is ready",
        "that will be {number} dollars and {number} cents",
        "would you like {extra} with your {drink}?",
        "i have added a {drink}, anything else?",
    ),
    "picture": (
        "a {color} {shape} {side} a {color} {shape}",
        "here is a {color} {animal} on a {color} {object}",
        "the picture shows a {size} {color} {shape} in the {place}",
        "draw a {color} {object} and a {color} {shape}",
        "there are {number} {color} {shape}s in the {place}",
        "i have drawn a {size} {shape} for you",
        "the {animal} is {side} the {color} {object}",
    ),
    "talk": (
        "it will be {weather} on {day}",
        "remind me on {day} to {task}",
        "i am {feeling}, thank you",
        "on {day} at {number} we will eat {food} and {food}",
        "do not forget to {task} on {day}",
        "we need {number} more {object}s and some {food}",
        "what is the weather like on {day}?",
        "i will {task} at {number}, if it is {weather}",
        "the {animal} sleeps {side} the {object}",
        "how many {object}s are in the {room}?",
    ),
}


def generated(seed: int, count: int) -> list[tuple[str, str]]:
    """`count` different (id, text) pairs of the domain, in an order that depends on `seed` alone."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        kind = draw.choice(sorted(TEMPLATES))
        text = draw.choice(TEMPLATES[kind])
        for _ in range(text.count("{")):
            slot = text[text.index("{") + 1 : text.index("}")]
            text = text.replace("{" + slot + "}", draw.choice(SLOTS[slot]), 1)
        text = fix_article(text)
        if text[-1] not in "?.":
            text += "."
        found.setdefault(f"voice/{kind}/{text}", text)
    return list(found.items())


def fix_article(text: str) -> str:
    """Puts `an` before a vowel: the templates say `a` throughout."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def open_sets(data: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of the CC-BY and CC0 command sets and the Taskmaster dialogues (CC-BY) below `data`."""
    for name in ("nlu/nlu_eval_home.jsonl", "nlu/clinc150.jsonl", "nlu/snips.jsonl"):
        for row in _rows(data / name):
            yield f"voice/{name}/{row['t']}", str(row["t"]).strip()
    for row in _rows(data / "lm/tm4_train.jsonl"):
        turns = row["turns"]
        assert isinstance(turns, list)
        for turn in turns:
            yield f"voice/tm4/{turn.get('t', '')}", str(turn.get("t", "")).strip()


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def speakable(text: str) -> bool:
    """Whether a text of the open sets is short plain English: 2 to 24 words of ASCII."""
    return text.isascii() and 2 <= len(text.split()) <= 24 and not re.search(r"[@<>{}\[\]_|\\/]|http", text)


def closed(text: str, draw: random.Random) -> str:
    """The text with a closing mark: a question mark after a question's first word, now and then a `!` or a
    comma.
    """
    if text[-1] in ".?!":
        return text
    asks = re.match(
        r"(what|who|where|when|why|how|is|are|can|could|will|would|do|does|did|should)\b", text.lower()
    )
    return text + ("?" if asks else draw.choices((".", "!", ","), (0.8, 0.1, 0.1))[0])


def word_lists(words: Sequence[str], draw: random.Random, count: int) -> list[str]:
    """Rows of two to seven words of all kinds, for sounds that everyday talk seldom brings together."""
    rows = [draw.sample(words, draw.randint(2, 7)) for _ in range(count)]
    return [", ".join(row) + "." if draw.random() < 0.3 else " ".join(row) + "." for row in rows]
