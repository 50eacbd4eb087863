"""Products of weights that are read as float16: alone or divided between threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from kernels import half
from kernels.half import fits, half_linear, pack_half

pytestmark = pytest.mark.skipif(
    half._operators is None, reason="this torch or processor has no such products"
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("biased", [False, True])
def test_dividing_a_product_changes_no_bit(monkeypatch: pytest.MonkeyPatch, biased: bool) -> None:
    """Nor do other rows."""
    weight, x = torch.randn(560, 600).bfloat16().float(), torch.randn(40, 600)
    bias = torch.randn(560) if biased else None
    assert fits(weight)
    whole = half_linear(x, pack_half(weight, bias))
    torch.testing.assert_close(whole, torch.nn.functional.linear(x, weight, bias), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(half, "DIVIDED", 0)
    divided = pack_half(weight, bias)
    monkeypatch.setattr(half, "DIVIDED", 1 << 60)
    alone = pack_half(weight, bias)
    for threads, rows in itertools.product((1, 2, 3), (1, 5, 16, 40)):
        torch.set_num_threads(threads)
        assert torch.equal(half_linear(x[:rows], divided), whole[:rows])
        assert torch.equal(half_linear(x[:rows], alone), whole[:rows])


def test_large_products_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    found = half._operators
    assert found is not None

    def divided(x: torch.Tensor, weight: torch.ScriptObject) -> torch.Tensor:
        calls.append(x.shape[0])
        return found.divided(x, weight)

    monkeypatch.setattr(half, "_operators", half._Operators(found.pack, found.alone, divided))
    monkeypatch.setattr(half, "DIVIDED", 8 * 32 * 32)
    layer = pack_half(torch.ones(32, 32), None)
    for threads, rows in itertools.product((1, 2), (1, 7, 8, 30)):
        torch.set_num_threads(threads)
        half_linear(torch.ones(rows, 32), layer)
    assert calls == [8, 30], "with more than one thread, and from so many rows on"


def test_large_weights_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "DIVIDED", 4 * 32 * 32)
    assert pack_half(torch.ones(31, 32), None).alone is not None
    assert pack_half(torch.ones(32, 32), None).alone is None
