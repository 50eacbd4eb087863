"""Deciding when to draw: `words <draw>caption</draw>` when a picture is asked for, else words alone."""

from __future__ import annotations

import random
import re

from training.text_conversation import Conversation, Turn, article, fill, spoken
from training.text_templates import table, words

COLOURS = words("red blue green yellow orange purple pink brown black white")
# What the image model knows, and, more rarely, what it does not: the wish is passed on in the user's words.
KINDS = words("circle square triangle star heart ring cross hexagon moon tree house boat")
OTHERS = words(
    "flower fish cup sun cloud cat dog bird car train apple cake key lamp hat diamond bridge mountain"
)
PLURAL = {"cross": "crosses", "fish": "fish"}
SIZES = ("", "", "", "", "small ", "big ", "large ", "tiny ", "little ")
PATTERNS = ("", "", "", "", "", "striped ", "dotted ")
RELATIONS = [
    *words("above below under inside beside with and over"),
    "left of", "right of", "next to", "to the left of", "to the right of", "on top of",
]  # fmt: skip
BACKGROUNDS = words("red yellow green blue purple pink gray white black")
COUNTS = {"two": 2, "three": 3, "four": 4}

CHANGED = "[Here is|Now it is|Changed:|As you wish:] {x}."
_DRAW = re.compile(r"<draw>([^<>]+)</draw>")


def drawn(answer: str) -> list[str]:
    """The captions of the complete `<draw>caption</draw>` spans in `answer`, in order."""
    return [caption.strip() for caption in _DRAW.findall(answer)]


def kind(rng: random.Random) -> str:
    """A noun to draw."""
    return rng.choice(KINDS if rng.random() < 0.87 else OTHERS)


def thing(rng: random.Random) -> str:
    """One object, such as `a small striped red star`."""
    return article(f"{rng.choice(SIZES)}{rng.choice(PATTERNS)}{rng.choice(COLOURS)} {kind(rng)}")


def several(rng: random.Random) -> str:
    """Two to four of one object, such as `three green rings`."""
    shape = kind(rng)
    plural = PLURAL.get(shape, shape + "s")
    return f"{rng.choice(list(COUNTS))} {rng.choice(SIZES)}{rng.choice(COLOURS)} {plural}"


def scene(rng: random.Random) -> str:
    """One of the scenes, coloured."""
    c, d = rng.sample(COLOURS, 2)
    text: str = rng.choice(table("draw")["scenes"])
    return text.format(c=c, d=d, h=rng.choice(table("draw")["hours"])).replace("a orange", "an orange")


def caption(rng: random.Random) -> str:
    """A prompt for the image model, with its article or its count."""
    roll = rng.random()
    if roll < 0.36:
        text = thing(rng)
    elif roll < 0.52:
        text = several(rng)
    elif roll < 0.78:
        text = f"{thing(rng)} {rng.choice(RELATIONS)} {thing(rng)}"
    else:
        return scene(rng)
    return text + (f" on a {rng.choice(BACKGROUNDS)} background" if rng.random() < 0.18 else "")


def shown(rng: random.Random, wanted: str) -> str:
    """The words that go with the picture of `wanted`."""
    text = fill(rng, rng.choice(table("draw")["show"]), x=wanted)
    if wanted.split()[0] in COUNTS:
        text = (
            text.replace("ere is ", "ere are ")
            .replace("ere comes ", "ere come ")
            .replace("This is ", "These are ")
        )
    return text


def reserved(question: str) -> bool:
    """Whether a question is kept out of training: the demo asks to tell about and to draw a red boat."""
    low = question.lower()
    tells = any(word in low for word in ("tell", "about", "describe", "say", "story", "hear"))
    return "red" in low.split() and "boat" in low and tells


def ask_to_draw(rng: random.Random, held_out: bool) -> Conversation:
    """A wish for a picture; `expected` is the caption."""
    wanted = caption(rng)
    template = rng.choice(table("draw")["ask_held_out" if held_out else "ask"])
    question = fill(rng, template, x=wanted)
    if not held_out:
        question = spoken(rng, question)
    answer = f"{shown(rng, wanted)} <draw>{wanted}</draw>"
    return Conversation("draw", template, (Turn(question, answer),), expected=wanted)


def _slots(rng: random.Random) -> dict[str, str]:
    c, d = rng.sample(COLOURS, 2)
    s, z = rng.sample([*KINDS, *KINDS, *OTHERS], 2)
    return {"c": c, "d": d, "C": c.capitalize(), "s": s, "z": z, "a_s": article(s), "a_z": article(z)}


def talk_of_shapes(rng: random.Random, held_out: bool) -> Conversation:
    """The same words without a wish for a picture: nothing is drawn."""
    slots = _slots(rng)
    if held_out:
        template = rng.choice(table("draw")["talk_held_out"])
        return Conversation("no-draw", template, (Turn(fill(rng, template, **slots), ""),), expected="")
    entry = rng.choice(table("draw")["talk"])
    turn = Turn(spoken(rng, fill(rng, entry["ask"], **slots)), fill(rng, entry["answer"], **slots))
    return Conversation("no-draw", entry["ask"], (turn,), expected="")


def redraw(rng: random.Random) -> Conversation:
    """A picture, then the same picture with one thing changed or added."""
    c, d = rng.sample(COLOURS, 2)
    s, z = rng.sample([*KINDS, *KINDS, *OTHERS], 2)
    first, other = article(f"{c} {s}"), article(f"{d} {z}")
    change = rng.choice(list(table("draw")["redraw"]))
    second = {
        "colour": article(f"{d} {s}"),
        "kind": article(f"{c} {z}"),
        "bigger": f"a big {c} {s}",
        "smaller": f"a small {c} {s}",
        "above": f"{first} below {other}",
        "below": f"{first} above {other}",
    }[change]
    asked = fill(rng, rng.choice(table("draw")["ask"]), x=first)
    wish = fill(rng, rng.choice(table("draw")["redraw"][change]), d=d, z=z, a_z=article(z), other=other)
    turns = (
        Turn(spoken(rng, asked), f"{shown(rng, first)} <draw>{first}</draw>"),
        Turn(spoken(rng, wish), f"{fill(rng, CHANGED, x=second)} <draw>{second}</draw>"),
    )
    return Conversation("redraw", change, turns, expected=second)
