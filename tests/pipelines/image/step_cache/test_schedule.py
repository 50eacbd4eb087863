"""Signal and noise of every sampler and kind of prediction, and the way from output to noise and back."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)

from pipelines.image.samplers import Sampling, adds_noise, predicted_clean
from pipelines.image.step_cache.schedule import Schedule

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def schedule(kind: str, name: str = "ddim", steps: int = 10) -> tuple[Schedule, object]:
    """Of a sampler of that kind of prediction."""
    if kind == "flow_prediction":
        sampler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        sampler.set_timesteps(steps)
    else:
        sampler = Sampling("DDIMScheduler", {**CONFIG, "prediction_type": kind}).new(name, steps)
    return Schedule.of(sampler), sampler


def outputs(kind: str, made: Schedule, step: int, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What a perfect network says, by the definition of each kind."""
    a, s = made.signal[step], made.noise[step]
    kinds = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": a * noise - s * clean,
        "flow_prediction": noise - clean,
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_outputs_become_noise_and_back(kind: str) -> None:
    made, sampler = schedule(kind)
    draw = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn((1, 4, 8, 8), generator=draw) for _ in range(2))
    assert made.kind == kind
    for step in range(1, made.steps):
        seen = made.signal[step] * clean + made.noise[step] * noise
        output = outputs(kind, made, step, clean, noise)
        torch.testing.assert_close(made.as_noise(step, seen, output), noise, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(made.as_output(step, seen, noise), output, atol=1e-3, rtol=1e-3)
        found = predicted_clean(sampler, step, seen, output)
        torch.testing.assert_close(found, clean, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
def test_positions_grow_from_noise_to_picture(name: str) -> None:
    made, _ = schedule("epsilon", name)
    positions = [made.position(step) for step in range(made.steps)]
    assert positions == sorted(positions)
    assert all(math.isfinite(position) for position in positions)
    for a, s in zip(made.signal, made.noise, strict=True):
        assert a * a + s * s == pytest.approx(1.0)


def test_samplers_that_draw_noise_are_known() -> None:
    found = {
        made: adds_noise(made.from_config(CONFIG, **changes))
        for made, changes in (
            (LCMScheduler, {}),
            (EulerAncestralDiscreteScheduler, {}),
            (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
            (DDIMScheduler, {}),
            (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}),
        )
    }
    assert list(found.values()) == [True, True, False, False, True]


def test_a_flow_starts_at_nothing_but_noise() -> None:
    made, _ = schedule("flow_prediction")
    assert (made.signal[0], made.noise[0]) == (0.0, 1.0)
    assert math.isfinite(made.position(0))


@pytest.mark.parametrize("kind", ["epsilon", "flow_prediction"])
def test_the_weight_is_what_an_error_does_to_the_image(kind: str) -> None:
    """With a network that says the same noise at all steps, an error of 1 at one moves the end so far."""
    made, _ = schedule(kind)
    step = 6

    def end(error_at: int | None) -> torch.Tensor:
        _, sampler = schedule(kind)
        x = torch.ones(1)
        for at, time in enumerate(sampler.timesteps):  # type: ignore[attr-defined]
            noise = torch.full((1,), 0.5 + float(at == error_at))
            output = made.as_output(at, x, noise)
            x = sampler.step(output, time, x, return_dict=False)[0]  # type: ignore[attr-defined]
        return x

    moved = abs(float(end(step) - end(None)))
    assert moved == pytest.approx(made.weight(step), rel=0.05)
