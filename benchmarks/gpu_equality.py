"""Equality of every kernel with its specification: edge cases that the interpreter runs too, and real
sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import kernel_checks as checks
from benchmarks.gpu_book import Book, attempted
from benchmarks.kernel_checks import Heads, Rig, poisoned_memory, rig
from kernels.sampling import RowSampling

SMALL, REAL = Heads(6, 2, 12), Heads(32, 8, 128)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Check = Callable[[Rig], None]


def edges() -> dict[str, Check]:
    """Small enough for the interpreter."""
    rows = [RowSampling(3), RowSampling(4, 9, 0.8), RowSampling(5, 2**64 - 3, 1.2, 5, 0.9, 0.01)]
    some = torch.arange(1030) % 7 == 3
    rows.append(RowSampling(6, 2, 0.9, 20, allowed=some))
    rows.append(RowSampling(6, 1, 0.7, 0, 1.0, 0.0, 1.3, 0.5, 0.2, (1, 2, 7, 7), (7, 7)))
    return {
        "paged_decode": lambda r: checks.paged_decode(r, SMALL, [1, 0, 3], [300, 0, 16]),
        "paged_decode, window": lambda r: checks.paged_decode(r, SMALL, [2, 1], [90, 5], window=20),
        "paged_decode, tree": lambda r: checks.paged_decode(r, SMALL, [7, 3], [70, 3], tree=True, window=16),
        "shared_prefix": lambda r: checks.shared_prefix(r, SMALL, [1, 2, 1], [80, 70, 65], 64),
        "paged_prefill": lambda r: checks.paged_prefill(r, SMALL, [20, 1, 3], [20, 40, 70], window=30),
        "rms_norm": lambda r: checks.rms_norm(r, 3, 65),
        "rope_append": lambda r: checks.rope_append(r, SMALL, 3, norms=True),
        "gate_multiply": lambda r: checks.gate(r, 3, 50, "silu"),
        "gate_multiply, gelu": lambda r: checks.gate(r, 3, 50, "gelu"),
        "gate_multiply, tanh": lambda r: checks.gate(r, 3, 50, "gelu_tanh"),
        "quantised_linear_8": lambda r: checks.quantised(r, 3, 64, 33, 8, 32),
        "quantised_linear_4": lambda r: checks.quantised(r, 8, 64, 33, 4, 32),
        "perturbed_argmax": lambda r: checks.drawn(r, 1030, rows),
        "group_norm_silu": lambda r: checks.group_norm(r, 2, 12, 3, (7, 9), silu=True),
        "modulate": lambda r: checks.modulate(r, 2, 3, 40),
        "latent_steps": lambda r: checks.latent_steps(r, 3, 5, (1, 2, 515)),
        "overlap_add": lambda r: checks.overlap_add(r, 2, 5, 15, 4, windowed=False),
    }


def real() -> dict[str, Check]:
    """Sizes of decoding and denoising."""
    rows = [RowSampling(3, seed, 0.8, 50, 0.9) for seed in range(8)]
    return {
        "paged_decode, long": lambda r: checks.paged_decode(r, REAL, [1, 4, 1], [3000, 700, 4096]),
        "shared_prefix, long": lambda r: checks.shared_prefix(r, REAL, [1] * 16, [2100] * 16, 2048),
        "paged_prefill, long": lambda r: checks.paged_prefill(r, REAL, [512, 100], [1500, 100]),
        "rms_norm, wide": lambda r: checks.rms_norm(r, 64, 4096),
        "rope_append, wide": lambda r: checks.rope_append(r, REAL, 64, norms=False),
        "gate_multiply, wide": lambda r: checks.gate(r, 64, 14336, "silu"),
        "quantised_linear_8, wide": lambda r: checks.quantised(r, 8, 4096, 4096, 8, 128),
        "quantised_linear_4, wide": lambda r: checks.quantised(r, 1, 4096, 4096, 4, 128),
        "perturbed_argmax, wide": lambda r: checks.drawn(r, 128256, rows),
        "group_norm_silu, wide": lambda r: checks.group_norm(r, 2, 320, 32, (128, 128), silu=True),
        "modulate, wide": lambda r: checks.modulate(r, 2, 4096, 1152),
        "latent_steps, wide": lambda r: checks.latent_steps(r, 4, 6, (1, 4, 128, 128)),
        "overlap_add, wide": lambda r: checks.overlap_add(r, 4, 400, 1024, 256, windowed=True),
    }


def measure(book: Book, device: torch.device, *, tiny: bool) -> None:
    """Items: each check in each dtype, {"equal": bool, "why": message}."""
    checks = edges() if tiny else edges() | real()
    planned = {
        f"{name}, {str(dtype).removeprefix('torch.')}": (check, dtype)
        for name, check in checks.items()
        for dtype in DTYPES
    }
    book.put(planned=list(planned))
    for name, (check, dtype) in planned.items():
        book.item(name, lambda check=check, dtype=dtype: _made(check, rig(str(device), dtype)))  # type: ignore[misc]
    failed = [name for name, item in book.items.items() if not item.get("equal")]
    print(f"  {len(book.items) - len(failed)} equal, {len(failed)} not")


def _made(check: Check, rig: Rig) -> dict[str, Any]:
    return attempted(lambda: _outcome(check, rig))


def _outcome(check: Check, rig: Rig) -> dict[str, Any]:
    try:
        with poisoned_memory():
            check(rig)
    except AssertionError as error:
        print(f"  differs: {str(error)[:300]}")
        return {"equal": False, "why": str(error)[:500]}
    return {"equal": True}
