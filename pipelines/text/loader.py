"""Weights of a Hugging Face folder (one safetensors file, or shards with an index) into our layout.

Query, key and value are fused, gate and up are fused, and the rows of query and key are reordered so that
rotary pairs are neighbours. Every tensor is checked: present, of the shape that the config implies, no NaN.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipelines.errors import ModelBroken
from pipelines.text.config import ModelConfig, read_json
from pipelines.text.model import Layer, Weights
from pipelines.text.rope import rotation_table


def load_weights(folder: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Weights:
    """The model's weights. Raises: ModelBroken naming file and tensor."""
    source = _Source(folder, dtype, device)
    embedding = source.take("model.embed_tokens.weight", config.vocab, config.hidden)
    layers = tuple(_layer(source, config, f"model.layers.{i}") for i in range(config.layers))
    norm = source.take("model.norm.weight", config.hidden)
    head = embedding if config.tied else source.take("lm_head.weight", config.vocab, config.hidden)
    rotation = rotation_table(config, config.context).to(device)
    return Weights(embedding, layers, norm, head, rotation)


def _layer(source: _Source, config: ModelConfig, name: str) -> Layer:
    hidden, wide, size = config.hidden, config.intermediate, config.head_dim
    query, key = config.heads * size, config.kv_heads * size
    attention, mlp = f"{name}.self_attn", f"{name}.mlp"

    def bias(part: str, length: int, wanted: bool) -> Tensor | None:
        return source.take(f"{part}.bias", length) if wanted else None

    def fused(tail: str, *shape: int) -> Tensor:
        parts = [source.take(f"{attention}.{n}_proj.{tail}", rows, *shape) for n, rows in _qkv(query, key)]
        parts[:2] = [_neighbours(part, size) for part in parts[:2]]
        return torch.cat(parts)

    gates = [source.take(f"{mlp}.{part}_proj.weight", wide, hidden) for part in ("gate", "up")]
    gate_bias = [bias(f"{mlp}.{part}_proj", wide, config.mlp_bias) for part in ("gate", "up")]
    return Layer(
        attention_norm=source.take(f"{name}.input_layernorm.weight", hidden),
        query_key_value=fused("weight", hidden),
        query_key_value_bias=fused("bias") if config.attention_bias else None,
        attended=source.take(f"{attention}.o_proj.weight", hidden, query).t().contiguous(),
        attended_bias=bias(f"{attention}.o_proj", hidden, config.attention_bias),
        mlp_norm=source.take(f"{name}.post_attention_layernorm.weight", hidden),
        gate_up=torch.cat(gates),
        gate_up_bias=torch.cat([part for part in gate_bias if part is not None]) if config.mlp_bias else None,
        down=source.take(f"{mlp}.down_proj.weight", hidden, wide).t().contiguous(),
        down_bias=bias(f"{mlp}.down_proj", hidden, config.mlp_bias),
    )


def _qkv(query: int, key: int) -> tuple[tuple[str, int], ...]:
    return ("q", query), ("k", key), ("v", key)


def _neighbours(weight: Tensor, size: int) -> Tensor:
    """Rows of each head from (first halves, second halves) to pairs side by side."""
    shape = weight.shape
    return weight.view(-1, 2, size // 2, *shape[1:]).transpose(1, 2).reshape(shape)


class _Source:
    """The tensors of a folder by name; keeps no file open."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self._files = _locate(folder)
        self._folder = folder
        self._dtype = dtype
        self._device = device

    def take(self, name: str, *shape: int) -> Tensor:
        path = self._files.get(name)
        if path is None:
            raise ModelBroken(f"{self._folder}: tensor {name} is missing")
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelBroken(f"{path}: tensor {name}: {error}") from error
        if tuple(tensor.shape) != shape:
            raise ModelBroken(
                f"{path}: tensor {name} has shape {tuple(tensor.shape)}, the config implies {shape}"
            )
        if not tensor.is_floating_point():
            raise ModelBroken(f"{path}: tensor {name} is {tensor.dtype}, expected floating point")
        if bool(tensor.isnan().any()):
            raise ModelBroken(f"{path}: tensor {name} holds NaN")
        return tensor.to(self._device, self._dtype)


def _locate(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise ModelBroken(f"{index}: weight_map is missing")
        missing = sorted({file for file in names.values() if not (folder / file).is_file()})
        if missing:
            raise ModelBroken(f"{folder / missing[0]}: the shard is missing")
        return {name: folder / file for name, file in names.items()}
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelBroken(f"{path}: the file is missing")
    try:
        with safe_open(path, framework="pt") as file:
            return dict.fromkeys(file.keys(), path)
    except (OSError, SafetensorError) as error:
        raise ModelBroken(f"{path}: {error}") from error
