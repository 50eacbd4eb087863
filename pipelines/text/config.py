"""The shape of a Llama-family model, read from `config.json`.

A field that would change the computation and that we do not compute is refused by name, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelBroken, Unsupported

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary positions: base frequency, kind of scaling and its parameters as the config names them."""

    theta: float
    kind: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes in elements; context in tokens."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    norm_eps: float
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    rope: RopeConfig
    eos: frozenset[int]

    @property
    def parameters(self) -> int:
        """How many there are; tied ones count once."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = 2 * self.hidden + self.hidden * (2 * query + 2 * key) + 3 * self.hidden * self.intermediate
        layer += (query + 2 * key + self.hidden) * self.attention_bias
        layer += (2 * self.intermediate + self.hidden) * self.mlp_bias
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden + self.layers * layer


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ModelBroken naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelBroken(f"{path}: the file is missing") from None
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected a JSON object")
    return value


def load_config(folder: Path) -> ModelConfig:
    """Read and check `config.json`; end tokens come from `generation_config.json` where there is one.

    Raises: ModelBroken naming file and field, Unsupported naming the field.
    """
    path = folder / "config.json"
    raw = read_json(path)
    _refuse_unknown(raw)
    reader = _Reader(raw, path)
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    kv_heads = reader.size("num_key_value_heads", heads)
    head_dim = reader.size("head_dim", hidden // heads)
    if heads % kv_heads:
        raise ModelBroken(
            f"{path}: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
        )
    if head_dim % 2:
        raise Unsupported(
            f"config.json: head_dim {head_dim} is odd; rotary positions need pairs", field="head_dim"
        )
    return ModelConfig(
        vocab=reader.size("vocab_size"),
        hidden=hidden,
        intermediate=reader.size("intermediate_size"),
        layers=reader.size("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=reader.size("max_position_embeddings", 2048),
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        tied=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=bool(raw.get("attention_bias", False)),
        mlp_bias=bool(raw.get("mlp_bias", False)),
        rope=_rope(raw, path),
        eos=_end_tokens(folder, raw),
    )


class _Reader:
    def __init__(self, raw: dict[str, Any], path: Path) -> None:
        self._raw = raw
        self._path = path

    def size(self, name: str, default: int | None = None) -> int:
        value = self._raw.get(name)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelBroken(f"{self._path}: {name} must be a positive whole number, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._raw.get(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ModelBroken(f"{self._path}: {name} must be a number, got {value!r}")
        return float(value)


def _refuse_unknown(raw: dict[str, Any]) -> None:
    architectures = raw.get("architectures") or ["LlamaForCausalLM"]
    if raw.get("model_type") != "llama":
        raise Unsupported(
            f"config.json: model_type {raw.get('model_type')!r}; only 'llama'", field="model_type"
        )
    if architectures != ["LlamaForCausalLM"]:
        raise Unsupported(
            f"config.json: architectures {architectures!r}; only LlamaForCausalLM", field="architectures"
        )
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise Unsupported(f"config.json: hidden_act {raw['hidden_act']!r}; only 'silu'", field="hidden_act")
    if raw.get("quantization_config"):
        raise Unsupported(
            "config.json: quantization_config; only unquantised weights", field="quantization_config"
        )
    if (raw.get("partial_rotary_factor") or 1.0) != 1.0:
        raise Unsupported("config.json: partial_rotary_factor; only 1.0", field="partial_rotary_factor")


def _rope(raw: dict[str, Any], path: Path) -> RopeConfig:
    """Both spellings: `rope_parameters` (newer) and `rope_theta` with `rope_scaling` (older)."""
    parameters = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    field = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise Unsupported(
            f"config.json: {field}.rope_type {kind!r}; only {', '.join(ROPE_TYPES)}",
            field=f"{field}.rope_type",
        )
    theta = _Reader(raw | parameters, path).number("rope_theta", 10000.0)
    parameters.setdefault("original_max_position_embeddings", raw.get("max_position_embeddings", 2048))
    needed = {
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
        "yarn": ("factor",),
    }
    for name in needed.get(kind, ()):
        if not isinstance(parameters.get(name), int | float):
            raise ModelBroken(f"{path}: {field}.{name} must be a number for rope_type {kind!r}")
    return RopeConfig(theta, kind, parameters)


def _end_tokens(folder: Path, raw: dict[str, Any]) -> frozenset[int]:
    path = folder / "generation_config.json"
    ids = (read_json(path) if path.exists() else {}).get("eos_token_id")
    if ids is None:
        ids = raw.get("eos_token_id")
    if ids is None:
        return frozenset()
    ids = [ids] if isinstance(ids, int) else ids
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise ModelBroken(f"{path if path.exists() else folder / 'config.json'}: eos_token_id {ids!r}")
    return frozenset(ids)
