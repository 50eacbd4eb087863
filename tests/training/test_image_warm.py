"""A training goes on from the committed folders, and export gives them back as they were."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from training.image_backbone import averaged
from training.image_drawing import BACKBONES
from training.image_export import finished_vae
from training.image_unet import UnetBackbone
from training.image_warm import warm_start

UNET = BACKBONES["unet"]


def test_the_folders_weights_are_what_training_goes_on_from(tmp_path: Path) -> None:
    assert warm_start(tmp_path, UNET.parent) == ["text.pt", "tokenizer", "vae", "unet.pt", "dit.pt"]
    network, text, _ = averaged(tmp_path, UnetBackbone())
    kept = load_file(UNET / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in network.half().state_dict().items():
        assert torch.equal(value, kept[name]), name
    words = load_file(UNET / "text_encoder" / "model.safetensors")
    assert all(torch.equal(value.half(), words[name]) for name, value in text.state_dict().items())
    vae = load_file(UNET / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(
        torch.equal(value.half(), vae[name]) for name, value in finished_vae(tmp_path).state_dict().items()
    )


def test_what_is_there_stays(tmp_path: Path) -> None:
    warm_start(tmp_path, UNET.parent)
    (tmp_path / "unet.pt").write_bytes(b"mine")
    assert warm_start(tmp_path, UNET.parent) == []
    assert (tmp_path / "unet.pt").read_bytes() == b"mine"
