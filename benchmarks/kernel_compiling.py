"""What each launch compiles to, on a machine without a GPU: Triton's wheel brings the whole compiler.

Inside `compiled_only` launches compile for a GPU that is not there and run nothing, with the very types,
alignments and constants of their arguments, which may lie on any device, "meta" included. So what the
interpreter does not find out is found out before a GPU is at hand: what Triton's language lacks, memory that
does not fit, registers that spill.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from benchmarks.gpu_book import Book
from kernels.launch import as_if
from kernels.timings import forced

# Of an H100 or H200 (compute capability 9.0): bytes of shared memory of one block, and multiprocessors.
SHARED_MEMORY = 227 << 10
PROCESSORS = 132
TIMED = ", timed"
DECODERS = ("decoder, small", "decoder, 8B")
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


def compile_in_parallel(book: Book, capability: int, processors: int, *, tiny: bool) -> None:
    """Every launch of the checks, of the table and of decoders into Triton's cache, from as many processes as
    there are cores. Items: the binaries of each in each dtype, or what the compiler said."""
    from benchmarks.gpu_equality import DTYPES, edges, real
    from benchmarks.kernels import planned

    checks = list(edges()) if tiny else [*edges(), *real()]
    wanted = [(name, dtype) for name in checks for dtype in (DTYPES[:1] if tiny else DTYPES)]
    wanted += [(name, dtype) for name in DECODERS for dtype in (DTYPES[1:2] if tiny else DTYPES)]
    if not tiny:
        wanted += [(case.kernel + TIMED, dtype) for _, case, dtype in planned()]
    workers = 2 if tiny else os.cpu_count()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            pool.submit(_binaries, name, dtype, capability, processors): f"{name}, {dtype}"
            for name, dtype in dict.fromkeys(wanted)
        }
        for job in as_completed(jobs):
            error = job.exception()
            book.items[jobs[job]] = job.result() if error is None else {"broken": repr(error)[:1500]}
            book.put(now="the rest")
    every = [each for item in book.items.values() for each in item.get("binaries", ())]
    spilling = sorted({each["kernel"] for each in every if each["spilled"]})
    book.put(spilling=spilling, now=None)
    print(f"  {len(every)} binaries for sm_{capability}; registers spill in: {', '.join(spilling) or 'none'}")


def _binaries(name: str, dtype: torch.dtype, capability: int, processors: int) -> dict[str, Any]:
    """What one check, the cases of one kernel, or a decoder launch."""
    from benchmarks.gpu_equality import edges, real
    from benchmarks.kernel_checks import rig
    from benchmarks.kernels import planned

    torch.set_num_threads(1)
    with compiled_only(capability, processors) as found, torch.inference_mode():
        if name.endswith(TIMED):
            for _, case, asked in planned():
                if (case.kernel, asked) == (name.removesuffix(TIMED), dtype):
                    case.make(torch.device("meta"), dtype).triton()
        elif name in DECODERS:
            decode(name, dtype)
        else:
            with suppress(AssertionError):  # nothing ran, so nothing is equal
                (edges() | real())[name](rig("cpu", dtype))
    return {"binaries": [asdict(each) for each in found.values()]}


def decode(name: str, dtype: torch.dtype) -> None:
    """One layer of a decoder of `DECODERS`: a step of few rows, of many, and beside a prompt's chunk."""
    from benchmarks.gpu_latency import ON
    from benchmarks.llama import LLAMA_3_8B, SMALL, computed, packed, random_decoder

    whole = {"small": SMALL, "8B": LLAMA_3_8B}[name.removeprefix("decoder, ")]
    config = replace(whole, layers=1, windows=(0,))
    with forced(*ON):
        decoder = random_decoder(config, dtype, torch.device("meta"))
        cache = decoder.new_cache(40 * 1024)
        for counts in ([1], [1] * 32, [1] * 8 + [512]):
            contexts = [count + 500 for count in counts]
            computed(decoder, packed(counts, contexts, cache, config.vocab), cache)


@contextmanager
def compiled_only(capability: int = 90, processors: int = PROCESSORS) -> Iterator[dict[str, Binary]]:
    """Fills what it yields: each different binary, by its hash, for a GPU of so many `processors`. Raises, at
    the launch: what the compiler raises. For one thread, in a process that does not interpret."""
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
        with as_if(processors):
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
