"""Trains the embedded image model by stages: `python -m training.image vae|pool|text|unet|export --hours H`.

vae: the autoencoder. pool: latents of rendered pictures, with captions. text: the text encoder
learns to read captions. unet: the U-Net, on the pool. export: the folder models/upbeat-image-unet.
Every stage is seeded; vae, pool and unet go on where they stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.image_export import export, finished_vae
from training.image_pool import make_pool
from training.image_reader import train_reader
from training.image_unet import train_unet
from training.image_vae import train_vae

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".train" / "image"
MODEL = ROOT / "models" / "upbeat-image-unet"


def main() -> None:
    """Parses the command line and runs one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("vae", "pool", "text", "unet", "export"))
    parser.add_argument("--hours", type=float, default=0.5, help="working time, resumed runs included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=30, help="pool: shards of 2,048 pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and latents")
    parser.add_argument("--out", type=Path, default=MODEL, help="export: the model folder")
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
        train_unet(options.work, options.hours, options.seed, options.device)
    else:
        export(options.work, options.out)


if __name__ == "__main__":
    main()
