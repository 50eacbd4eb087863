"""Finds a model's masks: which steps have to be full for an order-1 forecast of noise to disturb least.

Uncached pictures are drawn once and the noise of each step is kept. What a mask would do to them then follows
without the network: the forecast's error at each skipped step, weighted by what the step does to the latents,
summed (the network's answer to the disturbance is left out; it makes matters better, not worse). So
thousands of masks are tried in seconds; the best of each length, and the even one, is then drawn for real
and, where that may help, polished: full steps are moved while real pictures come nearer. A level gets the
shortest mask with which nine pictures in ten reach its PSNR, of latents and of pixels, and a decibel more for
captions that are not seen here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from benchmarks.image_metrics import latent_psnr, pixel_psnr
from benchmarks.image_runs import Drawn, Runs
from benchmarks.stats import percentile
from pipelines.image.state import ImageState
from pipelines.image.step_cache.base import CacheState, Decision, Observation
from pipelines.image.step_cache.forecast import Forecaster
from pipelines.image.step_cache.masks import FILE
from pipelines.image.step_cache.schedule import Schedule

WANTED_DB: Final = {"balanced": 35.0, "fast": 30.0}
_NEAR: Final = 4
_SHORTEST: Final = 4
_SETTLED: Final = 12
_MARGIN_DB: Final = 1.0
_HOPELESS_DB: Final = 4.0
_TRIES: Final = 32
_POLISHED_ON: Final = 8
EQUAL: Final = (10, 11, 12, 14, 15, 16)
Mask = tuple[int, ...]


@dataclass(slots=True)
class Recorder:
    """`StepCache` of one row: computes every step and keeps its noise."""

    noise: list[torch.Tensor] = field(default_factory=list)
    wants_deep: bool = False

    def decide(self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int) -> Decision:
        """Always full."""
        return Decision.FULL

    def observe(
        self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int, seen: Observation
    ) -> CacheState:
        """Keeps it."""
        self.noise.append(schedule.as_noise(step, seen.model_input, seen.output))
        return CacheState(key, step)

    def predict(
        self, schedule: Schedule, state: CacheState, step: int, model_input: torch.Tensor
    ) -> torch.Tensor:
        """Never asked for."""
        raise AssertionError

    def deep(self, schedule: Schedule, state: CacheState, step: int) -> torch.Tensor:
        """Never asked for."""
        raise AssertionError

    def cost(self, decision: Decision) -> float:
        """Of a full evaluation."""
        return 1.0

    def evaluations(self, schedule: Schedule, state: CacheState | None, step: int) -> float:
        """All."""
        return float(schedule.steps - step)


@dataclass(frozen=True, slots=True)
class Paths:
    """Uncached pictures: noise (steps, n, ...), latents (n, ...)."""

    schedule: Schedule
    noise: torch.Tensor
    drawn: Drawn

    def psnr(self, mask: Sequence[int]) -> float:
        """Predicted mean PSNR of the latents with these full steps, in order."""
        disturbance = torch.zeros_like(self.noise[0])
        place = [self.schedule.position(step) for step in range(self.schedule.steps)]
        full = set(mask)
        known: list[int] = []
        for step in range(self.schedule.steps):
            if step in full:
                known = [*known[-1:], step]
                continue
            last = self.noise[known[-1]]
            forecast = last
            if len(known) == 2 and place[known[1]] != place[known[0]]:
                share = (place[step] - place[known[1]]) / (place[known[1]] - place[known[0]])
                forecast = last + share * (last - self.noise[known[0]])
            disturbance += self.schedule.weight(step) * (self.noise[step] - forecast)
        wanted = self.drawn.latents
        return sum(latent_psnr(wanted + disturbance, wanted)) / len(wanted)


def record(runs: Runs, captions: Sequence[str], steps: int, first_seed: int) -> Paths:
    """Draws without caching and keeps what is needed."""
    states: list[ImageState] = []
    recorders: list[Recorder] = []

    def listen(state: ImageState) -> None:
        recorders.append(Recorder())
        states.append(state)
        state.cache = recorders[-1]

    drawn = runs.draw(captions, steps=steps, first_seed=first_seed, edit=listen)
    noise = torch.stack([torch.cat(list(rows)) for rows in zip(*(r.noise for r in recorders), strict=True)])
    return Paths(states[0].schedule, noise, drawn)


def masks_by_length(paths: Paths) -> dict[int, Mask]:
    """The best mask found of each length: full steps are given up one by one, the cheapest first, and the
    short ones moved to better places while that helps."""
    mask = tuple(range(paths.schedule.steps))
    found: dict[int, Mask] = {}
    while len(mask) > _SHORTEST:
        shorter = [tuple(step for step in mask if step != gone) for gone in mask[1:]]
        mask = max(shorter, key=paths.psnr)
        if len(mask) <= _SETTLED:
            mask = _settled(paths, mask)
        found[len(mask)] = mask
    return found


def _settled(paths: Paths, mask: Mask) -> Mask:
    """Moves one full step at a time by a few places while that helps."""
    best = paths.psnr(mask)
    while True:
        moved = [
            tuple(sorted({*mask} - {old} | {new}))
            for old in mask[1:]
            for new in range(max(1, old - _NEAR), min(paths.schedule.steps, old + _NEAR + 1))
            if new not in mask
        ]
        score, candidate = max((paths.psnr(each), each) for each in moved)
        if score <= best + 1e-3:
            return mask
        best, mask = score, candidate


def polished(
    runs: Runs, paths: Paths, captions: Sequence[str], mask: Mask, first_seed: int, tries: int
) -> Mask:
    """Full steps moved by a place or two while pictures drawn for real come nearer (mean PSNR of latents):
    here the network's answer counts. captions: the first of those of `paths`."""

    def score(mask: Mask) -> float:
        wanted = paths.drawn.latents[: len(captions)]
        edit = _masked(mask)
        found = runs.latents(captions, steps=paths.schedule.steps, first_seed=first_seed, edit=edit)
        return sum(latent_psnr(found, wanted)) / len(wanted)

    order, best = random.Random(len(mask)), score(mask)
    moves = _moves(mask, paths.schedule.steps, order)
    while moves and tries:
        tries -= 1
        candidate = moves.pop()
        if (found := score(candidate)) > best:
            best, mask = found, candidate
            moves = _moves(mask, paths.schedule.steps, order)
    return mask


def _moves(mask: Mask, steps: int, order: random.Random) -> list[Mask]:
    """One full step moved, shuffled."""
    moved = [
        tuple(sorted({*mask} - {old} | {old + by}))
        for old in mask[1:]
        for by in (-2, -1, 1, 2)
        if 0 < old + by < steps and old + by not in mask
    ]
    order.shuffle(moved)
    return moved


def calibrate(
    runs: Runs, captions: Sequence[str], steps: Sequence[int], first_seed: int
) -> dict[str, object]:
    """What goes into the file, with the figures that were reached. Beside the levels the best masks of some
    numbers of evaluations, at the model's own steps: for the benchmark."""
    masks: dict[str, dict[str, Mask]] = {}
    reached: dict[str, dict[str, float]] = {}
    equal: dict[str, Mask] = {}
    for count in steps:
        paths = record(runs, captions, count, first_seed)
        candidates = masks_by_length(paths)
        masks[str(count)], reached[str(count)] = {}, {}
        for level, wanted in WANTED_DB.items():
            mask, worst = _shortest(runs, paths, captions, candidates, wanted + _MARGIN_DB, first_seed)
            masks[str(count)][level] = mask
            reached[str(count)][level] = round(worst, 1)
            print(f"{count} steps, {level}: {len(mask)} evaluations, p10 {worst:.1f} dB, {mask}", flush=True)
        if count == runs.pipeline.info.default_steps:
            for length in EQUAL:
                start = candidates[length]
                equal[str(length)] = polished(runs, paths, captions[:_POLISHED_ON], start, first_seed, _TRIES)
                print(f"{count} steps, {length} evaluations: {equal[str(length)]}", flush=True)
    return {
        "guidance": runs.guidance,
        "captions": len(captions),
        "p10_db": reached,
        "masks": masks,
        "by_evaluations": equal,
    }


def _shortest(
    runs: Runs,
    paths: Paths,
    captions: Sequence[str],
    candidates: dict[int, Mask],
    wanted: float,
    first_seed: int,
) -> tuple[Mask, float]:
    """The shortest mask with which nine in ten reach `wanted` dB, drawn for real, and what they reach."""

    def worst(mask: Mask) -> float:
        drawn = draw_masked(runs, captions, mask, paths.schedule.steps, first_seed)
        return min(
            percentile(latent_psnr(drawn.latents, paths.drawn.latents), 0.1),
            percentile(pixel_psnr(drawn.pixels, paths.drawn.pixels), 0.1),
        )

    for length in sorted(candidates):
        starts = (candidates[length], _even(length, paths.schedule.steps))
        reached, mask = max((worst(start), start) for start in starts)
        if reached < wanted - _HOPELESS_DB:
            continue
        if reached < wanted:
            mask = polished(runs, paths, captions[:_POLISHED_ON], mask, first_seed, _TRIES)
            reached = worst(mask)
        if reached >= wanted:
            return mask, reached
    return tuple(range(paths.schedule.steps)), 99.0


def _even(length: int, steps: int) -> Mask:
    """At equal distances, the last of them before the end."""
    return tuple(place * steps // length for place in range(length))


def draw_masked(
    runs: Runs, captions: Sequence[str], mask: Sequence[int], steps: int, first_seed: int
) -> Drawn:
    """With these full steps."""
    return runs.draw(captions, steps=steps, first_seed=first_seed, edit=_masked(mask))


def _masked(mask: Sequence[int]) -> Callable[[ImageState], None]:
    def edit(state: ImageState) -> None:
        state.cache = Forecaster(frozenset(mask))

    return edit


def masks_by_evaluations(folder: Path) -> dict[int, Mask]:
    """Those of the folder's file, at the model's own number of steps. Raises: OSError where it has none."""
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return {int(length): tuple(mask) for length, mask in content["by_evaluations"].items()}


def write(folder: Path, content: dict[str, object]) -> None:
    """Into the model folder, one line a mask."""
    text = json.dumps(content, indent=1)
    (folder / FILE).write_text(_joined(text) + "\n", encoding="utf-8")


def _joined(text: str) -> str:
    """JSON with its innermost lists on one line."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if inside:
            lines[-1] += line.strip() if line.strip().startswith("]") else line.strip() + " "
        else:
            lines.append(line)
        inside = (inside or line.rstrip().endswith("[")) and not line.strip().startswith("]")
    return "\n".join(line.replace(" ]", "]") for line in lines)
