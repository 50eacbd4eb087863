"""How a model that thinks ahead sees a prompt in pieces: the one definition, for serving and for training.

After LiveMind (Chen et al., 2024), in its layout that only ever grows at the end and so keeps the KV cache:

    system     what the conversation says, then `INSTRUCTION`
    ...        the turns before this one, as ever
    user       piece 1 ...            `more(piece)`: what ends in `...` is not the last piece
    assistant  infer. <what follows>  `reply(INFER, text)`; or `wait.`; or `answer. <answer>`
    user       piece 2 ...
    assistant  wait.
    user       last piece             as it is
    assistant  the answer             as it is: nothing to strip before it streams

A mismatch between the pieces noted and the prompt as it stands truncates the notes there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.messages import Message

INFER = "infer"
WAIT = "wait"
ANSWER = "answer"
ACTIONS = (INFER, WAIT, ANSWER)

MORE = " ..."
INSTRUCTION = (
    "My next message comes in pieces. To a piece that ends in ... reply with infer. and what follows, "
    "with wait. or with answer. and the answer. To the last piece reply with the answer alone."
)
_REPLY = re.compile(rf"\s*({'|'.join(ACTIONS)})\b\s*[.:,]?\s*(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Note:
    """A piece of the prompt, as it stands there, and the model's reply to it, word for word."""

    piece: str
    reply: str

    @property
    def action(self) -> str:
        """One of `ACTIONS`."""
        return parse(self.reply)[0]

    @property
    def text(self) -> str:
        """What was inferred or answered."""
        return parse(self.reply)[1]


def more(piece: str) -> str:
    """A piece that is not the last one, as the user's message."""
    return piece.strip() + MORE


def reply(action: str, text: str = "") -> str:
    """The assistant's message for an action."""
    return f"{action}. {text.strip()}".strip()


def parse(said: str) -> tuple[str, str]:
    """Action and content of a reply; what has no action is an inference, nothing at all a wait."""
    found = _REPLY.fullmatch(said)
    if found is not None:
        return found[1].lower(), found[2].strip()
    return (INFER if said.strip() else WAIT), said.strip()


def opening(history: Sequence[Message]) -> tuple[Message, ...]:
    """What was said before, with `INSTRUCTION` behind the system message's text."""
    if history and history[0].role == "system":
        return (Message("system", f"{history[0].content.strip()}\n{INSTRUCTION}"), *history[1:])
    return (Message("system", INSTRUCTION), *history)


def noted(notes: Iterable[Note]) -> tuple[Message, ...]:
    """Pieces and replies, alternating."""
    return tuple(
        message
        for note in notes
        for message in (Message("user", more(note.piece)), Message("assistant", note.reply))
    )


def holding(notes: Sequence[Note], pieces_text: str) -> tuple[Note, ...]:
    """The notes that still hold: those whose pieces, one behind the other, begin `pieces_text`."""
    end = 0
    for count, note in enumerate(notes):
        if not pieces_text.startswith(note.piece, end):
            return tuple(notes[:count])
        end += len(note.piece)
    return tuple(notes)
