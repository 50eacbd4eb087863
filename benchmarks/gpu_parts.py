"""The parts of `benchmarks.gpu`, each in a process of its own: `python -m benchmarks.gpu_parts PART BOOK
[--tiny]`. Tiny: on the CPU, interpreted, every branch once."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import torch

from benchmarks.bare import stand_in
from benchmarks.gpu_book import DRY, Book

stand_in()


def hardware(device: torch.device) -> dict[str, str]:
    """What ran it."""
    import triton

    told = {
        "device": DRY,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "triton": str(triton.__version__),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": f"{properties.total_memory / 2**30:.0f}",
            "processors": str(properties.multi_processor_count),
            "cuda": str(torch.version.cuda),
        }
    return told


def compile_all(book: Book, device: torch.device, *, tiny: bool) -> None:
    """Every launch of the other parts, on all cores at once, into Triton's cache."""
    from benchmarks.kernel_compiling import PROCESSORS, compile_in_parallel

    if tiny:
        compile_in_parallel(book, 90, PROCESSORS, tiny=True)
        return
    properties = torch.cuda.get_device_properties(device)
    capability = 10 * properties.major + properties.minor
    compile_in_parallel(book, capability, properties.multi_processor_count, tiny=False)


def equality(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks.gpu_equality import measure

    measure(book, device, tiny=tiny)


def kernels(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks import kernels as table

    table.interpreted(book) if tiny else table.measured(book)


def compiled(book: Book, device: torch.device, *, tiny: bool) -> None:
    """The table's peers that take seconds each to compile."""
    from benchmarks import kernels as table

    if not tiny:
        table.beside_compiled(book)


def text(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks.gpu_text import measure
    from benchmarks.gpu_timing import reading
    from benchmarks.llama import LLAMA_3_8B, TINY

    if tiny:
        measure(book, TINY, device, torch.float32, ((1, 8),), 1e9, steps=1, warm=0)
    else:
        batches = ((1, 1024), (8, 1024), (32, 1024))
        measure(book, LLAMA_3_8B, device, torch.bfloat16, batches, reading())


def graphs(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks.gpu_equality import DTYPES
    from benchmarks.gpu_graphs import measure
    from benchmarks.llama import SMALL, TINY

    if tiny:
        measure(book, TINY, device, DTYPES[:1], ((1, 32), (2, 48)), steps=2)
    else:
        measure(book, SMALL, device, DTYPES, ((1, 4096), (8, 512), (8, 4096), (12, 4096)), steps=40)


def latency(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks.gpu_latency import Load, measure
    from benchmarks.llama import LLAMA_3_8B, TINY

    if tiny:
        measure(book, TINY, device, torch.float32, Load((20,), streams=1, context=5, chunk=16, rounds=1))
    else:
        load = Load((512, 2048, 8192), streams=8, context=1024, chunk=512, rounds=5)
        measure(book, LLAMA_3_8B, device, torch.bfloat16, load)


def preemption(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks.gpu_preemption import Load, measure
    from benchmarks.llama import LLAMA_3_8B, TINY
    from benchmarks.sdxl_shape import SDXL
    from benchmarks.sdxl_shape import TINY as TINY_UNET

    if tiny:
        measure(book, TINY, TINY_UNET, device, torch.float32, Load((20, 90), 2, 25.0, 1.0, 6))
    else:
        measure(book, LLAMA_3_8B, SDXL, device, torch.bfloat16, Load((512, 4096), 10, 10.0, 50.0, 80))


def step_cache(book: Book, device: torch.device, *, tiny: bool) -> None:
    from benchmarks.gpu_images import measure
    from benchmarks.sdxl_shape import SDXL, TINY

    if tiny:
        measure(book, TINY, device, torch.float32, rows=1, rounds=1, warm=0, steps=1)
    else:
        measure(book, SDXL, device, torch.bfloat16, rows=2, rounds=5)


PARTS = {
    "compile": compile_all,
    "equality": equality,
    "kernels": kernels,
    "compiled": compiled,
    "text": text,
    "graphs": graphs,
    "latency": latency,
    "preemption": preemption,
    "step_cache": step_cache,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("book", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if options.tiny else "cuda")
    if options.tiny:
        torch.set_num_threads(1)
    book = Book(options.book)
    book.put(hardware=hardware(device))
    with torch.inference_mode():
        PARTS[options.part](book, device, tiny=options.tiny)


if __name__ == "__main__":
    main()
