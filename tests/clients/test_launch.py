from __future__ import annotations

import os
from pathlib import Path

import pytest

from clients import launch
from clients.launch import ServerFailed, running_server

PRINTS_AND_WAITS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(open("stopped", "w").write("politely") and 0))
print("listening on " + sys.argv[1], flush=True)
signal.pause()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server is, in this folder, a program that says it listens at its first option."""
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__main__.py").write_text(PRINTS_AND_WAITS)
    (tmp_path / "server" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    return tmp_path


async def test_a_server_is_awaited_and_stopped(stand_in: Path, target: str) -> None:
    async with running_server((target,), stand_in / "log") as address:
        assert address == target
    assert (stand_in / "stopped").read_text() == "politely"


async def test_what_goes_wrong_afterwards_is_not_taken_for_a_failed_start(
    stand_in: Path, target: str
) -> None:
    with pytest.raises(TimeoutError, match="the turn"):
        async with running_server((target,), stand_in / "log"):
            raise TimeoutError("the turn")
    assert (stand_in / "stopped").exists()


async def test_a_server_that_does_not_serve_is_given_up(stand_in: Path) -> None:
    with pytest.raises(ServerFailed, match="does not serve after 1 s"):
        async with running_server(("127.0.0.1:1",), stand_in / "log", start_s=1):
            raise AssertionError("not reached")
    assert (stand_in / "stopped").exists()


async def test_a_server_that_ends_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(root), str(root / "protos"))))
    with pytest.raises(ServerFailed, match=r"exit code 1\n(.*\n)*.*listen: "):
        async with running_server(("--listen", "nowhere"), tmp_path / "log"):
            raise AssertionError("not reached")
