"""Takes `<draw>caption</draw>` out of text that arrives in pieces.

Rules:
  1. What comes out does not depend on how the text was cut: neither the shown text nor the captions.
  2. Text is held back only while it could still be the beginning of the opening tag.
  3. A tag that is never closed ends with the text. Captions longer than MAX_CAPTION are cut there.
"""

from __future__ import annotations

from dataclasses import dataclass

OPEN = "<draw>"
CLOSE = "</draw>"
MAX_CAPTION = 1000


@dataclass(frozen=True, slots=True)
class Shown:
    """Text for the reader, and the captions that were completed on the way (never empty ones)."""

    text: str = ""
    captions: tuple[str, ...] = ()


class DrawFilter:
    """One answer's filter. Owner: the turn's text lane."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._caption = ""

    def feed(self, text: str) -> Shown:
        """The next piece of the answer."""
        shown: list[str] = []
        captions: list[str] = []
        rest = self._held + text
        while True:
            tag = CLOSE if self._inside else OPEN
            before, found, after = rest.partition(tag)
            if not found:
                break
            self._pass_on(before, shown)
            if self._inside:
                captions.append(self._caption.strip())
                self._caption = ""
            self._inside = not self._inside
            rest = after
        keep = _beginning_of(tag, rest)
        self._held = rest[len(rest) - keep :]
        self._pass_on(rest[: len(rest) - keep], shown)
        return Shown("".join(shown), tuple(filter(None, captions)))

    def close(self) -> Shown:
        """The answer has ended."""
        held, self._held = self._held, ""
        if not self._inside:
            return Shown(held)
        shown: list[str] = []
        self._pass_on(held, shown)
        caption, self._caption, self._inside = self._caption.strip(), "", False
        return Shown("", (caption,) if caption else ())

    def _pass_on(self, text: str, shown: list[str]) -> None:
        if self._inside:
            self._caption = (self._caption + text)[:MAX_CAPTION]
        else:
            shown.append(text)


def _beginning_of(tag: str, text: str) -> int:
    """How many characters at the end of `text` could begin `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
