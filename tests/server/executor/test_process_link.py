"""What a device process is started with."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from server.executor.process_link import ROOT, SPINS, ProcessLink, environment
from server.executor.settings import DeviceSettings

OURS = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"HOME": "/", "OMP_NUM_THREADS": "8"}, {"GOMP_SPINCOUNT": str(SPINS)}),
        ({"GOMP_SPINCOUNT": "7"}, {}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ],
    ids=["short spins", "the operator's count", "the operator's policy"],
)
def test_threads_that_wait_spin_for_a_short_while(given: dict[str, str], more: dict[str, str]) -> None:
    assert environment(given, 3) == given | more | OURS


def test_it_finds_the_modules_of_its_gateway_first() -> None:
    assert environment({"PYTHONPATH": "there"}, 1)["PYTHONPATH"] == f"{ROOT}{os.pathsep}there"


class Busy:
    """A process that hears nothing but a kill."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self._killed = asyncio.Event()

    def kill(self) -> None:
        self._killed.set()

    async def wait(self) -> int:
        await self._killed.wait()
        return -9


async def test_a_process_that_is_still_loading_is_not_waited_for() -> None:
    link: Any = ProcessLink(DeviceSettings(threads=1))
    link._process = Busy()
    async with asyncio.timeout(1.0):
        await link._end_process()
    await link.stop()
