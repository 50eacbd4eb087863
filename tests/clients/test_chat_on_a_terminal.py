"""`upbeat chat` on a pseudo-terminal: the prompt travels while it is typed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from tests.clients.scripted_gateway import Script

if sys.platform == "win32":
    pytest.skip("needs a POSIX terminal", allow_module_level=True)

ROOT = Path(__file__).parents[2]


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = os.openpty()
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "TERM": "xterm",
            "COLUMNS": "80",
        }
        self._process = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self._shown = b""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def shows(self, text: str) -> None:
        """Waits for it."""
        while text.encode() not in self._shown:
            self._more.clear()
            await self._more.wait()

    async def exit_code(self) -> int:
        try:
            return await asyncio.to_thread(self._process.wait, 30)
        finally:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)

    def _read(self) -> None:
        try:
            self._shown += os.read(self._master, 65_536)
        except OSError:  # the program has closed its side
            asyncio.get_running_loop().remove_reader(self._master)
        self._more.set()


def prompt(requests: list[gateway.ConverseRequest]) -> str:
    """What appends and revisions come to."""
    text = ""
    for request in requests:
        match request.WhichOneof("action"):
            case "append":
                text += request.append.text
            case "revise":
                text = text[: request.revise.from_char] + request.revise.text
    return text


async def test_the_prompt_is_sent_before_enter(target: str, script: Script) -> None:
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)
    token = types.TokenEvent(text="The answer.", tokens=3)
    script.scripts.append(
        [
            gateway.ConverseResponse(turn_id="t1", sequence=1, token=token),
            gateway.ConverseResponse(turn_id="t1", sequence=2, turn_done=done),
        ]
    )
    async with asyncio.timeout(30):
        terminal = Terminal(sys.executable, "-m", "clients.cli", "chat", "--server", target)
        await terminal.shows("Enter asks")
        terminal.type("green boaf")
        await terminal.shows("> green boaf")
        terminal.type("\x7ft")
        await terminal.shows("> green boat")
        while prompt(script.heard[0]) != "green boat":  # noqa: ASYNC110  # no event: the gateway is a recorder
            await asyncio.sleep(0.01)
        terminal.type("?\n")
        await terminal.shows("The answer.")
        await terminal.shows("The first token came after")
        terminal.type("\x04")
        assert await terminal.exit_code() == 0
    assert prompt(script.heard[0]) == "green boat?"
    assert script.heard[0][-1].HasField("commit")
