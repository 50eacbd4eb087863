"""Tiny models of every family that is loaded, random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
from transformers import Gemma2Config, Gemma2Model

from tests.pipelines.image.tiny import (
    TOKENS,
    WIDTH,
    clip,
    deep_vae,
    flux_transformer,
    gemma_tokenizer,
    pixart_transformer,
    t5,
    t5_tokenizer,
    t5_wide,
    unet,
    vae,
)

Parts = dict[str, Any]
Make = Callable[[Any], Parts]


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion(clip_tokenizer: Any, **parts: Any) -> Parts:
    """1.x."""
    return {
        "unet": unet(),
        "text_encoder": clip(clip_tokenizer),
        "tokenizer": clip_tokenizer,
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **parts,
    }


def turbo(clip_tokenizer: Any) -> Parts:
    """Noise at every step."""
    own = diffusers.EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    return stable_diffusion(clip_tokenizer, scheduler=own)


def consistency(clip_tokenizer: Any) -> Parts:
    """Guidance told as an embedding, noise at every step."""
    own = diffusers.LCMScheduler(**NOISE)
    return stable_diffusion(clip_tokenizer, scheduler=own, unet=unet(time_cond_proj_dim=14))


def xl(clip_tokenizer: Any, **parts: Any) -> Parts:
    """Two text encoders and the size."""
    network = unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    return {
        "unet": network,
        "text_encoder": clip(clip_tokenizer),
        "text_encoder_2": clip(clip_tokenizer, projected=True),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": clip_tokenizer,
        "vae": vae(),
        "scheduler": diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        **parts,
    }


def lightning(clip_tokenizer: Any) -> Parts:
    """Few steps from the very end."""
    own = diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    return xl(clip_tokenizer, scheduler=own)


def with_control(make: Make) -> Make:
    """The same with a ControlNet of its U-Net."""

    def parts_of(clip_tokenizer: Any) -> Parts:
        parts = make(clip_tokenizer)
        control = diffusers.ControlNetModel.from_unet(
            parts["unet"], conditioning_embedding_out_channels=(8, 8, 16)
        )
        return {**parts, "controlnet": control}

    return parts_of


def pixart(clip_tokenizer: Any) -> Parts:
    """Alpha, with T5, the size told, and a variance that is left out."""
    pieces = t5_tokenizer()
    return {
        "transformer": pixart_transformer(
            out_channels=8,
            sample_size=128,
            interpolation_scale=1,
            num_attention_heads=3,  # the size is told in three parts of the width
            cross_attention_dim=24,
        ),
        "text_encoder": t5(pieces),
        "tokenizer": pieces,
        "vae": vae(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
        ),
    }


def sigma(clip_tokenizer: Any) -> Parts:
    """With a CLIP text encoder, as the embedded transformer has it."""
    own = {
        "out_channels": 4,
        "caption_channels": None,
        "cross_attention_dim": WIDTH,
        "num_attention_heads": 4,
    }
    return {
        "transformer": pixart_transformer(**own),
        "text_encoder": clip(clip_tokenizer),
        "tokenizer": clip_tokenizer,
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(
            **NOISE, clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing"
        ),
    }


def sana(clip_tokenizer: Any) -> Parts:
    """Linear attention, an autoencoder without a posterior, a language model as text encoder."""
    characters = gemma_tokenizer()
    text = Gemma2Config(
        vocab_size=len(characters),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
    )
    return {
        "transformer": diffusers.SanaTransformer2DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            num_layers=3,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=WIDTH,
            sample_size=8,
        ),
        "text_encoder": Gemma2Model(text),
        "tokenizer": characters,
        "vae": deep_vae(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def sd3(clip_tokenizer: Any, **scheduler: Any) -> Parts:
    """A flow, three text encoders."""
    pieces = t5_tokenizer()
    return {
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=48,
            pos_embed_max_size=24,
            qk_norm="rms_norm",
        ),
        "text_encoder": clip(clip_tokenizer, projected=True, width=24),
        "text_encoder_2": clip(clip_tokenizer, projected=True, width=24),
        "text_encoder_3": t5_wide(pieces),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": clip_tokenizer,
        "tokenizer_3": pieces,
        "vae": vae(16, shift=0.1),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
    }


def sd3_shifted(clip_tokenizer: Any) -> Parts:
    """The schedule depends on the size; no T5."""
    parts = sd3(clip_tokenizer, use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=200)
    return {**parts, "text_encoder_3": None, "tokenizer_3": None}


def flux_of(clip_tokenizer: Any, guided: bool, **scheduler: Any) -> Parts:
    """Packed patches; guidance as an input, or none."""
    pieces = t5_tokenizer()
    return {
        "transformer": flux_transformer(guidance_embeds=guided),
        "text_encoder": clip(clip_tokenizer),
        "text_encoder_2": t5(pieces),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": pieces,
        "vae": vae(4, shift=-0.2),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
    }


def flux_dev(clip_tokenizer: Any) -> Parts:
    """dev."""
    sizes = {"base_image_seq_len": 16, "max_image_seq_len": 200}
    return flux_of(clip_tokenizer, True, shift=3.0, use_dynamic_shifting=True, **sizes)


def flux_schnell(clip_tokenizer: Any) -> Parts:
    """schnell."""
    return flux_of(clip_tokenizer, False, shift=1.0)


CASES: dict[str, tuple[str, Make, dict[str, Any]]] = {
    "sd-control": ("StableDiffusionControlNetPipeline", with_control(stable_diffusion), {}),
    "xl-control": ("StableDiffusionXLControlNetPipeline", with_control(xl), {}),
    "sd": ("StableDiffusionPipeline", stable_diffusion, {}),
    "turbo": ("StableDiffusionPipeline", turbo, {}),
    "lcm": ("LatentConsistencyModelPipeline", consistency, {}),
    "xl": ("StableDiffusionXLPipeline", xl, {}),
    "lightning": ("StableDiffusionXLPipeline", lightning, {}),
    "pixart": ("PixArtAlphaPipeline", pixart, {"clean_caption": False, "use_resolution_binning": False}),
    "sigma": (
        "PixArtSigmaPipeline",
        sigma,
        {"clean_caption": False, "use_resolution_binning": False, "max_sequence_length": TOKENS},
    ),
    "sd3": ("StableDiffusion3Pipeline", sd3, {}),
    "sd3-shifted": ("StableDiffusion3Pipeline", sd3_shifted, {}),
    "sana": ("SanaPipeline", sana, {"clean_caption": False, "use_resolution_binning": False}),
    "flux-dev": ("FluxPipeline", flux_dev, {}),
    "flux-schnell": ("FluxPipeline", flux_schnell, {}),
}
CONTROL = ("sd-control", "xl-control")
FLUX = ("flux-dev", "flux-schnell")
