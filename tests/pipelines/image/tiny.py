"""Tiny parts of image models, random weights: networks, encoders, tokenizers, autoencoders."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WIDTH, TOKENS = 32, 16


def clip(tokenizer: Any, projected: bool = False, width: int = WIDTH) -> Any:
    """A CLIP text encoder of two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5_tokenizer() -> Any:
    """Pieces of one character."""
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    letters += [(chr(code), -3.0) for code in range(97, 123)]
    return T5Tokenizer(vocab=letters, extra_ids=0, model_max_length=512)


def t5(tokenizer: Any) -> Any:
    """A T5 encoder of one layer."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def vae(channels: int = 4, shift: float | None = None) -> Any:
    """Four times smaller than the pixels, each way."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        scaling_factor=0.7,
        shift_factor=shift,
    )


def unet(**options: Any) -> Any:
    """Two levels."""
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 16,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
            **options,
        }
    )


def pixart_transformer(**options: Any) -> Any:
    """Two blocks."""
    return diffusers.PixArtTransformer2DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "num_layers": 2,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
            "sample_size": 16,
            "patch_size": 2,
            **options,
        }
    )


def gemma_tokenizer() -> Any:
    """Characters; padding on the left, as Gemma's own has it."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    characters = ["▁", "\n", *(chr(code) for code in range(33, 127))]
    vocab = {token: number for number, token in enumerate((*special, *characters))}
    return GemmaTokenizer(vocab=vocab, merges=[], padding_side="left", model_max_length=4096)


def deep_vae(widths: tuple[int, ...] = (8, 16, 16), channels: int = 8) -> Any:
    """Residual blocks, and at the bottom linear attention at two scales."""
    levels = len(widths)
    deep: dict[str, Any] = {}
    for end in ("encoder", "decoder"):
        deep[f"{end}_block_types"] = ("ResBlock",) * (levels - 1) + ("EfficientViTBlock",)
        deep[f"{end}_block_out_channels"] = widths
        deep[f"{end}_layers_per_block"] = (1,) * levels
        deep[f"{end}_qkv_multiscales"] = ((),) * (levels - 1) + ((5,),)
    return diffusers.AutoencoderDC(
        latent_channels=channels, attention_head_dim=8, scaling_factor=0.41, **deep
    )


def t5_wide(tokenizer: Any) -> Any:
    """As wide as the joint attention."""
    config = t5(tokenizer).config
    config.d_model = 2 * WIDTH
    return T5EncoderModel(config)


def flux_transformer(**options: Any) -> Any:
    """One block of two streams, two of one."""
    return diffusers.FluxTransformer2DModel(
        **{
            "patch_size": 1,
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": WIDTH,
            "axes_dims_rope": (4, 4, 8),
            **options,
        }
    )


def flux_inputs(rows: int = 2) -> dict[str, torch.Tensor]:
    """Of that network: six patches, three words, times between picture and noise."""
    return {
        "hidden_states": torch.randn(rows, 6, 16),
        "timestep": torch.linspace(0.2, 0.9, rows),
        "pooled_projections": torch.randn(rows, WIDTH),
        "encoder_hidden_states": torch.randn(rows, 3, WIDTH),
        "txt_ids": torch.zeros(3, 3),
        "img_ids": torch.ones(6, 3),
    }


def enliven(module: torch.nn.Module) -> None:
    """What starts at zero (gates, last layers) would hide what lies behind it."""
    for parameter in module.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.1)
