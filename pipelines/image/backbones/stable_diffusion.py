"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a U-Net told by one CLIP text encoder.

Latent consistency models (Luo et al. 2023) are the same with guidance distilled into the U-Net, which is
told its strength as an embedding: one pass, and four steps or so. A ControlNet (Zhang et al. 2023), where
the folder has one, follows an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipelines.contract import ByteArray
from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.backbones.base import Conditioning, Pass, Prompt, stacked
from pipelines.image.backbones.text import check_vocabulary, ids_of, padded_tokens
from pipelines.image.divisible import divisible, plain

CONTROL_PARTS: Final = {"controlnet": ("ControlNetModel",)}
CONTROL_UNSUPPORTED: Final = {"controlnet": ("global_pool_conditions", "class_embed_type", "encoder_hid_dim")}
PARTS: Final = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer",),
}
UNSUPPORTED: Final = {
    "unet": ("class_embed_type", "addition_embed_type", "encoder_hid_dim"),
    "text_encoder": ("use_attention_mask",),
}


class StableDiffusion:
    """`Backbone` of the family."""

    takes_negative = True
    largest = 0

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.network = parts["unet"]
        self.control = parts.get("controlnet")
        self._tokenizers = tuple(parts[name] for name in sorted(parts) if name.startswith("tokenizer"))
        self.encoders = tuple(parts[name] for name in sorted(parts) if name.startswith("text_encoder"))
        self._check()

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels)

    @property
    def own_size(self) -> tuple[int, int]:
        side = self.network.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return width, height

    @property
    def multiple(self) -> int:
        return 1 << (len(self.network.config.block_out_channels) - 1)

    @property
    def context_tokens(self) -> int:
        return int(self._tokenizers[0].model_max_length)

    @property
    def distilled(self) -> bool:
        """Whether guidance is told as an embedding."""
        return self.network.config.time_cond_proj_dim is not None

    def guided(self, guidance: float) -> bool:
        return guidance > 1 and not self.distilled

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        return list(zip(*(padded_tokens(each, texts) for each in self._tokenizers), strict=True))

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        told = self._told(passes)
        if self.distilled:
            told["guidance"] = self._guidance(passes).to(next(iter(told.values())))
        made = []
        for n, each in enumerate(passes):
            kept = {name: rows[n : n + 1].clone() for name, rows in told.items()}
            if self.control is not None and each.control is not None:
                kept |= _followed(each.control, each.control_strength, kept["text"])
            made.append(Conditioning(kept))
        return made

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        macs = unet_macs(self.network, latents)
        inputs = divisible(latents, macs), times, divisible(stacked(conditioning, "text"), macs)
        told: dict[str, Any] = {"added_cond_kwargs": self._added(conditioning), "return_dict": False}
        residuals: dict[str, Any] = {}
        if self.control is not None and any("strength" in each.tensors for each in conditioning):
            down, middle = self._residuals(inputs, told, conditioning, macs)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        if self.distilled:
            told["timestep_cond"] = stacked(conditioning, "guidance")
        return plain(self.network(*inputs, **told, **residuals)[0])

    def _residuals(
        self, inputs: tuple[Any, ...], told: dict[str, Any], conditioning: Sequence[Conditioning], macs: int
    ) -> Any:
        """What the control network adds at each level; nothing (zero times it) in rows without an image."""
        first = next(each.tensors for each in conditioning if "strength" in each.tensors)
        images, strengths = [], []
        for each in conditioning:
            images.append(each.tensors.get("control", first["control"]))
            strengths.append(each.tensors.get("strength", torch.zeros_like(first["strength"])))
        assert self.control is not None
        return self.control(
            *inputs,
            controlnet_cond=divisible(torch.cat(images), macs),
            conditioning_scale=torch.cat(strengths)[:, None, None, None],
            **told,
        )

    def _told(self, passes: Sequence[Pass]) -> dict[str, torch.Tensor]:
        """Of all passes, by name, the first dimension theirs."""
        (encoder,) = self.encoders
        ids = ids_of(passes, 0, encoder)
        macs = ids.numel() * encoder.config.hidden_size * encoder.config.intermediate_size
        return {"text": plain(encoder(divisible(ids, macs)).last_hidden_state)}

    def _added(self, conditioning: Sequence[Conditioning]) -> dict[str, torch.Tensor] | None:
        """What the U-Net is told beside the text."""
        return None

    def _guidance(self, passes: Sequence[Pass]) -> torch.Tensor:
        """Sines and cosines of the strength, as of a time (passes, width)."""
        width = int(self.network.config.time_cond_proj_dim)
        half = width // 2
        steps = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
        strength = torch.tensor([each.guidance - 1 for each in passes])
        angles = strength[:, None] * 1000.0 * steps
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        return torch.nn.functional.pad(waves, (0, width - 2 * half))

    def _text_width(self) -> int:
        return int(self.encoders[0].config.hidden_size)

    def _check(self) -> None:
        """Parts that do not belong together."""
        unet, width = self.network.config, self._text_width()
        if unet.in_channels != unet.out_channels:
            raise Unsupported(
                f"unet/config.json: {unet.in_channels} channels in and {unet.out_channels} out are not"
                " supported"
            )
        if unet.sample_size is None:
            raise ModelBroken("unet/config.json: sample_size is missing")
        if unet.cross_attention_dim != width:
            raise ModelBroken(
                f"unet/config.json: cross_attention_dim {unet.cross_attention_dim} differs from"
                f" the text encoder's hidden_size {width}"
            )
        for number, (tokenizer, encoder) in enumerate(zip(self._tokenizers, self.encoders, strict=True), 1):
            end = f"_{number}" if number > 1 else ""
            known = encoder.config.vocab_size
            check_vocabulary(f"tokenizer{end}", len(tokenizer), f"text_encoder{end}", known)


def _followed(pixels: ByteArray, strength: float, like: torch.Tensor) -> dict[str, torch.Tensor]:
    """The control image from 0 to 1 (1, 3, height, width), and how strongly it steers (1,)."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    return {"control": image.to(like), "strength": torch.tensor([strength]).to(like)}


def unet_macs(unet: Any, latents: torch.Tensor) -> int:
    """Multiply-adds of the longest operation: a 3x3 convolution of the top level, from the channels of two
    levels to those of the first; or the top level's attention, a quarter of whose cost is its softmax."""
    inputs, _, height, width = latents.shape
    top: int = unet.config.block_out_channels[0]
    return inputs * max(height * width * 27 * top**2, (height * width) ** 2 * 4 * top)
