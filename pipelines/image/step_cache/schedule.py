"""A row's schedule as the step caches see it: signal and noise at each step, known in advance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Self

import torch

from pipelines.image.samplers import prediction_kind, signal_and_noise

_LEAST: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Schedule:
    """One entry a step: model input = signal * x0 + noise * n. kind: what the network predicts."""

    kind: str
    signal: tuple[float, ...]
    noise: tuple[float, ...]

    @classmethod
    def of(cls, sampler: Any) -> Self:
        """That of a sampler that stands at its first step."""
        pairs = [signal_and_noise(sampler, step) for step in range(len(sampler.timesteps))]
        return cls(prediction_kind(sampler), tuple(a for a, _ in pairs), tuple(s for _, s in pairs))

    @property
    def steps(self) -> int:
        """Evaluations, if none is skipped."""
        return len(self.signal)

    def position(self, step: int) -> float:
        """Half the log of the signal-to-noise ratio: grows from noise to picture."""
        return math.log(max(self.signal[step], _LEAST) / max(self.noise[step], _LEAST))

    def weight(self, step: int) -> float:
        """By how much an error of 1 in the noise predicted at `step` moves the final latents, if the network
        said the same afterwards: the change of noise over signal that the step makes."""
        ahead = step + 1
        after = self.noise[ahead] / max(self.signal[ahead], _LEAST) if ahead < self.steps else 0.0
        return abs(self.noise[step] / max(self.signal[step], _LEAST) - after)

    def as_noise(self, step: int, model_input: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The network's output, as the noise that it means."""
        a, s = self.signal[step], self.noise[step]
        if self.kind == "epsilon":
            return output
        if self.kind == "v_prediction":
            return s * model_input + a * output
        if self.kind == "flow_prediction":
            return model_input + a * output
        return (model_input - a * output) / max(s, _LEAST)

    def as_output(self, step: int, model_input: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The inverse of `as_noise`."""
        a, s = max(self.signal[step], _LEAST), self.noise[step]
        if self.kind == "epsilon":
            return noise
        if self.kind == "v_prediction":
            return (noise - s * model_input) / a
        if self.kind == "flow_prediction":
            return (noise - model_input) / a
        return (model_input - s * noise) / a
