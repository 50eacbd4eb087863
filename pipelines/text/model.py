"""Our own decoder of the Llama family over a paged KV cache: packed tokens, no padding, preemptible.

`Decoder.forward` is a generator: every `yield` between layer groups is a preemption point. It reads the
weights, writes KV into the slots it is given, and keeps everything else in its own frame, so several
suspended calls never meet.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import AttentionPlan, Linear, append, attend, linear, linear_add, rms_norm, rotate_
from pipelines.text.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights: query, key and value in one product (rotary pairs side by side), gate and up in
    one."""

    attention_norm: Tensor
    query_key_value: Linear
    attended: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model on one device in one dtype. `rotation`: complex64 `[context, head_dim / 2]`."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear
    rotation: Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """The new tokens of all rows of one slice: ids, positions and slots int64 `[tokens]`; `last`: packed
    indices int64 whose logits are wanted."""

    ids: Tensor
    positions: Tensor
    slots: Tensor
    attention: AttentionPlan
    last: Tensor


class Decoder:
    """Weights and the computation over them; immutable after construction."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self._eps = torch.tensor(config.norm_eps, device=weights.embedding.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and KV cache."""
        return self.weights.embedding.dtype

    def forward(
        self, packed: Packed, cache: Sequence[Tensor], every: int
    ) -> Generator[None, None, Tensor | None]:
        """Logits fp32 `[len(last), vocab]`, None where `last` is empty; yields after each `every` layers.

        `cache`: one tensor a layer, `[2 * kv_heads, slots, head_dim]`.
        """
        weights = self.weights
        x = F.embedding(packed.ids, weights.embedding)
        rotation = weights.rotation[packed.positions].unsqueeze(1)
        for index, layer in enumerate(weights.layers):
            if index and index % every == 0:
                yield
            x = self._layer(layer, x, rotation, cache[index], packed)
        if not packed.last.numel():
            return None
        if every < len(weights.layers):
            yield
        x = rms_norm(x[packed.last], weights.norm, self._eps)
        return linear(x, weights.head).float()

    def _layer(self, layer: Layer, x: Tensor, rotation: Tensor, cache: Tensor, packed: Packed) -> Tensor:
        config = self.config
        normed = rms_norm(x, layer.attention_norm, self._eps)
        mixed = linear(normed, layer.query_key_value)
        mixed = mixed.view(x.shape[0], -1, config.head_dim)
        rotate_(mixed[:, : config.heads + config.kv_heads], rotation)
        append(cache, packed.slots, mixed[:, config.heads :])
        attended = attend(mixed[:, : config.heads], cache, packed.attention)
        x = linear_add(attended, layer.attended, x)
        normed = rms_norm(x, layer.mlp_norm, self._eps)
        gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
        return linear_add(F.silu(gate).mul_(up), layer.down, x)

    def new_cache(self, slots: int) -> tuple[Tensor, ...]:
        """Memory for `slots` tokens, one tensor a layer, in the weights' dtype; its content is undefined."""
        config = self.config
        like = self.weights.embedding
        return tuple(
            like.new_empty(2 * config.kv_heads, slots, config.head_dim) for _ in range(config.layers)
        )
