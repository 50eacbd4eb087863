"""Cached images in company, suspended, cancelled, in all strategies: the determinism contract, and nothing
left behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cache_lives import Life, Memory, lives_report
from pipelines.contract import Job
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import STRATEGIES, ImageSettings
from pipelines.image.state import state_of
from pipelines.messages import Done

MIXED: list[dict[str, Any]] = [
    {"steps": 14, "guidance": 6.0, "seed": 1, "negative_prompt": "blue", "cache_level": "balanced"},
    {"steps": 20, "guidance": 1.0, "seed": 2, "cache_level": "fast", "scheduler": "euler"},
    {"steps": 16, "guidance": 3.0, "seed": 3, "cache_level": "fast", "preview_every": 3},
    {"steps": 12, "guidance": 3.0, "seed": 3, "cache_level": "fast", "scheduler": "dpmpp_2m"},
    {"steps": 6, "guidance": 9.0, "seed": 4, "cache_level": "fast"},
]
SMALL: dict[str, Any] = {"width": 64, "height": 64}
MASKS = '{"masks": {"20": {"balanced": [0, 1, 3, 6, 10, 14], "fast": [0, 2, 6, 12]}}}'


@pytest.fixture(scope="module")
def models(folder_maker: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A pipeline for each strategy."""
    folder = folder_maker(tmp_path_factory.mktemp("cached") / "tiny")
    (folder / "step_cache.json").write_text(MASKS)
    return {
        name: ImagePipeline.load(folder, name="tiny", settings=ImageSettings(step_cache=name))
        for name in STRATEGIES
    }


def decisions(job: Job, driver: Any) -> tuple[int, int]:
    """Full evaluations and predicted steps."""
    usage = driver.emitted[job.id][-1].usage
    return usage.evaluations, usage.evaluations_skipped


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(2))
def test_rows_in_company_equal_rows_alone(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any], strategy: str, seed: int
) -> None:
    """Random joins, leaves and suspensions, and a neighbour that is cancelled."""
    driver = driver_of(models[strategy])
    alone = [driver.admit(**options, **SMALL) for options in MIXED]
    driver.finish(*alone)
    mixed = [driver.admit(**options, **SMALL) for options in MIXED]
    neighbour = driver.admit(steps=30, cache_level="fast", **SMALL)
    order = random.Random(seed)
    while waiting := [job for job in mixed if driver.pipeline.ready(job)]:
        kind = state_of(order.choice(waiting)).phase
        rows = [job for job in (*waiting, neighbour) if state_of(job).phase == kind]
        order.shuffle(rows)
        rows = rows[: order.randint(1, len(rows))]
        steps = driver.pipeline.run(driver.batch(kind, *rows))
        if neighbour in rows and order.random() < 0.5:
            for _ in range(order.randint(1, 9)):
                next(steps, None)
            steps.close()  # evicted, or its last row cancelled: the rows fall back to their last commit
            continue
        driver.keep(steps)
    for one, other in zip(alone, mixed, strict=True):
        difference = float((state_of(one).latents - state_of(other).latents).abs().max())
        assert difference < 1e-3
        assert decisions(one, driver) == decisions(other, driver)
    counts = [decisions(job, driver) for job in alone]
    assert counts[-1] == (6, 0)  # few steps: off by itself
    assert all(skipped > 0 for _, skipped in counts[1:3])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_suspension_changes_no_bit(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any], strategy: str
) -> None:
    """Two batches suspended in turns, at every point; and a closed slice leaves its jobs as they were."""
    driver = driver_of(models[strategy])
    options = [MIXED[0], MIXED[2]]
    alone = [driver.admit(**option, **SMALL) for option in options]
    driver.finish(*alone)
    jobs = [driver.admit(**option, **SMALL) for option in options]
    order = random.Random(3)
    running: dict[int, Any] = {}
    while any(driver.pipeline.ready(job) for job in jobs):
        for job in jobs:
            if job.id not in running:
                if not driver.pipeline.ready(job):
                    continue
                before = state_of(job)
                remembered, texts, step = before.remembered, before.texts, before.step
                kind = before.phase
                cut = driver.pipeline.run(driver.batch(kind, job))
                for _ in range(order.randint(0, 5)):
                    next(cut)
                cut.close()
                after = state_of(job)
                assert (after.remembered, after.texts, after.step) == (remembered, texts, step)
                running[job.id] = driver.pipeline.run(driver.batch(kind, job))
            for _ in range(order.randint(1, 6)):
                step_made = next(running[job.id], "end")
                if step_made == "end":
                    del running[job.id]
                    break
                driver.keep([step_made])
    for one, other in zip(alone, jobs, strict=True):
        assert torch.equal(state_of(one).latents, state_of(other).latents)
        assert np.array_equal(driver.image(one), driver.image(other))


def test_batches_hold_rows_of_one_decision(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """Rows that need all of the network and rows that need its shallow part take turns."""
    driver = driver_of(models["split"])
    jobs = [driver.admit(steps=steps, cache_level="fast", **SMALL) for steps in (20, 16)]
    jobs.append(driver.admit(steps=12, **SMALL))
    kinds = {kind for kind, _ in driver.together(*jobs)}
    assert kinds == {"encode", "denoise", "shallow", "decode"}
    assert [decisions(job, driver) for job in jobs] == [(9, 11), (9, 7), (12, 0)]


def test_no_row_waits_for_the_skips_of_another(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """Predicted steps are done at once: beside a row that computes all, a cached one is done sooner."""
    driver = driver_of(models["calibrated"])
    cached, full = driver.admit(steps=20, cache_level="fast", **SMALL), driver.admit(steps=20, **SMALL)
    driver.slice("encode", cached, full)
    seen = []
    for _ in range(4):
        driver.slice("denoise", cached, full)
        seen.append((state_of(cached).step, state_of(full).step))
    assert seen == [(2, 1), (6, 2), (12, 3), (20, 4)]
    assert state_of(cached).phase == "decode"
    driver.finish(cached)
    assert decisions(cached, driver) == (4, 16)


def test_previews_come_at_predicted_steps_too(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """One a slice, the last that is due."""
    driver = driver_of(models["calibrated"])
    job = driver.admit(steps=20, cache_level="fast", preview_every=2, **SMALL)
    driver.finish(job)
    *pictures, done = driver.emitted[job.id]
    assert [picture.step for picture in pictures] == [2, 6, 12, 18, 20]
    assert isinstance(done, Done)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_guidance_half_way_fails_open(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any], strategy: str
) -> None:
    """What was remembered under other options is not used: the next step is computed in full."""
    driver = driver_of(models[strategy])
    job = driver.admit(steps=20, cache_level="fast", **SMALL)
    driver.slice("encode", job)
    while state_of(job).step < 9:
        driver.slice(state_of(job).phase, job)
    state = state_of(job)
    state.plan = replace(state.plan, guidance=2.0)
    assert state.phase == "denoise"
    driver.finish(job)
    assert torch.isfinite(state.latents).all()


def test_an_evicted_row_draws_the_same_picture(
    models: dict[str, Any], driver_of: Callable[[ImagePipeline], Any]
) -> None:
    driver = driver_of(models["split"])
    twin, job = (driver.admit(steps=14, cache_level="fast", seed=5, **SMALL) for _ in range(2))
    driver.finish(twin)
    driver.slice("encode", job)
    for _ in range(5):
        driver.slice(state_of(job).phase, job)
    driver.pipeline.evict(job, 0)
    assert driver.pipeline.leased(job) == 0
    driver.finish(job)
    assert torch.equal(state_of(job).latents, state_of(twin).latents)


@pytest.mark.parametrize("strategy", ["calibrated", "split"])
def test_cancels_leave_nothing_behind(folder: Path, tmp_path: Path, strategy: str) -> None:
    """Cancels and changes of size, steps, level, guidance, sampler and add-ons; then pictures as of a fresh
    model, and no tensor more than at first."""
    lives = [Life(folder, strategy, tmp_path) for _ in range(2)]
    curve = lives[0].live(6)
    assert lives[0].probes() == lives[1].probes()
    assert curve[-1].tensors == curve[0].tensors
    assert lives[0].cancels > 6


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_thousand_cancels_leave_nothing_behind(folder: Path, strategy: str) -> None:
    """Against a fresh process, and the process's memory is flat."""
    report = lives_report(folder, strategy, 500)
    assert report["cancels"] >= 1000
    assert report["equal_to_a_fresh_process"] == "6 of 6"
    curve = [Memory(*each) for each in report["curve"]]
    assert (curve[-1].tensors, curve[-1].tensor_kib) == (curve[0].tensors, curve[0].tensor_kib)
    assert curve[-1].most_mib - curve[len(curve) // 2].most_mib < 8
