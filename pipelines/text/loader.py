"""Weights of a Hugging Face folder (one safetensors file, or shards with an index) into our layout.

Query, key and value are fused, gate and up are fused, and the rows of query and key are reordered so that
rotary pairs are neighbours. Every tensor is checked: present, of the shape that the config implies, no NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kernels import Linear, pack
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
    head = pack(embedding if config.tied else source.take("lm_head.weight", config.vocab, config.hidden))
    rotation = rotation_table(config, config.context).to(device)
    return Weights(embedding, layers, norm, head, rotation)


def _layer(source: _Source, config: ModelConfig, name: str) -> Layer:
    hidden, wide, size = config.hidden, config.intermediate, config.head_dim
    query, key = config.heads * size, config.kv_heads * size
    attention, mlp = f"{name}.self_attn", f"{name}.mlp"

    def joined(parts: Sequence[tuple[str, int]], width: int, biased: bool, paired: int = 0) -> Linear:
        """Layers over the same input as one; the first `paired` have rotary rows."""
        weights = [source.take(f"{part}.weight", rows, width) for part, rows in parts]
        biases = [source.take(f"{part}.bias", rows) for part, rows in parts] if biased else []
        for tensors in (weights, biases):
            tensors[:paired] = [_neighbours(tensor, size) for tensor in tensors[:paired]]
        return pack(torch.cat(weights), torch.cat(biases) if biased else None)

    rows = [(f"{attention}.q_proj", query), (f"{attention}.k_proj", key), (f"{attention}.v_proj", key)]
    return Layer(
        attention_norm=source.take(f"{name}.input_layernorm.weight", hidden),
        query_key_value=joined(rows, hidden, config.attention_bias, paired=2),
        attended=joined([(f"{attention}.o_proj", hidden)], query, config.attention_bias),
        mlp_norm=source.take(f"{name}.post_attention_layernorm.weight", hidden),
        gate_up=joined([(f"{mlp}.gate_proj", wide), (f"{mlp}.up_proj", wide)], hidden, config.mlp_bias),
        down=joined([(f"{mlp}.down_proj", hidden)], wide, config.mlp_bias),
    )


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
