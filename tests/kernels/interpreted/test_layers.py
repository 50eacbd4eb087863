"""The kernels between the matrix products: norms, rotary positions with the cache write, gates, quantised
layers, adaptive norms, latents, overlap-add."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import kernel_checks as checks
from benchmarks.kernel_checks import Heads, poisoned_memory, rig
from kernels.gate import ACTIVATIONS
from kernels.linear import linear, pack_grouped
from kernels.quantised import MOST_ROWS, quantise
from kernels.timings import forced

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory():
        yield


@dtypes
@pytest.mark.parametrize(("tokens", "width"), [(0, 8), (1, 1), (3, 64), (5, 288), (2, 1025)])
def test_rms_norm(tokens: int, width: int, dtype: torch.dtype) -> None:
    checks.rms_norm(rig("cpu", dtype), tokens, width)


@dtypes
@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("heads", [Heads(4, 2, 16), Heads(9, 3, 12), Heads(1, 1, 2)])
def test_rope_append(heads: Heads, norms: bool, dtype: torch.dtype) -> None:
    for tokens in (0, 1, 6):
        checks.rope_append(rig("cpu", dtype), heads, tokens, norms=norms)


@dtypes
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gate(act: str, dtype: torch.dtype) -> None:
    for tokens, width in ((0, 4), (1, 1), (3, 50), (2, 1025)):
        checks.gate(rig("cpu", dtype), tokens, width, act)


@dtypes
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "group"),
    [(0, 32, 4, 32), (1, 64, 33, 32), (8, 256, 32, 128), (16, 32, 5, 32)],
)
def test_quantised(bits: int, rows: int, inputs: int, outputs: int, group: int, dtype: torch.dtype) -> None:
    checks.quantised(rig("cpu", dtype), rows, inputs, outputs, bits, group)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantising_loses_at_most_half_a_step(bits: int) -> None:
    weight = torch.randn(5, 96)
    weight[2, :32] = 0.0
    kept = quantise(weight, bits, 32)
    error = (kept.widened(torch.float32) - weight).view(5, 3, 32).abs()
    assert bool((error <= kept.scales.unsqueeze(-1) * 0.5001).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_a_rounded_layer_takes_its_kernel_for_few_rows(bits: int) -> None:
    """With its bias; more rows than the kernel has are multiplied by the widened weight."""
    weight, bias = torch.randn(24, 96), torch.randn(24)
    layer = pack_grouped(weight, bits, bias)
    assert layer.grouped is not None
    assert layer.grouped.group == 32
    for rows in (1, MOST_ROWS, MOST_ROWS + 1):
        x = torch.randn(rows, 96)
        expected = F.linear(x, layer.grouped.widened(torch.float32), bias)
        assert torch.equal(linear(x, layer), expected)
        with forced(f"quantised_linear_{bits}"):
            torch.testing.assert_close(linear(x, layer), expected, atol=2e-5, rtol=2e-5)
            assert torch.equal(linear(x, layer), expected) == (rows > MOST_ROWS)


def test_sizes_that_cannot_be_quantised() -> None:
    with pytest.raises(ValueError, match="multiples of 32 inputs, a layer has 40"):
        pack_grouped(torch.randn(16, 40), 8)
    with pytest.raises(ValueError, match="bits: 5"):
        quantise(torch.randn(2, 64), 5)
    with pytest.raises(ValueError, match="group: 100 inputs"):
        quantise(torch.randn(2, 100), 8)


@dtypes
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    ("images", "channels", "groups", "side"), [(1, 1, 1, (1, 2)), (2, 12, 3, (7, 9)), (1, 4, 2, (40, 41))]
)
def test_group_norm(
    images: int, channels: int, groups: int, side: tuple[int, int], silu: bool, dtype: torch.dtype
) -> None:
    checks.group_norm(rig("cpu", dtype), images, channels, groups, side, silu=silu)


@dtypes
@pytest.mark.parametrize(("images", "tokens", "width"), [(1, 1, 2), (3, 5, 40), (2, 2, 1025), (0, 3, 8)])
def test_modulate(images: int, tokens: int, width: int, dtype: torch.dtype) -> None:
    checks.modulate(rig("cpu", dtype), images, tokens, width)


@pytest.mark.parametrize(("sums", "tensors"), [(1, 1), (1, 2), (2, 3), (4, 4), (3, 5), (4, 6)])
def test_latent_steps(sums: int, tensors: int) -> None:
    for shape in ((1, 1), (1, 4, 17, 16), (0, 4)):
        checks.latent_steps(rig("cpu", torch.float32), sums, tensors, shape)


@dtypes
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize(
    ("frames", "length", "hop"), [(0, 8, 2), (1, 8, 2), (7, 16, 4), (5, 15, 4), (4, 8, 8), (3, 5, 9)]
)
def test_overlap_add(frames: int, length: int, hop: int, windowed: bool, dtype: torch.dtype) -> None:
    checks.overlap_add(rig("cpu", dtype), 2, frames, length, hop, windowed=windowed)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 600), st.sampled_from(DTYPES), st.integers(0, 99))
def test_many_widths(rows: int, width: int, dtype: torch.dtype, seed: int) -> None:
    here = rig("cpu", dtype, seed)
    checks.rms_norm(here, rows, width)
    checks.gate(here, rows, width, "silu")
    checks.modulate(here, rows, 2, width)
    checks.group_norm(here, rows, 6, 3, (1, width + 1), silu=True)
    checks.latent_steps(here, 3, min(6, rows), (width,))
    checks.overlap_add(here, 1, rows, width, max(1, width // 3), windowed=True)
