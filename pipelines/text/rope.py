"""Rotary positions (Su et al., 2021) and the scalings in use: linear, Llama 3, YaRN (Peng et al., 2023).

"dynamic" scaling leaves positions within `max_position_embeddings` as they are, and that is our context
limit for it: beyond, the frequencies would depend on how long the text had become when a token was
computed, so the same text in other chunks would get another answer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pipelines.text.config import ModelConfig, RopeConfig


def rotation_tables(config: ModelConfig, length: int) -> dict[int, Tensor]:
    """The table of each window that a layer has (0: none)."""
    tables = {}
    for window in set(config.windows):
        rope = config.window_rope if window and config.window_rope is not None else config.rope
        tables[window] = rotation_table(config, rope, length)
    return tables


def rotation_table(config: ModelConfig, rope: RopeConfig, length: int) -> Tensor:
    """e^(i * position * frequency), complex64 `[length, head_dim / 2]`, times the root of the scores' scale:
    turned queries and keys then give scores that are already scaled."""
    frequencies, scale = _frequencies(config.head_dim, rope)
    scale *= config.score_scale**0.5
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return torch.complex(angles.cos() * scale, angles.sin() * scale)


def _frequencies(size: int, rope: RopeConfig) -> tuple[Tensor, float]:
    """Inverse frequencies `[size / 2]`, fp32, and the factor on cosines and sines."""
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    plain = 1.0 / (rope.theta**exponents)
    parameters = rope.parameters
    if rope.kind == "linear":
        return plain / parameters["factor"], 1.0
    if rope.kind == "llama3":
        return _llama3(plain, parameters), 1.0
    if rope.kind == "yarn":
        return _yarn(plain, size, rope), _yarn_scale(parameters)
    return plain, 1.0


def _llama3(plain: Tensor, parameters: dict[str, Any]) -> Tensor:
    """Low frequencies are divided by `factor`, high ones kept, those between blended."""
    context, factor = parameters["original_max_position_embeddings"], parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    wavelength = 2 * math.pi / plain
    blend = ((context / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    scaled: Tensor = (1 - blend) * plain / factor + blend * plain
    return scaled


def _yarn(plain: Tensor, size: int, rope: RopeConfig) -> Tensor:
    """Between two numbers of rotations over the trained context, a ramp from kept to interpolated."""
    parameters = rope.parameters
    context = parameters["original_max_position_embeddings"]

    def pair(rotations: float) -> float:
        return size * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair(parameters.get("beta_fast") or 32), pair(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(size // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    scaled: Tensor = plain / parameters["factor"] * ramp + plain * (1 - ramp)
    return scaled


def _yarn_scale(parameters: dict[str, Any]) -> float:
    given = parameters.get("attention_factor")
    if given is not None:
        return float(given)

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(parameters["factor"]) + 1.0 if parameters["factor"] > 1 else 1.0

    weight, over = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return magnitude(weight) / magnitude(over) if weight and over else magnitude(1.0)
