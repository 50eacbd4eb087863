"""In what the families that we decode differ from Llama, as their `config.json` names them.

A family is what transformers computes for its architecture. What is not in this table is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ExpertNames:
    """Where a mixture of experts keeps its parts: `block` under a layer, then gate, up and down of each.
    width_field: the config's for an expert's width."""

    block: str
    gate: str
    up: str
    down: str
    width_field: str


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    query_bias: of query, key and value; None: as `attention_bias` says, the output's bias with it.
    head_norms: query and key are normalised by head before rotation. sandwich: the outputs of attention and
    feed-forward are normalised too. norm_offset: added to the weights of norms. scaled_embedding: by the
    root of the width. activation: the config's field, activations: what it may say. context, tied and window
    are what a missing field means.
    """

    architecture: str
    query_bias: bool | None = None
    head_norms: bool = False
    sandwich: bool = False
    norm_offset: float = 0.0
    scaled_embedding: bool = False
    activation: str = "hidden_act"
    activations: tuple[str, ...] = ("silu", "swish")
    context: int = 2048
    tied: bool = False
    window: int = 0
    experts: ExpertNames | None = None


GELU = ("gelu_pytorch_tanh", "gelu")
"""Both mean the tanh form in Gemma's configs."""

_MIXTRAL = ExpertNames("block_sparse_moe", "w1", "w3", "w2", "intermediate_size")
_QWEN3_MOE = ExpertNames("mlp", "gate_proj", "up_proj", "down_proj", "moe_intermediate_size")

FAMILIES = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family("MistralForCausalLM", query_bias=False, context=131072, window=4096),
    "qwen2": Family("Qwen2ForCausalLM", query_bias=True, context=32768),
    "qwen3": Family("Qwen3ForCausalLM", head_norms=True, context=32768),
    "gemma": Family(
        "GemmaForCausalLM",
        norm_offset=1.0,
        scaled_embedding=True,
        activations=GELU,
        context=8192,
        tied=True,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        head_norms=True,
        sandwich=True,
        norm_offset=1.0,
        scaled_embedding=True,
        activation="hidden_activation",
        activations=GELU,
        context=131072,
        tied=True,
        window=4096,
    ),
    "mixtral": Family("MixtralForCausalLM", query_bias=False, context=131072, experts=_MIXTRAL),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", head_norms=True, context=32768, experts=_QWEN3_MOE),
}


def windows(raw: dict[str, Any], family: str, layers: int) -> tuple[int, ...]:
    """How many tokens each layer's queries see, themselves included; 0 for all.

    By `layer_types` where the config has it; else as the family's older configs imply.
    """
    size = raw.get("sliding_window", FAMILIES[family].window) or 0
    if family.startswith("qwen") and not raw.get("use_sliding_window"):
        size = 0
    kinds = raw.get("layer_types")
    if kinds is None:
        kinds = [_older_kind(raw, family, index) for index in range(layers)]
    return tuple(size if kind == "sliding_attention" else 0 for kind in kinds)


def _older_kind(raw: dict[str, Any], family: str, index: int) -> str:
    if family == "gemma3_text":
        every = raw.get("sliding_window_pattern") or raw.get("_sliding_window_pattern") or 6
        return "sliding_attention" if (index + 1) % every else "full_attention"
    if family in ("qwen2", "qwen3"):
        return "sliding_attention" if index >= raw.get("max_window_layers", 28) else "full_attention"
    return "sliding_attention" if family in ("mistral", "mixtral", "qwen3_moe") else "full_attention"
