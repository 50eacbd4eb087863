"""A line of text from single keystrokes, so that a prompt can travel while it is typed. Pure.

Only the end of the line is edited: letters, Backspace, Ctrl-W (a word), Ctrl-U (all), Enter, Ctrl-D (the
end). Escape sequences (arrows, function keys) are swallowed.
"""

from __future__ import annotations

import codecs
import enum
import unicodedata


class Key(enum.Enum):
    """What a keystroke asks for, beyond changing the line."""

    ENTER = enum.auto()
    END = enum.auto()


PROMPT = "> "
BACKSPACES = "\x08\x7f"
CTRL_D, CTRL_U, CTRL_W, ESCAPE = "\x04", "\x15", "\x17", "\x1b"


class Line:
    """The line being typed. Owner: the task that reads the terminal."""

    def __init__(self) -> None:
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""

    def feed(self, data: bytes) -> list[tuple[Key, str]]:
        """Bytes from the terminal, cut anywhere. Returns the lines that were ended, each with its key."""
        ended = []
        for char in self._decoder.decode(data):
            key = self._key(char)
            if key is not None:
                ended.append((key, self.text))
                self.text = ""
        return ended

    def _key(self, char: str) -> Key | None:
        if self._escape or char == ESCAPE:
            self._swallow(char)
        elif char in "\r\n":
            return Key.ENTER
        elif char == CTRL_D:
            return None if self.text else Key.END
        elif char in BACKSPACES:
            self.text = self.text[:-1]
        elif char == CTRL_U:
            self.text = ""
        elif char == CTRL_W:
            kept = self.text.rstrip().rpartition(" ")
            self.text = kept[0] + kept[1]
        elif unicodedata.category(char) != "Cc":
            self.text += char
        return None

    def _swallow(self, char: str) -> None:
        """ESC [ ... letter, ESC O letter, or ESC and one character."""
        self._escape += char
        body = self._escape[1:]
        if body and body not in "[O" and (body[0] not in "[O" or body[-1].isalpha() or body[-1] == "~"):
            self._escape = ""


def edit(sent: str, wanted: str) -> tuple[int, str] | None:
    """The revision (from_char, text) that makes `wanted` of `sent`; None if they are equal."""
    if sent == wanted:
        return None
    common = 0
    for ours, theirs in zip(sent, wanted, strict=False):
        if ours != theirs:
            break
        common += 1
    return common, wanted[common:]
