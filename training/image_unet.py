"""The U-Net over 16x16x4 latents, trained from scratch on the states of the frozen text encoder.

v-prediction (Salimans and Ho 2022) on Stable Diffusion's scaled-linear schedule, 10 % empty captions for
classifier-free guidance, an exponential moving average of the weights for export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from training.image_clock import TrainingClock
from training.image_pool import LatentPool
from training.image_text import MAX_TOKENS, TEXT_WIDTH, load_tokenizer, new_text_encoder

_REFRESH_EVERY: Final = 200


def new_scheduler() -> Any:
    """Stable Diffusion's noise schedule, as a DDIM scheduler that starts from pure noise."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def new_unet() -> Any:
    """An untrained U-Net of about 4 M parameters: three levels, cross attention at 8x8 and 4x4."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def token_ids(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """int64 (n, 48), padded and truncated exactly as Stable Diffusion's pipeline does."""
    encoded = tokenizer(
        texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    ids: torch.Tensor = encoded.input_ids
    return ids


class _Ema:
    """Exponential moving average of parameters, with a warm-up so that early steps are forgotten."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.998) -> None:
        self._decay, self.steps = decay, 0
        self.shadow = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (20 + self.steps))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in module.parameters()], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        for parameter, average in zip(module.parameters(), self.shadow, strict=True):
            parameter.copy_(average)


class _Trainer:
    """The U-Net, its average and the optimiser, and the frozen text encoder. Owned by the training thread."""

    def __init__(self, work: Path, device: str) -> None:
        if not (work / "text.pt").exists():
            raise FileNotFoundError(f"no text.pt in {work}: run the stage `text` first")
        self.tokenizer = load_tokenizer(work / "tokenizer")
        self.text = new_text_encoder(self.tokenizer).to(device).eval().requires_grad_(False)
        self.text.load_state_dict(torch.load(work / "text.pt", map_location=device, weights_only=True))
        self.unet = new_unet().to(device).train()
        if (
            device == "cpu"
        ):  # the fused attention's backward pass is slow for short sequences and narrow heads
            self.unet.set_attn_processor(AttnProcessor())
        self.ema = _Ema(self.unet)
        self.optimiser = torch.optim.AdamW(
            self.unet.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.alphas = new_scheduler().alphas_cumprod.to(device)
        self.device, self.step, self.spent_s = device, 0, 0.0

    def loss(self, latents: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """Mean squared error of v for latents (n, 4, 16, 16), at stratified random times."""
        latents = latents.to(self.device)
        with torch.no_grad():
            states = self.text(token_ids(self.tokenizer, texts).to(self.device)).last_hidden_state
        noise = torch.randn_like(latents)
        times = (torch.rand(len(texts)) + torch.arange(len(texts))) * (1000 / len(texts))
        times = times.long().clamp(0, 999)[torch.randperm(len(texts))].to(self.device)
        signal = self.alphas[times].sqrt().view(-1, 1, 1, 1)
        spread = (1 - self.alphas[times]).sqrt().view(-1, 1, 1, 1)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            predicted = self.unet(signal * latents + spread * noise, times, states).sample
        return torch.nn.functional.mse_loss(predicted.float(), signal * noise - spread * latents)

    def update(self, loss: torch.Tensor, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self.ema.update(self.unet)
        self.step += 1

    def save(self, path: Path, spent_s: float) -> None:
        state = {
            "unet": self.unet.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.shadow,
            "ema_steps": self.ema.steps,
            "step": self.step,
            "spent_s": spent_s,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ema.shadow, self.ema.steps = state["ema"], state["ema_steps"]
        self.step, self.spent_s = state["step"], state["spent_s"]


def train_unet(
    work: Path, hours: float, seed: int = 0, device: str = "cpu", batch: int = 24, peak_rate: float = 1e-3
) -> None:
    """Trains, or resumes, the U-Net for `hours` of working time; state in `work`/unet.pt."""
    torch.manual_seed(seed)
    trainer, checkpoint = _Trainer(work, device), work / "unet.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
    pool, smooth = LatentPool(work, seed + trainer.step), 0.0
    with TrainingClock(hours, trainer.spent_s) as clock:
        while clock.progress < 1.0:
            loss = trainer.loss(*pool.batch(batch))
            trainer.update(loss, clock.learning_rate(peak_rate))
            smooth = float(loss.detach()) if not smooth else 0.98 * smooth + 0.02 * float(loss.detach())
            clock.report(f"unet step {trainer.step} loss {smooth:.4f} pool {len(pool)}")
            if trainer.step % _REFRESH_EVERY == 0:
                pool.refresh()
            if clock.save_is_due():
                trainer.save(checkpoint, clock.spent_s)
        trainer.save(checkpoint, clock.spent_s)


def averaged_networks(work: Path) -> tuple[Any, Any, Any]:
    """(unet, text encoder, tokenizer) with the last checkpoint's averaged weights, on the CPU."""
    trainer = _Trainer(work, "cpu")
    trainer.resume(work / "unet.pt")
    trainer.ema.copy_to(trainer.unet)
    return trainer.unet.eval(), trainer.text, trainer.tokenizer
