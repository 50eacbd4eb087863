"""Previews: the linear map resembles what the VAE decodes, and costs little."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pipelines.image.preview import fit_preview
from pipelines.image.samplers import Sampling, predicted_clean
from pipelines.image.vae import Vae


class SmoothVae(torch.nn.Module):
    """Colours that depend on the latents, almost linearly, enlarged eight times."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.mix = torch.nn.Parameter(torch.randn((3, 4), generator=generator) * 0.3)
        self.config = SimpleNamespace(latent_channels=4, scaling_factor=0.5, block_out_channels=(1,) * 4)

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        """Latents before scaling, as a VAE takes them."""
        colours = torch.tanh(torch.einsum("oc,bchw->bohw", self.mix, latents * 0.5) + 0.2)
        return (torch.nn.functional.interpolate(colours, scale_factor=8, mode="bilinear"),)


def small_decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The decoded picture at the size of the latents."""
    pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return torch.nn.functional.adaptive_avg_pool2d(pixels, (latents.shape[2], latents.shape[3]))


def correlation(one: Any, other: Any) -> float:
    """Pearson's, over all pixels and colours."""
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def test_the_map_resembles_a_smooth_vae() -> None:
    vae = SmoothVae()
    with torch.no_grad():
        fitted = fit_preview(Vae(vae))
        coarse = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(8))
        latents = torch.nn.functional.interpolate(coarse, size=(16, 24), mode="bilinear")
        picture = fitted.picture(latents)
        wanted = small_decoded(vae, latents)[0].permute(1, 2, 0)
    assert picture.shape == (16, 24, 3)
    assert picture.dtype == np.uint8
    assert correlation(picture, wanted) > 0.97
    assert np.abs(picture / 127.5 - 1 - wanted.numpy()).mean() < 0.1


def test_the_map_survives_what_is_not_finite() -> None:
    with torch.no_grad():
        fitted = fit_preview(Vae(SmoothVae()))
        assert fitted.picture(torch.full((1, 4, 2, 2), torch.nan)).shape == (2, 2, 3)


def test_clean_prediction_inverts_the_noising() -> None:
    """x0 comes back from a noisy input and a perfect model, for every sampler and prediction."""
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for name in ("ddim", "euler", "dpmpp_2m"):
        for kind in ("epsilon", "v_prediction", "sample"):
            sampler = Sampling("DDIMScheduler", {**config, "prediction_type": kind}).new(name, 10)
            timestep = sampler.timesteps[3:4]
            alpha = sampler.alphas_cumprod[timestep.long()].double()
            a, s = alpha.sqrt().float(), (1 - alpha).sqrt().float()
            outputs = {"epsilon": noise, "v_prediction": a * noise - s * clean, "sample": clean}
            found = predicted_clean(sampler, 3, a * clean + s * noise, outputs[kind])
            torch.testing.assert_close(found, clean, atol=0.02, rtol=0)


def test_previews_cost_little(driver: Any) -> None:
    """At most 2 % of an evaluation of the embedded model's size, which takes about 25 ms on one core."""
    preview = driver.pipeline._preview
    latents = torch.randn(1, 4, 16, 16)
    start = time.thread_time()
    for _ in range(50):
        preview.picture(latents)
    each_ms = (time.thread_time() - start) / 50 * 1000
    print(f"a preview takes {each_ms:.3f} ms")
    assert each_ms < 1.0
