"""Spoken-style commands from the open intent sets, answered by a short confirmation of our own writing."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from training.text_conversation import Conversation, Turn, fill
from training.text_templates import table

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Command:
    """One utterance of CLINC150, SNIPS or NLU-Eval with its intent and slots."""

    text: str
    intent: str
    slots: dict[str, str]


def reply(rng: random.Random, command: Command) -> str | None:
    """The confirmation for `command`, or none where the intent has no reply of ours."""
    home_table = table("home")
    for template in home_table["replies"].get(command.intent, ()):
        whole = template.replace("{okay}", home_table["okay"]).replace("{sorry}", home_table["sorry"])
        if set(_SLOT.findall(whole)) <= set(command.slots):
            return fill(rng, whole, **command.slots)
    return None


def home(rng: random.Random, commands: list[Command]) -> Conversation:
    """One command and its confirmation; `commands` holds only intents of `REPLIES`."""
    command = rng.choice(commands)
    text = command.text
    if rng.random() < 0.3:
        text = text[:1].upper() + text[1:] + ("." if text[-1:].isalnum() else "")
    return Conversation("home", command.intent, (Turn(text, reply(rng, command) or ""),))
