"""Draws with diffusers' own pipelines from the committed folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, PixArtSigmaPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

_MODELS: Final = Path(__file__).resolve().parent.parent / "models"
BACKBONES: Final = {"unet": _MODELS / "upbeat-image-unet", "dit": _MODELS / "upbeat-image-dit"}
STEPS: Final = 28
SIDE: Final = 128
_BATCH: Final = 20
Pictures = npt.NDArray[np.uint8]


def load(folder: Path) -> Any:
    """diffusers' pipeline for a folder, on the CPU in fp32, without its progress bar."""
    diffusers_logging.set_verbosity_error()  # a CLIP encoder where PixArt has T5 is meant
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_guidance(folder: Path) -> float:
    """The strength of guidance that the folder asks for."""
    return float(json.loads((folder / "upbeat.json").read_text(encoding="utf-8"))["guidance"])


def draw(
    pipeline: Any, captions: Sequence[str], guidance: float, steps: int = STEPS, seed: int = 0
) -> Pictures:
    """uint8 (n, 128, 128, 3), one picture for each caption; picture i has the seed `seed + i`."""
    options: dict[str, Any] = {}
    if isinstance(pipeline, PixArtSigmaPipeline):
        longest = pipeline.tokenizer.model_max_length
        options = {
            "max_sequence_length": longest,
            "use_resolution_binning": False,
            "clean_caption": False,
        }
    drawn: list[Pictures] = []
    for start in range(0, len(captions), _BATCH):
        part = list(captions[start : start + _BATCH])
        result = pipeline(
            part,
            height=SIDE,
            width=SIDE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(part))],
            output_type="np",
            **options,
        )
        drawn.append((result.images * 255.0 + 0.5).clip(0, 255).astype(np.uint8))
    return np.concatenate(drawn)
