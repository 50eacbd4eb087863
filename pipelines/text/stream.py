"""Tokens to text as it streams: whole UTF-8 characters only, stop strings held back and removed.

Rules
1. The pieces put together are the bytes of all tokens, decoded as UTF-8 with U+FFFD for what is invalid,
   cut before the first stop string.
2. A token is handed out with the piece in which its last character is; one whose bytes are still incomplete,
   or held back because they could begin a stop string, waits.
3. `strips_space` drops one space at the very beginning (sentence pieces mark words by it).
4. `push` and `finish` are called at a commit only.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from kernels import Drawn


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is final, and the tokens that it completes. `stopped`: a stop string was found."""

    text: str = ""
    tokens: tuple[Drawn, ...] = ()
    stopped: bool = False


class TextStream:
    """One answer's text. Owner: the executor thread, through the job's state."""

    def __init__(self, stops: Sequence[str], *, strips_space: bool = False) -> None:
        self._stops = tuple(stops)
        self._strips = self._strips_space = strips_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._given = 0
        self._waiting: deque[tuple[int, Drawn]] = deque()
        self._unfinished: list[Drawn] = []

    def fresh(self) -> TextStream:
        """For another answer with the same stops."""
        return TextStream(self._stops, strips_space=self._strips)

    def push(self, token: Drawn, content: bytes) -> Piece:
        """One more token and the bytes that it stands for."""
        text = self._decoder.decode(content)
        if text and self._strips_space:
            text, self._strips_space = text.removeprefix(" "), False
        self._unfinished.append(token)
        self._held += text
        incomplete = bool(self._decoder.getstate()[0])
        if text or not incomplete:
            self._settle(len(self._unfinished) - incomplete)
        return self._release()

    def finish(self) -> Piece:
        """No more tokens: what was held back, incomplete characters as U+FFFD."""
        self._held += self._decoder.decode(b"", final=True)
        self._settle(len(self._unfinished))
        found = self._find_stop()
        return self._give(len(self._held) if found is None else found, stopped=found is not None)

    def _settle(self, count: int) -> None:
        """The characters of the first `count` unfinished tokens are complete."""
        end = self._given + len(self._held)
        self._waiting.extend((end, token) for token in self._unfinished[:count])
        del self._unfinished[:count]

    def _release(self) -> Piece:
        found = self._find_stop()
        if found is not None:
            return self._give(found, stopped=True)
        return self._give(len(self._held) - self._possible_stop(), stopped=False)

    def _give(self, length: int, *, stopped: bool) -> Piece:
        text, self._held = self._held[:length], self._held[length:]
        self._given += length
        tokens: list[Drawn] = []
        while self._waiting and self._waiting[0][0] <= self._given:
            tokens.append(self._waiting.popleft()[1])
        return Piece(text, tuple(tokens), stopped)

    def _find_stop(self) -> int | None:
        """Where to cut: before the stop string that is complete first, however the text was pieced."""
        found = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
