"""The denoising loop against diffusers' own, and rows in company against rows alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2}
SCHEDULERS = [
    ("ddim", DDIMScheduler, {}),
    ("euler", EulerDiscreteScheduler, {}),
    ("dpmpp_2m", DPMSolverMultistepScheduler, DPM),
]


@pytest.mark.parametrize(("name", "scheduler", "changes"), SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_latents_equal_diffusers(
    driver: Any,
    folder: Path,
    diffusers_latents: Callable[..., torch.Tensor],
    name: str,
    scheduler: Any,
    changes: dict[str, Any],
    guidance: float,
) -> None:
    job = driver.admit("red", scheduler=name, steps=7, guidance=guidance, seed=5, negative_prompt="dull")
    driver.finish(job)
    wanted = diffusers_latents(
        folder,
        scheduler,
        changes,
        "red",
        seed=5,
        num_inference_steps=7,
        guidance_scale=guidance,
        negative_prompt="dull",
    )
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)
