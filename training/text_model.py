"""The decoder that is trained: the Llama layout under Hugging Face's tensor names.

Written out so that the loss is weighted by position and several documents share a row under a mask;
`tests/training/test_text_model.py` holds it to `transformers`' own logits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Shape of the model, under the names of `transformers.LlamaConfig`."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def to_hugging_face(self, begin: int, end: int, pad: int) -> dict[str, Any]:
        """The content of `config.json`; the three ids are those of the special tokens."""
        fixed = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "mlp_bias": False,
            "rope_scaling": None,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }
        ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
        return {**fixed, **asdict(self), "head_dim": self.head_dim, **ids}


def rotary_table(config: TextConfig, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions 0..length-1, each `[length, head_dim]`, fp32 (Su et al., 2021)."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), config.rope_theta**-half)
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x [rows, heads, length, head_dim]` in the half-split form."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q = self.q_proj(x).view(rows, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        # Written out: compiled, its backward pass on a CPU takes well under half of the fused kernel's time.
        scores = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).float().masked_fill(~mask, -torch.inf)
        mixed = scores.softmax(dim=-1).to(v.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Body(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class TextModel(nn.Module):
    """Tied-embedding Llama. `state_dict()` loads into `transformers.LlamaForCausalLM` as it is."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = (
                    (2 * config.num_hidden_layers) ** -0.5 if "o_proj" in name or "down_proj" in name else 1.0
                )
                nn.init.normal_(parameter, std=0.02 * scale)

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last states `[rows, length, hidden]` of `ids [rows, length]`; `mask` as of `document_mask`."""
        cos, sin = (part.to(ids.device) for part in rotary_table(self.config, ids.shape[1]))
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        return self.model.norm(x)  # type: ignore[no-any-return]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits `[rows, length, vocab]`."""
        return F.linear(self.hidden(ids, mask), self.model.embed_tokens.weight)


def weighted_loss(states: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross entropy (nats) of `targets [n]` under the logits `states [n, hidden] @ head.T`."""
    each = F.cross_entropy(F.linear(states, head).float(), targets, reduction="none")
    return (each * weights).sum() / weights.sum().clamp(min=1e-6)


def document_mask(documents: Tensor) -> Tensor:
    """Causal mask `[rows, 1, length, length]` within equal numbers of `documents [rows, length]`."""
    length = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (same & causal)[:, None]
