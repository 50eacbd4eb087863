"""Judges the image models on unseen captions: `python -m training.eval_image [--model unet] [--count 60]`.

Draws with diffusers' own pipelines, lets `image_checker` look, prints shares with 95 % Wilson intervals, the
autoencoder's reconstruction, and what fewer steps lose (`eval_image_steps`). `--sheet` writes a contact sheet
(WebP) into each folder instead.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageDraw

from training.eval_image_steps import steps_table
from training.image_captions import caption, plain_caption
from training.image_checker import Verdict, check
from training.image_drawing import BACKBONES, STEPS, Pictures, draw, load, own_guidance
from training.image_renderer import render
from training.image_scene import Scene, draw_unseen
from training.image_vae import reconstruction_psnr

_CHECKED_RENDERS: Final = 300


def unseen(count: int, seed: int, bare: bool = False, related: bool = False) -> list[tuple[Scene, str]]:
    """`count` held-out scenes with a caption each; `bare` leaves out requests and conversation, `related`
    takes those alone that say where one object is, seen from another."""
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = draw_unseen(rng)
        if not related or scene.relation != "and":
            scenes.append(scene)
    return [(scene, plain_caption(scene, rng) if bare else caption(scene, rng)) for scene in scenes]


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share."""
    z, share = 1.96, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def _line(name: str, values: Sequence[bool | None]) -> str:
    known = [bool(value) for value in values if value is not None]
    if not known:
        return f"{name:34s} none asked for"
    low, high = wilson(sum(known), len(known))
    share = sum(known) / len(known)
    return f"{name:34s} {share:6.1%}  [{low:.1%}, {high:.1%}]  {sum(known)} of {len(known)}"


def report(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> str:
    """The table of shares, one line a quality."""
    judged = list(zip(verdicts, scenes, strict=True))
    single = [v.objects for v, s in judged if len(s.items) == 1 and s.setting == "plain"]
    double = [v.objects for v, s in judged if len(s.items) == 2]
    wide = [v.objects for v, s in judged if s.setting != "plain"]
    return "\n".join(
        [
            _line("attributes: colours and shapes", [v.objects for v in verdicts]),
            _line("  one kind of object", single),
            _line("  two objects", double),
            _line("  landscapes", wide),
            _line("shapes alone", [v.kinds for v in verdicts]),
            _line("colours alone", [v.colours for v in verdicts]),
            _line("number of objects", [v.count for v in verdicts]),
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
    sheet.save(path, quality=72, method=6)


def vae_psnr(pipeline: Any, count: int = 48, seed: int = 99) -> float:
    """Reconstruction of renders of unseen scenes, in dB."""
    rng = np.random.default_rng(seed)
    return reconstruction_psnr(pipeline.vae, np.stack([render(draw_unseen(rng), rng) for _ in range(count)]))


def checker_on_renders(count: int, seed: int = 5) -> float:
    """Share of renders of unseen scenes that the checker calls right: its own validation."""
    rng = np.random.default_rng(seed)
    scenes = [draw_unseen(rng) for _ in range(count)]
    verdicts = [check(render(scene, rng), scene) for scene in scenes]
    return sum(v.objects and v.count and v.relation is not False for v in verdicts) / count


def judge(
    pipeline: Any, asked: Sequence[tuple[Scene, str]], guidance: float, steps: int
) -> tuple[Pictures, list[Verdict]]:
    """Draws each caption and checks the picture against its scene."""
    pictures = draw(pipeline, [text for _, text in asked], guidance, steps)
    return pictures, [check(picture, scene) for picture, (scene, _) in zip(pictures, asked, strict=True)]


def _evaluate(name: str, folder: Path, options: argparse.Namespace) -> None:
    start, pipeline = time.monotonic(), load(folder)
    for guidance in options.guidance or [own_guidance(folder)]:
        mixed = unseen(options.count, options.seed)
        related = unseen(options.relations, options.seed + 1, related=True)
        _, verdicts = judge(pipeline, mixed, guidance, options.steps)
        print(f"{name}: {options.steps} steps, guidance {guidance}, {len(mixed)} unseen captions")
        print(report(verdicts, [scene for scene, _ in mixed]))
        _, placed = judge(pipeline, related, guidance, options.steps)
        print(_line("relations, all of them pairs", [v.relation for v in placed]))
        print(_line("  colours and shapes of those", [v.objects for v in placed]), flush=True)
    if options.table:
        print(steps_table(pipeline, unseen(options.table, options.seed + 2), own_guidance(folder)))
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def _write_sheet(folder: Path, options: argparse.Namespace) -> None:
    asked = unseen(30, options.seed + 3, bare=True)
    pictures, verdicts = judge(load(folder), asked, own_guidance(folder), options.steps)
    contact_sheet(pictures, [text for _, text in asked], verdicts, folder / "contact-sheet.webp")


def main() -> None:
    """Parses the command line, draws, checks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=tuple(BACKBONES), default=list(BACKBONES))
    parser.add_argument("--count", type=int, default=60, help="captions of all sorts")
    parser.add_argument("--relations", type=int, default=40, help="captions that name a relation")
    parser.add_argument("--table", type=int, default=8, help="captions for the table over steps; 0 for none")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, nargs="+", help="else the folder's own")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--models", type=Path, help="the parent of the folders, if not the committed ones")
    parser.add_argument("--sheet", action="store_true", help="write the contact sheets, nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: BACKBONES[name] for name in options.model}
    if options.models:
        chosen = {name: options.models / folder.name for name, folder in chosen.items()}
    for name, folder in chosen.items():
        if options.sheet:
            _write_sheet(folder, options)
        else:
            _evaluate(name, folder, options)
    if not options.sheet:
        psnr = vae_psnr(load(next(iter(chosen.values()))))
        print(f"autoencoder: {psnr:.2f} dB on unseen renders")
        print(
            f"checker on {_CHECKED_RENDERS} unseen renders: {checker_on_renders(_CHECKED_RENDERS):.1%} right"
        )


if __name__ == "__main__":
    main()
