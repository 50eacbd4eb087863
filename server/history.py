"""What was said before, kept by the gateway and sent with each turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pipelines.messages import Message

CHARS_PER_TOKEN = 3.0
SPOKEN_CHARS_PER_S = 15.0


class History:
    """Messages, oldest first. Owner: the session.

    `budget_tokens` is roughly what history and prompt may take of the model's context (0: unlimited). How
    many characters make a token is learned from the device's counts.
    """

    def __init__(self, messages: Sequence[Message], budget_tokens: int) -> None:
        self._messages = list(messages)
        self._budget_tokens = budget_tokens
        self._chars_per_token = CHARS_PER_TOKEN
        self._last = 0

    def add(self, user: str, assistant: str) -> None:
        """A turn has ended. An answer of which nothing was heard leaves only the question."""
        self._messages.append(Message("user", user))
        self._last = len(self._messages)
        if assistant.strip():
            self._messages.append(Message("assistant", assistant))

    def trim_last(self, heard: str) -> None:
        """Of the last answer only `heard` was heard."""
        if self._last:
            del self._messages[self._last :]
            if heard.strip():
                self._messages.append(Message("assistant", heard))

    def observe(self, characters: int, tokens: int) -> None:
        """The device counted `tokens` in a prompt of `characters`."""
        if tokens > 0 and characters > 0:
            self._chars_per_token = min(CHARS_PER_TOKEN * 2, max(0.5, characters / tokens))

    def messages(self, prompt_chars: int) -> tuple[Message, ...]:
        """What goes before a prompt of `prompt_chars`: a system message always, of the rest the youngest
        that fit, beginning with a user's. Neighbours of one role are joined."""
        system = self._messages[:1] if self._messages and self._messages[0].role == "system" else []
        rest = self._messages[len(system) :]
        if self._budget_tokens:
            room = self._budget_tokens * self._chars_per_token - prompt_chars
            rest = _youngest(rest, room - sum(len(message.content) for message in system))
        return tuple(_joined([*system, *rest]))


def heard(text: str, played_ms: float, audio_ms: float, complete: bool) -> str:
    """The part of a spoken answer that was heard, to the word.

    text: what was given to the voice; audio_ms: audio made of it so far; complete: the voice has spoken all
    of it, so that the shares are known; otherwise a common rate of speech stands in.
    """
    if complete and played_ms >= audio_ms:
        return text
    if complete and audio_ms > 0:
        count = int(len(text) * played_ms / audio_ms)
    else:
        count = int(SPOKEN_CHARS_PER_S * played_ms / 1000.0)
    if count >= len(text):
        return text
    cut = text.rfind(" ", 0, count + 1)
    return text[: max(cut, 0)]


def _youngest(messages: list[Message], room: float) -> list[Message]:
    """Those that fit `room` characters; where any had to go, from a user's on."""
    begin = len(messages)
    while begin and (room := room - len(messages[begin - 1].content)) >= 0:
        begin -= 1
    if begin:
        while begin < len(messages) and messages[begin].role == "assistant":
            begin += 1
    return messages[begin:]


def _joined(messages: list[Message]) -> list[Message]:
    alike = groupby(messages, key=lambda message: message.role)
    return [Message(role, "\n".join(each.content for each in group)) for role, group in alike]
