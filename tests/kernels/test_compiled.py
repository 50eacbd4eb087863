"""The Triton kernels, compiled for GPUs that are not there: what the interpreter does not find out."""

from __future__ import annotations

import importlib.util

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (it exists for Linux only)"
)

KERNELS = {
    "_apply",
    "_decode",
    "_draw",
    "_gate",
    "_latent_steps",
    "_merge",
    "_modulate",
    "_moments",
    "_norm",
    "_overlap_add",
    "_penalise",
    "_prefill",
    "_prefix",
    "_quantised",
    "_rope_append",
    "_threshold",
}

# Bytes a thread. Triton 3.7 keeps one of the threshold's numbers on the stack.
SPILLED = 8


def test_every_kernel_compiles_at_real_sizes_without_spilling() -> None:
    from benchmarks.kernel_cases import cases
    from benchmarks.kernel_compiling import SHARED_MEMORY, compiled_only

    with compiled_only() as binaries, torch.inference_mode():
        for case in cases(torch.bfloat16.itemsize, tiny=False):
            case.make(torch.device("meta"), torch.bfloat16).triton()
    assert {each.kernel for each in binaries.values()} >= KERNELS - {"_penalise"}
    for each in binaries.values():
        assert each.spilled <= SPILLED and each.shared <= SHARED_MEMORY, each


def test_every_kernel_compiles_at_its_edges() -> None:
    compile_edges(torch.bfloat16, 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_kernel_compiles_for_other_gpus(dtype: torch.dtype, capability: int) -> None:
    compile_edges(dtype, capability)


@pytest.mark.parametrize(
    ("queries", "kv", "size", "count", "dtype"),
    [
        pytest.param(64, 8, 128, 16, torch.bfloat16, marks=pytest.mark.slow),  # Llama 3 70B
        pytest.param(28, 4, 128, 16, torch.bfloat16, marks=pytest.mark.slow),  # Qwen 2 7B
        pytest.param(16, 8, 256, 16, torch.bfloat16, marks=pytest.mark.slow),  # Gemma 2
        pytest.param(32, 8, 128, 16, torch.float32, marks=pytest.mark.slow),
        pytest.param(71, 1, 64, 16, torch.bfloat16, marks=pytest.mark.slow),  # Falcon 7B: one head of keys
    ],
)
def test_attention_fits_the_registers_of_other_models(
    queries: int, kv: int, size: int, count: int, dtype: torch.dtype
) -> None:
    """In float32 each product is three: there registers may spill, which is slow and not wrong."""
    from benchmarks.kernel_compiling import SHARED_MEMORY, compiled_only
    from kernels.paged import PagedRows
    from kernels.paged_decode import merge, paged_decode
    from kernels.paged_prefill import paged_prefill, tiles_of
    from kernels.shared_prefix import shared_prefix_decode

    def numbers(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int32, device="meta")

    cache = torch.empty(2 * kv, 1024, size, dtype=dtype, device="meta")
    table = [
        PagedRows(numbers(4), numbers(4), numbers(4), numbers(4, 64), 16, each, 1000) for each in (count, 64)
    ]
    with compiled_only() as binaries, torch.inference_mode():
        q = torch.empty(256, queries, size, dtype=dtype, device="meta")
        paged_decode(q[: 4 * count], cache, table[0])
        shared_prefix_decode(q[: 4 * count], cache, table[0], 512)
        _, side = tiles_of([64] * 4, queries // kv, torch.device("cpu"))
        paged_prefill(q, cache, table[1], numbers(30, 2), side)
        merge(
            q.new_empty(1, 1, 264, size, dtype=torch.float32),
            q.new_empty(1, 1, 264, dtype=torch.float32),
            dtype,
        )
    for each in binaries.values():
        assert each.shared <= SHARED_MEMORY, each
        assert each.spilled == 0 or dtype == torch.float32, each


def test_one_binary_serves_any_number_of_rows() -> None:
    """Compiling takes a second, in which all conversations would stand still."""
    from benchmarks.kernel_compiling import compiled_only
    from kernels import Span, attend, plan_attention
    from kernels.timings import forced

    cache, q = torch.zeros(4, 2048, 16, dtype=torch.bfloat16), torch.zeros(80, 4, 16, dtype=torch.bfloat16)
    with compiled_only() as binaries, torch.inference_mode(), forced("paged_decode", "paged_prefill"):
        for rows, context in ((1, 9), (2, 300), (3, 600), (4, 9), (5, 320)):
            spans = [Span(row, 1, context, slice(64 * row, 64 * row + context)) for row in range(rows)]
            spans.append(Span(rows, 20, context + 20, slice(640, 660 + context)))
            attend(q[: rows + 20], cache, plan_attention(spans, cache))
    assert sorted(each.kernel for each in binaries.values()) == ["_decode", "_merge", "_prefill"]


def compile_edges(dtype: torch.dtype, capability: int) -> None:
    """All that `make bench-gpu` checks. Nothing runs, so nothing is equal either: those failures are
    expected."""
    from benchmarks.gpu_equality import edges
    from benchmarks.kernel_checks import rig
    from benchmarks.kernel_compiling import compiled_only

    with compiled_only(capability) as binaries:
        for check in edges().values():
            try:
                check(rig("cpu", dtype))
            except AssertionError:
                continue
    assert {each.kernel for each in binaries.values()} == KERNELS
