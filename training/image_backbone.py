"""Trains a backbone, U-Net or transformer, over 16x16x4 latents on the states of the frozen text encoder.

v-prediction (Salimans and Ho 2022) on Stable Diffusion's scaled-linear schedule, 10 % empty captions for
classifier-free guidance, an exponential moving average of the weights for export. An auxiliary head reads,
from inside the network, what each cell of the clean picture shows (kind and colour): the noisy picture alone
does not tell, so this teaches early on where the caption's objects go, as aligning inner states does (REPA,
Yu et al. 2025). The head is thrown away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from diffusers import DDIMScheduler
from torch.nn import functional as nnf

from training.image_cells import COLOUR_CLASSES, KIND_CLASSES
from training.image_clock import TrainingClock
from training.image_pool import LatentPool
from training.image_text import MAX_TOKENS, load_tokenizer, new_text_encoder

CELL_LOGITS: Final = KIND_CLASSES + COLOUR_CLASSES
_CELL_WEIGHT: Final = 0.1
_REFRESH_EVERY: Final = 200


class Caption(NamedTuple):
    """Encoded captions: states float32 (n, tokens, 128), and 1 where a token is not padding, (n, tokens)."""

    states: torch.Tensor
    mask: torch.Tensor


class Backbone(torch.nn.Module):
    """A network with its auxiliary head. `forward`: v, and logits of cells (n, CELL_LOGITS, 16, 16)."""

    name: str
    network: Any
    head: torch.nn.Module
    whole_captions: bool  # whether the network listens to padding too, as Stable Diffusion's does
    batch: int
    peak_rate: float

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """AdamW over the network and the head."""
        return [torch.optim.AdamW(self.parameters(), lr=self.peak_rate, betas=(0.9, 0.98), weight_decay=0.01)]


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


def cell_loss(logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Cross entropy of kinds and of colours, for logits (n, CELL_LOGITS, 16, 16), labels (n, 2, 16, 16)."""
    kinds, colours = torch.split(logits.float(), [KIND_CLASSES, COLOUR_CLASSES], dim=1)
    labels = cells.long()
    return nnf.cross_entropy(kinds, labels[:, 0]) + nnf.cross_entropy(colours, labels[:, 1])


def draw_times(rows: int) -> torch.Tensor:
    """int64 (rows,) in [0, 999], stratified; densest around 660, where it is settled what stands where.

    Three times as dense in the middle as at the ends, then shifted towards noise by two (Esser et al. 2024).
    """
    even = (torch.rand(rows) + torch.randperm(rows)) / rows
    times = even + torch.sin(2 * torch.pi * even) / (4 * torch.pi)
    return (2000 * times / (1 + times)).long().clamp(0, 999)


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


class Trainer:
    """A backbone, its average and optimisers, and the frozen text encoder. Owned by the training thread."""

    def __init__(self, work: Path, backbone: Backbone, device: str) -> None:
        if not (work / "text.pt").exists():
            raise FileNotFoundError(f"no text.pt in {work}: run the stage `text` first")
        self.tokenizer = load_tokenizer(work / "tokenizer")
        self.text = new_text_encoder(self.tokenizer).to(device).eval().requires_grad_(False)
        self.text.load_state_dict(torch.load(work / "text.pt", map_location=device, weights_only=True))
        self.backbone = backbone.to(device).train()
        self.ema = _Ema(backbone.network)
        self._optimisers = backbone.optimisers()
        self._alphas = new_scheduler().alphas_cumprod.to(device)
        self._checkpoint = work / f"{backbone.name}.pt"
        self._device, self.step, self.spent_s = device, 0, 0.0

    def encode(self, texts: list[str]) -> Caption:
        """States of the captions, padded to 48 tokens as the pipelines do, or to the longest one."""
        encoded = self.tokenizer(
            texts,
            padding="max_length" if self.backbone.whole_captions else "longest",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self._device)
        with torch.no_grad():
            states = self.text(encoded.input_ids).last_hidden_state
        return Caption(states, encoded.attention_mask)

    def loss(
        self, latents: torch.Tensor, cells: torch.Tensor, texts: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared error of v at random times, and the head's loss, for latents (n, 4, 16, 16)."""
        latents, rows = latents.to(self._device), len(texts)
        noise = torch.randn_like(latents)
        times = draw_times(rows).to(self._device)
        signal = self._alphas[times].sqrt().view(-1, 1, 1, 1)
        spread = (1 - self._alphas[times]).sqrt().view(-1, 1, 1, 1)
        with torch.autocast(torch.device(self._device).type, torch.bfloat16):
            predicted, logits = self.backbone(signal * latents + spread * noise, times, self.encode(texts))
        error = nnf.mse_loss(predicted.float(), signal * noise - spread * latents)
        return error, cell_loss(logits, cells.to(self._device))

    def update(self, loss: torch.Tensor, share: float) -> None:
        """One optimiser step at `share` of the peak learning rate."""
        self.backbone.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), 1.0)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = share * self.backbone.peak_rate
            optimiser.step()
        self.ema.update(self.backbone.network)
        self.step += 1

    def save(self, spent_s: float) -> None:
        state = {
            "backbone": self.backbone.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "ema": self.ema.shadow,
            "ema_steps": self.ema.steps,
            "step": self.step,
            "spent_s": spent_s,
        }
        torch.save(state, self._checkpoint.with_suffix(".tmp"))
        self._checkpoint.with_suffix(".tmp").replace(self._checkpoint)

    def resume(self) -> bool:
        """Goes on from the checkpoint; False where there is none."""
        if not self._checkpoint.exists():
            return False
        state = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
        self.backbone.load_state_dict(state["backbone"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.ema.shadow, self.ema.steps = state["ema"], state["ema_steps"]
        self.step, self.spent_s = state["step"], state["spent_s"]
        return True


def train_backbone(
    work: Path, backbone: Backbone, hours: float, seed: int = 0, device: str = "cpu", peak: float = 1.0
) -> None:
    """Trains, or resumes, a backbone for `hours` of working time; state in `work`/NAME.pt.

    The learning rate rises to `peak` of the backbone's own, then falls.
    """
    trainer = Trainer(work, backbone, device)
    trainer.resume()
    torch.manual_seed(seed + trainer.step)
    pool = LatentPool(work, seed + trainer.step)
    smooth = [0.0, 0.0]
    with TrainingClock(hours, trainer.spent_s) as clock:
        while clock.progress < 1.0:
            error, labels = trainer.loss(*pool.batch(backbone.batch))
            trainer.update(error + _CELL_WEIGHT * labels, clock.learning_rate(peak, floor=0.01))
            for index, value in enumerate((float(error.detach()), float(labels.detach()))):
                smooth[index] = 0.98 * smooth[index] + 0.02 * value if smooth[index] else value
            clock.report(f"{backbone.name} step {trainer.step} loss {smooth[0]:.4f} cells {smooth[1]:.3f}")
            if trainer.step % _REFRESH_EVERY == 0:
                pool.refresh()
            if clock.save_is_due():
                trainer.save(clock.spent_s)
        trainer.save(clock.spent_s)


def averaged(work: Path, backbone: Backbone) -> tuple[Any, Any, Any]:
    """(network, text encoder, tokenizer) with the last checkpoint's averaged weights, on the CPU."""
    trainer = Trainer(work, backbone, "cpu")
    if not trainer.resume():
        raise FileNotFoundError(f"no {backbone.name}.pt in {work}: run the stage `{backbone.name}` first")
    trainer.ema.copy_to(backbone.network)
    return backbone.network.eval(), trainer.text, trainer.tokenizer
