"""Finishes the autoencoder, and writes the folders in diffusers' layouts with fp16 weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import PixArtSigmaPipeline, StableDiffusionPipeline

from training.image_backbone import averaged, new_scheduler
from training.image_dit import DitBackbone
from training.image_unet import UnetBackbone
from training.image_vae import encode, new_vae, training_picture

SHARED: Final = ("text_encoder", "tokenizer", "vae")


@torch.no_grad()
def _normalise_latents(vae: Any, count: int = 384, seed: int = 7) -> None:
    """Folds each latent channel's mean and deviation into the 1x1 convolutions, leaving N(0, 1)."""
    rng = np.random.default_rng(seed)
    latents = encode(vae, np.stack([training_picture(rng) for _ in range(count)]))
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation.view(1, -1, 1, 1)
    into.bias[:4] = (into.bias[:4] - mean) / deviation
    into.weight[:4] /= deviation.view(-1, 1, 1, 1)
    into.bias[4:] -= 2 * deviation.log()


def finished_vae(work: Path) -> Any:
    """The trained autoencoder with normalised latents; made once, then read from `work`/vae."""
    folder = work / "vae"
    vae = new_vae()
    if folder.exists():
        return type(vae).from_pretrained(folder).eval()
    vae.load_state_dict(torch.load(work / "vae.pt", map_location="cpu", weights_only=True)["vae"])
    vae.eval()
    _normalise_latents(vae)
    vae.half().float()
    rng = np.random.default_rng(8)
    spread = float(encode(vae, np.stack([training_picture(rng) for _ in range(128)])).std())
    vae.register_to_config(scaling_factor=round(1.0 / spread, 4))
    vae.save_pretrained(folder)
    return vae


def export(work: Path, models: Path) -> None:
    """Writes `models`/upbeat-image-unet, with all parts, and `models`/upbeat-image-dit, which links to them.

    Only backbones with a checkpoint in `work` are written; weights are fp16.
    """
    unet_folder, dit_folder = models / "upbeat-image-unet", models / "upbeat-image-dit"
    if (work / "unet.pt").exists():
        _export_unet(work, unet_folder)
    if (work / "dit.pt").exists():
        _export_dit(work, dit_folder, unet_folder.name)


def _export_unet(work: Path, folder: Path) -> None:
    unet, text_encoder, tokenizer = averaged(work, UnetBackbone())
    pipeline = StableDiffusionPipeline(
        vae=finished_vae(work),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(work / "tokenizer" / name, folder / "tokenizer" / name)
    _tidy(folder)


def _export_dit(work: Path, folder: Path, neighbour: str) -> None:
    """PixArt's layout; VAE, text encoder and tokenizer are links to the neighbouring folder."""
    dit, text_encoder, tokenizer = averaged(work, DitBackbone())
    pipeline = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=finished_vae(work),
        transformer=dit,
        scheduler=new_scheduler(),
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_config(folder)
    dit.save_pretrained(folder / "transformer", safe_serialization=True)
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    for part in SHARED:
        if not (folder / part).is_symlink():
            (folder / part).symlink_to(Path("..") / neighbour / part, target_is_directory=True)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Leaves out of the settings where and in which number format the weights happened to be."""
    for path in folder.glob("*/config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings.pop("_name_or_path", None)
        if "dtype" in settings:
            settings["dtype"] = "float32"
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
