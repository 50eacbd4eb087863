"""What was said before, kept by the gateway and sent with each turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
            room -= sum(len(message.content) for message in system)
            while rest and sum(len(message.content) for message in rest) > room:
                del rest[0]
                while rest and rest[0].role == "assistant":
                    del rest[0]
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


def _joined(messages: list[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(message.role, joined[-1].content + "\n" + message.content)
        else:
            joined.append(message)
    return joined
