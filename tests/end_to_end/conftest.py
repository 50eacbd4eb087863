"""One real server with the embedded models, in a process of its own, for all end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clients.client import Upbeat
from clients.launch import running_server

OPTIONS = ("--listen", "127.0.0.1:0")
LISTEN = "0A"
ADD_ON = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
Start = Callable[[], AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("server")
    add_on = _add_on(folder / "ink.safetensors")
    async with running_server((*OPTIONS, "--lora", f"ink={add_on}"), folder / "log") as found:
        yield found


def _add_on(path: Path) -> Path:
    """A LoRA of rank 2 that changes one matrix of the embedded U-Net."""
    noise = np.random.default_rng(0)
    tensors = {}
    for name, shape in (("A", (2, 96)), ("B", (96, 2))):
        tensors[f"unet.{ADD_ON}.lora_{name}.weight"] = noise.standard_normal(shape).astype(np.float32)
    save_file(tensors, path)
    return path


@pytest.fixture
async def upbeat(address: str) -> AsyncIterator[Upbeat]:
    async with Upbeat(address) as client:
        yield client


@pytest.fixture
def another_server(tmp_path: Path) -> Start:
    """Starts a server that the test may kill."""
    return lambda: running_server(OPTIONS, tmp_path / "log")


def children(pid: int) -> list[int]:
    """Process ids of a process's children (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def server_pid(address: str) -> int:
    """The child of this test process that listens on the address (Linux)."""
    port = int(address.rpartition(":")[2])
    inodes = {row[9] for row in _sockets() if int(row[1].rpartition(":")[2], 16) == port and row[3] == LISTEN}
    for pid in children(os.getpid()):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor) if descriptor.is_symlink() else ""
            if target.startswith("socket:[") and target[8:-1] in inodes:
                return pid
    raise AssertionError(f"no child of this process listens on {port}")


def _sockets() -> list[list[str]]:
    rows = [Path(f"/proc/net/{kind}").read_text().splitlines()[1:] for kind in ("tcp", "tcp6")]
    return [row.split() for kind in rows for row in kind]
