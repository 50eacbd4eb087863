"""Reads the parts of a model folder in diffusers' layout. Nothing is fetched; weights are safetensors, in one
file or in shards, full precision or `fp16`.

A folder may take parts from its neighbours: `upbeat.json` names them, relative to the folder,

    {"shared": {"vae": "../upbeat-image-unet/vae", "text_encoder": "../upbeat-image-unet/text_encoder"}}

and model_index.json names their classes as ever. Two models that share a part load it once each.

Only the classes that are needed are imported, and here only, since diffusers and transformers take seconds.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from pipelines.errors import ModelBroken

_TOP: Final = ("model_index.json", "upbeat.json")
_NETWORK, _ENCODER = ("diffusers", "diffusion_pytorch_model"), ("transformers", "model")
_CLASSES: Final = {
    "UNet2DConditionModel": _NETWORK,
    "AutoencoderDC": _NETWORK,
    "AutoencoderKL": _NETWORK,
    "CLIPTextModel": _ENCODER,
    "CLIPTextModelWithProjection": _ENCODER,
    "ControlNetModel": _NETWORK,
    "FluxTransformer2DModel": _NETWORK,
    "Gemma2Model": _ENCODER,
    "PixArtTransformer2DModel": _NETWORK,
    "SD3Transformer2DModel": _NETWORK,
    "SanaTransformer2DModel": _NETWORK,
    "T5EncoderModel": _ENCODER,
}
_VOCABULARIES: Final = {
    "CLIPTokenizer": ("vocab.json", "merges.txt"),
    "GemmaTokenizer": ("tokenizer.model",),
    "T5Tokenizer": ("spiece.model",),
}


class ModelFolder:
    """One folder, its index and what it shares. Raises, from every method: ModelBroken naming the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.index = read_json(path / "model_index.json")
        settings = path / "upbeat.json"
        self.settings = read_json(settings) if settings.is_file() else {}
        self._shared = _shared(path, self.settings.get("shared", {}))

    def class_of(self, part: str) -> str | None:
        """The class that the index names for a part, None where it names none."""
        named = self.index.get(part)
        if not isinstance(named, list) or len(named) != 2:
            return None
        return named[1] if isinstance(named[1], str) else None

    def config(self, part: str, name: str = "config.json") -> dict[str, Any]:
        """A JSON file of a part."""
        return read_json(self._where(part) / name)

    def network(self, part: str, class_name: str) -> Any:
        """One module in float32, in eval mode, frozen. Every tensor has to be there: a missing one would be
        random."""
        where = self._where(part)
        read_json(where / "config.json")
        library, stem = _CLASSES[class_name]
        variant = _check_weights(where, stem)
        loaded_class = getattr(importlib.import_module(library), class_name)
        options = (
            {"low_cpu_mem_usage": False, "torch_dtype": torch.float32}
            if library == "diffusers"
            else {"dtype": torch.float32}
        )
        try:
            loaded, report = loaded_class.from_pretrained(
                where,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelBroken(f"{part}: {first_line(error)}") from error
        for trouble in ("missing_keys", "mismatched_keys", "error_msgs"):
            if report.get(trouble):
                first = sorted(map(str, report[trouble]))[0]
                raise ModelBroken(f"{part}: {trouble.replace('_', ' ')} in the weights, {first} among them")
        return loaded.eval().requires_grad_(False)

    def tokenizer(self, part: str, class_name: str) -> Any:
        """A tokenizer that knows its longest text."""
        where = self._where(part)
        for name in _VOCABULARIES[class_name]:
            if not (where / name).is_file() and not (where / "tokenizer.json").is_file():
                raise ModelBroken(f"{part}/{name} is missing")
        try:
            loaded_class = getattr(importlib.import_module("transformers"), class_name)
            loaded = loaded_class.from_pretrained(where, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelBroken(f"{part}: {first_line(error)}") from error
        if loaded.model_max_length > 10_000:
            raise ModelBroken(f"{part}/tokenizer_config.json: model_max_length is missing")
        return loaded

    def _where(self, part: str) -> Path:
        return self._shared.get(part, self._path / part)


def be_quiet() -> None:
    """No progress bars and advice from the libraries: what is wrong is raised as an error."""
    for library in ("diffusers", "transformers"):
        logging = importlib.import_module(f"{library}.utils.logging")
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def read_json(path: Path) -> dict[str, Any]:
    """Raises: ModelBroken naming the file by its last two names, never by the path of the machine."""
    label = path.name if path.name in _TOP else f"{path.parent.name}/{path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelBroken(f"{label} is missing") from error
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{label} is broken: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelBroken(f"{label} is broken: not a JSON object")
    return content


def check_tensors(path: Path) -> None:
    """Raises: ModelBroken where a safetensors file is not there or not whole."""
    label = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise ModelBroken(f"{label} is missing")
    try:
        with safe_open(path, framework="pt") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise ModelBroken(f"{label} is broken: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Of an error's text, or its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shared(folder: Path, named: object) -> Mapping[str, Path]:
    if not isinstance(named, dict):
        raise ModelBroken("upbeat.json: shared must be an object of folders by part")
    found: dict[str, Path] = {}
    for part, where in named.items():
        if not isinstance(where, str) or Path(where).is_absolute():
            raise ModelBroken(f"upbeat.json: shared.{part} must be a folder relative to this one")
        found[part] = (folder / where).resolve()
        if not found[part].is_dir():
            raise ModelBroken(f"upbeat.json: shared.{part}: there is no folder {where}")
    return found


def _check_weights(folder: Path, stem: str) -> str | None:
    """The variant (None or "fp16") whose files are all there and whole."""
    for variant, suffix in ((None, ""), ("fp16", ".fp16")):
        index = folder / f"{stem}.safetensors.index{suffix}.json"
        whole = folder / f"{stem}{suffix}.safetensors"
        if whole.is_file():
            check_tensors(whole)
            return variant
        if index.is_file():
            for shard in sorted(set(read_json(index).get("weight_map", {}).values())):
                check_tensors(folder / shard)
            return variant
    raise ModelBroken(f"{folder.name}/{stem}.safetensors is missing")
