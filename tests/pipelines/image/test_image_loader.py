"""Folders that cannot be loaded: the error names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelBroken, Unsupported, UpbeatError
from pipelines.image.loader import Defaults, load_components
from pipelines.image.settings import ImageSettings

UNET = "unet/diffusion_pytorch_model.safetensors"
Change = Callable[[Path], object]


def edit(name: str, **changes: Any) -> Change:
    """Set keys of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        path = folder / name
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def remove(name: str) -> Change:
    """Delete a file."""
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Change:
    """Overwrite a file."""
    return lambda folder: (folder / name).write_text(text)


def cut(name: str) -> Change:
    """Keep the first half of a file, as a broken download does."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def drop_tensor(folder: Path) -> None:
    """One tensor less."""
    tensors = load_file(folder / UNET)
    del tensors["conv_in.weight"]
    save_file(tensors, folder / UNET, metadata={"format": "pt"})


def reshape_tensor(folder: Path) -> None:
    """One tensor of another shape."""
    tensors = load_file(folder / UNET)
    tensors["conv_in.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / UNET, metadata={"format": "pt"})


def shard(folder: Path) -> None:
    """An index that names a shard which is not there."""
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model-00001-of-00002.safetensors")
    names = {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": "no-such-shard.safetensors"}
    index = folder / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))


INDEX = "model_index.json"
BROKEN: list[tuple[Change, type[UpbeatError], str]] = [
    (remove(INDEX), ModelBroken, "model_index.json is missing"),
    (write(INDEX, "{"), ModelBroken, "model_index.json is broken"),
    (write(INDEX, "[]"), ModelBroken, "not a JSON object"),
    (edit(INDEX, _class_name="OddPipeline"), Unsupported, "OddPipeline"),
    (edit(INDEX, unet=["diffusers", "SD3Transformer2DModel"]), Unsupported, "SD3Transformer2DModel"),
    (edit(INDEX, vae=None), ModelBroken, "vae is missing"),
    (edit(INDEX, scheduler=["diffusers", "HeunDiscreteScheduler"]), Unsupported, "HeunDiscrete"),
    (remove(UNET), ModelBroken, "unet/diffusion_pytorch_model.safetensors is missing"),
    (cut(UNET), ModelBroken, "unet/diffusion_pytorch_model.safetensors is broken"),
    (cut("text_encoder/model.safetensors"), ModelBroken, "text_encoder/model.safetensors is broken"),
    (remove("vae/config.json"), ModelBroken, "vae/config.json is missing"),
    (drop_tensor, ModelBroken, "conv_in.weight"),
    (reshape_tensor, ModelBroken, "unet"),
    (shard, ModelBroken, "unet/no-such-shard.safetensors is missing"),
    (remove("scheduler/scheduler_config.json"), ModelBroken, "scheduler/scheduler_config.json is missing"),
    (
        edit("scheduler/scheduler_config.json", beta_schedule="odd"),
        ModelBroken,
        "scheduler/scheduler_config.json",
    ),
    (edit("unet/config.json", class_embed_type="timestep"), Unsupported, "class_embed_type"),
    (edit("unet/config.json", sample_size=None), ModelBroken, "sample_size"),
    (write("upbeat.json", '{"shared": ["vae"]}'), ModelBroken, "shared must be an object"),
    (write("upbeat.json", '{"shared": {"vae": "/vae"}}'), ModelBroken, "shared.vae"),
    (write("upbeat.json", '{"shared": {"vae": "../nowhere/vae"}}'), ModelBroken, "../nowhere/vae"),
    (write("upbeat.json", '{"step": 3}'), ModelBroken, "'step'"),
    (write("upbeat.json", '{"steps": 0}'), ModelBroken, "1 to 150"),
    (write("upbeat.json", '{"guidance": "no"}'), ModelBroken, "guidance"),
]


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder to be broken."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.mark.parametrize(("change", "error", "part"), BROKEN)
def test_what_is_wrong_is_named(copied: Path, change: Change, error: type[UpbeatError], part: str) -> None:
    change(copied)
    with pytest.raises(error) as refused:
        load_components(copied, ImageSettings())
    assert part in refused.value.message
    assert str(copied) not in refused.value.message


def test_no_tokenizer(copied: Path) -> None:
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(ModelBroken) as refused:
        load_components(copied, ImageSettings())
    assert refused.value.message == "tokenizer/vocab.json is missing"


def test_half_precision_weights_are_loaded_as_float32(copied: Path) -> None:
    half = {name: tensor.half() for name, tensor in load_file(copied / UNET).items()}
    (copied / UNET).unlink()
    save_file(half, copied / "unet/diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    parts = load_components(copied, ImageSettings())
    found = parts.backbone.network.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in half.items())
    assert not any(parameter.requires_grad for parameter in parts.backbone.network.parameters())


def test_defaults_without_a_file(copied: Path) -> None:
    (copied / "upbeat.json").unlink()
    parts = load_components(copied, ImageSettings())
    assert parts.defaults == Defaults(steps=28, guidance=5.0)
    assert (parts.vae.factor, parts.multiple, parts.own_size) == (8, 16, (128, 128))


def test_another_own_scheduler(copied: Path) -> None:
    edit(INDEX, scheduler=["diffusers", "EulerDiscreteScheduler"])(copied)
    assert load_components(copied, ImageSettings()).sampling.own_class == "EulerDiscreteScheduler"


def test_parts_of_a_neighbour(folder: Path, tmp_path: Path) -> None:
    """`shared` in upbeat.json: what is not in the folder is taken from where it says."""
    shutil.copytree(folder, tmp_path / "owner")
    guest = Path(shutil.copytree(folder, tmp_path / "guest"))
    names = ("vae", "text_encoder", "tokenizer")
    for name in names:
        shutil.rmtree(guest / name)
    with pytest.raises(ModelBroken):
        load_components(guest, ImageSettings())
    write("upbeat.json", json.dumps({"steps": 3, "shared": {n: f"../owner/{n}" for n in names}}))(guest)
    parts = load_components(guest, ImageSettings())
    assert parts.defaults.steps == 3
    wanted = load_file(tmp_path / "owner" / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(
        parts.vae.module.state_dict()["decoder.conv_in.weight"], wanted["decoder.conv_in.weight"]
    )
