"""Divided operations: equal to the operation in one go, with points in between, whatever the shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as nnf

from pipelines.image import divisible as module
from pipelines.image.divisible import Divisible, divisible, plain
from pipelines.interruptible import interruptible

torch.set_num_threads(1)
Operation = Callable[[torch.Tensor], Any]


def weights(*shape: int) -> torch.Tensor:
    """Fixed random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small tensors are divided."""
    monkeypatch.setattr(module, "PIECE_MACS", 20_000)
    monkeypatch.setattr(module, "PIECE_ELEMENTS", 300)


def run(call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """The result and the number of points."""
    steps, points = interruptible(call), 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, points
        points += 1


IMAGE, TOKENS, HEADS = (2, 8, 15, 9), (2, 50, 8), (2, 3, 40, 8)
OPERATIONS: dict[str, tuple[tuple[int, ...], Operation]] = {
    "conv 3x3": (IMAGE, lambda x: nnf.conv2d(x, weights(12, 8, 3, 3), weights(12), padding=1)),
    "conv 3x3 stride 2": (
        IMAGE,
        lambda x: nnf.conv2d(x, weights(12, 8, 3, 3), weights(12), stride=2, padding=1),
    ),
    "conv stride 2, no padding": (IMAGE, lambda x: nnf.conv2d(x, weights(12, 8, 3, 3), stride=2)),
    "conv 1x1": (IMAGE, lambda x: nnf.conv2d(x, weights(30, 8, 1, 1))),
    "conv dilated": (
        IMAGE,
        lambda x: nnf.conv2d(x, weights(12, 8, 3, 3), None, (1, 1), (2, 2), (2, 2)),
    ),
    "conv in groups": (IMAGE, lambda x: nnf.conv2d(x, weights(40, 2, 3, 3), padding=(1, 0), groups=4)),
    "conv, padding same": (IMAGE, lambda x: nnf.conv2d(x, weights(12, 8, 3, 3), padding="same")),
    "pixel shuffle": (IMAGE, lambda x: nnf.pixel_shuffle(x, 2)),
    "power": (IMAGE, lambda x: x.pow(2)),
    "relu": (IMAGE, nnf.relu),
    "linear": (TOKENS, lambda x: nnf.linear(x, weights(33, 8), weights(33))),
    "attention": (HEADS, lambda x: nnf.scaled_dot_product_attention(x, x * 2, x + 1)),
    "attention, scaled": (HEADS, lambda x: nnf.scaled_dot_product_attention(x, x, x, scale=0.3)),
    "attention to few": (
        HEADS,
        lambda x: nnf.scaled_dot_product_attention(x, x[:, :, :7], x[:, :, 3:10]),
    ),
    "attention, masked": (
        HEADS,
        lambda x: nnf.scaled_dot_product_attention(x, x, x, weights(2, 1, 1, 40), dropout_p=0.0),
    ),
    "attention, causal": (HEADS, lambda x: nnf.scaled_dot_product_attention(x, x, x, is_causal=True)),
    "product of heads": (HEADS, lambda x: torch.matmul(x, x.transpose(2, 3) + 1)),
    "product with a narrow one": (HEADS, lambda x: torch.matmul(x.transpose(2, 3), x)),
    "product of matrices": (TOKENS, lambda x: torch.matmul(x, x.transpose(1, 2))),
    "softmax": (HEADS, lambda x: nnf.softmax(x, dim=-1, dtype=torch.float32)),
    "softmax over rows": (HEADS, lambda x: nnf.softmax(x, dim=2)),
    "mean": (HEADS, lambda x: x.mean(-1, keepdim=True)),
    "mean over all": (HEADS, lambda x: x.mean().reshape(1)),
    "repeated channels": (IMAGE, lambda x: x.repeat_interleave(3, dim=1, output_size=24)),
    "repeated rows": (IMAGE, lambda x: x.repeat_interleave(2, dim=2)),
    "tanh": (HEADS, torch.tanh),
    "padding": (HEADS, lambda x: nnf.pad(x, (0, 0, 0, 1), mode="constant", value=1.0)),
    "padding of channels": (IMAGE, lambda x: nnf.pad(x, (0, 0, 0, 0, 1, 1))),
    "group norm": (IMAGE, lambda x: nnf.group_norm(x, 4, weights(8), weights(8), 1e-6)),
    "group norm without weights": (IMAGE, lambda x: nnf.group_norm(x, 2)),
    "layer norm": (TOKENS, lambda x: nnf.layer_norm(x, (8,), weights(8), weights(8), 1e-5)),
    "upsampling": (IMAGE, lambda x: nnf.interpolate(x, scale_factor=2.0, mode="nearest")),
    "upsampling to a size": (IMAGE, lambda x: nnf.interpolate(x, size=(31, 19), mode="nearest")),
    "silu": (IMAGE, nnf.silu),
    "gelu": (TOKENS, nnf.gelu),
    "sum": (IMAGE, lambda x: x + x.flip(3)),
    "sum with a column": (IMAGE, lambda x: x + weights(2, 8)[:, :, None, None]),
    "scalars": (IMAGE, lambda x: (x * 2.0 - 1) / 3),
    "a channel's factor": (IMAGE, lambda x: x * weights(8, 1, 1)),
    "copy of a transposed": (IMAGE, lambda x: x.permute(0, 2, 3, 1).reshape(2, 135, 8)),
    "contiguous": (IMAGE, lambda x: x.permute(0, 2, 3, 1).contiguous()),
    "concatenation": (IMAGE, lambda x: torch.cat([x, x[:, :3] + 1, x], dim=1)),
    "concatenation of images": (IMAGE, lambda x: torch.cat([x, x])),
    "chunks": (TOKENS, lambda x: x.chunk(2, dim=-1)[1]),
    "unknown": (IMAGE, lambda x: x.cumsum(1)),
}
IN_ONE_GO = {
    "attention, causal",
    "chunks",
    "unknown",
    "conv, padding same",
    "concatenation of images",
    "product of matrices",
    "repeated rows",
    "softmax over rows",
    "mean over all",
    "padding of channels",
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_equal_to_one_go(name: str) -> None:
    shape, operation = OPERATIONS[name]
    x = weights(*shape)
    wanted = operation(x)
    found, points = run(lambda: operation(x.as_subclass(Divisible)))
    assert type(found) is Divisible
    assert found.shape == wanted.shape
    torch.testing.assert_close(plain(found), wanted, atol=2e-5, rtol=1e-5)
    assert points > 1 or name in IN_ONE_GO
    again, _ = run(lambda: operation(x.as_subclass(Divisible)))
    assert torch.equal(plain(found), plain(again))


def test_short_operations_are_not_divided() -> None:
    x = torch.ones(1, 2, 3, 3)
    found, points = run(lambda: nnf.silu(x.as_subclass(Divisible)))
    assert torch.equal(plain(found), nnf.silu(x))
    assert points == 0


def test_only_long_work_is_worth_it() -> None:
    x = torch.ones(2, 2)
    assert divisible(x, module.WORTH_DIVIDING_MACS) is x
    assert type(divisible(x, module.WORTH_DIVIDING_MACS + 1)) is Divisible
    assert plain(x) is not None


def test_a_whole_model(loaded: Any) -> None:
    """U-Net, VAE and text encoder of diffusers and transformers run on divisible tensors, unchanged."""
    parts = loaded._parts
    latents, text, times = weights(3, 4, 8, 8), weights(3, 16, 32), torch.tensor([1.0, 500.0, 999.0])
    ids = torch.arange(32).reshape(2, 16)
    calls: list[Callable[[Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]] = [
        lambda wrap: parts.backbone.network(wrap(latents), times, encoder_hidden_states=wrap(text)).sample,
        lambda wrap: parts.vae.module.decode(wrap(latents)).sample,
        lambda wrap: parts.backbone.encoders[0](wrap(ids)).last_hidden_state,
    ]
    for call in calls:
        wanted = call(lambda x: x)
        found, points = run(functools.partial(call, lambda x: x.as_subclass(Divisible)))
        torch.testing.assert_close(plain(found), wanted, atol=2e-5, rtol=1e-4)
        assert points > 50


def test_a_shape_may_be_named() -> None:
    """As SD3's transformer does."""
    x = weights(2, 3, 4).as_subclass(Divisible)
    found, _ = run(lambda: x.reshape(shape=(2, 12)))
    assert torch.equal(plain(found), plain(x).reshape(2, 12))
