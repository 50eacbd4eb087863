"""The committed image model: Stable Diffusion's layout, small, and good enough for its floor."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.eval_image import GUIDANCE, MODEL, draw, load, unseen, vae_psnr
from training.image_checker import check


def test_layout_and_size() -> None:
    index = json.loads((MODEL / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["requires_safety_checker"] is False
    for part in ("scheduler", "text_encoder", "tokenizer", "unet", "vae"):
        assert (MODEL / part).is_dir()
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 12_000_000


@pytest.mark.slow
def test_colours_and_shapes_are_right_for_most_unseen_captions() -> None:
    pipeline = load(MODEL)
    scenes, captions = zip(*unseen(40, seed=2026), strict=True)
    pictures = draw(pipeline, captions, GUIDANCE)
    right = [check(picture, scene).objects for picture, scene in zip(pictures, scenes, strict=True)]
    assert np.mean(right) >= 0.6


@pytest.mark.slow
def test_the_autoencoder_keeps_detail() -> None:
    assert vae_psnr(load(MODEL)) >= 26.0
