"""Judges a Stable-Diffusion-layout folder on unseen captions: `python -m training.eval_image [--count 20]`.

Draws with diffusers' own pipeline at 28 steps, lets `image_checker` look, prints shares with 95 %
Wilson intervals and the autoencoder's reconstruction, and with `--sheet` writes a
contact sheet (WebP) of the pictures.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from training.image_captions import caption, plain_caption
from training.image_checker import Verdict, check
from training.image_renderer import render
from training.image_scene import Scene, draw_unseen
from training.image_vae import reconstruction_psnr

MODEL: Final = Path(__file__).resolve().parent.parent / "models" / "upbeat-image-unet"
GUIDANCE: Final = 2.0
STEPS: Final = 28
_BATCH: Final = 20
Pictures = npt.NDArray[np.uint8]


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share."""
    z, share = 1.96, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def unseen(count: int, seed: int, bare: bool = False) -> list[tuple[Scene, str]]:
    """`count` held-out scenes with a caption each; `bare` leaves out requests and conversation."""
    rng = np.random.default_rng(seed)
    scenes = [draw_unseen(rng) for _ in range(count)]
    return [(scene, plain_caption(scene, rng) if bare else caption(scene, rng)) for scene in scenes]


def load(folder: Path) -> Any:
    """diffusers' pipeline for a folder, on the CPU in fp32, without its progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: Any, captions: Sequence[str], guidance: float, steps: int = STEPS, seed: int = 0
) -> Pictures:
    """uint8 (n, 128, 128, 3), one picture for each caption; picture i has the seed `seed + i`."""
    drawn: list[Pictures] = []
    for start in range(0, len(captions), _BATCH):
        part = list(captions[start : start + _BATCH])
        result = pipeline(
            part,
            height=128,
            width=128,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(part))],
            output_type="np",
        )
        drawn.append((result.images * 255.0 + 0.5).clip(0, 255).astype(np.uint8))
    return np.concatenate(drawn)


def _line(name: str, values: Sequence[bool | None]) -> str:
    known = [bool(value) for value in values if value is not None]
    if not known:
        return f"{name:34s} none asked for"
    low, high = wilson(sum(known), len(known))
    share = sum(known) / len(known)
    return f"{name:34s} {share:6.1%}  [{low:.1%}, {high:.1%}]  {sum(known)} of {len(known)}"


def report(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> str:
    """The table of shares, one line a quality."""
    single = [
        v.objects if len(s.items) == 1 and s.setting == "plain" else None
        for v, s in zip(verdicts, scenes, strict=True)
    ]
    double = [v.objects if len(s.items) == 2 else None for v, s in zip(verdicts, scenes, strict=True)]
    wide = [v.objects if s.setting != "plain" else None for v, s in zip(verdicts, scenes, strict=True)]
    return "\n".join(
        [
            _line("colours and shapes right", [v.objects for v in verdicts]),
            _line("  one kind of object", single),
            _line("  two objects", double),
            _line("  landscapes", wide),
            _line("shapes alone", [v.kinds for v in verdicts]),
            _line("colours alone", [v.colours for v in verdicts]),
            _line("number of objects", [v.count for v in verdicts]),
            _line("relation", [v.relation for v in verdicts]),
            _line("time of day", [v.hour for v in verdicts]),
        ]
    )


def contact_sheet(
    pictures: Pictures, captions: Sequence[str], verdicts: Sequence[Verdict], path: Path
) -> None:
    """Writes up to 30 pictures, five a row, captions below, wrong ones marked with x, as a WebP file."""
    count, columns = min(30, len(pictures)), 5
    sheet = Image.new("RGB", (columns * 132, math.ceil(count / columns) * 164), "white")
    pen = ImageDraw.Draw(sheet)
    for index in range(count):
        x, y = index % columns * 132 + 2, index // columns * 164 + 2
        sheet.paste(Image.fromarray(pictures[index]), (x, y))
        words = ("" if verdicts[index].objects else "x ") + captions[index]
        for row in range(3):
            pen.text((x, y + 128 + 10 * row), words[row * 25 : row * 25 + 25], fill="black", font_size=9)
    sheet.save(path, quality=80, method=6)


def vae_psnr(pipeline: Any, count: int = 48, seed: int = 99) -> float:
    """Reconstruction of renders of unseen scenes, in dB."""
    rng = np.random.default_rng(seed)
    return reconstruction_psnr(pipeline.vae, np.stack([render(draw_unseen(rng), rng) for _ in range(count)]))


def checker_on_renders(count: int, seed: int = 5) -> float:
    """Share of renders of unseen scenes that the checker calls right: its own validation."""
    rng = np.random.default_rng(seed)
    scenes = [draw_unseen(rng) for _ in range(count)]
    return sum(check(render(scene, rng), scene).objects for scene in scenes) / count


def main() -> None:
    """Parses the command line, draws, checks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, nargs="+", default=[GUIDANCE])
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument(
        "--bare", action="store_true", help="captions without requests or conversation around them"
    )
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here (WebP)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load(options.model)
    scenes, captions = zip(*unseen(options.count, options.seed, options.bare), strict=True)
    for guidance in options.guidance:
        start = time.monotonic()
        pictures = draw(pipeline, captions, guidance, options.steps)
        verdicts = [check(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
        print(
            f"guidance {guidance}, {options.steps} steps, {len(captions)} captions, "
            f"{time.monotonic() - start:.0f} s"
        )
        print(report(verdicts, scenes))
    if options.sheet:
        contact_sheet(pictures, captions, verdicts, options.sheet)
    print(f"autoencoder: {vae_psnr(pipeline):.2f} dB on unseen renders")
    print(f"checker on renders of unseen scenes: {checker_on_renders(100):.1%} right")


if __name__ == "__main__":
    main()
