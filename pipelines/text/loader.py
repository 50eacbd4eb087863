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

from kernels import Linear, pack, pack_rounded
from pipelines.errors import ModelBroken
from pipelines.text.config import ModelConfig, read_json
from pipelines.text.families import FAMILIES
from pipelines.text.model import Experts, FeedForward, Layer, Weights
from pipelines.text.rope import rotation_tables


def load_weights(
    folder: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device, bits: int = 0
) -> Weights:
    """The model's weights. bits: what those of the layers are rounded to, 0 for not at all; embedding, head
    and router stay. Raises: ModelBroken naming file and tensor, ValueError where `pack_rounded` cannot."""
    source = _Source(folder, dtype, device, bits)
    embedding = source.take("model.embed_tokens.weight", config.vocab, config.hidden)
    layers = tuple(_layer(source, config, index) for index in range(config.layers))
    norm = source.norm("model.norm.weight", config.hidden, config.norm_offset)
    head = pack(embedding if config.tied else source.take("lm_head.weight", config.vocab, config.hidden))
    tables = rotation_tables(config, config.context)
    rotations = {window: table.to(device) for window, table in tables.items()}
    return Weights(embedding, layers, norm, head, rotations)


def _layer(source: _Source, config: ModelConfig, index: int) -> Layer:
    name = f"model.layers.{index}"
    attention = f"{name}.self_attn"
    size, query, key = config.head_dim, config.heads * config.head_dim, config.kv_heads * config.head_dim
    rows = [(f"{attention}.q_proj", query), (f"{attention}.k_proj", key), (f"{attention}.v_proj", key)]
    before_mlp = "pre_feedforward_layernorm" if config.sandwich else "post_attention_layernorm"

    def norm(part: str, width: int = config.hidden) -> Tensor:
        return source.norm(f"{part}.weight", width, config.norm_offset)

    return Layer(
        attention_norm=norm(f"{name}.input_layernorm"),
        query_key_value=_joined(source, rows, config.hidden, config.query_bias, paired=(2, size)),
        attended=_joined(source, [(f"{attention}.o_proj", config.hidden)], query, config.attention_bias),
        mlp_norm=norm(f"{name}.{before_mlp}"),
        mlp=_feed_forward(source, config, name),
        query_norm=_neighbours(norm(f"{attention}.q_norm", size), size) if config.head_norms else None,
        key_norm=_neighbours(norm(f"{attention}.k_norm", size), size) if config.head_norms else None,
        attended_norm=norm(f"{name}.post_attention_layernorm") if config.sandwich else None,
        mlp_out_norm=norm(f"{name}.post_feedforward_layernorm") if config.sandwich else None,
        window=config.windows[index],
    )


def _feed_forward(source: _Source, config: ModelConfig, layer: str) -> FeedForward | Experts:
    names = FAMILIES[config.family].experts
    if names is None or config.experts is None:
        gate_up = [(f"{layer}.mlp.{part}", config.intermediate) for part in ("gate_proj", "up_proj")]
        down = [(f"{layer}.mlp.down_proj", config.hidden)]
        return FeedForward(
            _joined(source, gate_up, config.hidden, config.mlp_bias),
            _joined(source, down, config.intermediate, config.mlp_bias),
        )
    block, width = f"{layer}.{names.block}", config.experts.width
    experts = []
    for number in range(config.experts.count):
        expert = f"{block}.experts.{number}"
        gate_up = [(f"{expert}.{names.gate}", width), (f"{expert}.{names.up}", width)]
        down = [(f"{expert}.{names.down}", config.hidden)]
        experts.append(FeedForward(_joined(source, gate_up, config.hidden), _joined(source, down, width)))
    return Experts(source.take(f"{block}.gate.weight", config.experts.count, config.hidden), tuple(experts))


def _joined(
    source: _Source,
    parts: Sequence[tuple[str, int]],
    width: int,
    biased: bool = False,
    paired: tuple[int, int] = (0, 0),
) -> Linear:
    """Layers (name, rows) over the same input as one. paired: so many of them, from the first on, have rotary
    rows, of heads so large."""
    weights = [source.take(f"{part}.weight", rows, width) for part, rows in parts]
    biases = [source.take(f"{part}.bias", rows) for part, rows in parts] if biased else []
    turned, size = paired
    for tensors in (weights, biases):
        tensors[:turned] = [_neighbours(tensor, size) for tensor in tensors[:turned]]
    weight, bias = torch.cat(weights), torch.cat(biases) if biased else None
    return pack_rounded(weight, source.bits, bias) if source.bits else pack(weight, bias)


def _neighbours(weight: Tensor, size: int) -> Tensor:
    """Rows of each head from (first halves, second halves) to pairs side by side."""
    shape = weight.shape
    return weight.view(-1, 2, size // 2, *shape[1:]).transpose(1, 2).reshape(shape)


class _Source:
    """The tensors of a folder by name; keeps no file open."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device, bits: int) -> None:
        self.bits = bits
        self._files = _locate(folder)
        self._folder = folder
        self._dtype = dtype
        self._device = device

    def norm(self, name: str, width: int, offset: float) -> Tensor:
        """A norm's weight with its family's offset, added in float32."""
        weight = self._read(name, width)
        return (weight.float() + offset).to(self._device, self._dtype)

    def take(self, name: str, *shape: int) -> Tensor:
        return self._read(name, *shape).to(self._device, self._dtype)

    def _read(self, name: str, *shape: int) -> Tensor:
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
        return tensor


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
