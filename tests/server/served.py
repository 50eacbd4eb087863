"""Run by test_app in a process of its own: the server over a fake device, until a signal comes."""

from __future__ import annotations

import asyncio
import sys

from server.app import serve
from server.config import Config
from tests.fakes import Device, FakeLink


async def _main() -> None:
    await serve(Config(listen="127.0.0.1:0"), FakeLink(script=Device()))
    assert "torch" not in sys.modules, "the gateway process has torch in it"


if __name__ == "__main__":
    asyncio.run(_main())
