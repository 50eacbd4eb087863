"""Finds a model's masks: which steps have to be full for an order-1 forecast of noise to disturb least.

Uncached pictures are drawn once and the noise of each step is kept. What a mask would do to them then follows
without the network: the forecast's error at each skipped step, weighted by what the step does to the latents,
summed (the network's answer to the disturbance is left out; it makes matters better, not worse). So
thousands of masks are tried in seconds; the best of each length, and even ones, are then drawn for real
and, where that may help, polished: full steps are moved while real pictures come nearer.

A level gets the shortest mask with which nine pictures in ten, in latents and in pixels,
  - reach its PSNR against the same picture without caching, and
  - move no further by caching than by the number of steps, against a solution of many: no further for
    `fast`, half as far (in power) for `balanced`. What is right in a picture is lost to caching no oftener
    then than to steps that nobody misses, and a model that needs more evaluations gets more.
Both with a decibel more, for captions that are not seen here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
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
from pipelines.image.step_cache.masks import FILE, evenly
from pipelines.image.step_cache.schedule import Schedule

WANTED_DB: Final = {"balanced": 35.0, "fast": 30.0}
BELOW_STEPS_DB: Final = {"balanced": 3.0, "fast": 0.0}
SOLUTION_STEPS: Final = 200
_NEAR: Final = 4
_SHORTEST: Final = 4
_SETTLED: Final = 12
_MARGIN_DB: Final = 1.0
_HOPELESS_DB: Final = 2.0
_TRIES: Final = 24
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
    order, best = random.Random(len(mask)), _drawn_psnr(runs, paths, captions, mask, first_seed)
    moves = _moves(mask, paths.schedule.steps, order)
    while moves and tries:
        tries -= 1
        candidate = moves.pop()
        if (found := _drawn_psnr(runs, paths, captions, candidate, first_seed)) > best:
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


@dataclass(frozen=True, slots=True)
class Likeness:
    """PSNR that nine pictures in ten keep, dB."""

    latents: float
    pixels: float

    @classmethod
    def of(cls, found: Drawn, wanted: Drawn) -> Likeness:
        """Between the same pictures drawn twice."""
        return cls(
            percentile(latent_psnr(found.latents, wanted.latents), 0.1),
            percentile(pixel_psnr(found.pixels, wanted.pixels), 0.1),
        )

    def asked(self, level: str) -> Likeness:
        """Of what caching leaves, where this is what the number of steps leaves."""
        least, below = WANTED_DB[level], BELOW_STEPS_DB[level]
        return Likeness(*(max(least, each + below) + _MARGIN_DB for each in (self.latents, self.pixels)))

    def above(self, other: Likeness) -> float:
        """By how much, at least; negative below."""
        return min(self.latents - other.latents, self.pixels - other.pixels)

    def rounded(self) -> list[float]:
        """For the file: latents, pixels."""
        return [round(self.latents, 1), round(self.pixels, 1)]


def calibrate(
    runs: Runs, captions: Sequence[str], steps: Sequence[int], first_seed: int
) -> Iterator[dict[str, object]]:
    """What goes into the file, with the figures that were reached, after each number of steps what is known
    so far. Beside the levels masks of some numbers of evaluations, at the model's own steps, not polished:
    for the benchmark."""
    masks: dict[str, dict[str, Mask]] = {}
    reached: dict[str, dict[str, list[float]]] = {}
    equal: dict[str, Mask] = {}
    solution = runs.draw(captions, steps=SOLUTION_STEPS, first_seed=first_seed)
    for count in steps:
        paths = record(runs, captions, count, first_seed)
        by_steps = Likeness.of(paths.drawn, solution)
        candidates = masks_by_length(paths)
        masks[str(count)], reached[str(count)] = {}, {"steps": by_steps.rounded()}
        for level in WANTED_DB:
            wanted = by_steps.asked(level)
            mask, found = _shortest(runs, paths, captions, candidates, wanted, first_seed)
            masks[str(count)][level] = mask
            reached[str(count)][level] = found.rounded()
            print(f"{count} steps, {level}: {len(mask)} evaluations {mask}, {found} of {wanted}", flush=True)
        if count == runs.pipeline.info.default_steps:
            few = captions[:_POLISHED_ON]
            equal = {
                str(length): _best(runs, paths, few, candidates[length], first_seed)[0] for length in EQUAL
            }
        yield {
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
    wanted: Likeness,
    first_seed: int,
) -> tuple[Mask, Likeness]:
    """The shortest mask with which nine in ten reach what is wanted, drawn for real, and what they reach."""

    def reached(mask: Mask) -> Likeness:
        drawn = draw_masked(runs, captions, mask, paths.schedule.steps, first_seed)
        return Likeness.of(drawn, paths.drawn)

    few = captions[:_POLISHED_ON]
    for length in sorted(candidates):
        mask, mean = _best(runs, paths, few, candidates[length], first_seed)
        if mean < wanted.latents:
            continue  # nine in ten reach less than the mean
        found = reached(mask)
        if -_HOPELESS_DB <= found.above(wanted) < 0:
            mask = polished(runs, paths, few, mask, first_seed, _TRIES)
            found = reached(mask)
        if found.above(wanted) >= 0:
            return mask, found
    return tuple(range(paths.schedule.steps)), Likeness(99.0, 99.0)


def _starts(searched: Mask, steps: int) -> tuple[Mask, ...]:
    """That mask, and the even ones of its length."""
    count = len(searched)
    return (
        searched,
        tuple(place * steps // count for place in range(count)),
        tuple(sorted(evenly(count, steps))),
    )


def _best(
    runs: Runs, paths: Paths, captions: Sequence[str], searched: Mask, first_seed: int
) -> tuple[Mask, float]:
    """Of the masks to start from, by real pictures; and its mean PSNR of latents."""
    starts = _starts(searched, paths.schedule.steps)
    score, mask = max((_drawn_psnr(runs, paths, captions, mask, first_seed), mask) for mask in starts)
    return mask, score


def _drawn_psnr(runs: Runs, paths: Paths, captions: Sequence[str], mask: Mask, first_seed: int) -> float:
    """Mean PSNR of the latents. captions: the first of those of `paths`."""
    wanted = paths.drawn.latents[: len(captions)]
    edit = _masked(mask)
    found = runs.latents(captions, steps=paths.schedule.steps, first_seed=first_seed, edit=edit)
    return sum(latent_psnr(found, wanted)) / len(wanted)


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
