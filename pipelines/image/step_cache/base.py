"""What the denoising loop knows of step caching: `StepCache`, `CacheState`, `Decision`.

Rules:
  1. A strategy is shared by all jobs and keeps nothing of one; what a row remembers is a `CacheState`, which
     its job owns. States are frozen: to take a snapshot is to keep the value, to restore is to put it back,
     to drop is to forget it. So suspension, cancel and failure need no care.
  2. `observe` and `predict` read a state and return values; only a commit puts a state into a job.
  3. A decision depends on the row's own schedule and its own earlier outputs, never on its neighbours or the
     time, so a row is decided alike alone and in company.
  4. A state made for another size, number of steps, guidance or add-on is worth nothing: `decide` then
     says FULL until there is a new one.
  5. `predict` is linear in what is remembered of the noise and in the input: the loop asks it with weights in
     the tensors' place, and computes the sums of several steps at once.
  6. Nothing waits for the device: what is decided by content is read one evaluation late.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import torch

from pipelines.image.step_cache.schedule import Schedule
from pipelines.image.step_cache.signal import Signal


class Decision(enum.Enum):
    """FULL: the whole network. PARTIAL: its shallow part, the deep part predicted. PREDICT: no network."""

    FULL = "full"
    PARTIAL = "partial"
    PREDICT = "predict"


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """A tensor at a position of the schedule (half the log of the signal-to-noise ratio)."""

    position: float
    value: torch.Tensor


Memory = tuple[Remembered, ...]
"""At most the last two, oldest first."""


@dataclass(frozen=True, slots=True, eq=False)
class CacheState:
    """What one row remembers of its full evaluations. Made by `observe` alone.

    key: what it is valid for. noise: the guided outputs as predicted noise, float32 (1, channels, height,
    width). deep: what the shallow part of the network got from the deep part (inputs, ...). last_full: the
    step of the last full evaluation. until: the next one, where content decides. signal: how far the last
    forecast was off, on its way to the host.
    """

    key: Hashable
    last_full: int
    noise: Memory = ()
    deep: Memory = ()
    until: int = 0
    signal: Signal | None = None

    @property
    def bytes(self) -> int:
        """Memory of what is remembered."""
        return sum(each.value.numel() * each.value.element_size() for each in (*self.noise, *self.deep))


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A full evaluation of one row: what the network was given and said, float32 (1, channels, height,
    width), and what its shallow part got from the deep part, None where nobody asked."""

    model_input: torch.Tensor
    output: torch.Tensor
    deep: torch.Tensor | None = None


class StepCache(Protocol):
    """One strategy for one model. `state` None: nothing is remembered yet."""

    @property
    def wants_deep(self) -> bool:
        """Whether `observe` needs `Observation.deep`."""

    def decide(self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int) -> Decision:
        """How step number `step` is done."""

    def observe(
        self, schedule: Schedule, key: Hashable, state: CacheState | None, step: int, seen: Observation
    ) -> CacheState:
        """The state after a full evaluation at `step`."""

    def predict(
        self, schedule: Schedule, state: CacheState, step: int, model_input: torch.Tensor
    ) -> torch.Tensor:
        """The output at `step`, where the decision is PREDICT."""

    def deep(self, schedule: Schedule, state: CacheState, step: int) -> torch.Tensor:
        """What the deep part would say at `step`, where the decision is PARTIAL."""

    def cost(self, decision: Decision) -> float:
        """Share of a full evaluation."""

    def evaluations(self, schedule: Schedule, state: CacheState | None, step: int) -> float:
        """How many full evaluations' worth of work are left from `step` on, at most."""


def remember(memory: Memory, position: float, value: torch.Tensor) -> Memory:
    """The last of `memory`, and this. Two at the same position would have no slope: the newer stays."""
    kept = memory[-1:] if memory and memory[-1].position != position else ()
    return (*kept, Remembered(position, value))


def extrapolate(memory: Memory, position: float) -> torch.Tensor:
    """Order 1, through the two remembered; order 0 where there is one."""
    last = memory[-1]
    if len(memory) == 1:
        return last.value
    before = memory[0]
    share = (position - last.position) / (last.position - before.position)
    return last.value + share * (last.value - before.value)
