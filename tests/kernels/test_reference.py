"""The kernels against the plainest form of what they compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import Span, attend, linear, linear_add, pack, pack_rounded, plan_attention, rms_norm
from kernels.reference import append, rotate_

REGION = 512


def test_rms_norm() -> None:
    x, weight = torch.randn(5, 48), torch.randn(48)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(rms_norm(x, weight, torch.tensor(1e-5)), expected)
    half = rms_norm(x.bfloat16(), weight.bfloat16(), torch.tensor(1e-5))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_turns_neighbouring_pairs(dtype: torch.dtype) -> None:
    mixed = torch.randn(3, 6, 8).to(dtype)
    before = mixed.clone()
    angle = torch.randn(3, 1, 4)
    rotate_(mixed[:, :4], torch.polar(torch.ones_like(angle), angle))
    even, odd = before[:, :4, ::2].float(), before[:, :4, 1::2].float()
    near = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(
        mixed[:, :4, ::2].float(), even * angle.cos() - odd * angle.sin(), atol=near, rtol=near
    )
    torch.testing.assert_close(
        mixed[:, :4, 1::2].float(), odd * angle.cos() + even * angle.sin(), atol=near, rtol=near
    )
    assert torch.equal(mixed[:, 4:], before[:, 4:])


@pytest.mark.parametrize("rows", [1, 2, 9, 40])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)],
)
def test_packed_linear_layers(rows: int, biased: bool, dtype: torch.dtype, stored: torch.dtype) -> None:
    weight, bias = torch.randn(24, 40).to(stored).to(dtype), torch.randn(24).to(dtype) if biased else None
    x, residual = torch.randn(rows, 40).to(dtype), torch.randn(rows, 24).to(dtype)
    layer = pack(weight, bias)
    expected = x.float() @ weight.float().t() + (bias.float() if bias is not None else 0.0)
    near = 1e-4 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(linear(x, layer).float(), expected, atol=near, rtol=near)
    torch.testing.assert_close(
        linear_add(x, layer, residual).float(), expected + residual.float(), atol=near, rtol=near
    )


def test_only_what_half_precision_keeps_is_halved() -> None:
    def order(weight: torch.Tensor) -> str:
        return pack(weight).order

    kept = order(torch.randn(16, 16).bfloat16().float())
    assert kept in ("half", order(torch.randn(16, 16)))
    assert order(torch.randn(16, 16)) != "half"
    assert order(torch.full((16, 16), 1e6).bfloat16().float()) != "half"
    assert order(torch.randn(16, 16).bfloat16()) != "half"


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("biased", [False, True])
def test_rounded_linear_layers(rows: int, bits: int, biased: bool) -> None:
    """Off by what rounding a weight to the middle between two of its numbers makes, and bfloat16 inputs."""
    weight, bias = torch.randn(48, 96), torch.randn(48) if biased else None
    x = torch.randn(rows, 96)
    layer = pack_rounded(weight, bits, bias)
    wanted = x @ weight.t() + (bias if bias is not None else 0.0)
    step = weight.view(48, -1, 32).abs().amax(-1).max() / (7 if bits == 4 else 127)
    off = linear(x, layer) - wanted
    assert off.abs().max() <= x.abs().sum(-1).max() * (step / 2 + 2**-8 * weight.abs().max())
    assert off.square().mean().sqrt() <= 0.4 * step * x.square().sum(-1).mean().sqrt() + 0.01 * 96**0.5
    assert torch.equal(linear(x, layer), linear_add(x, layer, torch.zeros_like(wanted)))


def test_what_cannot_be_rounded_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32 inputs and 16 outputs, a layer has 40 and 16"):
        pack_rounded(torch.randn(16, 40), 4)


Shape = tuple[int, int, bool]
shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60), st.booleans()), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(shapes, st.sampled_from([(4, 2), (4, 4), (4, 1)]), st.integers(0, 2**31))
def test_packed_paged_attention(rows: list[Shape], heads: tuple[int, int], seed: int) -> None:
    check_attention(rows, heads, seed)


@pytest.mark.parametrize("scattered", [False, True])
def test_long_and_short_decodes_beside_a_prompt(scattered: bool) -> None:
    rows = [(1, 299, scattered), (1, 10, False), (1, 255, scattered), (7, 300, scattered), (1, 400, False)]
    check_attention(rows, (4, 2), 0)


def check_attention(rows: list[Shape], heads: tuple[int, int], seed: int) -> None:
    """Rows of (new tokens, earlier tokens, scattered in the cache) against one dense softmax each; slots
    that no row owns hold NaN."""
    generator = torch.Generator().manual_seed(seed)
    queries, kv_heads = heads
    cache = torch.full((2 * kv_heads, REGION * len(rows), 8), torch.nan)
    q = torch.randn(sum(count for count, _, _ in rows), queries, 8, generator=generator)
    spans, expected, first = [], [], 0
    for place, (count, earlier, scattered) in enumerate(rows):
        context, start = count + earlier, place * REGION
        where: slice | torch.Tensor = slice(start, start + context)
        slots = torch.arange(start, start + context)
        if scattered:
            where = slots = start + torch.randperm(REGION, generator=generator)[:context]
        new = torch.randn(context, 2 * kv_heads, 8, generator=generator)
        append(cache, slots, new)
        spans.append(Span(first, count, context, where))
        expected.append(dense(q[first : first + count], new, kv_heads))
        first += count
    out = attend(q, cache, plan_attention(spans, cache))
    torch.testing.assert_close(out, torch.cat(expected), atol=1e-5, rtol=1e-4)


def dense(q: torch.Tensor, kv: torch.Tensor, kv_heads: int) -> torch.Tensor:
    count, context = q.shape[0], kv.shape[0]
    keys, values = kv[:, :kv_heads], kv[:, kv_heads:]
    repeat = q.shape[1] // kv_heads
    keys, values = keys.repeat_interleave(repeat, 1), values.repeat_interleave(repeat, 1)
    scores = torch.einsum("qhd,khd->hqk", q, keys)
    hidden = torch.ones(count, context, dtype=torch.bool).triu(context - count + 1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values).reshape(count, -1)
