"""Starts a training from the committed folders, where the checkpoints that made them are gone.

The folders hold averaged weights in fp16. The optimiser's state and the auxiliary head are not there: both
begin anew, and so does the schedule of the learning rate.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file

from training.image_backbone import Backbone, Trainer
from training.image_dit import DitBackbone
from training.image_export import SHARED
from training.image_unet import UnetBackbone

_WEIGHTS: Final = {
    "unet": Path("upbeat-image-unet", "unet", "diffusion_pytorch_model.safetensors"),
    "dit": Path("upbeat-image-dit", "transformer", "diffusion_pytorch_model.safetensors"),
}


def warm_start(work: Path, models: Path) -> list[str]:
    """Puts into `work` what the other stages would have left there; names what it wrote.

    What is in `work` already stays as it is: delete `work`/unet.pt to start the U-Net anew.
    """
    written = []
    for part in SHARED:
        source = models / "upbeat-image-unet" / part
        if part == "text_encoder":
            written += _text(source, work / "text.pt")
        elif not (work / part).exists():
            shutil.copytree(source, work / part)
            written.append(part)
    for backbone in (UnetBackbone(), DitBackbone()):
        written += _backbone(work, backbone, models / _WEIGHTS[backbone.name])
    return written


def _text(folder: Path, path: Path) -> list[str]:
    if path.exists():
        return []
    weights = load_file(folder / "model.safetensors")
    torch.save({name: value.float() for name, value in weights.items()}, path)
    return [path.name]


def _backbone(work: Path, backbone: Backbone, weights: Path) -> list[str]:
    path = work / f"{backbone.name}.pt"
    if path.exists():
        return []
    backbone.network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    Trainer(work, backbone, "cpu").save(spent_s=0.0)
    return [path.name]
