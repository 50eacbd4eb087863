"""Images to start from: equal to diffusers' image-to-image, safe against what clients may send."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from PIL import Image

from pipelines.errors import InvalidRequest
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.reference import MAX_PIXELS, decode_reference
from pipelines.image.samplers import first_step
from pipelines.image.state import state_of
from pipelines.limits import MAX_IMAGE_BYTES
from pipelines.messages import ImageRequest, Usage

SCHEDULERS = [
    ("ddim", DDIMScheduler, {}),
    ("euler", EulerDiscreteScheduler, {}),
    ("dpmpp_2m", DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
]


def picture(width: int = 128, height: int = 128, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some noise."""
    down, across = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width))
    bands = np.stack([down * 200 // height, across * 200 // width, noise + 60], axis=-1)
    return Image.fromarray(bands.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """As a file."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def peer(folder: Path) -> StableDiffusionImg2ImgPipeline:
    """diffusers' own."""
    made = StableDiffusionImg2ImgPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(("name", "scheduler", "changes"), SCHEDULERS)
@pytest.mark.parametrize("strength", [0.35, 1.0])
def test_latents_equal_diffusers(
    driver: Any, peer: Any, name: str, scheduler: Any, changes: dict[str, Any], strength: float
) -> None:
    options: dict[str, Any] = {"steps": 7, "guidance": 4.0, "seed": 5, "scheduler": name}
    job = driver.admit("red", init_image=encoded(picture()), strength=strength, **options)
    driver.finish(job)
    peer.scheduler = scheduler.from_config(peer.scheduler.config, **changes)
    wanted = peer(
        "red",
        image=picture(),
        strength=strength,
        num_inference_steps=7,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)
    done = driver.emitted[job.id][-1]
    assert done.usage == Usage(evaluations=int(7 * strength))


@pytest.mark.parametrize("strength", [1e-6, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("sampler", ["DDIMScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_at_least_one_step_is_taken(strength: float, sampler: str) -> None:
    assert 0 <= first_step(sampler, 10, strength) <= 9
    assert first_step(sampler, 10, 1.0) == 0


def test_little_strength_stays_near_the_image(driver: Any) -> None:
    wanted = np.asarray(picture(), dtype=int)
    jobs = [
        driver.admit("red", steps=20, init_image=encoded(picture()), strength=s, seed=1) for s in (0.05, 1)
    ]
    driver.finish(*jobs)
    vae = driver.pipeline._parts.vae
    with torch.inference_mode():
        noise = torch.zeros(1, 4, 16, 16)
        pixels = vae.decode(vae.encode(np.asarray(picture()), noise))[0].permute(1, 2, 0)
    best = (pixels.clamp(-1, 1).numpy() + 1) * 127.5
    near, far = (np.abs(driver.image(job).astype(int) - best).mean() for job in jobs)
    assert near < far
    assert wanted.shape == best.shape


def test_rows_in_company_equal_rows_alone(driver: Any) -> None:
    options: list[dict[str, Any]] = [
        {"init_image": encoded(picture()), "strength": 0.5, "scheduler": "euler"},
        {"guidance": 1.0},
        {"init_image": encoded(picture(90, 200)), "strength": 0.9, "scheduler": "dpmpp_2m"},
    ]
    alone = [driver.admit(steps=4, seed=3, **option) for option in options]
    driver.finish(*alone)
    mixed = [driver.admit(steps=4, seed=3, **option) for option in options]
    seen = driver.together(*mixed)
    assert ("start", 1) in seen
    assert ("denoise", 3) in seen
    for one, other in zip(alone, mixed, strict=True):
        torch.testing.assert_close(driver.latents[one.id], driver.latents[other.id], atol=1e-4, rtol=0)


def test_a_closed_start_leaves_the_job_as_it_was(driver: Any) -> None:
    twin = driver.admit(steps=3, init_image=encoded(picture()), seed=6)
    driver.finish(twin)
    job = driver.admit(steps=3, init_image=encoded(picture()), seed=6)
    noise = state_of(job).latents.clone()
    for reach in (1, 5, 12):
        steps = driver.pipeline.run(driver.batch("start", job))
        assert [next(steps) for _ in range(reach)] == [None] * reach
        steps.close()
        assert state_of(job).init is not None
        assert torch.equal(state_of(job).latents, noise)
    driver.slice("start", job)
    driver.slice("encode", job)
    driver.pipeline.evict(job, 0)
    assert state_of(job).phase == "encode"
    driver.finish(job)
    assert torch.equal(driver.latents[job.id], driver.latents[twin.id])


# --- what clients may send ---------------------------------------------------------------------------------


def test_images_fill_the_size_asked_for() -> None:
    pixels = decode_reference(encoded(picture(300, 100)), "image.init_image.data", 64, 64)
    assert pixels.shape == (64, 64, 3)
    middle = np.asarray(picture(300, 100).crop((100, 0, 200, 100)).resize((64, 64)), dtype=int)
    assert np.abs(pixels - middle).mean() < 8


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGBA", "WEBP")])
def test_every_kind_of_colour(mode: str, kind: str) -> None:
    data = encoded(picture(64, 64, mode), kind)
    assert decode_reference(data, "image.init_image.data", 64, 64).shape == (64, 64, 3)


def test_what_is_transparent_is_white_and_upright() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert (decode_reference(encoded(clear), "image.init_image.data", 64, 64) == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    data = encoded(picture(), "JPEG", exif=exif, quality=95)
    upright = decode_reference(data, "image.init_image.data", 128, 128)
    turned = np.asarray(picture().rotate(180), dtype=int)
    assert np.abs(upright - turned).mean() < 12


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 60,000 x 60,000 pixels."""
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    packed = b"IDAT" + zlib.compress(bytes(1 << 20))
    chunks = [
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        for chunk in (header, packed, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def text_bomb() -> bytes:
    """A small PNG with a compressed comment of 100 MB."""
    data = encoded(picture(64, 64))
    chunk = b"zTXtc\0\0" + zlib.compress(bytes(100 << 20))
    framed = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return data[:33] + framed + data[33:]


BAD = [
    (b"x", "whole PNG, JPEG or WebP"),
    (encoded(picture())[:900], "whole PNG, JPEG or WebP"),
    (encoded(picture(), "JPEG")[:200], "whole PNG, JPEG or WebP"),
    (encoded(picture(), "GIF"), "whole PNG, JPEG or WebP"),
    (encoded(picture(), "BMP"), "whole PNG, JPEG or WebP"),
    (encoded(Image.new("1", (4096, 1025))), f"at most {MAX_PIXELS} pixels"),
    (bomb(), f"at most {MAX_PIXELS} pixels"),
    (text_bomb(), "whole PNG, JPEG or WebP"),
    (bytes(MAX_IMAGE_BYTES + 1), f"at most {MAX_IMAGE_BYTES} bytes"),
]


@pytest.mark.parametrize(("data", "part"), BAD)
def test_bad_images_are_refused(loaded: ImagePipeline, data: bytes, part: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        loaded.prepare(ImageRequest("red", init_image=data), None)
    assert refused.value.field == "image.init_image.data"
    assert part in refused.value.message


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.1, float("nan")])
def test_bad_strength(loaded: ImagePipeline, strength: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        loaded.prepare(ImageRequest("red", init_image=encoded(picture()), strength=strength), None)
    assert refused.value.field == "image.init_image.strength"


def test_noise_does_not_crash_the_decoder(driver_of: Callable[..., Any]) -> None:
    """Files with bytes changed at random: an image or a refusal, nothing else."""
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = np.frombuffer(encoded(picture(64, 64), kind), np.uint8)
        for _ in range(60):
            data = whole.copy()
            data[random.integers(0, len(data), 6)] = random.integers(0, 256, 6)
            with contextlib.suppress(InvalidRequest):
                assert decode_reference(data.tobytes(), "image.init_image.data", 64, 64).shape == (64, 64, 3)
