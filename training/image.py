"""Trains the embedded image models by stages: `python -m training.image STAGE --hours H`.

vae: the autoencoder. pool: latents of rendered pictures, with captions. text: the text encoder
learns to read captions. unet, dit: a backbone, on the pool. export: the folders models/upbeat-image-unet
and models/upbeat-image-dit. Every stage is seeded and goes on where it stopped.
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

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".train" / "image"
MODELS = ROOT / "models"


def main() -> None:
    """Parses the command line and runs one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("vae", "pool", "text", "unet", "dit", "export"))
    parser.add_argument("--hours", type=float, default=0.5, help="working time, resumed runs included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=30, help="pool: shards of 2,048 pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and latents")
    parser.add_argument("--out", type=Path, default=MODELS, help="export: the parent of the model folders")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "vae":
        train_vae(options.work, options.hours, options.seed, options.device)
    elif options.stage == "pool":
        make_pool(finished_vae(options.work), options.work, options.shards, options.hours, options.seed + 100)
    elif options.stage == "text":
        train_reader(options.work, options.hours, options.seed)
    elif options.stage == "unet":
        train_backbone(options.work, UnetBackbone(), options.hours, options.seed, options.device)
    elif options.stage == "dit":
        train_backbone(options.work, DitBackbone(), options.hours, options.seed, options.device)
    else:
        export(options.work, options.out)


if __name__ == "__main__":
    main()
