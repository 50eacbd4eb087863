"""What each launch compiles to, on a machine without a GPU: Triton's wheel brings the whole compiler.

Inside `compiled_only` launches compile for a GPU that is not there and run nothing, with the very types,
alignments and constants of their arguments, which may lie on any device, "meta" included. So what the
interpreter does not find out is found out before a GPU is at hand: what Triton's language lacks, memory that
does not fit, registers that spill.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# Shared memory of one block, bytes: of compute capability 9.0 (H100, H200).
SHARED_MEMORY = 227 << 10
_TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True, slots=True)
class Binary:
    """A kernel's machine code: registers of a thread, bytes that it spills, bytes of shared memory of a
    block."""

    kernel: str
    registers: int
    spilled: int
    shared: int
    threads: int


@contextmanager
def compiled_only(capability: int = 90) -> Iterator[dict[str, Binary]]:
    """Fills what it yields: each different binary, by its hash. Raises, at the launch: what the compiler
    raises. For one thread, in a process that does not interpret."""
    found: dict[str, Binary] = {}
    launch, before = JITFunction.run, driver._active

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        if kernel.hash not in found:
            found[kernel.hash] = _described(kernel)
        return kernel

    JITFunction.run = compile_only
    driver.set_active(_Absent(capability))
    try:
        yield found
    finally:
        JITFunction.run, driver._active = launch, before


class _Absent:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        """A number of its own for each target, since what is compiled is kept by device."""
        return self._capability

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)


def _described(kernel: Any) -> Binary:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(_TOOL), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert used is not None, said
    data = kernel.metadata
    return Binary(data.name, int(used[1]), int(used[2]), int(data.shared), 32 * int(data.num_warps))
