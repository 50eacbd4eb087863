"""Measures of likeness, the search for masks, and the calibrated masks of the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cache_calibration
from benchmarks.cache_calibration import (
    Likeness,
    Paths,
    calibrate,
    masks_by_evaluations,
    masks_by_length,
    polished,
    record,
    write,
)
from benchmarks.image_arrivals import Arm, continuous, one_by_one, requests, run, static
from benchmarks.image_metrics import latent_psnr, pixel_psnr, ssim
from benchmarks.image_runs import Drawn, Runs
from benchmarks.step_cache import EMBEDDED
from pipelines.image.step_cache.masks import read_masks
from pipelines.image.step_cache.schedule import Schedule
from tests.pipelines.image.conftest import make_folder
from training.eval_image import unseen


def test_decibels() -> None:
    wanted = torch.zeros(2, 4, 4, 3)
    found = wanted.clone()
    found[0] += 25.5
    assert pixel_psnr(found, wanted) == [pytest.approx(20.0), 99.0]
    ramp = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    assert latent_psnr(ramp + 0.2, ramp) == [pytest.approx(20.0)]


def test_structural_similarity() -> None:
    draw = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 32, 32, 3, generator=draw) * 255
    other = torch.rand(1, 32, 32, 3, generator=draw) * 255
    assert ssim(picture, picture) == [pytest.approx(1.0)]
    assert ssim(picture, other)[0] < 0.2 < ssim(picture, (picture + other) / 2)[0] < 0.95


def synthetic(steps: int = 12) -> Paths:
    """Noise that is straight but for a bend in its middle."""
    a = tuple((step + 0.5) / steps for step in range(steps))
    schedule = Schedule("epsilon", a, tuple((1 - each**2) ** 0.5 for each in a))
    draw = torch.Generator().manual_seed(0)
    shape = torch.randn(2, 4, 4, 4, generator=draw)
    places = [schedule.position(step) for step in range(steps)]
    noise = torch.stack([shape * (1 + abs(place - places[steps // 2])) for place in places])
    drawn = Drawn(torch.randn(2, 4, 4, 4, generator=draw), torch.zeros(0), [], [], 0.0)
    return Paths(schedule, noise, drawn)


def test_masks_are_full_where_forecasts_fail() -> None:
    paths = synthetic()
    found = masks_by_length(paths)
    assert sorted(found) == list(range(4, 12))
    assert all(mask[0] == 0 and len(mask) == length for length, mask in found.items())
    assert len({6, 7, 8} & {*found[5]}) >= 2  # the new slope takes two points after the bend
    assert paths.psnr(found[5]) > paths.psnr((0, 1, 4, 8, 11)) + 10


@pytest.mark.parametrize(
    ("steps", "level", "asked"),
    [
        ((45.0, 44.0), "balanced", (49.0, 48.0)),
        ((45.0, 44.0), "fast", (46.0, 45.0)),
        ((30.0, 36.0), "balanced", (36.0, 40.0)),
        ((28.0, 25.0), "fast", (31.0, 31.0)),
    ],
)
def test_caching_is_asked_for_less_than_the_steps_leave(
    steps: tuple[float, float], level: str, asked: tuple[float, float]
) -> None:
    assert Likeness(*steps).asked(level) == Likeness(*asked)


def test_a_calibration_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says was reached is what it asked for, and the faster level runs no more."""
    monkeypatch.setattr(cache_calibration, "SOLUTION_STEPS", 20)
    runs = Runs(make_folder(tmp_path / "tiny"))
    with torch.inference_mode():
        content: Any = next(calibrate(runs, ["red", "blue"], (10,), 0))
    masks, found = content["masks"]["10"], content["p10_db"]["10"]
    assert len(masks["fast"]) <= len(masks["balanced"])
    for level, mask in masks.items():
        asked = Likeness(*found["steps"]).asked(level)
        assert mask[0] == 0 and Likeness(*found[level]).above(asked) > -0.2


def test_runs_record_and_arrive(tmp_path: Path) -> None:
    """The parts of the benchmark, on a tiny model."""
    runs = Runs(make_folder(tmp_path / "tiny"))
    with torch.inference_mode():
        paths = record(runs, ["red", "blue"], 10, 0)
        assert paths.noise.shape[:2] == (10, 2)
        mask = polished(runs, paths, ["red"], (0, 2, 8), 0, 3)
        assert mask[0] == 0 and len(mask) == 3
        drawn = runs.draw(["red", "blue"], steps=10, level="fast")
        assert (drawn.evaluations, drawn.skipped) == ([8, 8], [2, 2])
        asked = requests(["red"], 4, 0)
        for choose in (continuous, one_by_one, static):
            arm = Arm(choose)
            run(runs.pipeline, arm, asked, [0.0, 0.0, 0.1, 9.9])
            assert len(arm.takes_s) == 4
            assert all(0 <= wait < takes for wait, takes in zip(arm.waits_s, arm.takes_s, strict=True))
    masks = {"10": {"balanced": (0, 1, 5), "fast": (0, 5)}}
    write(tmp_path, {"guidance": 2.0, "masks": masks})
    assert '"fast": [0, 5]' in (tmp_path / "step_cache.json").read_text()
    read = read_masks(tmp_path)
    assert read is not None and read.mask("fast", 10) == {0, 5}


@pytest.mark.parametrize("model", ["upbeat-image-unet", "upbeat-image-dit"])
def test_the_embedded_masks_skip_most_steps(model: str) -> None:
    folder = EMBEDDED.parent / model
    content = json.loads((folder / "step_cache.json").read_text())
    masks = read_masks(folder)
    assert masks is not None
    assert all(len(mask) == length for length, mask in masks_by_evaluations(folder).items())
    for steps in map(int, content["masks"]):
        assert len(masks.mask("fast", steps)) <= len(masks.mask("balanced", steps)) <= steps / 2


@pytest.mark.slow
@pytest.mark.parametrize("model", ["upbeat-image-unet", "upbeat-image-dit"])
def test_levels_keep_their_word(model: str) -> None:
    """On unseen captions: 35 dB and 30 dB of PSNR, pixels and latents, in the mean."""
    captions = [caption for _, caption in unseen(8, 31)]
    runs = Runs(EMBEDDED.parent / model)
    with torch.inference_mode():
        for steps in (16, 28, 40):
            wanted = runs.draw(captions, steps=steps)
            for level, decibels in (("balanced", 35.0), ("fast", 30.0)):
                found = runs.draw(captions, steps=steps, level=level)
                for each in (
                    latent_psnr(found.latents, wanted.latents),
                    pixel_psnr(found.pixels, wanted.pixels),
                ):
                    assert sum(each) / len(each) >= decibels, (steps, level, each)
