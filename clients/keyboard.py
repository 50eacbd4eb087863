"""Single keystrokes from a POSIX terminal, on the event loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import termios
import tty
from collections import deque
from types import TracebackType
from typing import Self

from clients.keys import PROMPT, Key, Line


class Keyboard:
    """The terminal without line mode and echo, while entered. Owner: the event loop.

    `echo` shows the line (its end, where it is longer than the terminal) as it is typed; what is typed
    without echo is shown when it is switched on again. `ended` holds the lines that were ended: the key, the
    text, and whether it was shown.
    """

    def __init__(self) -> None:
        self.line = Line()
        self.ended: deque[tuple[Key, str, bool]] = deque()
        self._echo = False
        self._changed = asyncio.Event()
        self._fd = sys.stdin.fileno()

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    @property
    def echo(self) -> bool:
        return self._echo

    @echo.setter
    def echo(self, wanted: bool) -> None:
        self._echo = wanted
        self._show(self.line.text)

    async def change(self) -> None:
        """Waits for keystrokes that have not been waited for."""
        await self._changed.wait()
        self._changed.clear()

    async def enter(self) -> None:
        """Waits until a line is ended."""
        while not self.ended:
            await self.change()

    def _read(self) -> None:
        data = self._bytes()
        if not data:
            asyncio.get_running_loop().remove_reader(self._fd)
        ended = self.line.feed(data) if data else [(Key.END, "")]
        for key, text in ended:
            shown = self._echo
            self._show(text, "\n")
            self.ended.append((key, text, shown))
            self._echo = False
        self._show(self.line.text)
        self._changed.set()

    def _bytes(self) -> bytes:
        """What was typed; nothing once the terminal is gone, which reads as an error or as an end."""
        try:
            return os.read(self._fd, 4096)
        except OSError:
            return b""

    def _show(self, text: str, end: str = "") -> None:
        if self._echo:
            room = shutil.get_terminal_size().columns - len(PROMPT) - 1
            print(f"\r\x1b[K{PROMPT}{text if end else text[-room:]}", end=end, flush=True)
