"""Slices as transactions, planning, previews, failures, eviction."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.contract import Batch, Budget, Emission, Job, RawImage
from pipelines.errors import Exhausted
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.image.state import state_of
from pipelines.messages import Done, Failed, FinishReason, ImageRequest, JobClass, Usage


def snapshot(job: Job) -> dict[str, Any]:
    """All durable state, the sampler's included, as values that compare."""
    state = state_of(job)
    sampler = {k: copy.deepcopy(v) for k, v in vars(state.sampler).items() if k != "_internal_dict"}
    return {
        "latents": state.latents.clone(),
        "clean": state.clean,
        "conditioning": state.conditioning,
        "step": state.step,
        "done": state.done,
        **sampler,
    }


def same(one: Any, other: Any) -> bool:
    """Equality to the bit, tensors in lists included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def unchanged(before: dict[str, Any], job: Job) -> bool:
    """Whether the job stands where it stood."""
    after = snapshot(job)
    return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)


def phases(driver: Any, job: Job) -> None:
    """Two evaluations into the job."""
    driver.slice("encode", job)
    driver.slice("denoise", job)
    driver.slice("denoise", job)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m"])
def test_closing_at_every_point_leaves_the_job_as_it_was(driver: Any, scheduler: str) -> None:
    plain = driver.admit(scheduler=scheduler, steps=4, preview_every=1)
    driver.finish(plain)
    job = driver.admit(scheduler=scheduler, steps=4, preview_every=1)
    closed = 0
    while driver.pipeline.ready(job):
        kind, before = state_of(job).phase, snapshot(job)
        reach = 0
        while True:
            steps = driver.pipeline.run(driver.batch(kind, job))
            taken = [next(steps, "end") for _ in range(reach + 1)]
            if taken[-1] is not None:
                steps.close()
                break
            steps.close()
            assert unchanged(before, job), (kind, reach)
            reach, closed = reach + 1, closed + 1
        assert not unchanged(before, job)
        restore(driver, job, before)
        driver.slice(kind, job)
    assert closed > 60
    assert np.array_equal(driver.image(job), driver.image(plain))
    assert torch.equal(driver.latents[job.id], driver.latents[plain.id])


def restore(driver: Any, job: Job, before: dict[str, Any]) -> None:
    """Back to before the slice that was let through."""
    state = state_of(job)
    fields = ("latents", "clean", "conditioning", "step", "done")
    for name in fields:
        setattr(state, name, before[name])
    for name, value in before.items():
        if name not in fields:
            setattr(state.sampler, name, value)


@pytest.mark.parametrize("seed", range(4))
def test_interleaved_slices_equal_slices_in_one_go(driver: Any, seed: int) -> None:
    """Two batches of the pipeline, suspended in turns at random points, one neighbour cancelled."""
    options: list[dict[str, Any]] = [
        {"scheduler": "dpmpp_2m", "steps": 4, "guidance": 3.0},
        {"scheduler": "euler", "steps": 5},
        {"scheduler": "ddim", "steps": 3, "width": 64, "height": 96, "guidance": 1.0},
    ]
    alone = [driver.admit(seed=7, **option) for option in options]
    driver.finish(*alone)
    jobs = [driver.admit(seed=7, **option) for option in options]
    noise = driver.admit("a neighbour", steps=20)
    random = np.random.default_rng(seed)
    running: dict[int, Any] = {}
    while any(driver.pipeline.ready(job) for job in jobs) or running:
        job = [*jobs, noise][random.integers(4)]
        if job.id not in running:
            if driver.pipeline.ready(job):
                running[job.id] = driver.pipeline.run(driver.batch(state_of(job).phase, job))
            continue
        if job is noise and random.random() < 0.1:
            running.pop(job.id).close()
            continue
        for _ in range(random.integers(1, 12)):
            step = next(running[job.id], "end")
            if step == "end":
                del running[job.id]
                break
            driver.keep([step])
        if not any(driver.pipeline.ready(job) for job in jobs):
            for steps in running.values():
                steps.close()
            running.clear()
    for one, other in zip(alone, jobs, strict=True):
        assert torch.equal(state_of(one).latents, state_of(other).latents)
        assert np.array_equal(driver.image(one), driver.image(other))


def test_what_is_emitted(driver: Any) -> None:
    job = driver.admit(steps=6, preview_every=2, width=64, height=128)
    driver.finish(job)
    *pictures, done = driver.emitted[job.id]
    assert [(p.step, p.steps, p.final, p.size, p.pixels.shape) for p in pictures] == [
        (2, 6, False, (64, 128), (16, 8, 3)),
        (4, 6, False, (64, 128), (16, 8, 3)),
        (6, 6, True, (64, 128), (128, 64, 3)),
    ]
    assert done == Done(FinishReason.STOP, Usage(evaluations=6))
    assert all(p.pixels.dtype == np.uint8 for p in pictures)


@pytest.fixture
def fresh(driver_of: Callable[[ImagePipeline], Any], folder: Path) -> Any:
    """A driver of a pipeline that knows nothing about costs yet."""
    return driver_of(ImagePipeline.load(folder, name="tiny"))


def test_plan_batches_rows_of_one_size_and_kind(fresh: Any) -> None:
    driver = fresh
    options: list[dict[str, Any]] = [{}, {"guidance": 1.0}, {"width": 64}, {"steps": 3}]
    jobs = [driver.admit(**option) for option in options]
    everything = Budget(1e9, 25)
    assert driver.pipeline.plan(iter(jobs), everything).rows == (jobs[0],)
    seen = driver.together(*jobs)
    assert ("denoise", 3) in seen
    assert [len(driver.image(job)) > 0 for job in jobs] == [True] * 4
    assert driver.pipeline.plan(iter(()), everything) is None


def test_plan_keeps_riders_inside_the_budget(fresh: Any) -> None:
    driver = fresh
    jobs = [driver.admit(guidance=2.0) for _ in range(5)]
    driver.slice("encode", *jobs)
    units = driver.pipeline.plan(iter(jobs[:1]), Budget(60, 25)).units
    for _ in range(40):
        driver.pipeline.observe(Batch("tiny", "denoise", (jobs[0],), units), 20.0)
    assert len(driver.pipeline.plan(iter(jobs), Budget(65, 25)).rows) == 3
    assert len(driver.pipeline.plan(iter(jobs), Budget(5, 25)).rows) == 1
    assert driver.pipeline.plan(iter(jobs[::-1]), Budget(45, 25)).rows == (jobs[4], jobs[3])


def test_newcomers_are_encoded_before_the_next_evaluation(driver: Any) -> None:
    first = driver.admit(steps=4)
    driver.together(first)
    running, new, other_size = driver.admit(steps=4), driver.admit(steps=4), driver.admit(width=64)
    phases(driver, running)
    rows = [running, new, other_size]
    batch = driver.pipeline.plan(iter(rows), Budget(1e9, 25))
    assert (batch.kind, batch.rows) == ("encode", (new,))
    driver.slice("encode", new)
    batch = driver.pipeline.plan(iter(rows), Budget(1e9, 25))
    assert (batch.kind, batch.rows) == ("denoise", (running, new))
    batch = driver.pipeline.plan(iter([running, other_size]), Budget(1e-6, 25))
    assert (batch.kind, batch.rows) == ("denoise", (running,))


def test_a_row_with_nan_fails_alone(driver: Any) -> None:
    good, bad, twin = (driver.admit(steps=3) for _ in range(3))
    driver.finish(twin)
    driver.slice("encode", good, bad)
    state_of(bad).latents.fill_(torch.nan)
    driver.slice("denoise", good, bad)
    assert not driver.pipeline.ready(bad)
    (failure,) = driver.emitted[bad.id]
    assert isinstance(failure, Failed)
    assert failure.kind == "ModelBroken"
    assert "step 1" in failure.message
    driver.finish(good)
    assert np.abs(driver.image(good).astype(int) - driver.image(twin)).max() <= 1


def test_nan_from_the_vae_fails(driver: Any) -> None:
    job = driver.admit(steps=1)
    driver.slice("encode", job)
    driver.slice("denoise", job)
    state_of(job).latents.fill_(torch.inf)
    driver.slice("decode", job)
    assert [type(chunk) for chunk in driver.emitted[job.id]] == [Failed]


def test_embeddings_may_be_evicted_at_any_step(driver: Any) -> None:
    twin, job = driver.admit(steps=4), driver.admit(steps=4)
    driver.finish(twin)
    assert driver.pipeline.leased(job) == 0
    phases(driver, job)
    projections = 8  # keys and values of four blocks
    assert driver.pipeline.leased(job) == (1 + projections) * 2 * 16 * 32 * 4
    driver.pipeline.evict(job, 0)
    assert driver.pipeline.leased(job) == 0
    driver.finish(job)
    assert torch.equal(driver.latents[job.id], driver.latents[twin.id])


def test_admission_is_limited(folder: Path) -> None:
    pipeline = ImagePipeline.load(folder, name="tiny", settings=ImageSettings(max_jobs=1))
    request = ImageRequest(prompt="red")
    plan = pipeline.prepare(request, None)
    jobs = [Job(number, "tiny", "local", JobClass.STANDARD, request) for number in range(2)]
    pipeline.admit(jobs[0], plan)
    with pytest.raises(Exhausted) as refused:
        pipeline.admit(jobs[1], plan)
    assert refused.value.retry_after_s >= 0.5
    assert jobs[1].state is None
    early = Job(3, "tiny", "local", JobClass.STANDARD, request, committed=False)
    pipeline.admit(early, plan)
    pipeline.release(early)
    pipeline.release(jobs[0])
    pipeline.admit(jobs[1], plan)
    pipeline.release(jobs[1])


def test_quality_yields_before_service_does(driver: Any, folder: Path) -> None:
    """Rule 10: under load steps of an image are predicted, if its client allows it and is told."""
    driver = type(driver)(ImagePipeline.load(folder, name="tiny", settings=ImageSettings(max_jobs=2)))
    alone = driver.admit(steps=28, allow_lower_quality=True, width=64, height=64)
    crowded = driver.admit(steps=28, allow_lower_quality=True, width=64, height=64)
    assert state_of(alone).cache is None
    driver.finish(crowded)
    done = driver.emitted[crowded.id][-1]
    assert (done.usage.evaluations, done.usage.evaluations_skipped) == (9, 19)
    assert done.quality == "cache level fast"
    driver.release(crowded)
    driver.finish(alone)
    driver.release(alone)
    request = ImageRequest("a boat", steps=28, allow_lower_quality=True, width=64, height=64)
    pressed = Job(99, "tiny", "local", JobClass.STANDARD, request, pressed=True)
    driver.pipeline.admit(pressed, driver.pipeline.prepare(request, None))
    assert state_of(pressed).quality == "cache level fast, 14 of 28 steps"
    driver.pipeline.release(pressed)
    firm = driver.admit(steps=28, width=64, height=64)
    assert state_of(firm).cache is None and state_of(firm).quality == "full"


def test_info(loaded: ImagePipeline) -> None:
    info = loaded.info
    assert (info.name, info.modality, info.sizes) == ("tiny", "image", ((128, 128),))
    assert (info.default_steps, info.max_steps) == (6, 150)
    assert info.schedulers == ("ddim", "euler", "dpmpp_2m", "lcm")
    assert info.parameters > 10_000


def test_emissions_come_after_the_last_point(driver: Any) -> None:
    """Nothing may be suspended between the first emission and the end."""
    job = driver.admit(steps=2, preview_every=1)
    driver.slice("encode", job)
    steps = list(driver.pipeline.run(driver.batch("denoise", job)))
    assert [isinstance(step, Emission) for step in steps] == [False] * (len(steps) - 1) + [True]
    assert isinstance(steps[-1].chunk, RawImage)
