"""A client in another language and another process, which knows nothing but protos/."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from tests.clients.scripted_gateway import Script

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "node"
FILES = ("package.json", "package-lock.json", ".npmrc", "converse.mjs")
TIMEOUT_S = 120


@pytest.fixture(scope="session")
def node_client(pytestconfig: pytest.Config) -> Path:
    """The script with its dependencies installed beside it, in pytest's cache; once a lock file."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")
    assert pytestconfig.cache is not None
    folder = Path(pytestconfig.cache.mkdir("node"))
    installed = folder / "node_modules" / ".package-lock.json"
    lock = folder / "package-lock.json"
    fresh = installed.exists() and lock.read_bytes() == (SOURCES / lock.name).read_bytes()
    for name in FILES:
        shutil.copy(SOURCES / name, folder / name)
    if not fresh:
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        try:
            subprocess.run([npm, "ci"], cwd=folder, check=True, capture_output=True, timeout=TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm ci failed, is the registry reachable? {error}")
    return folder / "converse.mjs"


async def run(script: Path, address: str, *modalities: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, events and error output of the Node client."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(script),
        address,
        str(ROOT / "protos"),
        *modalities,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in output.splitlines()], errors.decode()


async def test_the_wire_alone_is_enough(node_client: Path, target: str, script: Script) -> None:
    token = types.TokenEvent(text="A red boat.", tokens=4)
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)
    script.scripts.append(
        [
            gateway.ConverseResponse(turn_id="t1", sequence=1, token=token),
            gateway.ConverseResponse(turn_id="t1", sequence=2, turn_done=done),
        ]
    )
    code, events, errors = await run(node_client, target, "text")
    assert code == 0, errors
    assert [event["event"] for event in events] == ["ready", "token", "turn_done"]
    assert events[1]["token"]["text"] == "A red boat."
    assert [request.WhichOneof("action") for request in script.heard[0]] == [
        "start",
        "append",
        "revise",
        "commit",
    ]
