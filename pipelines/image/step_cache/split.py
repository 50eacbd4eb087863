"""Shallow and deep: the shallow part of the network runs at every step, the deep part is forecast.

DeepCache (Ma et al. 2024) on U-Nets, the first block's residual (ParaAttention, diffusers' FirstBlockCache)
on transformers; but what the deep part says is carried on with order 1 instead of being used as it is.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch

from pipelines.image.step_cache.base import (
    CacheState,
    Decision,
    Observation,
    extrapolate,
    remember,
)
from pipelines.image.step_cache.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Split:
    """`StepCache`: full at the steps of `mask`, shallow elsewhere. share: cost of the shallow part."""

    mask: frozenset[int]
    share: float

    @property
    def wants_deep(self) -> bool:
        return True

    def decide(self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int) -> Decision:
        if state is None or state.key != key or step in self.mask:
            return Decision.FULL
        return Decision.PARTIAL

    def observe(
        self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int, seen: Observation
    ) -> CacheState:
        assert seen.deep is not None
        before = state.deep if state is not None and state.key == key else ()
        return CacheState(key, step, deep=remember(before, schedule.position(step), seen.deep))

    def predict(
        self, schedule: Schedule, state: CacheState, step: int, model_input: torch.Tensor
    ) -> torch.Tensor:
        raise AssertionError("a split runs the shallow part at every step")

    def deep(self, schedule: Schedule, state: CacheState, step: int) -> torch.Tensor:
        return extrapolate(state.deep, schedule.position(step))

    def cost(self, decision: Decision) -> float:
        return self.share if decision is Decision.PARTIAL else 1.0

    def evaluations(self, schedule: Schedule, state: CacheState | None, step: int) -> float:
        places = range(step, schedule.steps)
        return sum(1.0 if place in self.mask else self.share for place in places)
