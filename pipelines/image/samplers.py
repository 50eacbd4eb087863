"""Samplers: a diffusers scheduler for each job, made from the folder's scheduler_config.json.

A scheduler keeps state (step index, earlier outputs), so each job owns one, and `step` is called in a
commit only. Names on the wire: "" for the folder's own, "ddim" (Song et al. 2021), "euler" (Karras et al.
2022), "dpmpp_2m" (DPM-Solver++(2M), Lu et al. 2022), "lcm" (Luo et al. 2023); for flows (Esser et al. 2024)
"euler" and "dpmpp_2m".
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from pipelines.errors import ModelBroken, Unsupported

_MODULES: Final = {
    "DDIMScheduler": "scheduling_ddim",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "FlowMatchEulerDiscreteScheduler": "scheduling_flow_match_euler_discrete",
    "LCMScheduler": "scheduling_lcm",
    "PNDMScheduler": "scheduling_pndm",
    "UniPCMultistepScheduler": "scheduling_unipc_multistep",
}
_DPM: Final = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_NOISE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", _DPM),
    "lcm": ("LCMScheduler", {}),
}
_FLOW: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "dpmpp_2m": (
        "DPMSolverMultistepScheduler",
        {**_DPM, "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
}
_LCM_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a folder says about its sampling: the scheduler's class, and its config without private keys.

    linear: a flow's sigmas fall from 1 in equal steps (FLUX), and not from the config's largest.
    """

    own_class: str
    config: Mapping[str, Any]
    linear: bool = False

    @property
    def flow(self) -> bool:
        """Whether the network was trained on a flow (noise minus image), and not on noise."""
        return self.own_class.startswith("FlowMatch") or bool(self.config.get("use_flow_sigmas"))

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may name."""
        return tuple(_FLOW if self.flow else _NOISE)

    def class_of(self, name: str) -> str:
        """The class that a request's name means, "" for the folder's own."""
        return self._choice(name)[0]

    def most_steps(self, name: str, most: int) -> int:
        """Consistency models take no more steps than they were distilled from."""
        if self.class_of(name) != "LCMScheduler":
            return most
        return min(most, int(self.config.get("original_inference_steps", _LCM_STEPS)))

    def new(self, name: str, steps: int, first: int = 0, patches: int = 0) -> Any:
        """A scheduler set to `steps` steps, ready for step number `first`. patches: of the image, by which
        some flows are shifted."""
        class_name, changes = self._choice(name)
        module = importlib.import_module(f"diffusers.schedulers.{_MODULES[class_name]}")
        sampler = getattr(module, class_name).from_config(dict(self.config), **changes)
        sampler.set_timesteps(**self._timesteps(class_name, steps, patches))
        if (first or self.flow) and hasattr(sampler, "set_begin_index"):
            sampler.set_begin_index(first)
        # Euler looks up its place in the schedule at its first call: here, and not inside a slice.
        model_input(sampler, torch.zeros(1), first)
        return sampler

    def check(self) -> None:
        """Every sampler that a request may name can be made.

        Raises: Unsupported naming the class, ModelBroken naming the file.
        """
        if self.own_class not in _MODULES:
            known = ", ".join(sorted(_MODULES))
            raise Unsupported(
                f"model_index.json: scheduler {self.own_class} is not supported; supported are {known}"
            )
        for name in ("", *self.names):
            try:
                self.new(name, steps=4)
            except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
                raise ModelBroken(f"scheduler/scheduler_config.json: {error}") from error

    def _choice(self, name: str) -> tuple[str, dict[str, Any]]:
        if not name:
            return self.own_class, {}
        if not self.flow:
            return _NOISE[name]
        shift = self.config.get("shift", self.config.get("flow_shift", 1.0))
        class_name, changes = _FLOW[name]
        return class_name, {**changes, "shift": shift, "flow_shift": shift}

    def _timesteps(self, class_name: str, steps: int, patches: int) -> dict[str, Any]:
        options: dict[str, Any] = {"num_inference_steps": steps}
        if self.config.get("use_dynamic_shifting"):
            options["mu"] = self._shift(patches)
        if self.linear and class_name.startswith("FlowMatch"):
            options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        return options

    def _shift(self, patches: int) -> float:
        """The larger the image, the more of the schedule lies at high noise (Esser et al. 2024)."""
        low, high = self.config.get("base_image_seq_len", 256), self.config.get("max_image_seq_len", 4096)
        least, most = self.config.get("base_shift", 0.5), self.config.get("max_shift", 1.15)
        slope = (most - least) / (high - low)
        return float((patches or low) * slope + least - slope * low)


def first_step(sampler_class: str, steps: int, strength: float) -> int:
    """Where to start with an image of which `strength` (0 to 1) may change: so many of the last steps are
    taken, at least one. Rounded as diffusers does: down, but up for flows."""
    kept = min(steps * strength, steps)
    first = int(steps - kept) if sampler_class.startswith("FlowMatch") else steps - int(kept)
    return min(first, steps - 1)


def model_input(sampler: Any, latents: torch.Tensor, step: int) -> torch.Tensor:
    """The latents as the network wants them before step number `step`."""
    if not hasattr(sampler, "scale_model_input"):
        return latents
    scaled: torch.Tensor = sampler.scale_model_input(latents, sampler.timesteps[step])
    return scaled


def noised(sampler: Any, clean: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
    """Clean latents with as much noise as there is before step number `step`."""
    times = sampler.timesteps[step : step + 1]
    flow = hasattr(sampler, "scale_noise")
    mixed: torch.Tensor = (
        sampler.scale_noise(clean, times, noise) if flow else sampler.add_noise(clean, noise, times)
    )
    return mixed


def stepped(
    sampler: Any, output: torch.Tensor, step: int, latents: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The latents after step number `step`; noise, where the sampler adds any, is drawn from `generator`."""
    draws = "generator" in _options(sampler.__class__.step)
    options: dict[str, Any] = {"generator": generator} if draws else {}
    after: torch.Tensor = sampler.step(
        output, sampler.timesteps[step], latents, return_dict=False, **options
    )[0]
    return after


@functools.cache
def _options(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def prediction_kind(sampler: Any) -> str:
    """What the network predicts: "epsilon" (noise), "sample" (clean), "v_prediction", or "flow_prediction"
    (noise minus clean)."""
    config = sampler.config
    if config.get("use_flow_sigmas") or "FlowMatch" in type(sampler).__name__:
        return "flow_prediction"
    kind: str = config.prediction_type
    return kind


def adds_noise(sampler: Any) -> bool:
    """Whether a step draws fresh noise, as those of few-step models do: then nothing can be forecast."""
    name, config = type(sampler).__name__, sampler.config
    return (
        name.startswith(("LCM", "TCD"))
        or "Ancestral" in name
        or bool(config.get("stochastic_sampling"))
        or str(config.get("algorithm_type", "")).startswith("sde")
    )


def signal_and_noise(sampler: Any, step: int) -> tuple[float, float]:
    """(a, s) with model input = a * x0 + s * noise before step number `step`; a^2 + s^2 = 1, of a flow
    a + s = 1."""
    if hasattr(sampler, "sigmas"):
        sigma = float(sampler.sigmas[step])
        if prediction_kind(sampler) == "flow_prediction":
            return 1.0 - sigma, sigma
        a = (sigma**2 + 1.0) ** -0.5
        return a, sigma * a
    alpha = float(sampler.alphas_cumprod[int(sampler.timesteps[step])])
    return alpha**0.5, (1.0 - alpha) ** 0.5


def predicted_clean(sampler: Any, step: int, model_input: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """x0 as the model sees it now; all tensors of the same shape. For previews."""
    a, s = signal_and_noise(sampler, step)
    kind = prediction_kind(sampler)
    if kind == "flow_prediction":
        return model_input - s * output
    if kind == "epsilon":
        return (model_input - s * output) / max(a, 1e-4)
    if kind == "v_prediction":
        return a * model_input - s * output
    return output
