"""The output forecaster, and where it is told in advance which steps are full.

The guided output is turned into the noise that it means and carried on linearly over the log of the
signal-to-noise ratio (the coordinate of DPM-Solver, Lu et al. 2022); the row's own sampler does the rest.
The branches of guidance need no forecast of their own: a linear forecast of their sum is the sum of their
forecasts. Of noise, clean image and the network's own output, noise forecasts best (`benchmarks.step_cache`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch

from pipelines.image.step_cache.base import (
    CacheState,
    Decision,
    Memory,
    Observation,
    extrapolate,
    remember,
)
from pipelines.image.step_cache.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Forecaster:
    """`StepCache`: full at the steps of `mask`, forecast elsewhere. Step 0 is always full."""

    mask: frozenset[int]

    @property
    def wants_deep(self) -> bool:
        return False

    def decide(self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int) -> Decision:
        if state is None or state.key != key or step in self.mask:
            return Decision.FULL
        return Decision.PREDICT

    def observe(
        self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int, seen: Observation
    ) -> CacheState:
        return CacheState(key, step, noise_after(schedule, key, state, step, seen))

    def predict(
        self, schedule: Schedule, state: CacheState, step: int, model_input: torch.Tensor
    ) -> torch.Tensor:
        return forecast_output(schedule, state, step, model_input)

    def deep(self, schedule: Schedule, state: CacheState, step: int) -> torch.Tensor:
        raise AssertionError("a forecaster needs no part of the network")

    def cost(self, decision: Decision) -> float:
        return 0.0 if decision is Decision.PREDICT else 1.0

    def evaluations(self, schedule: Schedule, state: CacheState | None, step: int) -> float:
        return float(sum(place in self.mask for place in range(step, schedule.steps)))


def noise_after(
    schedule: Schedule, key: Hashable, state: CacheState | None, step: int, seen: Observation
) -> Memory:
    """What is remembered of the noise after a full evaluation."""
    before = state.noise if state is not None and state.key == key else ()
    noise = schedule.as_noise(step, seen.model_input, seen.output)
    return remember(before, schedule.position(step), noise)


def forecast_output(
    schedule: Schedule, state: CacheState, step: int, model_input: torch.Tensor
) -> torch.Tensor:
    """The network's output at `step` by order-1 forecast of the noise."""
    noise = extrapolate(state.noise, schedule.position(step))
    return schedule.as_output(step, model_input, noise)
