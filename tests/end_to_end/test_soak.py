"""Fifteen minutes of everything against a real server: arrivals, cancels, disconnects, slow readers, device
kills. Nothing leaks, no stream hangs, nothing is left running. `UPBEAT_SOAK_S` makes it shorter.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from clients import ClientError, ImageOptions, Sampling, Upbeat
from clients.launch import serving
from tests.end_to_end.conftest import Start, children, server_pid

SOAK_S = float(os.environ.get("UPBEAT_SOAK_S", "900"))
CLIENTS, STUCK_S = 6, 120.0
EXPECTED = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "DEADLINE_EXCEEDED"}


class Client:
    """One person after another, each with a connection of their own."""

    def __init__(self, address: str, seed: int) -> None:
        self._address = address
        self._rng = random.Random(seed)
        self.done = 0

    async def live(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            try:
                async with asyncio.timeout(STUCK_S), Upbeat(self._address) as upbeat:
                    await self._ask(upbeat)
                self.done += 1
            except ClientError as error:
                if error.code not in EXPECTED:
                    raise
                await asyncio.sleep(0.2)

    async def _ask(self, upbeat: Upbeat) -> None:
        rng = self._rng
        kind = rng.choice(("text", "text", "voice", "image", "talk"))
        if kind == "text":
            await self._read(upbeat.generate("Tell me of a boat.", sampling=Sampling(max_tokens=30)))
        elif kind == "voice":
            await self._read(upbeat.synthesize("The boat is on the water, and the water is calm."))
        elif kind == "image":
            image = ImageOptions(steps=rng.randint(1, 8), preview_every=1)
            await self._read(upbeat.draw("a red boat", image=image))
        else:
            async with upbeat.converse(modalities=("text", "speech")) as talk:
                await talk.append("What is a boat?")
                await talk.revise(8, "a house?")
                await talk.commit()
                await self._read(aiter(talk))

    async def _read(self, events: AsyncIterator[object]) -> None:
        """To the end; or left early, which cancels; or slowly."""
        leaves = self._rng.choice((0, 0, 1, 3))
        pause_s = self._rng.choice((0.0, 0.0, 0.0, 0.3))
        count = 0
        async for _ in events:
            count += 1
            if leaves and count >= leaves:
                return
            if pause_s and count < 10:
                await asyncio.sleep(pause_s)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_mib(pid: int) -> float:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) / 1024 for row in rows if row.startswith("VmRSS"))


async def killer(address: str, pid: int, until_s: float) -> int:
    """Kills the device three times in all."""
    killed = 0
    while time.monotonic() + SOAK_S / 4 < until_s:
        await asyncio.sleep(SOAK_S / 4)
        os.kill(children(pid)[0], signal.SIGKILL)
        killed += 1
        async with Upbeat(address) as upbeat:
            await serving(upbeat, lambda: True)
    return killed


@pytest.mark.slow
async def test_nothing_leaks_and_nothing_hangs(another_server: Start) -> None:
    async with another_server() as address:
        pid = server_pid(address)
        clients = [Client(address, seed) for seed in range(CLIENTS)]
        warm_s = time.monotonic() + SOAK_S / 6
        await asyncio.gather(*(client.live(warm_s) for client in clients))
        before = descriptors(pid), memory_mib(pid)
        until_s = time.monotonic() + SOAK_S
        killing = asyncio.create_task(killer(address, pid, until_s))
        await asyncio.gather(*(client.live(until_s) for client in clients))
        assert await killing >= 1
        await asyncio.sleep(1.0)
        after = descriptors(pid), memory_mib(pid)
        print(f"{sum(client.done for client in clients)} calls; descriptors and MiB {before} -> {after}")
        assert sum(client.done for client in clients) > SOAK_S / 10
        assert after[0] <= before[0] + 8
        assert after[1] <= before[1] * 1.3 + 20
        async with asyncio.timeout(60.0), Upbeat(address) as upbeat:
            trace = asyncio.create_task(upbeat.trace(1.0))
            assert b'"ph":"X"' not in await trace, "nothing runs when nobody asks"
            with suppress(ClientError):
                await upbeat.health()
