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


def test_every_kernel_compiles_at_real_sizes_without_spilling() -> None:
    from benchmarks.kernel_cases import cases
    from benchmarks.kernel_compiling import SHARED_MEMORY, compiled_only

    with compiled_only() as binaries, torch.inference_mode():
        for case in cases(torch.bfloat16.itemsize, tiny=False):
            case.make(torch.device("meta"), torch.bfloat16).triton()
    assert {each.kernel for each in binaries.values()} >= KERNELS - {"_penalise"}
    for each in binaries.values():
        assert each.spilled == 0 and each.shared <= SHARED_MEMORY, each


def test_every_kernel_compiles_at_its_edges() -> None:
    compile_edges(torch.bfloat16, 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_kernel_compiles_for_other_gpus(dtype: torch.dtype, capability: int) -> None:
    compile_edges(dtype, capability)


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
