"""Loads an image model: a folder in diffusers' layout (model_index.json and a folder for each part)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.backbones import (
    flux,
    pixart,
    sana,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
)
from pipelines.image.backbones.base import Backbone
from pipelines.image.folder import ModelFolder, be_quiet
from pipelines.image.lora import Loras
from pipelines.image.samplers import Sampling
from pipelines.image.settings import ImageSettings
from pipelines.image.vae import Vae


@dataclass(frozen=True, slots=True)
class Family:
    """What a pipeline class of model_index.json means. parts: the classes that each part may have, the VAE
    aside; unsupported: options of a part's config that change what its network is told; build: makes the
    backbone of the loaded parts and model_index.json; optional: parts that a folder may leave out; linear: as
    in `samplers.Sampling`."""

    name: str
    parts: Mapping[str, tuple[str, ...]]
    unsupported: Mapping[str, tuple[str, ...]]
    build: Callable[[Mapping[str, Any], Mapping[str, Any]], Backbone]
    optional: tuple[str, ...] = ()
    linear: bool = False
    vae: tuple[str, ...] = ("AutoencoderKL",)


def _with_control(family: Family) -> Family:
    return replace(
        family,
        parts={**family.parts, **stable_diffusion.CONTROL_PARTS},
        unsupported={**family.unsupported, **stable_diffusion.CONTROL_UNSUPPORTED},
    )


_SD: Final = Family(
    "stable-diffusion",
    stable_diffusion.PARTS,
    stable_diffusion.UNSUPPORTED,
    stable_diffusion.StableDiffusion,
)
_PIXART: Final = Family("pixart", pixart.PARTS, pixart.UNSUPPORTED, pixart.PixArt)
_XL: Final = Family(
    "stable-diffusion-xl",
    stable_diffusion_xl.PARTS,
    stable_diffusion_xl.UNSUPPORTED,
    stable_diffusion_xl.StableDiffusionXl,
)
FAMILIES: Final = {
    "StableDiffusionPipeline": _SD,
    "LatentConsistencyModelPipeline": _SD,
    "StableDiffusionControlNetPipeline": _with_control(_SD),
    "StableDiffusionXLPipeline": _XL,
    "StableDiffusionXLControlNetPipeline": _with_control(_XL),
    "StableDiffusion3Pipeline": Family(
        "stable-diffusion-3",
        stable_diffusion_3.PARTS,
        stable_diffusion_3.UNSUPPORTED,
        stable_diffusion_3.StableDiffusion3,
        optional=stable_diffusion_3.OPTIONAL,
    ),
    "FluxPipeline": Family("flux", flux.PARTS, flux.UNSUPPORTED, flux.Flux, linear=True),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "SanaPipeline": Family("sana", sana.PARTS, sana.UNSUPPORTED, sana.Sana, vae=("AutoencoderDC",)),
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request gets that does not say: from `upbeat.json` in the model folder where it is there."""

    steps: int = 28
    guidance: float = 5.0


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one model, in eval mode, frozen, on their device. Shared by all jobs: nothing of a job's
    is kept on them."""

    family: str
    backbone: Backbone
    vae: Vae
    sampling: Sampling
    defaults: Defaults
    loras: Loras
    device: torch.device
    dtype: torch.dtype

    @property
    def parameters(self) -> int:
        """Weights of all networks."""
        return sum(p.numel() for module in self.modules for p in module.parameters())

    @property
    def modules(self) -> tuple[Any, ...]:
        """All networks."""
        control = () if self.backbone.control is None else (self.backbone.control,)
        return (self.backbone.network, *control, self.vae.module, *self.backbone.encoders)

    @property
    def multiple(self) -> int:
        """Width and height in pixels are multiples of this: the VAE's factor times the network's."""
        return self.vae.factor * self.backbone.multiple

    @property
    def largest(self) -> int:
        """Pixels of width and of height that the network can tell apart; 0 for any number."""
        return self.vae.factor * self.backbone.largest

    def patches(self, width: int, height: int) -> int:
        """What flows call the length of an image of that size, in pixels."""
        side = self.vae.factor * self.backbone.multiple
        return width // side * (height // side)

    @property
    def own_size(self) -> tuple[int, int]:
        """(width, height) in pixels that the network was made for."""
        width, height = self.backbone.own_size
        return width * self.vae.factor, height * self.vae.factor


def load_components(path: Path, settings: ImageSettings) -> Components:
    """Read all parts of a folder.

    Raises: Unsupported naming the class or option; ModelBroken naming the file or tensor at fault.
    """
    folder = ModelFolder(path)
    family = _family(folder)
    classes = _classes(folder, {**family.parts, "vae": family.vae}, family.optional)
    _check_options(folder, family)
    be_quiet()
    sampling = _sampling(folder, family)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    device = torch.device(settings.device)
    parts: dict[str, Any] = {}
    for part, name in classes.items():
        if part.startswith("tokenizer"):
            parts[part] = folder.tokenizer(part, name)
        else:
            parts[part] = folder.network(part, name).to(device, dtype)
    backbone = family.build(parts, folder.index)
    components = Components(
        family=family.name,
        backbone=backbone,
        vae=Vae(parts["vae"]),
        sampling=sampling,
        defaults=_defaults(folder.settings, _usual(sampling, backbone)),
        loras=_loras(backbone, settings.loras),
        device=device,
        dtype=dtype,
    )
    if components.backbone.channels != components.vae.channels:
        raise Unsupported(
            f"model_index.json: a network of {components.backbone.channels} channels is not supported with a"
            f" VAE of {components.vae.channels}"
        )
    return components


def _family(folder: ModelFolder) -> Family:
    found = folder.index.get("_class_name")
    if found not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise Unsupported(f"model_index.json: {found} is not supported; supported are {known}")
    return FAMILIES[found]


def _classes(
    folder: ModelFolder, wanted: Mapping[str, tuple[str, ...]], optional: tuple[str, ...]
) -> dict[str, str]:
    """The class of each part. Tokenizers may say that they are fast ones: in transformers they all are."""
    classes: dict[str, str] = {}
    for part, supported in wanted.items():
        named = folder.class_of(part)
        if named is None and part in optional:
            continue
        if named is None:
            raise ModelBroken(f"model_index.json: {part} is missing")
        if part.startswith("tokenizer"):
            named = named.removesuffix("Fast")
        if named not in supported:
            only = " or ".join(supported)
            raise Unsupported(f"model_index.json: {part} is a {named}; only {only} is supported")
        classes[part] = named
    return classes


def _check_options(folder: ModelFolder, family: Family) -> None:
    for part, options in family.unsupported.items():
        config = folder.config(part)
        for option in options:
            if config.get(option):
                raise Unsupported(f"{part}/config.json: {option} {config[option]!r} is not supported")


def _sampling(folder: ModelFolder, family: Family) -> Sampling:
    """Checked."""
    named = folder.class_of("scheduler")
    if named is None:
        raise ModelBroken("model_index.json: scheduler is missing")
    config = folder.config("scheduler", "scheduler_config.json")
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    sampling = Sampling(named, public, family.linear)
    sampling.check()
    return sampling


def _usual(sampling: Sampling, backbone: Backbone) -> Defaults:
    """Where upbeat.json says nothing. Few-step models are known by their scheduler: consistency models by its
    class, adversarially distilled ones (Turbo, Lightning) by Euler steps that start at the very end. These
    take no guidance, unless it is told to the network."""
    few = sampling.own_class == "LCMScheduler" or (
        sampling.own_class in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
        and sampling.config.get("timestep_spacing") == "trailing"
    )
    if few:
        return Defaults(4, 8.5 if backbone.distilled else 1.0)
    return Defaults()


def _loras(backbone: Backbone, files: Iterable[tuple[str, str]]) -> Loras:
    encoders = {
        f"text_encoder_{n}" if n > 1 else "text_encoder": e for n, e in enumerate(backbone.encoders, 1)
    }
    loras = Loras({"network": backbone.network, **encoders})
    for name, path in files:
        loras.add(name, Path(path).expanduser())
    return loras


def _defaults(content: Mapping[str, Any], usual: Defaults) -> Defaults:
    unknown = set(content) - {"steps", "guidance", "shared"}
    if unknown:
        raise ModelBroken(f"upbeat.json: unknown key {sorted(unknown)[0]!r}")
    defaults = replace(usual, **{key: value for key, value in content.items() if key != "shared"})
    if type(defaults.steps) is not int or not 1 <= defaults.steps <= 150:
        raise ModelBroken(f"upbeat.json: steps must be 1 to 150, not {defaults.steps!r}")
    if not isinstance(defaults.guidance, int | float) or not 0 < defaults.guidance <= 30:
        raise ModelBroken(f"upbeat.json: guidance must be above 0 and at most 30, not {defaults.guidance!r}")
    return Defaults(defaults.steps, float(defaults.guidance))
