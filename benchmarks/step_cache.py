"""Step caching: what it saves and what it costs: `python -m benchmarks.step_cache [--quick] [--json FILE]`.

Pictures of unseen captions with one seed each, on the embedded U-Net or any folder (`--model`): every
strategy and level of Upbeat, fewer steps at equal evaluations with the folder's own scheduler and with
DPM-Solver++(2M) and UniPC, the DeepCache package and diffusers' own caches, all against the uncached picture
of the same seed and against a solution of many steps. Times are of single pictures, alternating.
`--calibrate` finds the folder's masks and writes them into it, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

from benchmarks.cache_calibration import calibrate, draw_masked, masks_by_length, record, write
from benchmarks.cache_peers import PEERS, run_peer
from benchmarks.image_arrivals import arrivals_report
from benchmarks.image_cancels import cancels_report
from benchmarks.image_metrics import latent_psnr, pixel_psnr, ssim
from benchmarks.image_runs import Drawn, Runs
from benchmarks.stats import machine, paired_ratio, percentile
from pipelines.image.settings import STRATEGIES
from pipelines.image.state import ImageState
from pipelines.image.step_cache.schedule import Schedule
from training.eval_image import unseen
from training.image_checker import check
from training.image_scene import Scene

EMBEDDED = Path(__file__).resolve().parent.parent / "models" / "upbeat-image-unet"
CALIBRATED_STEPS = (12, 20, 28, 50)
EQUAL_EVALUATIONS = (10, 12, 16)
LEVELS = ("balanced", "fast")
PARTS = ("arms", "equal", "peers", "time", "arrivals", "cancels")
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
            "checker": self._right(drawn),
        }

    def _right(self, drawn: Drawn) -> float:
        """Share of pictures, in percent, that show what was asked for."""
        pictures = zip(drawn.pixels.numpy(), self.scenes, strict=True)
        return round(
            100 * sum(check(picture, scene).objects for picture, scene in pictures) / len(self.scenes), 1
        )


def _mean(values: Sequence[float], digits: int = 1) -> float:
    return round(sum(values) / len(values), digits)


def arms(folder: Path, truth: Truth, steps: int) -> list[Row]:
    """Every strategy and level."""
    rows = [truth.row("uncached", truth.uncached), truth.row("solution", truth.solution)]
    for strategy in STRATEGIES:
        runs = Runs(folder, strategy)
        for level in LEVELS:
            drawn = runs.draw(truth.captions, level=level, steps=steps)
            rows.append(truth.row(f"{strategy}, {level}", drawn))
            _show(rows[-1])
    return rows


def equal_evaluations(runs: Runs, truth: Truth, steps: int, counts: Sequence[int], seed: int) -> list[Row]:
    """Forecasts at calibrated places against fewer steps, at so many evaluations."""
    _, captions = _captions(6, seed)
    masks = masks_by_length(record(runs, captions, steps, 50_000))
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
            _show(row)
    return rows


def _unipc(steps: int) -> Callable[[ImageState], None]:
    def edit(state: ImageState) -> None:
        state.sampler = UniPCMultistepScheduler.from_config(state.sampler.config)
        state.sampler.set_timesteps(steps)
        state.schedule = Schedule.of(state.sampler)

    return edit


def peers(folder: Path, truth: Truth, steps: int, guidance: float, count: int) -> list[Row]:
    """Other people's caches; their time is against diffusers without a cache."""
    captions = truth.captions[:count]
    plain = run_peer(None, folder, captions, steps, guidance)
    rows: list[Row] = []
    for peer in PEERS:
        found = run_peer(peer, folder, captions, steps, guidance)
        if found.latents is None:
            rows.append({"arm": peer.name, "does_not_run": found.reason})
        elif plain.latents is not None and torch.equal(found.latents, plain.latents):
            rows.append({"arm": peer.name, "does_not_run": "attaches to nothing of this network"})
        else:
            assert plain.latents is not None
            decibels = latent_psnr(found.latents, plain.latents)
            speed_up = round(plain.seconds / found.seconds, 2)
            solution = _mean(latent_psnr(found.latents, truth.solution.latents[:count]))
            rows.append(
                {
                    "arm": peer.name,
                    "speed_up": speed_up,
                    "latents_db": _mean(decibels),
                    "solution_latents_db": solution,
                }
            )
        print(rows[-1], flush=True)
    return rows


def wall_clock(runs: Runs, captions: Sequence[str], steps: int) -> dict[str, dict[str, float]]:
    """Single pictures, text to pixels, alternating: time without caching over time with it; and with
    previews at every fourth step over without."""
    seconds: dict[str, list[float]] = {name: [] for name in ("off", *LEVELS, "previews")}
    runs.draw(captions[:1], steps=steps)
    for seed, caption in enumerate(captions):
        for name in seconds:
            level, every = ("off", 4) if name == "previews" else (name, 0)
            drawn = runs.draw([caption], level=level, steps=steps, first_seed=seed, preview_every=every)
            seconds[name].append(drawn.seconds)
    found: dict[str, dict[str, float]] = {}
    for name in (*LEVELS, "previews"):
        ratio, low, high = paired_ratio(seconds["off"], seconds[name])
        found[name] = {"speed_up": round(ratio, 3), "low": round(low, 3), "high": round(high, 3)}
        found[name]["ms"] = round(1000 * sum(seconds[name]) / len(captions), 1)
        print(f"{name}: {ratio:.3f}x [{low:.3f}, {high:.3f}]", flush=True)
    return found


def _captions(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    """Unseen scenes; every fourth is striped or dotted."""
    pairs = unseen(count * 6, seed)
    textured = [pair for pair in pairs if any(item.pattern for item in pair[0].items)]
    others = [pair for pair in pairs if not any(item.pattern for item in pair[0].items)]
    chosen = textured[: count // 4]
    chosen += others[: count - len(chosen)]
    return [scene for scene, _ in chosen], [caption for _, caption in chosen]


def _show(row: Row) -> None:
    print(
        f"{row['arm']:32} {row['evaluations']:6.2f} evaluations"
        f"  latents {row['latents_db']:5.1f} (p10 {row['latents_db_p10']:5.1f})"
        f"  pixels {row['pixels_db']:5.1f} (p10 {row['pixels_db_p10']:5.1f})  ssim {row['ssim']:.4f}"
        f"  solution {row['solution_latents_db']:5.1f}  checker {row['checker']:5.1f}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 captions instead of 64")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="a model folder")
    parser.add_argument("--calibrate", action="store_true", help="write step_cache.json into the folder")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of these to run")
    parser.add_argument("--json", type=Path, help="write the figures there; other parts' are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    with torch.inference_mode():
        if options.calibrate:
            _, captions = _captions(12, 4242)
            write(options.model, calibrate(Runs(options.model), captions, CALIBRATED_STEPS, 9_000))
            return
        report = measure(options.model, options.quick, options.parts.split(","))
    print(f"{time.perf_counter() - begin:.0f} s")
    if options.json:
        known = json.loads(options.json.read_text()) if options.json.is_file() else {}
        options.json.write_text(json.dumps({**known, **report}, indent=1) + "\n")


def measure(folder: Path, quick: bool, parts: Sequence[str]) -> dict[str, Any]:
    """All that is asked for, as the JSON report."""
    runs = Runs(folder)
    steps = runs.pipeline.info.default_steps
    scenes, captions = _captions(8 if quick else 64, 77)
    report: dict[str, Any] = {"name": "step_cache", "hardware": machine(), "command": machine()["command"]}
    report["settings"] = {
        "model": folder.name,
        "captions": len(captions),
        "steps": steps,
        "guidance": runs.guidance,
        "torch_threads": 1,
        "solution_steps": 100 if quick else 200,
    }
    if {"arms", "equal", "peers"} & {*parts}:
        uncached = runs.draw(captions, steps=steps)
        solution = runs.draw(captions, steps=report["settings"]["solution_steps"])
        truth = Truth(scenes, captions, uncached, solution)
        if "arms" in parts:
            report["arms"] = arms(folder, truth, steps)
        if "equal" in parts:
            counts = EQUAL_EVALUATIONS[1:2] if quick else EQUAL_EVALUATIONS
            report["equal_evaluations"] = equal_evaluations(runs, truth, steps, counts, 4242)
        if "peers" in parts:
            report["peers"] = peers(folder, truth, steps, runs.guidance, 4 if quick else 16)
    if "time" in parts:
        times = wall_clock(runs, captions[: 6 if quick else 24], steps)
        report["wall_clock"] = times
        report["ratios"] = {f"wall_clock_{level}": times[level]["speed_up"] for level in LEVELS}
    if "arrivals" in parts:
        report["arrivals"] = arrivals_report(runs, captions, 12 if quick else 48)
    if "cancels" in parts:
        report["cancels"] = cancels_report(runs, 50 if quick else 300)
    return report


if __name__ == "__main__":
    main()
