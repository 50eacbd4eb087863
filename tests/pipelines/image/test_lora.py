"""LoRA add-ons: equal to merged weights, of no effect on neighbours and on the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from pipelines.errors import InvalidRequest, NotFound
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.image.state import state_of
from pipelines.messages import ImageRequest

RANK = 2
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
BLOCK = "up_blocks.0.attentions.0.transformer_blocks.0"
CHANGED = {  # module of a file: how PEFT and kohya name it
    (UNET, f"{BLOCK}.attn1.to_q"): (f"unet.{BLOCK}.attn1.to_q", "unet"),
    (UNET, f"{BLOCK}.attn2.to_out.0"): (f"unet.{BLOCK}.attn2.to_out.0", "unet"),
    (UNET, f"{BLOCK}.attn2.to_k"): (f"unet.{BLOCK}.attn2.to_k", "unet"),
    (UNET, "down_blocks.0.resnets.0.conv1"): ("unet.down_blocks.0.resnets.0.conv1", "unet"),
    (UNET, "time_embedding.linear_1"): ("unet.time_embedding.linear_1", "unet"),
    (TEXT, "text_model.encoder.layers.0.self_attn.q_proj"): (
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
        "te",
    ),
    (TEXT, "text_model.encoder.layers.1.mlp.fc1"): ("text_encoder.text_model.encoder.layers.1.mlp.fc1", "te"),
}
Matrices = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]


def weight_of(tensors: dict[str, torch.Tensor], module: str) -> str:
    """The tensor's name in a folder's file."""
    name = f"{module}.weight"
    return name if name in tensors else name.removeprefix("text_model.")


def matrices(folder: Path, seed: int) -> Matrices:
    """Random (down, up) of each module."""
    noise = torch.Generator().manual_seed(seed)
    made: Matrices = {}
    for file, module in CHANGED:
        tensors = load_file(folder / file)
        shape = tensors[weight_of(tensors, module)].shape
        down = torch.randn((RANK, *shape[1:]), generator=noise) * 0.3
        up = torch.randn((shape[0], RANK, *(1,) * (len(shape) - 2)), generator=noise) * 0.3
        made[file, module] = down, up
    return made


def write_peft(path: Path, made: Matrices) -> Path:
    """As diffusers writes it; the scale is 1."""
    tensors = {}
    for key, (down, up) in made.items():
        tensors[f"{CHANGED[key][0]}.lora_A.weight"] = down.contiguous()
        tensors[f"{CHANGED[key][0]}.lora_B.weight"] = up.contiguous()
    save_file(tensors, path)
    return path


def write_kohya(path: Path, made: Matrices, alpha: float) -> Path:
    """As kohya's scripts write it, with the scale's numerator."""
    tensors = {}
    for key, (down, up) in made.items():
        stem = f"lora_{CHANGED[key][1]}_{key[1].replace('.', '_')}"
        tensors[f"{stem}.lora_down.weight"] = down.contiguous()
        tensors[f"{stem}.lora_up.weight"] = up.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def merged(folder: Path, target: Path, made: Matrices, scale: float) -> Path:
    """A copy of the folder with the add-on in its weights."""
    shutil.copytree(folder, target)
    for (file, module), (down, up) in made.items():
        tensors = load_file(target / file)
        name = weight_of(tensors, module)
        change = (up.flatten(1) @ down.flatten(1)).reshape(tensors[name].shape)
        tensors[name] = tensors[name] + scale * change
        save_file(tensors, target / file, metadata={"format": "pt"})
    return target


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Matrices]]:
    """Two add-ons, one a way of naming."""
    where = tmp_path_factory.mktemp("lora")
    ink, oil = matrices(folder, 1), matrices(folder, 2)
    return {
        "ink": (write_peft(where / "ink.safetensors", ink), ink),
        "oil": (write_kohya(where / "oil.safetensors", oil, alpha=1.0), oil),
    }


def load(folder: Path, files: dict[str, Path]) -> ImagePipeline:
    """The model with these add-ons."""
    loras = tuple((name, str(path)) for name, path in files.items())
    return ImagePipeline.load(folder, name="tiny", settings=ImageSettings(loras=loras))


@pytest.fixture
def painter(
    folder: Path,
    made: dict[str, tuple[Path, Matrices]],
    driver_of: Callable[[ImagePipeline], Any],
) -> Any:
    """A driver of the model with both add-ons."""
    return driver_of(load(folder, {name: path for name, (path, _) in made.items()}))


@pytest.mark.parametrize(("name", "weight", "scale"), [("ink", 0.7, 0.7), ("oil", -1.5, -1.5 / RANK)])
def test_equal_to_diffusers_with_merged_weights(
    painter: Any,
    folder: Path,
    made: dict[str, tuple[Path, Matrices]],
    diffusers_latents: Callable[..., torch.Tensor],
    tmp_path: Path,
    name: str,
    weight: float,
    scale: float,
) -> None:
    job = painter.admit("red", steps=4, guidance=5.0, seed=5, loras=((name, weight),))
    plain = painter.admit("red", steps=4, guidance=5.0, seed=5)
    painter.finish(job, plain)
    other = merged(folder, tmp_path / "merged", made[name][1], scale)
    call = {"num_inference_steps": 4, "guidance_scale": 5.0, "seed": 5}
    wanted = diffusers_latents(other, DDIMScheduler, {}, "red", **call)
    torch.testing.assert_close(painter.latents[job.id], wanted, atol=1e-3, rtol=0)
    assert (painter.latents[job.id] - painter.latents[plain.id]).abs().max() > 0.05


def test_two_add_ons_at_once(
    painter: Any,
    folder: Path,
    made: dict[str, tuple[Path, Matrices]],
    diffusers_latents: Callable[..., torch.Tensor],
    tmp_path: Path,
) -> None:
    job = painter.admit("red", steps=3, seed=5, guidance=3.0, loras=(("oil", 1.0), ("ink", 0.5)))
    other = painter.admit("red", steps=3, seed=5, guidance=3.0, loras=(("ink", 0.5), ("oil", 1.0)))
    painter.finish(job, other)
    first = merged(folder, tmp_path / "first", made["ink"][1], 0.5)
    both = merged(first, tmp_path / "both", made["oil"][1], 1.0 / RANK)
    call = {"num_inference_steps": 3, "guidance_scale": 3.0, "seed": 5}
    wanted = diffusers_latents(both, DDIMScheduler, {}, "red", **call)
    torch.testing.assert_close(painter.latents[job.id], wanted, atol=1e-3, rtol=0)
    assert torch.equal(painter.latents[job.id], painter.latents[other.id])


def test_neighbours_are_not_touched(painter: Any) -> None:
    """Rows with other add-ons, other weights and none: as alone; and without any, to the bit as before."""
    options: list[dict[str, Any]] = [
        {"loras": (("ink", 1.0),), "guidance": 4.0},
        {"guidance": 4.0},
        {"loras": (("ink", -0.5), ("oil", 1.0)), "guidance": 1.0},
        {"loras": (("oil", 2.0),), "guidance": 4.0, "scheduler": "euler"},
    ]
    alone = [painter.admit(steps=3, seed=2, **option) for option in options]
    painter.finish(*alone)
    mixed = [painter.admit(steps=3, seed=2, **option) for option in options]
    painter.slice("encode", *mixed)
    for _ in range(3):
        painter.slice("denoise", *mixed)
    for one, other in zip(alone, mixed, strict=True):
        torch.testing.assert_close(painter.latents[one.id], painter.latents[other.id], atol=1e-4, rtol=0)
    plain = [painter.admit(steps=3, seed=2, **{**option, "loras": ()}) for option in options]
    painter.slice("encode", *plain)
    for _ in range(3):
        painter.slice("denoise", *plain)
    assert torch.equal(painter.latents[plain[1].id], painter.latents[mixed[1].id])


def test_cancelled_and_suspended_slices_leave_nothing(
    painter: Any, folder: Path, driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """A slice with an add-on is closed at every tenth point while one without is suspended beside it."""
    fresh = driver_of(ImagePipeline.load(folder, name="tiny"))
    wanted = fresh.admit(steps=3, seed=4)
    fresh.finish(wanted)
    job, noise = painter.admit(steps=3, seed=4), painter.admit(steps=3, loras=(("ink", 2.0),))
    painter.slice("encode", noise)
    while painter.pipeline.ready(job):
        steps = painter.pipeline.run(painter.batch(state_of(job).phase, job))
        for reach, step in enumerate(steps):
            painter.keep([step])
            other = painter.pipeline.run(painter.batch("denoise", noise))
            for _ in range(reach % 20):
                next(other)
            other.close()
    assert torch.equal(state_of(job).latents, state_of(wanted).latents)
    assert np.array_equal(painter.image(job), fresh.image(wanted))
    ours, theirs = (d.pipeline._parts.backbone.network.state_dict() for d in (painter, fresh))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_old_names_of_diffusers(
    painter: Any,
    folder: Path,
    made: dict[str, tuple[Path, Matrices]],
    driver_of: Callable[[ImagePipeline], Any],
    tmp_path: Path,
) -> None:
    """`processor.to_q_lora` and `lora_linear_layer`; the scale that diffusers keeps beside the tensors."""
    tensors = {}
    for name, tensor in load_file(made["ink"][0]).items():
        for role, matrix in (("down", "lora_A"), ("up", "lora_B")):
            if matrix not in name:
                continue
            stem = name.removesuffix(f".{matrix}.weight")
            if ".attn" in stem:
                head, _, last = stem.removesuffix(".0").rpartition(".")
                tensors[f"{head}.processor.{last}_lora.{role}.weight"] = tensor
            else:
                kind = ".lora_linear_layer" if "self_attn" in stem else ".lora"
                tensors[f"{stem}{kind}.{role}.weight"] = tensor
    metadata = {
        "lora_adapter_metadata": json.dumps(
            {f"{name}.lora_alpha": 2 * RANK for name in ("unet", "text_encoder")}
        )
    }
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    old = driver_of(load(folder, {"old": tmp_path / "old.safetensors"}))
    jobs = old.admit(steps=2, loras=(("old", 0.5),)), painter.admit(steps=2, loras=(("ink", 1.0),))
    old.finish(jobs[0])
    painter.finish(jobs[1])
    torch.testing.assert_close(old.latents[jobs[0].id], painter.latents[jobs[1].id], atol=1e-4, rtol=0)


KEY = f"unet.{BLOCK}.attn1.to_q"
SMALL = {f"{KEY}.lora_A.weight": torch.zeros(1, 32), f"{KEY}.lora_B.weight": torch.zeros(32, 1)}


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        ({"unet.nowhere.lora_A.weight": torch.zeros(1, 1)}, "no module unet.nowhere"),
        ({f"{KEY}.lora_A.weight": torch.zeros(1, 32)}, "up is missing"),
        ({**SMALL, f"{KEY}.lora_A.weight": torch.zeros(1, 31)}, "does not fit"),
        ({**SMALL, f"{KEY}.dora_scale": torch.zeros(32)}, "dora_scale is not supported"),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], part: str
) -> None:
    save_file(tensors, tmp_path / "bad.safetensors")
    pipeline = load(folder, {"bad": tmp_path / "bad.safetensors"})
    assert pipeline.info.loras == ()
    assert pipeline.refused_loras["bad"].startswith("device.loras.bad: ")
    assert part in pipeline.refused_loras["bad"]


def test_files_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    names = ("broken", "missing")
    pipeline = load(folder, {name: tmp_path / f"{name}.safetensors" for name in names})
    assert "is broken" in pipeline.refused_loras["broken"]
    assert "there is no file missing.safetensors" in pipeline.refused_loras["missing"]


@pytest.mark.parametrize(
    ("loras", "error", "field"),
    [
        ((("gold", 1.0),), NotFound, "image.loras[0].name"),
        ((("ink", 1.0), ("ink", 2.0)), InvalidRequest, "image.loras[1].name"),
        ((("ink", float("nan")),), InvalidRequest, "image.loras[0].weight"),
        ((("ink", 8.5),), InvalidRequest, "image.loras[0].weight"),
        ((("ink", 1.0),) * 9, InvalidRequest, "image.loras"),
    ],
)
def test_bad_requests(painter: Any, loras: Any, error: type[Exception], field: str) -> None:
    with pytest.raises(error) as refused:
        painter.pipeline.prepare(ImageRequest("red", loras=loras), None)
    assert getattr(refused.value, "field", "") == field


def test_weight_zero_is_none(painter: Any) -> None:
    assert painter.pipeline.prepare(ImageRequest("red", loras=(("ink", 0.0),)), None).loras == ()
