"""The VAE: latents to pixels, with the scale and shift of its config."""

from __future__ import annotations

from typing import Any

import torch

from pipelines.contract import ByteArray
from pipelines.image.divisible import divisible, plain


class Vae:
    """A frozen autoencoder on its device, diffusers' AutoencoderKL or AutoencoderDC, which has no posterior
    and no shift. Shared by all jobs; used on the executor thread.

    Latents outside are of about unit deviation, float32 (rows, channels, height, width).
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._scale = float(module.config.scaling_factor)
        self._shift = float(getattr(module.config, "shift_factor", None) or 0.0)
        config = module.config
        self._widths = getattr(config, "block_out_channels", None) or config.decoder_block_out_channels

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.module.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels a latent position stands for, each way."""
        return 1 << (len(self._widths) - 1)

    def encode(self, pixels: ByteArray, noise: torch.Tensor) -> torch.Tensor:
        """uint8 (height, width, 3) to latents (1, channels, height, width), float32, the posterior,
        where there is one, sampled with `noise` of that shape."""
        reference = next(self.module.parameters())
        picture = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1).to(reference)
        macs = pixels.size * 12 * self._widths[0] ** 2
        seen = self.module.encode(divisible(picture, macs), return_dict=False)[0]
        if isinstance(seen, torch.Tensor):
            clean = plain(seen).float()
        else:
            clean = plain(seen.mean).float() + plain(seen.std).float() * noise
        return (clean - self._shift) * self._scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (rows, 3, height, width) in the model's dtype, about [-1, 1]."""
        reference = next(self.module.parameters())
        inside = (latents / self._scale + self._shift).to(reference)
        area = inside[:, 0].numel() * self.factor**2
        macs = area * 36 * self._widths[0] ** 2
        return plain(self.module.decode(divisible(inside, macs), return_dict=False)[0])
