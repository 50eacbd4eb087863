"""Runs the Node client of tests/node, which knows nothing but protos/."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "node"
FILES = ("package.json", "package-lock.json", ".npmrc", "converse.mjs")
TIMEOUT_S = 120


def install(folder: Path) -> Path:
    """The script in `folder` with its dependencies, installed once a lock file; skips without npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")
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


async def run_node(script: Path, address: str, *modalities: str) -> tuple[int, list[dict[str, Any]], str]:
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
