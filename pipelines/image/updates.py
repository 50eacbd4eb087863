"""Samplers whose every step is a weighted sum, with weights that the host knows from the schedule: DDIM (Song
et al., 2021), Euler (Karras et al., 2022), Euler of flows, DPM-Solver++ of order 1 and 2M (Lu et al., 2022).

With model input m = a * x0 + s * noise before the step and (a', s') behind it, all of them are

    clean = what m and the network's output say of x0
    m'    = s' / s * m + (a' - a * s' / s) * (clean + k * (clean - the clean of the step before))

and k is 0 but for 2M. Diffusers' own classes are the specification (`tests/pipelines/image/test_updates.py`);
they take the steps of all other samplers, which keep a history or draw noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from pipelines.image.samplers import adds_noise, prediction_kind, signal_and_noise

_NAMES: Final = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)
# Up to so many steps less one DPM-Solver ends with a step of order 1, whatever the schedule's end.
_FEW_STEPS: Final = 15


@dataclass(frozen=True, slots=True)
class Update:
    """One step, as the weights of latents, output and the clean image of the step before. scale: of the
    latents in the model input; clean_latents, clean_output: in the clean image; latents, output, before: in
    the new latents."""

    scale: float
    clean_latents: float
    clean_output: float
    latents: float
    output: float
    before: float


def updates(sampler: Any, first: int = 0) -> tuple[Update, ...] | None:
    """Of all steps of a sampler that begins at step number `first`; None where they are no such sums."""
    if not _weighted(sampler):
        return None
    steps = len(sampler.timesteps)
    pairs = [signal_and_noise(sampler, step) for step in range(steps)]
    try:
        return tuple(_update(sampler, step, first, pairs) for step in range(steps))
    except ZeroDivisionError:  # no noise before a step, or no signal
        return None


def _weighted(sampler: Any) -> bool:
    config = sampler.config
    if type(sampler).__name__ not in _NAMES or adds_noise(sampler):
        return False
    if config.get("thresholding") or config.get("clip_sample") or config.get("variance_type"):
        return False
    if type(sampler).__name__ != "DPMSolverMultistepScheduler":
        return True
    orders = config.solver_order in (1, 2) and config.solver_type == "midpoint"
    return orders and config.algorithm_type == "dpmsolver++"


def _update(sampler: Any, step: int, first: int, pairs: list[tuple[float, float]]) -> Update:
    signal, noise = pairs[step]
    signal_after, noise_after = _behind(sampler, step)
    scaled = type(sampler).__name__ == "EulerDiscreteScheduler"
    scale, scale_after = (signal, signal_after) if scaled else (1.0, 1.0)
    of_input, of_output = _clean(prediction_kind(sampler), signal, noise)
    ratio = noise_after / noise
    share = (signal_after - signal * ratio) / scale_after
    again = _again(sampler, step, first, pairs)
    clean = of_input * scale, of_output
    return Update(
        scale=scale,
        clean_latents=clean[0],
        clean_output=clean[1],
        latents=ratio * scale / scale_after + share * (1.0 + again) * clean[0],
        output=share * (1.0 + again) * clean[1],
        before=-share * again,
    )


def _clean(kind: str, signal: float, noise: float) -> tuple[float, float]:
    """x0 as weights of model input and output."""
    if kind == "flow_prediction":
        return 1.0, -noise
    if kind == "epsilon":
        return 1.0 / signal, -noise / signal
    return (signal, -noise) if kind == "v_prediction" else (0.0, 1.0)


def _behind(sampler: Any, step: int) -> tuple[float, float]:
    """(a', s') behind a step: DDIM's is so many timesteps away, and not always the next one's."""
    if hasattr(sampler, "sigmas"):
        sigma = float(sampler.sigmas[step + 1])
        if prediction_kind(sampler) == "flow_prediction":
            return 1.0 - sigma, sigma
        a = (sigma**2 + 1.0) ** -0.5
        return a, sigma * a
    there = int(sampler.timesteps[step]) - sampler.config.num_train_timesteps // sampler.num_inference_steps
    alpha = float(sampler.alphas_cumprod[there] if there >= 0 else sampler.final_alpha_cumprod)
    return alpha**0.5, (1.0 - alpha) ** 0.5


def _again(sampler: Any, step: int, first: int, pairs: list[tuple[float, float]]) -> float:
    """k: by how much the clean image's last change is carried on."""
    config = sampler.config
    if type(sampler).__name__ != "DPMSolverMultistepScheduler" or config.solver_order == 1 or step == first:
        return 0.0
    few = config.lower_order_final and len(pairs) < _FEW_STEPS
    if step == len(pairs) - 1 and (config.euler_at_final or few or config.final_sigmas_type == "zero"):
        return 0.0
    (before, here), after = (
        (_position(*pairs[at]) for at in (step - 1, step)),
        _position(*_behind(sampler, step)),
    )
    return (after - here) / (2.0 * (here - before))


def _position(signal: float, noise: float) -> float:
    """Half the log of the signal-to-noise ratio."""
    return (math.log(signal) if signal else -math.inf) - (math.log(noise) if noise else -math.inf)
