"""Reads LoRA add-ons (Hu et al. 2021): safetensors with a pair of small matrices for each module changed.

Three ways of naming are read: PEFT's, as diffusers writes it (`unet.X.lora_A.weight`), diffusers' older
one (`unet.X.lora.down.weight`, `unet.X.processor.to_q_lora.down.weight`), and kohya's
(`lora_unet_X_with_underscores.lora_down.weight`, with `.alpha`). X is the module's name in diffusers or
transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open

from pipelines.errors import ModelBroken, Unsupported

_DIFFUSERS: Final = (".lora", "_lora", ".lora_linear_layer")
_DOWN: Final = (".lora_A.weight", ".lora_down.weight", *(f"{end}.down.weight" for end in _DIFFUSERS))
_UP: Final = (".lora_B.weight", ".lora_up.weight", *(f"{end}.up.weight" for end in _DIFFUSERS))
_KOHYA: Final = re.compile(r"lora_(unet|transformer|te\d?)_(.+)")
_KOHYA_TARGETS: Final = {
    "unet": "network",
    "transformer": "network",
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
    "te3": "text_encoder_3",
}
_TARGETS: Final = {"unet": "network", "transformer": "network"}


@dataclass(frozen=True, slots=True)
class Pair:
    """down (rank, in, ...) and up (out, rank, ...), float32; the change of a weight is scale * up @ down."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def read_lora(path: Path, label: str, modules: Mapping[str, torch.nn.Module]) -> dict[torch.nn.Module, Pair]:
    """The add-on's pairs by the module that they change. modules: "network", "text_encoder",
    "text_encoder_2", ... of the model.

    Raises: ModelBroken or Unsupported naming `label` and the tensor or module at fault.
    """
    tensors, alphas = _read(path, label)
    names = {target: _names(module) for target, module in modules.items()}
    found: dict[torch.nn.Module, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        stem, role = _role(key, label)
        target, name = _place(stem)
        module = names.get(target, {}).get(name)
        if module is None:
            raise Unsupported(f"{label}: the model has no module {stem}")
        beside = {"alpha": alphas[target]} if target in alphas else {}
        found.setdefault(module, beside)[role] = tensor
    return {module: _pair(module, each, label) for module, each in found.items()}


def _read(path: Path, label: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise ModelBroken(f"{label}: there is no file {path.name}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelBroken(f"{label}: {path.name} is broken: {error}") from error
    if not tensors:
        raise ModelBroken(f"{label}: {path.name} has no tensors")
    return tensors, _alphas(metadata, label)


def _alphas(metadata: Mapping[str, str], label: str) -> dict[str, torch.Tensor]:
    """What diffusers wrote beside the tensors: the scale's numerator by target, where it is not the rank."""
    try:
        settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError as error:
        raise ModelBroken(f"{label}: lora_adapter_metadata is not JSON") from error
    if not isinstance(settings, dict):
        raise ModelBroken(f"{label}: lora_adapter_metadata is not an object")
    for key, value in settings.items():
        if key.rpartition(".")[2] in ("alpha_pattern", "use_dora", "use_rslora") and value:
            raise Unsupported(f"{label}: {key} is not supported")
    alphas = {key.rpartition(".")[0]: v for key, v in settings.items() if key.endswith(".lora_alpha")}
    return {_TARGETS.get(target, target): torch.tensor(float(alpha)) for target, alpha in alphas.items()}


def _role(key: str, label: str) -> tuple[str, str]:
    """A tensor's module and what it is to it."""
    for role, endings in (("down", _DOWN), ("up", _UP), ("alpha", (".alpha",))):
        for ending in endings:
            if key.endswith(ending):
                stem = key[: -len(ending)].replace(".processor.", ".")
                return (f"{stem}.0" if stem.endswith(".to_out") else stem), role
    raise Unsupported(f"{label}: {key} is not supported, only LoRA's down, up and alpha")


def _names(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules by dotted name and by kohya's; also with the `text_model` that transformers has dropped."""
    names: dict[str, torch.nn.Module] = {}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
            for each in (name, f"text_model.{name}"):
                names[each] = names[each.replace(".", "_")] = part
    return names


def _place(stem: str) -> tuple[str, str]:
    """The network and the name in it."""
    kohya = _KOHYA.fullmatch(stem)
    if kohya is not None:
        return _KOHYA_TARGETS.get(kohya[1], ""), kohya[2]
    prefix, _, name = stem.partition(".")
    return _TARGETS.get(prefix, prefix), name


def _pair(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], label: str) -> Pair:
    """Checked against the module's weight."""
    down, up = tensors.get("down"), tensors.get("up")
    if down is None or up is None:
        raise ModelBroken(f"{label}: {'up' if up is None else 'down'} is missing beside {'/'.join(tensors)}")
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    rank = down.shape[0]
    fits = (
        down.dim() == up.dim() == weight.dim()
        and down.shape[1:] == weight.shape[1:]
        and up.shape[:2] == (weight.shape[0], rank)
        and up.shape[2:] == (1,) * (weight.dim() - 2)
    )
    if not fits or getattr(module, "groups", 1) != 1:
        shapes = f"{tuple(up.shape)} by {tuple(down.shape)}"
        raise Unsupported(f"{label}: {shapes} does not fit a weight of {tuple(weight.shape)}")
    return Pair(down.float(), up.float(), float(tensors.get("alpha", rank)) / rank)
