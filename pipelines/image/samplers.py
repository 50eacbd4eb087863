"""Samplers: a diffusers scheduler for each job, made from the folder's scheduler_config.json.

A scheduler keeps state (step index, earlier outputs), so each job owns one, and `step` is called in a
commit only. Names on the wire: "" for the folder's own, "ddim" (Song et al. 2021), "euler" (Karras et al.
2022), "dpmpp_2m" (DPM-Solver++(2M), Lu et al. 2022).
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Final

import torch

from pipelines.errors import ModelBroken, Unsupported

SAMPLERS: Final = ("ddim", "euler", "dpmpp_2m")
_BY_NAME: Final = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
}
_MODULES: Final = {
    "DDIMScheduler": "scheduling_ddim",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "PNDMScheduler": "scheduling_pndm",
}


def own_sampler(class_name: str) -> str:
    """The folder's scheduler class, if it is one that we run.

    Raises: Unsupported naming it.
    """
    if class_name not in _MODULES:
        known = ", ".join(sorted(_MODULES))
        raise Unsupported(f"model_index.json: scheduler {class_name} is not supported; supported are {known}")
    return class_name


def check_samplers(own_class: str, config: dict[str, Any]) -> None:
    """Every sampler that a request may name can be made of this folder's config.

    Raises: ModelBroken naming the file.
    """
    for name in ("", *SAMPLERS):
        try:
            new_sampler(name, own_class, config, steps=4)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ModelBroken(f"scheduler/scheduler_config.json: {error}") from error


def new_sampler(name: str, own_class: str, config: dict[str, Any], steps: int, first: int = 0) -> Any:
    """A scheduler set to `steps` steps, ready for step number `first`."""
    class_name, changes = _BY_NAME[name] if name else (own_class, {})
    module = importlib.import_module(f"diffusers.schedulers.{_MODULES[class_name]}")
    sampler = getattr(module, class_name).from_config(config, **changes)
    sampler.set_timesteps(steps)
    if first and hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(first)
    # Euler looks up its place in the schedule at its first call: here, and not inside a slice.
    model_input(sampler, torch.zeros(1), first)
    return sampler


def first_step(sampler_class: str, steps: int, strength: float) -> int:
    """Where to start with an image of which `strength` (0 to 1) may change: so many of the last steps are
    taken, at least one. Rounded as diffusers does: down, but up for flows."""
    kept = min(steps * strength, steps)
    first = int(steps - kept) if sampler_class.startswith("FlowMatch") else steps - int(kept)
    return min(first, steps - 1)


def class_of(name: str, own_class: str) -> str:
    """The scheduler that a request's name means."""
    return _BY_NAME[name][0] if name else own_class


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
