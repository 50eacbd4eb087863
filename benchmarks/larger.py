"""Larger models with random weights as folders: the preemption benchmark's second setting.

Text: a Llama of 42 million parameters, without an end token. Images: SDXL's U-Net (three levels,
transformers of depth 0, 2 and 10, two residual blocks a level) with its channels divided by four, around the
embedded text encoder and VAE.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from benchmarks import text_folders
from pipelines.loading import EMBEDDED, EMBEDDED_IMAGES, LoadPlan

PARTS = ("scheduler", "text_encoder", "tokenizer", "vae", "model_index.json")


def plan(root: Path) -> LoadPlan:
    """Writes the folders below `root`."""
    with torch.inference_mode(False):
        text, image = text_folders.make("42M", root), _image(root / "sdxl-quarter")
    return LoadPlan(text=str(text), images=(str(image),), transcription=False, max_jobs=4096)


def _image(folder: Path) -> Path:
    embedded = EMBEDDED / EMBEDDED_IMAGES[0]
    folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (embedded / part).is_dir() else shutil.copy
        copy(embedded / part, folder / part)
    own = json.loads((embedded / "unet" / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=own["sample_size"],
        cross_attention_dim=own["cross_attention_dim"],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(80, 160, 320),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(2, 4, 8),
        norm_num_groups=16,
    )
    unet.save_pretrained(folder / "unet")
    (folder / "upbeat.json").write_text('{"steps": 28, "guidance": 2.0}', encoding="utf-8")
    return folder
