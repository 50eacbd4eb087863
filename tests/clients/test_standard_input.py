"""Standard input as a user has it: of a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from tests.clients.scripted_gateway import Script

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "COLUMNS": "200"}
READ = """
import asyncio, sys
from clients.media import BadFile
from clients.standard_input import lines

async def main():
    try:
        async for line in lines():
            print(repr(line))
    except BadFile as error:
        print(error)

asyncio.run(main())
"""


def read(stdin: bytes) -> list[str]:
    run = subprocess.run([sys.executable, "-c", READ], input=stdin, env=ENVIRONMENT, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.decode().splitlines()


def test_lines_come_whole() -> None:
    long = "ä" * 50_000
    assert read(f"one\n\n{long}\nlast".encode()) == [r"'one\n'", r"'\n'", rf"'{long}\n'", "'last'"]


def test_what_is_no_text_is_told() -> None:
    assert read(b"one\nt\xffo\n") == [
        r"'one\n'",
        r"standard input: not UTF-8 (invalid start byte in b't\xffo\n')",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
async def test_nobody_waits_for_it_at_the_end(target: str, script: Script) -> None:
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)
    token = types.TokenEvent(text="First.", tokens=1)
    script.scripts.append(
        [
            gateway.ConverseResponse(turn_id="t1", sequence=1, token=token),
            gateway.ConverseResponse(turn_id="t1", sequence=2, turn_done=done),
        ]
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.cli", "chat", "--server", target),
        env=ENVIRONMENT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(b"one\n")
    assert await process.stdout.readline() == b"First.\n"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 1
    assert await process.stderr.read() == b"stopped\n"
