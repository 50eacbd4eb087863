"""Weight-only quantisation to int8 or int4 in groups along the input: what the products of a GPU take where
weights are rounded (`kernels.linear`), and their specification in plain torch.

Every group of `group` inputs of one output has a scale: greatest magnitude / 127 or / 7; no zero point. int8:
numbers `[out, in]`. int4: uint8 `[out, in / 2]`, plus 8; in each group the low halves of its bytes are its
first half of inputs and the high halves its second, so that both halves are read in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 128
# Rows that the kernel takes: the side of its tile, so that more up to it cost nothing.
MOST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Quantised:
    """A weight `[out, in]`: `numbers` as above, `scales` `[out, in / group]` in the dtype of the weight."""

    numbers: Tensor
    scales: Tensor
    bits: int
    group: int

    def widened(self, dtype: torch.dtype) -> Tensor:
        """`[out, in]`; the numbers are exact in every dtype, so each weight is rounded once."""
        outputs, groups = self.scales.shape
        if self.bits == 8:
            whole = self.numbers.view(outputs, groups, self.group).to(dtype)
        else:
            pairs = self.numbers.view(outputs, groups, self.group // 2)
            whole = torch.cat((pairs & 15, pairs >> 4), dim=-1).to(dtype).sub_(8)
        return whole.mul_(self.scales.to(dtype).unsqueeze(-1)).view(outputs, -1)


def quantise(weight: Tensor, bits: int, group: int = GROUP) -> Quantised:
    """Rounded to nearest. Raises: ValueError where the inputs are no multiple of the group."""
    outputs, inputs = weight.shape
    if bits not in (4, 8):
        raise ValueError(f"bits: {bits} is neither 4 nor 8")
    if inputs % group or group % 32:
        raise ValueError(f"group: {inputs} inputs are no multiple of {group}, or that is none of 32")
    most = 127 if bits == 8 else 7
    grouped = weight.view(outputs, -1, group).float()
    scales = (grouped.abs().amax(-1) / most).to(weight.dtype)
    divisor = scales.float().unsqueeze(-1)
    whole = (grouped / torch.where(divisor > 0, divisor, 1.0)).round().clamp(-most, most)
    if bits == 8:
        return Quantised(whole.to(torch.int8).view(outputs, inputs), scales, bits, group)
    low, high = (whole + 8).to(torch.uint8).chunk(2, dim=-1)
    return Quantised((low | high << 4).reshape(outputs, inputs // 2), scales, bits, group)


def quantised_linear(x: Tensor, weight: Quantised) -> Tensor:
    """x `[rows, in]` times the weight, in the dtype of x."""
    return F.linear(x, weight.widened(x.dtype))
