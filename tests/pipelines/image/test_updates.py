"""Weights of the samplers' steps against diffusers' own steps, over whole schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipelines.image.samplers import Sampling, model_input, stepped
from pipelines.image.updates import updates

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = [
    {"prediction_type": kind, **BETAS, **more}
    for kind in ("epsilon", "v_prediction", "sample")
    for more in (
        {"timestep_spacing": "trailing", "set_alpha_to_one": False},
        {"timestep_spacing": "leading", "steps_offset": 1, "final_sigmas_type": "sigma_min"},
        {"timestep_spacing": "linspace", "use_karras_sigmas": True, "solver_order": 1},
    )
]
FLOWS = [
    {"shift": 3.0},
    {"use_dynamic_shifting": True},
    {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
]


def check(sampling: Sampling, name: str, steps: int, first: int = 0) -> None:
    """Latents, model inputs and clean images of every step, in float32."""
    sampler = sampling.new(name, steps, first)
    found = updates(sampler, first)
    assert found is not None
    assert len(found) == len(sampler.timesteps)
    generator = torch.Generator().manual_seed(steps)
    theirs = ours = torch.randn(1, 2, 5, generator=generator)
    before = torch.zeros_like(ours)
    for step in range(first, len(found)):
        update = found[step]
        seen = model_input(sampler, theirs, step)
        torch.testing.assert_close(update.scale * ours, seen, atol=1e-4, rtol=1e-4)
        output = torch.randn(1, 2, 5, generator=generator)
        clean = update.clean_latents * ours + update.clean_output * output
        ours = update.latents * ours + update.output * output + update.before * before
        theirs, before = stepped(sampler, output, step, theirs, generator), clean
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", NOISE)
@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
def test_noise(config: dict[str, Any], name: str) -> None:
    sampling = Sampling("DDIMScheduler", {"clip_sample": False, **config})
    for steps, first in ((1, 0), (4, 0), (16, 0), (28, 5)):
        check(sampling, name, steps, first)


@pytest.mark.parametrize("config", FLOWS)
@pytest.mark.parametrize("name", ["", "dpmpp_2m"])
def test_flows(config: dict[str, Any], name: str) -> None:
    own = "DPMSolverMultistepScheduler" if "use_flow_sigmas" in config else "FlowMatchEulerDiscreteScheduler"
    if own.startswith("DPM"):
        config = {"algorithm_type": "dpmsolver++", "solver_order": 2, **config}
    for steps, first in ((1, 0), (4, 0), (20, 0), (20, 7)):
        check(Sampling(own, config), name, steps, first)


@pytest.mark.parametrize(
    ("own", "config"),
    [
        ("PNDMScheduler", BETAS),
        ("LCMScheduler", BETAS),
        ("UniPCMultistepScheduler", BETAS),
        ("EulerAncestralDiscreteScheduler", BETAS),
        ("DDIMScheduler", BETAS),  # clips by default
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
        ("DPMSolverMultistepScheduler", {"thresholding": True}),
    ],
)
def test_what_is_no_weighted_sum_is_left_to_the_sampler(own: str, config: dict[str, Any]) -> None:
    assert updates(Sampling(own, config).new("", 8)) is None
