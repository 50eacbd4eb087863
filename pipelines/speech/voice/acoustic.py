"""The acoustic model: symbols to durations, pitch and energy, then to vocoder frames, block by block.

Parallel, after FastSpeech 2 (Ren et al. 2021): an encoder of convolutions and self-attention over symbols,
predictors on it, and a convolutional decoder over frames whose look-ahead is bounded, so that any block can
be decoded alone. Both parts are lists of layers, so that a caller may yield between them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.speech.voice.config import VoiceConfig
from pipelines.speech.voice.frontend import PACK

PREDICTIONS = 4
"""Per symbol: log frames, pitch at its start and middle, and energy, standardised."""
FRAME_FEATURES = 6
PLACE_FEATURES = 4
BEFORE_FEATURES = 3
PITCH_MEAN, PITCH_SCALE = math.log(180.0), 0.2
ENERGY_MEAN, ENERGY_SCALE = -10.0, 4.0


class ConvBlock(nn.Module):
    """Residual convolution; masked positions are zero before it, so that padding equals an edge."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [rows, length, width], mask [rows, length, 1] of 0.0 and 1.0."""
        inner = (self.norm(x) * mask).transpose(1, 2)
        change: Tensor = self.out(functional.gelu(self.conv(inner).transpose(1, 2)))
        return x + change


class AttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward over symbols."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """As `ConvBlock.forward`; masked positions are not attended to."""
        rows, length, width = x.shape
        parts = self.mix(self.norm(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = mask[:, None, :, 0].bool()[:, None]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + self.join(mixed.transpose(1, 2).reshape(rows, length, width))
        change: Tensor = self.down(functional.gelu(self.up(self.norm_out(x))))
        return x + change


class AcousticModel(nn.Module):
    """Weights and pure functions. `mean` and `scale` standardise the frames."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        width, kernel = config.hidden, config.kernel
        outputs = config.envelope_bands + config.noise_bands
        self.phoneme = nn.Embedding(len(config.phonemes), width)
        self.stress, self.word_end = nn.Embedding(3, width), nn.Embedding(2, width)
        self.closing = nn.Embedding(len(config.phonemes), width)
        self.place = nn.Linear(PLACE_FEATURES + BEFORE_FEATURES, width)
        self.encoder = nn.ModuleList(
            [ConvBlock(width, kernel), ConvBlock(width, kernel)]
            + [AttentionBlock(width, config.attention_heads) for _ in range(config.encoder_layers)]
            + [ConvBlock(width, kernel)]
        )
        self.predict = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.predictions = nn.Linear(width, PREDICTIONS)
        self.enter = nn.Linear(FRAME_FEATURES, width)
        self.decoder = nn.ModuleList([ConvBlock(width, kernel) for _ in range(config.decoder_layers)])
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))
        self.bands = config.envelope_bands
        self.context = config.decoder_layers * (kernel // 2)
        """Frames of look-ahead, and of look-back, of the decoder."""

    def embed(self, ids: Tensor, lengths: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(x, mask) from packed ids [rows, length], lengths [rows] and `before` [rows, 3], which is
        (known, pitch, goes on).
        """
        at = torch.arange(ids.shape[1])[None, :]
        mask = (at < lengths[:, None]).float()[..., None]
        left = (lengths[:, None] - 1 - at).clamp(min=0)
        done = at.expand_as(left)
        place = torch.stack([done / 32.0, left / 32.0, 1.0 / (done + 1.0), 1.0 / (left + 1.0)], -1)
        place = torch.cat([place, before[:, None].expand(-1, ids.shape[1], -1)], -1)
        last = ids.gather(1, (lengths - 1)[:, None]) // PACK
        x = self.phoneme(ids // PACK) + self.stress(ids // 2 % 3) + self.word_end(ids % 2)
        return x + self.place(place) + self.closing(last), mask

    def heads(self, x: Tensor) -> Tensor:
        """[rows, length, PREDICTIONS] from the encoder's output."""
        found: Tensor = self.predictions(self.predict(x))
        return found

    def frames_in(self, x: Tensor, features: Tensor) -> Tensor:
        """Decoder input from the frames' symbols x [rows, frames, width] and `frame_features`."""
        placed: Tensor = self.enter(features)
        return x + placed

    def frames_out(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(log power envelope, noise share in [0, 1]) of the decoder's output."""
        values = self.leave(x) * self.scale + self.mean
        return values[..., : self.bands], values[..., self.bands :].clamp(0.0, 1.0)

    def forward(
        self, ids: Tensor, lengths: Tensor, before: Tensor, symbol: Tensor, features: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced pass for training: (predictions, standardised frame outputs).

        `symbol` [rows, frames] int64 is each frame's symbol, `frames` [rows] the number of frames.
        """
        x, mask = self.embed(ids, lengths, before)
        for layer in self.encoder:
            x = layer(x, mask)
        y = self.frames_in(x.gather(1, symbol[..., None].expand(-1, -1, x.shape[-1])), features)
        inside = (torch.arange(symbol.shape[1])[None, :] < frames[:, None]).float()[..., None]
        for layer in self.decoder:
            y = layer(y, inside)
        return self.heads(x), self.leave(y)


def standard_pitch(hertz: float) -> float:
    """Pitch as the model sees it: about 0 in mean and 1 in deviation."""
    return (math.log(hertz) - PITCH_MEAN) / PITCH_SCALE


def frame_features(durations: Tensor, log_pitch: Tensor) -> tuple[Tensor, Tensor]:
    """(symbol [frames] int64, features [frames, FRAME_FEATURES]) of one clause.

    `durations` [length] int64 frames; `log_pitch` [frames] standardised.
    """
    symbol = torch.repeat_interleave(torch.arange(len(durations)), durations)
    starts = durations.cumsum(0) - durations
    since = (torch.arange(len(symbol)) - starts[symbol]).float()
    long = durations[symbol].float()
    left = long - 1.0 - since
    features = [
        (since + 0.5) / long,
        torch.exp(-since / 2),
        torch.exp(-left / 2),
        torch.exp(-since / 8),
        long / 20.0,
    ]
    return symbol, torch.stack([*features, log_pitch], -1)


def pitch_curve(points: Tensor, durations: Tensor) -> Tensor:
    """[frames] of a line through each symbol's start and middle value; `points` [length, 2]."""
    ends = durations.cumsum(0)
    starts = (ends - durations).double()
    middles = starts + durations.double() / 2
    knots = torch.stack([starts, middles], -1).reshape(-1)
    values = points.double().reshape(-1)
    at = torch.arange(int(ends[-1]), dtype=torch.float64)
    right = torch.searchsorted(knots, at, right=True).clamp(1, len(knots) - 1)
    low, high = knots[right - 1], knots[right]
    part = ((at - low) / (high - low).clamp(min=1e-9)).clamp(0.0, 1.0)
    return torch.lerp(values[right - 1], values[right], part).float()
