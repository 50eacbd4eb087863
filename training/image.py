"""Trains the embedded image models by stages: `python -m training.image STAGE --hours H`.

vae: the autoencoder. pool: latents of rendered pictures, with captions. text: the text encoder
learns to read captions. unet, dit: a backbone, on the pool. export: the folders models/upbeat-image-unet
and models/upbeat-image-dit. warm: what `vae`, `text`, `unet` and `dit` leave, taken from those folders, so
that training can go on from them. Every stage is seeded and goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.image_backbone import train_backbone
from training.image_dit import DitBackbone
from training.image_export import export, finished_vae
from training.image_pool import make_pool
from training.image_reader import train_reader
from training.image_unet import UnetBackbone
from training.image_vae import train_vae
from training.image_warm import warm_start

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".train" / "image"
MODELS = ROOT / "models"


def main() -> None:
    """Parses the command line and runs one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("vae", "pool", "text", "unet", "dit", "export", "warm"))
    parser.add_argument("--hours", type=float, default=0.5, help="working time, resumed runs included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=120, help="pool: shards of 512 pictures")
    parser.add_argument("--peak", type=float, default=1.0, help="unet, dit: share of the usual learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and latents")
    parser.add_argument(
        "--out", type=Path, default=MODELS, help="export, warm: the parent of the model folders"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "vae":
        train_vae(options.work, options.hours, options.seed, options.device)
    elif options.stage == "pool":
        make_pool(finished_vae(options.work), options.work, options.shards, options.hours, options.seed + 100)
    elif options.stage == "text":
        train_reader(options.work, options.hours, options.seed)
    elif options.stage == "unet":
        train_backbone(
            options.work, UnetBackbone(), options.hours, options.seed, options.device, options.peak
        )
    elif options.stage == "dit":
        train_backbone(options.work, DitBackbone(), options.hours, options.seed, options.device, options.peak)
    elif options.stage == "warm":
        written = warm_start(options.work, options.out)
        print("from the folders:", ", ".join(written) or "nothing, all is there")
    else:
        export(options.work, options.out)


if __name__ == "__main__":
    main()
