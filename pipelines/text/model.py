"""Our own decoder of Llama and its relatives over a paged KV cache: packed tokens, no padding, preemptible.

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

from kernels import (
    AttentionPlan,
    Linear,
    add_rms_norm,
    attend,
    gate_multiply,
    linear,
    linear_add,
    linear_add_norm,
    rms_norm,
    rope_append,
)
from pipelines.text.config import ExpertsConfig, ModelConfig


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Gate and up in one product, then down."""

    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture (Shazeer et al., 2017): `router` `[experts, hidden]` chooses for each token."""

    router: Tensor
    experts: tuple[FeedForward, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights: query, key and value in one product (rotary pairs side by side).

    query_norm, key_norm `[head_dim]` and the norms of the two outputs, where the family has them. window:
    tokens that a query sees, 0 for all.
    """

    attention_norm: Tensor
    query_key_value: Linear
    attended: Linear
    mlp_norm: Tensor
    mlp: FeedForward | Experts
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    attended_norm: Tensor | None = None
    mlp_out_norm: Tensor | None = None
    window: int = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model on one device in one dtype. `rotations`: by window, complex64
    `[context, head_dim / 2]`."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear
    rotations: dict[int, Tensor]


@dataclass(frozen=True, slots=True)
class Packed:
    """The new tokens of all rows of one slice: ids, positions and slots int64 `[tokens]`; `last`: packed
    indices int64 whose logits are wanted. `attention`: by window."""

    ids: Tensor
    positions: Tensor
    slots: Tensor
    attention: dict[int, AttentionPlan]
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
        if self.config.embedding_scale != 1.0:
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype)
        rotations = {
            window: table[packed.positions].unsqueeze(1) for window, table in weights.rotations.items()
        }
        for index, layer in enumerate(weights.layers):
            if index and index % every == 0:
                yield
            x = self._layer(layer, x, rotations[layer.window], cache[index], packed)
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
        norms = None
        if layer.query_norm is not None and layer.key_norm is not None:
            norms = (layer.query_norm, layer.key_norm, self._eps)
        rope_append(mixed, rotation, cache, packed.slots, config.heads, norms)
        attended = attend(mixed[:, : config.heads], cache, packed.attention[layer.window])
        if layer.attended_norm is None:
            x, normed = linear_add_norm(attended, layer.attended, x, layer.mlp_norm, self._eps)
        else:
            out = rms_norm(linear(attended, layer.attended), layer.attended_norm, self._eps)
            x, normed = add_rms_norm(out, x, layer.mlp_norm, self._eps)
        if isinstance(layer.mlp, FeedForward) and layer.mlp_out_norm is None:
            return linear_add(self._gated(normed, layer.mlp), layer.mlp.down, x)
        out = self._feed_forward(normed, layer.mlp)
        return x + (out if layer.mlp_out_norm is None else rms_norm(out, layer.mlp_out_norm, self._eps))

    def _gated(self, x: Tensor, weights: FeedForward) -> Tensor:
        act = "gelu_tanh" if self.config.activation == "gelu" else "silu"
        return gate_multiply(linear(x, weights.gate_up), act)

    def _feed_forward(self, x: Tensor, weights: FeedForward | Experts) -> Tensor:
        if isinstance(weights, FeedForward):
            return linear(self._gated(x, weights), weights.down)
        config = self.config.experts
        assert config is not None
        shares, chosen = _routed(x, weights.router, config)
        out = torch.zeros_like(x)
        for expert in sorted(set(chosen.flatten().tolist())):  # the device is waited for once a layer
            tokens, place = torch.where(chosen == expert)
            part = weights.experts[expert]
            made = linear(self._gated(x[tokens], part), part.down)
            out.index_add_(0, tokens, made * shares[tokens, place, None].to(made.dtype))
        return out

    def new_cache(self, slots: int) -> tuple[Tensor, ...]:
        """Memory for `slots` tokens, one tensor a layer, in the weights' dtype; its content is undefined."""
        config = self.config
        like = self.weights.embedding
        return tuple(
            like.new_empty(2 * config.kv_heads, slots, config.head_dim) for _ in range(config.layers)
        )


def _routed(x: Tensor, router: Tensor, config: ExpertsConfig) -> tuple[Tensor, Tensor]:
    """Shares fp32 and experts int64 of each token, `[tokens, taken]`."""
    shares, chosen = F.linear(x, router).softmax(-1, dtype=torch.float32).topk(config.taken, dim=-1)
    return (shares / shares.sum(-1, keepdim=True) if config.normalised else shares), chosen
