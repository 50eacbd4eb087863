"""The denoising loop against diffusers' own, and rows in company against rows alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from pipelines.contract import Budget
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.image.state import state_of

DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2}
SCHEDULERS = [
    ("ddim", DDIMScheduler, {}),
    ("euler", EulerDiscreteScheduler, {}),
    ("dpmpp_2m", DPMSolverMultistepScheduler, DPM),
    ("", DDIMScheduler, {}),
]
MIXED: list[dict[str, Any]] = [
    {"scheduler": "ddim", "steps": 5, "guidance": 6.0, "seed": 1, "negative_prompt": "blue"},
    {"scheduler": "euler", "steps": 7, "guidance": 1.0, "seed": 2},
    {"scheduler": "dpmpp_2m", "steps": 6, "guidance": 3.0, "seed": 3, "preview_every": 2},
    {"scheduler": "", "steps": 3, "guidance": 9.0, "seed": 4},
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
    call = {"num_inference_steps": 7, "guidance_scale": guidance, "negative_prompt": "dull", "seed": 5}
    wanted = diffusers_latents(folder, scheduler, changes, "red", **call)
    assert wanted.std() > 0.1
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)


def test_guidance_in_two_calls_where_that_is_cheaper(
    folder: Path, driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """And the pictures are the same, in all strategies' memory too."""
    driver = driver_of(ImagePipeline.load(folder, name="tiny", settings=ImageSettings(step_cache="split")))
    options = {**MIXED[0], "steps": 12, "cache_level": "fast"}
    alone, job = (driver.admit("red", **options, width=64, height=64) for _ in range(2))
    plain = driver.admit("red", **MIXED[1], width=64, height=64)
    driver.finish(alone)
    driver.slice("encode", job, plain)
    batch = driver.pipeline.plan(iter([job]), Budget(1e9, 25))
    assert batch.work is None  # nothing is known yet
    driver.pipeline.observe(batch, 50.0)
    driver.pipeline.observe(replace(batch, units=batch.units / 2), 10.0)
    batch = driver.pipeline.plan(iter([job, plain]), Budget(1e9, 25))
    assert batch.work == (batch.units / 3, batch.units * 2 / 3)
    assert driver.pipeline.plan(iter([plain]), Budget(1e9, 25)).work is None
    while driver.pipeline.ready(job):
        kind = state_of(job).phase
        units = state_of(job).latents[0, 0].numel()
        split = (units, units) if kind in ("denoise", "shallow") else None
        driver.keep(driver.pipeline.run(replace(driver.batch(kind, job), work=split)))
    torch.testing.assert_close(state_of(job).latents, state_of(alone).latents, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m"])
@pytest.mark.parametrize("cache", ["forecast", "gate", "split"])
def test_a_run_of_steps_at_once_is_those_steps(
    folder: Path, driver_of: Callable[[ImagePipeline], Any], scheduler: str, cache: str
) -> None:
    """The sampler itself takes the steps of the other job; previews come from the midst of the runs."""
    driver = driver_of(ImagePipeline.load(folder, name="tiny", settings=ImageSettings(step_cache=cache)))
    options = {
        "steps": 14,
        "cache_level": "fast",
        "scheduler": scheduler,
        "preview_every": 3,
        "guidance": 4.0,
    }
    at_once, one_by_one = (driver.admit("red", **options, width=64, height=64) for _ in range(2))
    state_of(one_by_one).updates = None
    for job in (at_once, one_by_one):
        driver.finish(job)
    torch.testing.assert_close(driver.latents[at_once.id], driver.latents[one_by_one.id], atol=1e-4, rtol=0)
    found, expected = (driver.emitted[job.id] for job in (at_once, one_by_one))
    assert len(found) == len(expected) > 3
    for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
        assert ours.step == theirs.step
        assert np.abs(ours.pixels.astype(int) - theirs.pixels.astype(int)).max() <= 1
    assert found[-1].usage.evaluations_skipped == expected[-1].usage.evaluations_skipped > 2


@pytest.mark.parametrize(("name", "scheduler", "changes"), SCHEDULERS[:3])
def test_latents_equal_diffusers_for_velocity(
    driver_of: Callable[[ImagePipeline], Any],
    velocity_folder: Path,
    diffusers_latents: Callable[..., torch.Tensor],
    name: str,
    scheduler: Any,
    changes: dict[str, Any],
) -> None:
    driver = driver_of(ImagePipeline.load(velocity_folder, name="velocity"))
    job = driver.admit("a " * 60, scheduler=name, steps=4, guidance=3.0, seed=9, width=64, height=96)
    driver.finish(job)
    call = {"num_inference_steps": 4, "guidance_scale": 3.0, "seed": 9, "width": 64, "height": 96}
    wanted = diffusers_latents(velocity_folder, scheduler, changes, "a " * 60, **call)
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)


def test_the_folders_own_pndm(
    driver_of: Callable[[ImagePipeline], Any],
    folder: Path,
    tmp_path: Path,
    diffusers_latents: Callable[..., torch.Tensor],
) -> None:
    """A sampler with more evaluations than steps, the one that Stable Diffusion 1.5 names."""
    copied = Path(shutil.copytree(folder, tmp_path / "model"))
    for name, change in (
        ("model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}),
        ("scheduler/scheduler_config.json", {"skip_prk_steps": True}),
    ):
        (copied / name).write_text(json.dumps({**json.loads((copied / name).read_text()), **change}))
    driver = driver_of(ImagePipeline.load(copied, name="pndm"))
    job = driver.admit("red", steps=6, guidance=4.0, seed=5, preview_every=3)
    driver.finish(job)
    call = {"num_inference_steps": 6, "guidance_scale": 4.0, "seed": 5}
    wanted = diffusers_latents(folder, PNDMScheduler, {"skip_prk_steps": True}, "red", **call)
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)
    *pictures, done = driver.emitted[job.id]
    assert [picture.step for picture in pictures] == [3, 6, 6]
    assert done.usage.evaluations == 7


def test_half_precision_stays_close(
    driver: Any, driver_of: Callable[[ImagePipeline], Any], folder: Path
) -> None:
    half = driver_of(ImagePipeline.load(folder, name="half", settings=ImageSettings(dtype="bfloat16")))
    jobs = driver.admit(steps=4), half.admit(steps=4)
    driver.finish(jobs[0])
    half.finish(jobs[1])
    found = half.latents[jobs[1].id]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, driver.latents[jobs[0].id], atol=0.2, rtol=0.1)


def test_the_prompt_and_the_seed_matter(driver: Any) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"prompt": "blue"},
        {"seed": 1},
        {"guidance": 8.0},
        {"negative_prompt": "x"},
    ]
    jobs = [driver.admit(**{"prompt": "red", **option}) for option in options]
    driver.finish(*jobs)
    found = [driver.latents[job.id] for job in jobs]
    for place, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-3 for other in found[:place])


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_company_equal_rows_alone(driver: Any, seed: int) -> None:
    """Rows at different steps, guidance and samplers; they join and leave at any evaluation."""
    alone = [driver.admit(**options) for options in MIXED]
    driver.finish(*alone)
    mixed = [driver.admit(**options) for options in MIXED]
    order = random.Random(seed)
    while waiting := [job for job in mixed if driver.pipeline.ready(job)]:
        kind = state_of(order.choice(waiting)).phase
        rows = [job for job in waiting if state_of(job).phase == kind]
        order.shuffle(rows)
        driver.slice(kind, *rows[: order.randint(1, len(rows))])
    for one, other in zip(alone, mixed, strict=True):
        difference = (driver.latents[one.id] - driver.latents[other.id]).abs().max()
        assert difference < 1e-4
        close = abs(driver.image(one).astype(int) - driver.image(other).astype(int)).max()
        assert close <= 1


@pytest.mark.parametrize("name", ["", "ddim", "euler", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [1, 2, 150])
def test_few_and_many_steps(driver: Any, name: str, steps: int) -> None:
    job = driver.admit(scheduler=name, steps=steps)
    state = state_of(job)
    assert state.evaluations == steps
    if steps < 3:
        driver.finish(job)
        assert torch.isfinite(driver.latents[job.id]).all()
