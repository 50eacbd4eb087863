"""LoRA add-ons of one model: loaded once, weighted per row, without touching the model's weights.

Rules:
  1. Weights are never fused. A hook on each changed module adds up(down(x)) to the rows that asked for it;
     rows that did not keep their bits. So a cancelled job leaves nothing behind.
  2. Which rows have asked stands in a context variable of the running call. `interruptible` runs each call in
     a greenlet, and a greenlet has a context of its own: suspended calls do not see each other's.
  3. Rows with the same add-on share its two products, whatever their weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional as nnf

from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.lora_file import Pair, read_lora

Weights = tuple[tuple[str, float], ...]
"""One row's add-ons: (name, weight)."""


@dataclass(frozen=True, slots=True)
class _Share:
    """The rows of one call that use one add-on. rows: their indices, None for all; weights: one each."""

    name: str
    rows: torch.Tensor | None
    weights: torch.Tensor


_SHARES: Final[ContextVar[tuple[_Share, ...]]] = ContextVar("lora_shares", default=())


@contextmanager
def applied(rows: Sequence[Weights], device: torch.device) -> Iterator[None]:
    """Inside, the modules' rows have these add-ons; rows as in the first dimension of what they are given."""
    if not any(rows):
        yield
        return
    before = _SHARES.set(_shares(rows, device))
    try:
        yield
    finally:
        _SHARES.reset(before)


def _shares(rows: Sequence[Weights], device: torch.device) -> tuple[_Share, ...]:
    asked: dict[str, dict[int, float]] = {}
    for index, row in enumerate(rows):
        for name, weight in row:
            asked.setdefault(name, {})[index] = weight
    return tuple(
        _Share(
            name,
            None if len(weights) == len(rows) else torch.tensor(list(weights), device=device),
            torch.tensor(list(weights.values()), device=device),
        )
        for name, weights in asked.items()
    )


class Loras:
    """The add-ons that fit one model. Written while loading; read on the executor thread."""

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        self._modules = modules
        self._pairs: dict[torch.nn.Module, dict[str, Pair]] = {}
        self._names: list[str] = []
        self.refused: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the add-ons that fit."""
        return tuple(self._names)

    def add(self, name: str, path: Path) -> None:
        """Loads one; where it does not fit this model it stands in `refused` with the reason."""
        try:
            pairs = read_lora(path, f"device.loras.{name}", self._modules)
        except (ModelBroken, Unsupported) as error:
            self.refused[name] = error.message
            return
        for module, pair in pairs.items():
            if module not in self._pairs:
                self._pairs[module] = {}
                module.register_forward_hook(self._add_to)
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            self._pairs[module][name] = Pair(pair.down.to(weight), pair.up.to(weight), pair.scale)
        self._names.append(name)

    def _add_to(self, module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        """The hook: adds to the output, which the module has just made, in place."""
        shares = _SHARES.get()
        if not shares:
            return
        pairs = self._pairs[module]
        for share in shares:
            pair = pairs.get(share.name)
            if pair is not None:
                _add(module, pair, share, args[0], output)


def _add(
    module: torch.nn.Module, pair: Pair, share: _Share, inputs: torch.Tensor, output: torch.Tensor
) -> None:
    some = inputs if share.rows is None else inputs.index_select(0, share.rows)
    if isinstance(module, torch.nn.Conv2d):
        change = nnf.conv2d(some, pair.down, None, module.stride, module.padding, module.dilation)
        change = nnf.conv2d(change, pair.up)
    else:
        change = nnf.linear(nnf.linear(some, pair.down), pair.up)
    weights = (share.weights * pair.scale).to(change.dtype)
    change = change * weights.view(-1, *([1] * (change.dim() - 1)))
    if share.rows is None:
        output.add_(change)
    else:
        output.index_add_(0, share.rows, change)
