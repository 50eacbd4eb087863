"""The Triton kernels, interpreted on the CPU, against their specifications."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (it exists for Linux only)"
)


def run(marked: str) -> None:
    """In a process of its own, because Triton interprets everywhere or nowhere."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "-m",
        marked,
        str(FOLDER),
    ]
    done = subprocess.run(command, env=environment, cwd=FOLDER.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def test_kernels_equal_their_specifications() -> None:
    run("not slow")


@pytest.mark.slow
def test_kernels_equal_their_specifications_on_many_shapes() -> None:
    run("slow")


def test_this_process_does_not_interpret() -> None:
    assert "TRITON_INTERPRET" not in os.environ
