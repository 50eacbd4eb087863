"""What was ordered: Taskmaster-4 dialogues and their last order details, asked for in one fixed form.

user       What is my order?
assistant  Your order: latte, decaf, oat milk; mocha.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data import records
from training.text_conversation import Conversation, Turn, spoken
from training.text_facts import made_up

ASK = ("What is my order?", "So what is my order now?", "Please sum up my order.", "What did I order?")
ASK_HELD_OUT = "Can you read my order back to me?"
HEAD = "Your order:"
_TRAILING_NUMBER = re.compile(r"[-_ ]*\d+.*$")


@dataclass(frozen=True, slots=True)
class Ordered:
    """One drink with its options, all in small letters."""

    name: str
    options: frozenset[str]

    def told(self) -> str:
        return ", ".join([self.name, *sorted(self.options)])


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The talk up to the last order details and the reply to it, and what was ordered."""

    key: str
    turns: tuple[Turn, ...]
    items: tuple[Ordered, ...]

    def asked(self, question: str) -> Conversation:
        """The talk and the question for the order; `expected` is the answer."""
        answer = f"{HEAD} {'; '.join(item.told() for item in self.items)}."
        turns = (*self.turns, Turn(question, answer))
        return Conversation("order", "tm4", turns, expected=answer)


def parsed_order(answer: str) -> list[Ordered]:
    """The items of an answer in the fixed form; none where it has another form."""
    if not answer.startswith(HEAD):
        return []
    parts = answer.removeprefix(HEAD).strip().rstrip(".").split(";")
    split = [[word.strip() for word in part.split(",")] for part in parts]
    return [Ordered(words[0], frozenset(words[1:])) for words in split if words[0]]


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("-", " ").split())


def _item(entry: dict[str, Any]) -> Ordered:
    name = _plain(str(entry.get("menu_item_name", "")))
    if not name or "var" in name or "?" in name or "(" in name or len(name) > 32:
        name = _plain(_TRAILING_NUMBER.sub("", str(entry.get("menu_item_id", ""))))
    options = {_plain(str(part.get("option", ""))) for part in entry.get("attributes") or ()}
    return Ordered(name, frozenset(options - {""}))


def _details(turn: dict[str, Any]) -> tuple[Ordered, ...] | None:
    found, before = None, ["", ""]
    for call in turn.get("api") or ():
        if call[0] == "response" and before == ["api_response", "get_order_details"]:
            try:
                listed = json.loads(call[1]).get("menu_items") or ()
                found = tuple(_item(entry) for entry in listed)
            except (ValueError, AttributeError):
                continue
        before = call
    return found or None


def dialogues(path: Path) -> Iterator[Dialogue]:
    """The dialogues with order details whose speakers alternate, cut behind the reply to the last details."""
    for record in records(path):
        turns = record["turns"]
        last = max((index for index, turn in enumerate(turns) if _details(turn)), default=None)
        if last is None or last % 2 or last + 1 >= len(turns):
            continue
        kept = turns[: last + 2]
        if any(turn["s"] != "UA"[index % 2] or not turn["t"].strip() for index, turn in enumerate(kept)):
            continue
        pairs = zip(kept[::2], kept[1::2], strict=True)
        told = tuple(Turn(user["t"].strip(), answer["t"].strip()) for user, answer in pairs)
        yield Dialogue(record["id"], told, _details(turns[last]) or ())


def _renamed(rng: random.Random, dialogue: Dialogue, names: list[str]) -> Dialogue:
    """The same dialogue with one drink replaced by another, or by a made-up one, wherever it is said."""
    old = rng.choice(dialogue.items).name
    new = (
        f"{made_up(rng)} {rng.choice(('tea', 'latte', 'coffee'))}"
        if rng.random() < 0.4
        else rng.choice(names)
    )
    pattern = re.compile(rf"\b{re.escape(old)}\b", re.IGNORECASE)
    talk = " ".join(turn.user for turn in dialogue.turns)
    if not pattern.search(talk) or any(
        new in other or other in new for other in (item.name for item in dialogue.items)
    ):
        return dialogue
    turns = tuple(
        Turn(pattern.sub(new, turn.user), pattern.sub(new, turn.assistant)) for turn in dialogue.turns
    )
    items = tuple(Ordered(new if item.name == old else item.name, item.options) for item in dialogue.items)
    return Dialogue(dialogue.key, turns, items)


def order_said_back(rng: random.Random, known: list[Dialogue]) -> Conversation:
    """One dialogue of `known`, at times with another drink, and the question for the order."""
    dialogue = rng.choice(known)
    if rng.random() < 0.5:
        names = [rng.choice(rng.choice(known).items).name for _ in range(4)]
        dialogue = _renamed(rng, dialogue, names)
    return dialogue.asked(spoken(rng, rng.choice(ASK)))
