"""What the families take and refuse: steps and guidance by default, options, solvers, add-ons, parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipelines.errors import InvalidRequest, ModelBroken, Unsupported
from pipelines.image.loader import load_components
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.messages import ImageRequest


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [("turbo", 4, 1.0), ("lightning", 4, 1.0), ("lcm", 4, 8.5), ("xl", 28, 5.0)],
)
def test_few_step_models_are_known(
    pipelines: Callable[[str], ImagePipeline], name: str, steps: int, guidance: float
) -> None:
    plan = pipelines(name).prepare(ImageRequest("red"), None)
    assert (plan.steps, plan.guidance, plan.guided) == (steps, guidance, name == "xl")


def test_consistency_models_take_fifty_steps_at_most(pipelines: Callable[[str], ImagePipeline]) -> None:
    lcm, sd = pipelines("lcm"), pipelines("sd")
    assert (lcm.info.max_steps, sd.info.max_steps) == (50, 150)
    for pipeline, sampler in ((lcm, ""), (sd, "lcm")):
        with pytest.raises(InvalidRequest) as refused:
            pipeline.prepare(ImageRequest("red", steps=51, scheduler=sampler), None)
        assert refused.value.field == "image.steps"
    assert sd.prepare(ImageRequest("red", scheduler="lcm", steps=50), None).steps == 50


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("flux-dev", {"negative_prompt": "blue"}, "image.negative_prompt"),
        ("flux-dev", {"width": 68}, "image.width"),
        ("xl", {"control_image": b"x"}, "image.control_image"),
        ("sd-control", {"control_image": b"x"}, "image.control_image.data"),
        ("sd-control", {"control_image": b"x", "control_strength": 2.0}, "image.control_image.strength"),
        ("sd3", {"height": 200}, "image.height"),
        ("sd3", {"scheduler": "ddim"}, "image.scheduler"),
    ],
)
def test_what_a_family_does_not_take(
    pipelines: Callable[[str], ImagePipeline], name: str, options: dict[str, Any], field: str
) -> None:
    with pytest.raises((InvalidRequest, Unsupported)) as refused:
        pipelines(name).prepare(ImageRequest(prompt="red", **options), None)
    assert refused.value.field == field  # type: ignore[attr-defined]


def test_a_flow_with_another_solver(
    pipelines: Callable[[str], ImagePipeline], driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """DPM-Solver++(2M) over the same flow ends where many Euler steps do."""
    driver = driver_of(pipelines("flux-dev"))
    size: dict[str, Any] = {"width": 64, "height": 64, "seed": 3}
    euler, dpm = (driver.admit("red", steps=60, scheduler=each, **size) for each in ("euler", "dpmpp_2m"))
    driver.finish(euler, dpm)
    one, other = driver.latents[euler.id], driver.latents[dpm.id]
    print(f"distance of the two solvers after 60 steps: {float((one - other).norm() / one.norm()):.3f}")
    assert (one - other).norm() < 0.1 * one.norm()


BROKEN = [
    ("xl", "unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
    ("xl", "model_index.json", {"text_encoder_2": [None, None]}, "text_encoder_2 is missing"),
    (
        "sd3",
        "model_index.json",
        {"transformer": ["diffusers", "FluxTransformer2DModel"]},
        "FluxTransformer2D",
    ),
    ("sd3", "model_index.json", {"_class_name": "StableDiffusion4Pipeline"}, "StableDiffusion4Pipeline"),
]


@pytest.mark.parametrize(("name", "file", "changes", "part"), BROKEN)
def test_what_is_not_supported_is_named(
    folders: Callable[[str], Path], tmp_path: Path, name: str, file: str, changes: dict[str, Any], part: str
) -> None:
    copied = Path(shutil.copytree(folders(name), tmp_path / "model"))
    (copied / file).write_text(json.dumps({**json.loads((copied / file).read_text()), **changes}))
    with pytest.raises((Unsupported, ModelBroken), match=part):
        load_components(copied, ImageSettings())


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_add_ons_of_transformers(
    folders: Callable[[str], Path], driver_of: Callable[[ImagePipeline], Any], tmp_path: Path, name: str
) -> None:
    """As with the change in the weights."""
    stem = "transformer_blocks.0.attn.to_q"
    noise = torch.Generator().manual_seed(4)
    width = 32 if name == "flux-dev" else 16
    down, up = (torch.randn(shape, generator=noise) for shape in ((2, width), (width, 2)))
    tensors = {f"transformer.{stem}.lora_A.weight": down, f"transformer.{stem}.lora_B.weight": up}
    save_file(tensors, tmp_path / "ink.safetensors")
    loras = (("ink", str(tmp_path / "ink.safetensors")),)
    driver = driver_of(ImagePipeline.load(folders(name), name=name, settings=ImageSettings(loras=loras)))
    size: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "guidance": 3.0}
    job, plain = driver.admit("red", loras=(("ink", 0.5),), **size), driver.admit("red", **size)
    driver.finish(job, plain)
    network = driver.pipeline._parts.backbone.network
    with torch.inference_mode():
        network.get_submodule(stem).weight.add_(0.5 * up @ down)
    merged = driver.admit("red", **size)
    driver.finish(merged)
    torch.testing.assert_close(driver.latents[job.id], driver.latents[merged.id], atol=1e-3, rtol=0)
    assert (driver.latents[job.id] - driver.latents[plain.id]).abs().max() > 1e-3
