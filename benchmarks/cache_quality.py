"""What caches do to pictures: likeness to the uncached picture of the same seed and to a solution of many
steps, and whether the picture still shows what was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler

from benchmarks.cache_calibration import draw_masked, masks_by_evaluations
from benchmarks.cache_peers import peers_of, run_peer
from benchmarks.image_metrics import latent_psnr, pixel_psnr, ssim
from benchmarks.image_runs import Drawn, Runs
from benchmarks.stats import RESAMPLES, paired_ratio, percentile
from pipelines.image.settings import STRATEGIES
from pipelines.image.state import ImageState
from training.eval_image import unseen
from training.image_checker import check
from training.image_scene import Scene

LEVELS = ("balanced", "fast")
CALIBRATION_SEED = 4242
_TOGETHER = 64
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """What arms are compared with: the uncached pictures and the solution of many steps, same seeds."""

    scenes: Sequence[Scene]
    captions: Sequence[str]
    uncached: Drawn
    solution: Drawn

    def row(self, arm: str, drawn: Drawn) -> Row:
        """One arm's line."""
        latents = latent_psnr(drawn.latents, self.uncached.latents)
        pixels = pixel_psnr(drawn.pixels, self.uncached.pixels)
        full = sum(drawn.evaluations) / len(drawn.evaluations)
        return {
            "arm": arm,
            "evaluations": round(full, 2),
            "evaluations_speed_up": round(self.uncached.evaluations[0] / full, 2),
            "latents_db": _mean(latents),
            "latents_db_p10": round(percentile(latents, 0.1), 1),
            "pixels_db": _mean(pixels),
            "pixels_db_p10": round(percentile(pixels, 0.1), 1),
            "ssim": round(_mean(ssim(drawn.pixels, self.uncached.pixels), 4), 4),
            "solution_latents_db": _mean(latent_psnr(drawn.latents, self.solution.latents)),
            "solution_pixels_db": _mean(pixel_psnr(drawn.pixels, self.solution.pixels)),
            "checker": round(100 * sum(_right(drawn, self.scenes)) / len(self.scenes), 1),
        }


def truth_of(runs: Runs, count: int, steps: int, solution_steps: int, keep: Path | None) -> Truth:
    """On so many unseen captions. keep: a folder for what was drawn, so that parts may run one by one."""
    scenes, captions = some_captions(count, 77)
    drawn = [_kept(runs, captions, each, keep) for each in (steps, solution_steps)]
    return Truth(scenes, captions, *drawn)


def _kept(runs: Runs, captions: Sequence[str], steps: int, keep: Path | None) -> Drawn:
    """Drawn, or what was drawn of the same captions with the same weights."""
    if keep is None:
        return runs.draw(captions, steps=steps)
    network = runs.pipeline._parts.backbone.network
    weights = sum(float(each.double().abs().sum()) for each in network.parameters())
    path = keep / f"{hashlib.sha256(repr((weights, captions, steps)).encode()).hexdigest()[:16]}.pt"
    if path.is_file():
        return Drawn(**torch.load(path, weights_only=True))
    drawn = runs.draw(captions, steps=steps)
    keep.mkdir(parents=True, exist_ok=True)
    torch.save({name: getattr(drawn, name) for name in Drawn.__dataclass_fields__}, path)
    return drawn


def some_captions(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    """Unseen scenes; every fourth is striped or dotted."""
    pairs = unseen(count * 6, seed)
    textured = [pair for pair in pairs if any(item.pattern for item in pair[0].items)]
    others = [pair for pair in pairs if not any(item.pattern for item in pair[0].items)]
    chosen = textured[: count // 4]
    chosen += others[: count - len(chosen)]
    return [scene for scene, _ in chosen], [caption for _, caption in chosen]


def arms(folder: Path, truth: Truth, steps: int) -> list[Row]:
    """Every strategy and level."""
    rows = [truth.row("uncached", truth.uncached), truth.row("solution", truth.solution)]
    for strategy in STRATEGIES:
        runs = Runs(folder, strategy)
        for level in LEVELS:
            drawn = runs.draw(truth.captions, level=level, steps=steps)
            rows.append(truth.row(f"{strategy}, {level}", drawn))
            show(rows[-1])
    return rows


def equal_evaluations(runs: Runs, folder: Path, truth: Truth, steps: int, counts: Iterable[int]) -> list[Row]:
    """Forecasts at calibrated places against fewer steps, at so many evaluations."""
    masks = masks_by_evaluations(folder)
    rows: list[Row] = []
    for count in counts:
        drawn = draw_masked(runs, truth.captions, masks[count], steps, 0)
        rows.append(truth.row(f"forecast, {count} evaluations", drawn))
        for name, scheduler, edit in (
            ("own scheduler", "", None),
            ("DPM-Solver++(2M)", "dpmpp_2m", None),
            ("UniPC", "dpmpp_2m", _unipc(count)),
        ):
            fewer = runs.draw(truth.captions, steps=count, scheduler=scheduler, edit=edit)
            rows.append(truth.row(f"{name}, {count} steps", fewer))
        for row in rows[-4:]:
            show(row)
    return rows


def _unipc(steps: int) -> Callable[[ImageState], None]:
    def edit(state: ImageState) -> None:
        sampler = UniPCMultistepScheduler.from_config(state.sampler.config)
        sampler.set_timesteps(steps)
        state.take(sampler)

    return edit


def peers(folder: Path, runs: Runs, truth: Truth, steps: int, count: int) -> list[Row]:
    """Other people's caches on the first `count` captions; their time is against diffusers without one.
    "ours": forecasts of the same pictures at as many evaluations, where those are 10 to 16."""
    captions, guidance, masks = truth.captions[:count], runs.guidance, masks_by_evaluations(folder)
    plain = run_peer(None, folder, captions, steps, guidance)
    assert plain.latents is not None, plain.reason
    rows: list[Row] = []
    for peer in peers_of(folder):
        found = run_peer(peer, folder, captions, steps, guidance)
        if found.latents is None:
            rows.append({"arm": peer.name, "does_not_run": found.reason})
        elif torch.equal(found.latents, plain.latents):
            rows.append({"arm": peer.name, "does_not_run": "changes nothing of this network"})
        else:
            ratio, low, high = paired_ratio(plain.seconds, found.seconds)
            decibels = latent_psnr(found.latents, plain.latents)
            row = {
                "arm": peer.name,
                "evaluations": round(found.evaluations, 2),
                "speed_up": round(ratio, 2),
                "low": round(low, 2),
                "high": round(high, 2),
                "latents_db": _mean(decibels),
                "latents_db_p10": round(percentile(decibels, 0.1), 1),
                "solution_latents_db": _mean(
                    latent_psnr(found.latents, truth.solution.latents[: len(captions)])
                ),
            }
            if (same := masks.get(int(found.evaluations))) is not None:
                drawn = draw_masked(runs, captions, same, steps, 0)
                ours = latent_psnr(drawn.latents, truth.uncached.latents[: len(captions)])
                row["ours_latents_db"] = _mean(ours)
                row["ours_solution_latents_db"] = _mean(
                    latent_psnr(drawn.latents, truth.solution.latents[: len(captions)])
                )
            rows.append(row)
        print(rows[-1], flush=True)
    return rows


def checked(runs: Runs, count: int, steps: int) -> dict[str, Row]:
    """Share of pictures, in percent, that show what was asked for, and by how many points a level changes it:
    the same captions and seeds, a 95 % interval of the paired difference."""
    scenes, captions = some_captions(count, 78)
    right: dict[str, list[bool]] = {level: [] for level in ("off", *LEVELS)}
    likeness: dict[str, list[tuple[float, float, float]]] = {level: [] for level in LEVELS}
    for first in range(0, len(captions), _TOGETHER):
        here = slice(first, first + _TOGETHER)
        drawn = {
            level: runs.draw(captions[here], level=level, steps=steps, first_seed=200_000 + first)
            for level in right
        }
        for level, found in drawn.items():
            right[level] += _right(found, scenes[here])
        for level in LEVELS:
            likeness[level] += _alike(drawn[level], drawn["off"])
    rows: dict[str, Row] = {"off": {"captions": len(captions), "checker": _percent(right["off"])}}
    for level in LEVELS:
        before, after = np.array(right["off"], float), np.array(right[level], float)
        draws = np.random.default_rng(0).integers(0, len(before), (RESAMPLES, len(before)))
        low, high = np.quantile((after - before)[draws].mean(axis=1) * 100, (0.025, 0.975))
        latents, pixels, structure = zip(*likeness[level], strict=True)
        rows[level] = {
            "checker": _percent(right[level]),
            "points": round(100 * float((after - before).mean()), 2),
            "low": round(float(low), 2),
            "high": round(float(high), 2),
            "lost": int((before > after).sum()),
            "won": int((after > before).sum()),
            "latents_db": _mean(latents),
            "latents_db_p10": round(percentile(latents, 0.1), 1),
            "pixels_db": _mean(pixels),
            "pixels_db_p10": round(percentile(pixels, 0.1), 1),
            "ssim": _mean(structure, 4),
        }
        print(level, rows[level], flush=True)
    return rows


def show(row: Row) -> None:
    """One line."""
    print(
        f"{row['arm']:32} {row['evaluations']:6.2f} evaluations"
        f"  latents {row['latents_db']:5.1f} (p10 {row['latents_db_p10']:5.1f})"
        f"  pixels {row['pixels_db']:5.1f} (p10 {row['pixels_db_p10']:5.1f})  ssim {row['ssim']:.4f}"
        f"  solution {row['solution_latents_db']:5.1f}  checker {row['checker']:5.1f}",
        flush=True,
    )


def _right(drawn: Drawn, scenes: Sequence[Scene]) -> list[bool]:
    """Which pictures show what was asked for."""
    pictures = zip(drawn.pixels.numpy(), scenes, strict=True)
    return [check(picture, scene).objects for picture, scene in pictures]


def _alike(found: Drawn, wanted: Drawn) -> list[tuple[float, float, float]]:
    """Of each picture: dB of latents, dB of pixels, SSIM."""
    return list(
        zip(
            latent_psnr(found.latents, wanted.latents),
            pixel_psnr(found.pixels, wanted.pixels),
            ssim(found.pixels, wanted.pixels),
            strict=True,
        )
    )


def _percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / len(values), 1)


def _mean(values: Sequence[float], digits: int = 1) -> float:
    return round(sum(values) / len(values), digits)
