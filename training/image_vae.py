"""The f8 autoencoder: 128x128x3 pictures to 16x16x4 latents and back, convolutions only.

Trained on random 64x64 crops (cheap), then on whole pictures, so that group statistics fit
what will be decoded. Loss: L1 and squared error on pixels, L1 on differences between neighbours at two
scales, a light KL term (Rombach et al. 2022).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as nnf

from training.image_clock import TrainingClock
from training.image_renderer import SIDE, render
from training.image_scene import draw_scene, is_held_out

Pictures = npt.NDArray[np.uint8]
_CROP: Final = 64
_POOL: Final = 1536
_KL_WEIGHT: Final = 2e-4


def new_vae() -> Any:
    """An untrained AutoencoderKL of about 0.9 M parameters; scaling_factor still 1."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def training_picture(rng: np.random.Generator) -> Pictures:
    """One rendered picture of a scene that training may see."""
    while is_held_out(scene := draw_scene(rng)):
        continue
    return render(scene, rng)


def to_tensor(pictures: Pictures) -> torch.Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _differences(error: torch.Tensor) -> torch.Tensor:
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()


def _loss(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The training loss and the mean squared error, in units of [-1, 1] pixels."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    error = decoded.float() - pixels
    edges = _differences(error) + _differences(nnf.avg_pool2d(error, 2))
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1.0 - posterior.logvar.float()).mean()
    squared = (error**2).mean()
    return error.abs().mean() + 0.5 * edges + squared + _KL_WEIGHT * kl, squared.detach()


class _CropPool:
    """A rolling pool of rendered pictures from which batches of crops are cut."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pictures = np.stack([training_picture(self._rng) for _ in range(128)])
        self._next = 0

    def _renew(self, count: int) -> None:
        for _ in range(count):
            picture = training_picture(self._rng)
            if len(self._pictures) < _POOL:
                self._pictures = np.concatenate([self._pictures, picture[None]])
            else:
                self._pictures[self._next] = picture
                self._next = (self._next + 1) % _POOL

    def batch(self, whole: bool) -> torch.Tensor:
        self._renew(3)
        if whole:
            return to_tensor(self._pictures[self._rng.integers(len(self._pictures), size=4)])
        crops = []
        for index in self._rng.integers(len(self._pictures), size=16):
            y, x = self._rng.integers(SIDE - _CROP + 1, size=2)
            crops.append(self._pictures[index, y : y + _CROP, x : x + _CROP])
        return to_tensor(np.stack(crops))


def train_vae(
    work: Path, hours: float, seed: int = 0, device: str = "cpu", peak_rate: float = 1.5e-3
) -> None:
    """Trains, or resumes, the autoencoder for `hours` of working time; state in `work`/vae.pt."""
    torch.manual_seed(seed)
    vae = new_vae().to(device).train()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.0)
    checkpoint, spent_s, step = work / "vae.pt", 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        spent_s, step = state["spent_s"], state["step"]
    pool, smooth = _CropPool(seed + step), 0.0

    def save(spent: float) -> None:
        state = {"vae": vae.state_dict(), "optimiser": optimiser.state_dict(), "spent_s": spent, "step": step}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)

    with TrainingClock(hours, spent_s) as clock:
        while clock.progress < 1.0:
            for group in optimiser.param_groups:
                group["lr"] = clock.learning_rate(peak_rate)
            loss, squared = _loss(vae, pool.batch(whole=clock.progress > 0.7).to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimiser.step()
            step += 1
            smooth = float(squared) if not smooth else 0.98 * smooth + 0.02 * float(squared)
            clock.report(f"vae step {step} psnr {10 * np.log10(4.0 / smooth):.2f} dB")
            if clock.save_is_due():
                save(clock.spent_s)
        save(clock.spent_s)


@torch.no_grad()
def encode(vae: Any, pictures: Pictures, batch: int = 32) -> torch.Tensor:
    """Means of the latents of uint8 pictures (n, 128, 128, 3): float32 (n, 4, 16, 16), not scaled."""
    chunks = [
        vae.encode(to_tensor(pictures[i : i + batch])).latent_dist.mode()
        for i in range(0, len(pictures), batch)
    ]
    return torch.cat(chunks).float()


@torch.no_grad()
def reconstruction_psnr(vae: Any, pictures: Pictures) -> float:
    """Peak signal-to-noise ratio in dB over uint8 pictures (n, 128, 128, 3), encoded and decoded in fp32."""
    decoded = vae.decode(encode(vae, pictures)).sample.clamp(-1, 1)
    return float(10 * torch.log10(4.0 / ((decoded - to_tensor(pictures)) ** 2).mean()))
