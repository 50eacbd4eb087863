"""The content-adaptive gate over the forecaster: a picture's own curvature says how far a forecast reaches.

At a full evaluation the forecast that was not needed is compared with what the network said. For a linear
forecast their difference is half the curvature times the product of the distances to the two remembered
points, so the error of each later forecast is known in advance; weighted by what the step does to the
latents and summed, it ends the run of predictions at the tolerance. Step size control as in ODE solvers
(Hairer, Norsett, Wanner), read one evaluation late so that the device is never waited for.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

import torch

from pipelines.image.step_cache.base import CacheState, Decision, Observation, extrapolate
from pipelines.image.step_cache.forecast import forecast_output, noise_after
from pipelines.image.step_cache.schedule import Schedule
from pipelines.image.step_cache.signal import Signal

LONGEST_RUN: Final = 6


@dataclass(frozen=True, slots=True)
class Gate:
    """`StepCache`. tolerance: root mean square error of the final latents that one run of predictions may
    make, in standard deviations. The first four steps, which the reading needs, and the last are full."""

    tolerance: float

    @property
    def wants_deep(self) -> bool:
        return False

    def decide(self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int) -> Decision:
        if state is None or state.key != key or step >= min(state.until, schedule.steps - 1):
            return Decision.FULL
        return Decision.PREDICT

    def observe(
        self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int, seen: Observation
    ) -> CacheState:
        if state is None or state.key != key:
            return CacheState(key, step, noise_after(schedule, key, None, step, seen), until=step + 1)
        noise = noise_after(schedule, key, state, step, seen)
        new = CacheState(key, step, noise, until=step + 1, signal=_curvature(schedule, state, step, seen))
        if state.signal is None or len(noise) < 2:
            return new
        return replace(new, until=self._reach(schedule, new, state.signal.read()))

    def _reach(self, schedule: Schedule, state: CacheState, curvature: float) -> int:
        """The first step whose forecast would use up the tolerance."""
        before, last = (each.position for each in state.noise)
        error, step = 0.0, state.last_full + 1
        while step < schedule.steps and step - state.last_full <= LONGEST_RUN:
            here = schedule.position(step)
            error += schedule.weight(step) * curvature * (here - last) * (here - before)
            if not error <= self.tolerance:
                break
            step += 1
        return step

    def predict(
        self, schedule: Schedule, state: CacheState, step: int, model_input: torch.Tensor
    ) -> torch.Tensor:
        return forecast_output(schedule, state, step, model_input)

    def deep(self, schedule: Schedule, state: CacheState, step: int) -> torch.Tensor:
        raise AssertionError("a gate needs no part of the network")

    def cost(self, decision: Decision) -> float:
        return 0.0 if decision is Decision.PREDICT else 1.0

    def evaluations(self, schedule: Schedule, state: CacheState | None, step: int) -> float:
        return float(schedule.steps - step)


def _curvature(schedule: Schedule, state: CacheState, step: int, seen: Observation) -> Signal | None:
    """Half the second derivative over the schedule's position, root mean square."""
    if len(state.noise) < 2:
        return None
    here = schedule.position(step)
    noise = schedule.as_noise(step, seen.model_input, seen.output)
    distance = (here - state.noise[-1].position) * (here - state.noise[0].position)
    off = (noise - extrapolate(state.noise, here)).square().mean().sqrt()
    return Signal(off / max(distance, 1e-6))
