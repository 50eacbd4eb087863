"""The shape of a decoder, read from `config.json`; `families` says which there are.

A field that would change the computation and that we do not compute is refused by name, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelBroken, Unsupported
from pipelines.text.families import FAMILIES, Family, windows

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")
ROPE_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary positions: base frequency, kind of scaling and its parameters as the config names them."""

    theta: float
    kind: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """A mixture of experts: how many, how many a token takes, width of each, whether the shares of those
    taken are made to sum to one."""

    count: int
    taken: int
    width: int
    normalised: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes in elements; context in tokens.

    query_bias: of query, key and value. score_scale: factor on attention scores. windows: for each layer how
    many tokens a query sees, itself included, 0 for all. window_rope: positions of layers with a window,
    None for the same. activation: "silu" or "gelu" (tanh form).
    """

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
    windows: tuple[int, ...]
    family: str = "llama"
    query_bias: bool = False
    head_norms: bool = False
    sandwich: bool = False
    norm_offset: float = 0.0
    embedding_scale: float = 1.0
    score_scale: float = 1.0
    activation: str = "silu"
    window_rope: RopeConfig | None = None
    experts: ExpertsConfig | None = None

    @property
    def parameters(self) -> int:
        """How many there are; tied ones count once."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = (4 if self.sandwich else 2) * self.hidden + self.hidden * (2 * query + 2 * key)
        layer += 2 * self.head_dim * self.head_norms
        layer += (query + 2 * key) * self.query_bias + self.hidden * self.attention_bias
        if self.experts is None:
            layer += 3 * self.hidden * self.intermediate
            layer += (2 * self.intermediate + self.hidden) * self.mlp_bias
        else:
            layer += self.experts.count * self.hidden * (3 * self.experts.width + 1)
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

    Raises: ModelBroken, Unsupported; both name file and field.
    """
    try:
        return _read(folder)
    except Unsupported as error:
        raise Unsupported(f"{folder}/{error.message}", field=error.field) from error


def _read(folder: Path) -> ModelConfig:
    """Raises: ModelBroken, Unsupported, which begins with the file's bare name."""
    path = folder / "config.json"
    raw = read_json(path)
    family = _family(raw)
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
    layers, context = reader.size("num_hidden_layers"), reader.size("max_position_embeddings", family.context)
    biased = bool(raw.get("attention_bias", False)) and family.query_bias is None
    rope, window_rope = _ropes(raw, path)
    return ModelConfig(
        vocab=reader.size("vocab_size"),
        hidden=hidden,
        intermediate=reader.size("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=context,
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        tied=bool(raw.get("tie_word_embeddings", family.tied)),
        attention_bias=biased,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        rope=rope,
        eos=_end_tokens(folder, raw),
        family=raw["model_type"],
        query_bias=biased or bool(family.query_bias),
        head_norms=family.head_norms,
        sandwich=family.sandwich,
        norm_offset=family.norm_offset,
        embedding_scale=hidden**0.5 if family.scaled_embedding else 1.0,
        score_scale=reader.number("query_pre_attn_scalar", head_dim) ** -0.5,
        activation="silu" if "silu" in family.activations else "gelu",
        windows=tuple(
            window if window < context else 0 for window in windows(raw, raw["model_type"], layers)
        ),
        window_rope=window_rope,
        experts=_experts(raw, family, reader),
    )


def _family(raw: dict[str, Any]) -> Family:
    """Raises: Unsupported naming the field."""
    name = raw.get("model_type")
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise Unsupported(f"config.json: model_type {name!r}; only {known}", field="model_type")
    family = FAMILIES[name]
    architectures = raw.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise Unsupported(
            f"config.json: architectures {architectures!r}; only {family.architecture}", field="architectures"
        )
    activation = raw.get(family.activation) or family.activations[0]
    if activation not in family.activations:
        known = ", ".join(family.activations)
        raise Unsupported(
            f"config.json: {family.activation} {activation!r}; only {known}", field=family.activation
        )
    return family


def _experts(raw: dict[str, Any], family: Family, reader: _Reader) -> ExpertsConfig | None:
    if family.experts is None:
        return None
    if raw.get("mlp_only_layers") or raw.get("decoder_sparse_step", 1) != 1:
        raise Unsupported(
            "config.json: mlp_only_layers and decoder_sparse_step; only experts in every layer",
            field="mlp_only_layers",
        )
    count = reader.size("num_experts" if "num_experts" in raw else "num_local_experts")
    taken = reader.size("num_experts_per_tok")
    if taken > count:
        raise ModelBroken(f"{reader.path}: num_experts_per_tok {taken} of {count} experts")
    normalised = raw["model_type"] == "mixtral" or bool(raw.get("norm_topk_prob", False))
    return ExpertsConfig(count, taken, reader.size(family.experts.width_field), normalised)


class _Reader:
    def __init__(self, raw: dict[str, Any], path: Path) -> None:
        self._raw = raw
        self.path = path

    def size(self, name: str, default: int | None = None) -> int:
        value = self._raw.get(name)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelBroken(f"{self.path}: {name} must be a positive whole number, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._raw.get(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ModelBroken(f"{self.path}: {name} must be a number, got {value!r}")
        return float(value)


def _refuse_unknown(raw: dict[str, Any]) -> None:
    if raw.get("quantization_config"):
        raise Unsupported(
            "config.json: quantization_config; only unquantised weights", field="quantization_config"
        )
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if raw.get(name):
            raise Unsupported(f"config.json: {name}; only none", field=name)
    if (raw.get("partial_rotary_factor") or 1.0) != 1.0:
        raise Unsupported("config.json: partial_rotary_factor; only 1.0", field="partial_rotary_factor")


def _ropes(raw: dict[str, Any], path: Path) -> tuple[RopeConfig, RopeConfig | None]:
    """Of all layers; or of those that see everything and of those with a window, where they differ."""
    by_kind = raw.get("rope_parameters") or {}
    if "full_attention" in by_kind:
        full, window = ({**raw, "rope_parameters": by_kind[kind]} for kind in ROPE_KINDS)
        return _rope(full, path), _rope(window, path)
    if "rope_local_base_freq" in raw:
        local = {**raw, "rope_theta": raw["rope_local_base_freq"], "rope_scaling": None}
        return _rope({"rope_theta": 1e6, **raw}, path), _rope(local, path)
    return _rope(raw, path), None


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
