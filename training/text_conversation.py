"""What the generator makes, and the little template language that it is written in.

A template holds choices, `[one|two|]`, which nest, and slots, `{name}`. Choices are drawn first, so a slot's
value is never read as a template.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

_SENTENCE = re.compile(r"^[a-z]|(?<=[.!?] )[a-z]")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer; `keys` are the ends of the parts of it that decide, where any do: none
    in an empty tuple."""

    user: str
    assistant: str
    keys: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of one skill; `template` names the template, `expected` what an evaluation looks for."""

    skill: str
    template: str
    turns: tuple[Turn, ...]
    system: str | None = None
    expected: str | None = None
    facts: dict[str, str] = field(default_factory=dict)


def choose(rng: random.Random, template: str) -> str:
    """Draws every `[a|b]` of `template`, innermost first, and tidies doubled spaces."""
    while (found := _CHOICE.search(template)) is not None:
        picked = rng.choice(found.group(1).split("|"))
        template = template[: found.start()] + picked + template[found.end() :]
    return re.sub(r" +([.,?! ])", r"\1", template).strip()


def fill(rng: random.Random, template: str, **slots: object) -> str:
    """`choose`, then the slots; every sentence gets its capital."""
    text = choose(rng, template).format(**slots)
    return _SENTENCE.sub(lambda start: start.group(0).upper(), text)


def spoken(rng: random.Random, text: str) -> str:
    """`text` as people type or as a recogniser writes it: at times without capitals or stops."""
    roll = rng.random()
    if roll < 0.7:
        return text
    if roll < 0.8:
        return text.rstrip(".?!")
    plain = text[:1].lower() + text[1:]
    return plain if roll < 0.87 else text.lower().rstrip(".?!")


def article(noun: str) -> str:
    """`noun` with a or an before it."""
    return ("an " if noun[:1].lower() in "aeiou" else "a ") + noun


def joined(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
