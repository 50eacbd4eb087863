"""What caches save: seconds of one thread for single pictures, text to pixels, on a model folder, and on a
random U-Net of SDXL's topology, its channels divided by four (time only: random weights draw nothing).

The clock is the thread's own processor time: all work of a pipeline is on one thread, and what else the
machine does is not counted. On an idle machine that is the wall clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.cache_peers import Peer, deepcache, run_peer
from benchmarks.image_runs import Runs
from benchmarks.stats import paired_ratio

Figures = dict[str, dict[str, float]]
_WIDTHS = (80, 160, 320)


def single_pictures(runs: Runs, captions: Sequence[str], steps: int, levels: Sequence[str]) -> Figures:
    """Alternating: time without caching over time with it; "previews": without over with one at every
    fourth step."""
    seconds: dict[str, list[float]] = {name: [] for name in ("off", *levels)}
    runs.draw(captions[:1], steps=2)
    for seed, caption in enumerate(captions):
        for name in seconds:
            level, every = ("off", 4) if name == "previews" else (name, 0)
            drawn = runs.draw([caption], level=level, steps=steps, first_seed=seed, preview_every=every)
            seconds[name].append(drawn.seconds)
    found: Figures = {"off": {"ms": _ms(seconds["off"])}}
    for name in levels:
        found[name] = _compared(seconds["off"], seconds[name])
        print(f"{name}: {found[name]}", flush=True)
    return found


def large_model(tokenizer: Path, pictures: int, steps: int, side: int) -> dict[str, Figures]:
    """By strategy; beside them the DeepCache package against diffusers alone. side: in pixels."""
    captions = ["a red circle", "two blue stars", "a green ring"][:pictures]
    found: dict[str, Figures] = {}
    with TemporaryDirectory() as made:
        folder = Path(made) / "shaped"
        save_shaped(folder, tokenizer, side)
        for strategy in ("forecast", "split"):
            print(f"SDXL's topology, {side} pixels, {strategy}", flush=True)
            runs = Runs(folder, strategy)
            found[strategy] = single_pictures(runs, captions, steps, ("balanced", "fast"))
        peer = Peer("DeepCache", deepcache(0, 3))
        plain, cached = (run_peer(each, folder, captions, steps, 5.0) for each in (None, peer))
        if cached.latents is not None:
            found["DeepCache 0.1.1, interval 3, branch 0"] = {"": _compared(plain.seconds, cached.seconds)}
            print(f"DeepCache: {found['DeepCache 0.1.1, interval 3, branch 0']['']}", flush=True)
    return found


def save_shaped(folder: Path, tokenizer: Path, side: int) -> None:
    """A folder of StableDiffusionXLPipeline: three levels, transformers of depth 2 and 10, two text
    encoders, a quarter of the channels throughout, random weights."""
    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    unet = diffusers.UNet2DConditionModel(
        sample_size=side // 8,
        block_out_channels=_WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=512,
        addition_embed_type="text_time",
        addition_time_embed_dim=64,
        projection_class_embeddings_input_dim=320 + 6 * 64,
        use_linear_projection=True,
        norm_num_groups=16,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
        sample_size=side,
    )
    diffusers.StableDiffusionXLPipeline(
        unet=unet,
        vae=vae,
        text_encoder=_clip(words, 192, 12, projected=False),
        text_encoder_2=_clip(words, 320, 32, projected=True),
        tokenizer=words,
        tokenizer_2=words,
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    ).save_pretrained(folder)


def _clip(words: Any, width: int, layers: int, projected: bool) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        max_position_embeddings=words.model_max_length,
        projection_dim=320,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _compared(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    ratio, low, high = paired_ratio(before, after)
    return {"speed_up": round(ratio, 3), "low": round(low, 3), "high": round(high, 3), "ms": _ms(after)}


def _ms(seconds: Sequence[float]) -> float:
    return round(1000 * sum(seconds) / len(seconds), 1)
