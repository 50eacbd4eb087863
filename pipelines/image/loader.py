"""Loads a folder in Stable Diffusion's layout (model_index.json and a folder for each part), nothing fetched.

Only the classes that are needed are imported, and here only, since diffusers and transformers take seconds.
Weights are safetensors, in one file or in shards, full precision or `fp16`.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.samplers import check_samplers, own_sampler
from pipelines.image.settings import ImageSettings

_CLASSES: Final = {
    "unet": ("diffusers.models.unets.unet_2d_condition", "UNet2DConditionModel"),
    "vae": ("diffusers.models.autoencoders.autoencoder_kl", "AutoencoderKL"),
    "text_encoder": ("transformers.models.clip.modeling_clip", "CLIPTextModel"),
    "tokenizer": ("transformers.models.clip.tokenization_clip", "CLIPTokenizer"),
}
_WEIGHTS: Final = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_UNSUPPORTED_UNET: Final = (
    "class_embed_type",
    "addition_embed_type",
    "time_cond_proj_dim",
    "encoder_hid_dim",
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request gets that does not say: from `upbeat.json` in the model folder where it is there."""

    steps: int = 28
    guidance: float = 5.0


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one model, in eval mode, frozen, on their device. Shared by all jobs: nothing of a job's
    is kept on them."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_class: str
    scheduler_config: dict[str, Any]
    defaults: Defaults
    device: torch.device
    dtype: torch.dtype

    @property
    def parameters(self) -> int:
        """Weights of all three networks."""
        modules = (self.unet, self.vae, self.text_encoder)
        return sum(p.numel() for module in modules for p in module.parameters())

    @property
    def vae_factor(self) -> int:
        """Pixels a latent position stands for, each way."""
        return 1 << (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """Width and height are multiples of this: the VAE's factor times the U-Net's."""
        return self.vae_factor << (len(self.unet.config.block_out_channels) - 1)

    @property
    def own_size(self) -> tuple[int, int]:
        """(width, height) in pixels that the U-Net was made for."""
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return width * self.vae_factor, height * self.vae_factor


def load_components(folder: Path, settings: ImageSettings) -> Components:
    """Read all parts of `folder`.

    Raises: Unsupported naming the class or option; ModelBroken naming the file or tensor at fault.
    """
    index = _read_json(folder / "model_index.json")
    _check_classes(index)
    _check_options(folder)
    _be_quiet()
    dtype: torch.dtype = getattr(torch, settings.dtype)
    device = torch.device(settings.device)
    modules = {part: _load_module(folder, part).to(device, dtype) for part in _WEIGHTS}
    scheduler_config = _read_json(folder / "scheduler" / "scheduler_config.json")
    components = Components(
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoder=modules["text_encoder"],
        tokenizer=_load_tokenizer(folder / "tokenizer"),
        scheduler_class=own_sampler(index["scheduler"][1]),
        scheduler_config={k: v for k, v in scheduler_config.items() if not k.startswith("_")},
        defaults=_read_defaults(folder / "upbeat.json"),
        device=device,
        dtype=dtype,
    )
    _check_fit(components)
    check_samplers(components.scheduler_class, components.scheduler_config)
    return components


def _be_quiet() -> None:
    """No progress bars and advice from the libraries: what is wrong is raised as an error."""
    for library in ("diffusers", "transformers"):
        logging = importlib.import_module(f"{library}.utils.logging")
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def _check_classes(index: dict[str, Any]) -> None:
    found = index.get("_class_name")
    if found != "StableDiffusionPipeline":
        raise Unsupported(f"model_index.json: {found} is not supported, only StableDiffusionPipeline")
    for part, (_, wanted) in _CLASSES.items():
        named = index.get(part)
        if not isinstance(named, list) or len(named) != 2 or not isinstance(named[1], str):
            raise ModelBroken(f"model_index.json: {part} is missing")
        if named[1] not in (wanted, f"{wanted}Fast"):
            raise Unsupported(f"model_index.json: {part} is a {named[1]}; only {wanted} is supported")
    scheduler = index.get("scheduler")
    if not isinstance(scheduler, list) or len(scheduler) != 2:
        raise ModelBroken("model_index.json: scheduler is missing")


def _check_options(folder: Path) -> None:
    """Options that change what goes into a network."""
    unet = _read_json(folder / "unet" / "config.json")
    for option in _UNSUPPORTED_UNET:
        if unet.get(option) is not None:
            raise Unsupported(f"unet/config.json: {option} {unet[option]!r} is not supported")
    if _read_json(folder / "text_encoder" / "config.json").get("use_attention_mask"):
        raise Unsupported("text_encoder/config.json: use_attention_mask is not supported")


def _check_fit(parts: Components) -> None:
    """Parts that do not belong together."""
    unet, vae, text = parts.unet.config, parts.vae.config, parts.text_encoder.config
    if unet.in_channels != vae.latent_channels or unet.out_channels != vae.latent_channels:
        raise Unsupported(
            f"unet/config.json: {unet.in_channels} channels in and {unet.out_channels} out are not supported"
            f" with a VAE of {vae.latent_channels}"
        )
    if unet.sample_size is None:
        raise ModelBroken("unet/config.json: sample_size is missing")
    if unet.cross_attention_dim != text.hidden_size:
        raise ModelBroken(
            f"unet/config.json: cross_attention_dim {unet.cross_attention_dim} differs from"
            f" the text encoder's hidden_size {text.hidden_size}"
        )
    if len(parts.tokenizer) > text.vocab_size:
        raise ModelBroken(
            f"tokenizer: {len(parts.tokenizer)} tokens, but the text encoder has {text.vocab_size}"
        )


def _load_module(folder: Path, part: str) -> Any:
    """One network in float32. Every tensor has to be there: a missing one would be random."""
    where = folder / part
    _read_json(where / "config.json")
    variant = _check_weights(where, _WEIGHTS[part])
    module, name = _CLASSES[part]
    loaded_class = getattr(importlib.import_module(module), name)
    try:
        loaded, report = loaded_class.from_pretrained(
            where,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **({"low_cpu_mem_usage": False} if part != "text_encoder" else {}),
            **{"dtype" if part == "text_encoder" else "torch_dtype": torch.float32},
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ModelBroken(f"{part}: {_first_line(error)}") from error
    for trouble in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report.get(trouble):
            first = sorted(map(str, report[trouble]))[0]
            raise ModelBroken(f"{part}: {trouble.replace('_', ' ')} in the weights, {first} among them")
    return loaded.eval().requires_grad_(False)


def _load_tokenizer(folder: Path) -> Any:
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file() and not (folder / "tokenizer.json").is_file():
            raise ModelBroken(f"tokenizer/{name} is missing")
    module, name = _CLASSES["tokenizer"]
    try:
        loaded = getattr(importlib.import_module(module), name).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelBroken(f"tokenizer: {_first_line(error)}") from error
    if loaded.model_max_length > 10_000:
        raise ModelBroken("tokenizer/tokenizer_config.json: model_max_length is missing")
    return loaded


def _check_weights(folder: Path, stem: str) -> str | None:
    """The variant (None or "fp16") whose files are all there and whole."""
    for variant, suffix in ((None, ""), ("fp16", ".fp16")):
        index = folder / f"{stem}.safetensors.index{suffix}.json"
        whole = folder / f"{stem}{suffix}.safetensors"
        if whole.is_file():
            _check_tensors(whole)
            return variant
        if index.is_file():
            for shard in sorted(set(_read_json(index).get("weight_map", {}).values())):
                _check_tensors(folder / shard)
            return variant
    raise ModelBroken(f"{folder.name}/{stem}.safetensors is missing")


def _check_tensors(path: Path) -> None:
    label = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise ModelBroken(f"{label} is missing")
    try:
        with safe_open(path, framework="pt") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise ModelBroken(f"{label} is broken: {_first_line(error)}") from error


def _read_defaults(path: Path) -> Defaults:
    if not path.is_file():
        return Defaults()
    content = _read_json(path)
    unknown = set(content) - {"steps", "guidance"}
    if unknown:
        raise ModelBroken(f"upbeat.json: unknown key {sorted(unknown)[0]!r}")
    defaults = Defaults(**content)
    if type(defaults.steps) is not int or not 1 <= defaults.steps <= 150:
        raise ModelBroken(f"upbeat.json: steps must be 1 to 150, not {defaults.steps!r}")
    if not isinstance(defaults.guidance, int | float) or not 0 < defaults.guidance <= 30:
        raise ModelBroken(f"upbeat.json: guidance must be above 0 and at most 30, not {defaults.guidance!r}")
    return Defaults(defaults.steps, float(defaults.guidance))


def _read_json(path: Path) -> dict[str, Any]:
    label = (
        path.name if path.name in ("model_index.json", "upbeat.json") else f"{path.parent.name}/{path.name}"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelBroken(f"{label} is missing") from error
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{label} is broken: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelBroken(f"{label} is broken: not a JSON object")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
