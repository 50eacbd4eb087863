"""Every family that is loaded: latents equal to its own pipeline in diffusers; tiny, random weights."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from pipelines.image.pipeline import ImagePipeline
from tests.pipelines.image.families import CASES, CONTROL, FLUX


def peer_of(path: Path, name: str, class_name: str = "") -> Any:
    """diffusers' own pipeline of the folder."""
    peer_class = getattr(diffusers, class_name or CASES[name][0])
    absent = {
        **dict.fromkeys(("sd", "turbo", "lcm", "sd-control"), ("safety_checker",)),
        "sd3-shifted": ("text_encoder_3", "tokenizer_3"),
    }
    options = dict.fromkeys(absent.get(name, ()))
    peer = peer_class.from_pretrained(path, torch_dtype=torch.float32, **options)
    peer.set_progress_bar_config(disable=True)
    return peer


def call_of(name: str, steps: int, guidance: float, negative: str) -> dict[str, Any]:
    """How diffusers is asked for the same."""
    call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, **CASES[name][2]}
    if negative and name != "lcm":
        call["negative_prompt"] = negative
    return call


def unpacked(latents: torch.Tensor, name: str, width: int, height: int) -> torch.Tensor:
    """As Upbeat keeps them."""
    if name not in FLUX:
        return latents
    return diffusers.FluxPipeline._unpack_latents(latents, height, width, 4)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        *((name, 4.5) for name in CASES if name not in CONTROL),
        *((name, 1.0) for name in ("turbo", "xl", "sd3", "sana")),
    ],
)
def test_latents_equal_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
    name: str,
    guidance: float,
) -> None:
    driver = driver_of(pipelines(name))
    negative = "blue" if guidance > 1 and name not in FLUX else ""
    height = 96 if name == "sana" else 80
    options: dict[str, Any] = {"width": 64, "height": height, "steps": 4, "guidance": guidance, "seed": 5}
    job = driver.admit("a red star", negative_prompt=negative, **options)
    driver.finish(job)
    wanted = peer_of(folders(name), name)(
        "a red star",
        width=64,
        height=height,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
        **call_of(name, 4, guidance, negative),
    ).images
    wanted = unpacked(wanted, name, 64, height)
    assert wanted.std() > 0.1
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)
    assert driver.image(job).shape == (height, 64, 3)


def test_pictures_of_deep_autoencoders_equal_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
) -> None:
    """And their latents, where an image is to start from."""
    driver = driver_of(pipelines("sana"))
    job = driver.admit("red", width=64, height=64, steps=2, seed=3)
    driver.finish(job)
    peer = peer_of(folders("sana"), "sana").vae
    scale = peer.config.scaling_factor
    with torch.inference_mode():
        wanted = peer.decode(driver.latents[job.id] / scale, return_dict=False)[0]
        pixels = torch.from_numpy(driver.image(job)).permute(2, 0, 1)[None].float() / 127.5 - 1
        assert (wanted.clamp(-1, 1) - pixels).abs().max() <= 1.01 / 255
        found = pipelines("sana")._parts.vae.encode(driver.image(job), torch.zeros(1))
        torch.testing.assert_close(found, peer.encode(pixels, return_dict=False)[0] * scale)


@pytest.mark.parametrize("name", ["lcm", "xl", "sigma", "sana", "sd3", "flux-dev"])
def test_rows_in_company_equal_rows_alone(
    pipelines: Callable[[str], ImagePipeline], driver_of: Callable[[ImagePipeline], Any], name: str
) -> None:
    driver = driver_of(pipelines(name))
    size = {"width": 64, "height": 64}
    options: list[dict[str, Any]] = [
        {"prompt": "red", "steps": 3, "seed": 1, "guidance": 3.0},
        {"prompt": "a long blue ship", "steps": 4, "seed": 2, "guidance": 1.0},
        {"prompt": "moon", "steps": 2, "seed": 3, "guidance": 6.0},
    ]
    alone = [driver.admit(**size, **option) for option in options]
    driver.finish(*alone)
    mixed = [driver.admit(**size, **option) for option in options]
    seen = driver.together(*mixed)
    assert ("denoise", 3) in seen
    for one, other in zip(alone, mixed, strict=True):
        torch.testing.assert_close(driver.latents[one.id], driver.latents[other.id], atol=1e-4, rtol=1e-5)
    found = [driver.latents[job.id] for job in alone]
    assert all((a - b).abs().max() > 1e-2 for n, a in enumerate(found) for b in found[:n])


IMAGE_TO_IMAGE = {
    "xl": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline",
    "flux-dev": "FluxImg2ImgPipeline",
}


@pytest.mark.parametrize("name", IMAGE_TO_IMAGE)
def test_image_to_image_equals_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
    name: str,
) -> None:
    driver = driver_of(pipelines(name))
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG")
    job = driver.admit(
        "red", width=64, height=64, steps=5, guidance=2.0, seed=8, init_image=data.getvalue(), strength=0.5
    )
    driver.finish(job)
    wanted = peer_of(folders(name), name, IMAGE_TO_IMAGE[name])(
        "red",
        image=picture,
        strength=0.5,
        generator=torch.Generator().manual_seed(8),
        output_type="latent",
        **{"width": 64, "height": 64} if name == "flux-dev" else {},
        **call_of(name, 5, 2.0, ""),
    ).images
    torch.testing.assert_close(driver.latents[job.id], unpacked(wanted, name, 64, 64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CONTROL)
def test_control_images_equal_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
    name: str,
) -> None:
    """And rows without an image, or with another strength, beside them are as without company."""
    driver = driver_of(pipelines(name))
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG")
    options: dict[str, Any] = {"width": 64, "height": 64, "steps": 3, "guidance": 3.0, "seed": 8}
    control: dict[str, Any] = {"control_image": data.getvalue(), "control_strength": 0.7}
    mixed = [driver.admit("red", **options, **each) for each in ({}, control)]
    driver.slice("encode", *mixed)
    for _ in range(3):
        driver.slice("denoise", *mixed)
    plain = driver.admit("red", **options)
    driver.finish(plain)
    peer = peer_of(folders(name), name)
    wanted = peer(
        "red",
        image=picture,
        controlnet_conditioning_scale=0.7,
        generator=torch.Generator().manual_seed(8),
        output_type="latent",
        **call_of(name, 3, 3.0, ""),
    ).images
    torch.testing.assert_close(driver.latents[mixed[1].id], wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(driver.latents[mixed[0].id], driver.latents[plain.id], atol=1e-4, rtol=0)
    assert (driver.latents[mixed[1].id] - driver.latents[plain.id]).abs().max() > 1e-2
