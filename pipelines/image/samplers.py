"""Samplers: a diffusers scheduler for each job, made from the folder's scheduler_config.json.

A scheduler keeps state (step index, earlier outputs), so each job owns one, and `step` is called in a
commit only. Names on the wire: "" for the folder's own, "ddim" (Song et al. 2021), "euler" (Karras et al.
2022), "dpmpp_2m" (DPM-Solver++(2M), Lu et al. 2022).
"""

from __future__ import annotations

import importlib
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


def new_sampler(name: str, own_class: str, config: dict[str, Any], steps: int) -> Any:
    """A scheduler set to `steps` steps, ready for its first."""
    class_name, changes = _BY_NAME[name] if name else (own_class, {})
    module = importlib.import_module(f"diffusers.schedulers.{_MODULES[class_name]}")
    sampler = getattr(module, class_name).from_config(config, **changes)
    sampler.set_timesteps(steps)
    # Euler looks up its place in the schedule at its first call: here, and not inside a slice.
    sampler.scale_model_input(torch.zeros(1), sampler.timesteps[0])
    return sampler


def signal_and_noise(sampler: Any, step: int) -> tuple[float, float]:
    """(a, s) with model input = a * x0 + s * noise, a^2 + s^2 = 1, before step number `step`."""
    if hasattr(sampler, "sigmas"):
        sigma = float(sampler.sigmas[step])
        a = (sigma**2 + 1.0) ** -0.5
        return a, sigma * a
    alpha = float(sampler.alphas_cumprod[int(sampler.timesteps[step])])
    return alpha**0.5, (1.0 - alpha) ** 0.5


def predicted_clean(sampler: Any, step: int, model_input: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """x0 as the model sees it now; all tensors of the same shape. For previews."""
    a, s = signal_and_noise(sampler, step)
    kind = sampler.config.prediction_type
    if kind == "epsilon":
        return (model_input - s * output) / max(a, 1e-4)
    if kind == "v_prediction":
        return a * model_input - s * output
    return output
