"""What the families share about texts: tokens as diffusers makes them, and encoders called with preemption
points inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipelines.errors import ModelBroken
from pipelines.image.backbones.base import Pass, Tokens
from pipelines.image.divisible import SCORE_MACS, divisible, plain


def padded_tokens(tokenizer: Any, texts: list[str], length: int = 0) -> list[Tokens]:
    """Padded to `length` (0 for the tokenizer's longest, which it never exceeds), what is longer is cut."""
    length = min(length or tokenizer.model_max_length, tokenizer.model_max_length)
    made = tokenizer(texts, padding="max_length", max_length=length, truncation=True)
    pairs = zip(made.input_ids, made.attention_mask, strict=True)
    return [Tokens(tuple(ids), sum(mask)) for ids, mask in pairs]


def ids_of(passes: Sequence[Pass], which: int, encoder: Any) -> torch.Tensor:
    """(passes, tokens) for the text encoder number `which`, on its device."""
    device = next(encoder.parameters()).device
    return torch.tensor([each.prompt[which].ids for each in passes], device=device)


def mask_of(passes: Sequence[Pass], which: int, encoder: Any) -> torch.Tensor:
    """(passes, tokens) of 1 for the texts' own tokens and 0 for padding."""
    device = next(encoder.parameters()).device
    lengths = torch.tensor([[each.prompt[which].length] for each in passes], device=device)
    return (torch.arange(len(passes[0].prompt[which].ids), device=device) < lengths).long()


def clip_states(encoder: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last but one layer's states (passes, tokens, width) and the pooled text (passes, width) of a CLIP
    encoder with or without a projection: what diffusers takes where there are several encoders."""
    config = encoder.config
    macs = ids.numel() * config.hidden_size * config.intermediate_size
    told = encoder(divisible(ids, macs), output_hidden_states=True)
    pooled = told.text_embeds if "text_embeds" in told else told.pooler_output
    return plain(told.hidden_states[-2]), plain(pooled)


def t5_states(encoder: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """(passes, tokens, width); without a mask padding is attended to, as in SD3 and Flux."""
    config = encoder.config
    macs = ids.numel() * config.d_model * config.d_ff
    return plain(encoder(divisible(ids, macs), attention_mask=mask)[0])


def language_model_macs(ids: torch.Tensor, config: Any) -> int:
    """Multiply-adds of its longest part: a feed-forward layer, or, behind a long instruction, attention, that
    passes over its scores eight times."""
    scores: int = ids.shape[1] * config.num_attention_heads * (2 * config.head_dim + 8 * SCORE_MACS)
    feed_forward: int = config.hidden_size * config.intermediate_size
    return ids.numel() * max(feed_forward, scores)


def check_vocabulary(tokenizer: str, tokens: int, encoder: str, known: int) -> None:
    """Raises: ModelBroken where the tokenizer has words that the encoder does not know."""
    if tokens > known:
        raise ModelBroken(f"{tokenizer}: {tokens} tokens, but {encoder} has {known}")


def transformer_macs(latents: torch.Tensor, patch: int, heads: int, head_width: int, texts: int = 0) -> int:
    """Multiply-adds of a transformer's longest operation: a feed-forward layer, or attention over patches and
    `texts` tokens, a good part of whose cost is its softmax."""
    rows, _, height, width = latents.shape
    tokens, inner = height * width // patch**2 + texts, heads * head_width
    return rows * max(tokens * 4 * inner**2, tokens**2 * heads * (2 * head_width + SCORE_MACS))
