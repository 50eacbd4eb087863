"""What the denoising loop knows of a family: `Backbone`. The loop never calls a network itself.

Rules:
  1. A backbone keeps nothing of a job: what a row needs stands in its `Conditioning`, made once, at encode.
  2. A row's output depends on its own inputs alone, whatever rows stand beside it (but for rounding).
  3. Latents are (rows, channels, height, width) outside, whatever the network packs them into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pipelines.contract import ByteArray


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text for one text encoder: ids, padded on the right where the encoder wants it so; the first
    `length` are the text's own."""

    ids: tuple[int, ...]
    length: int


Prompt = tuple[Tokens, ...]
"""One text for all text encoders of a family, in its order."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of one row before it is encoded: the text, whether there is none, and what a family may
    want to know; sizes in pixels. control: an image to follow, uint8 (height, width, 3)."""

    prompt: Prompt
    width: int
    height: int
    guidance: float
    empty: bool = False
    control: ByteArray | None = None
    control_strength: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What the network is told in one pass of one row, beside latents and time: tensors by name, each with a
    leading dimension of 1, in the model's dtype."""

    tensors: Mapping[str, torch.Tensor]

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(each.numel() * each.element_size() for each in self.tensors.values())


class Backbone(Protocol):
    """One family's network and text encoders. Shared by all jobs; used on the executor thread, but for
    `tokenize`."""

    @property
    def network(self) -> Any:
        """The module that an evaluation calls."""

    @property
    def encoders(self) -> tuple[Any, ...]:
        """The text encoders."""

    @property
    def control(self) -> Any | None:
        """The network that follows a control image, if there is one."""

    @property
    def channels(self) -> int:
        """Of the latents."""

    @property
    def own_size(self) -> tuple[int, int]:
        """(width, height) in latent positions that the network was made for."""

    @property
    def multiple(self) -> int:
        """Width and height, in latent positions, are multiples of this."""

    @property
    def largest(self) -> int:
        """Latent positions of width and of height that it can tell apart; 0 for any number."""

    @property
    def takes_negative(self) -> bool:
        """Whether there is a negative prompt."""

    @property
    def distilled(self) -> bool:
        """Whether the strength of guidance is told to the network."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt; what is longer is cut."""

    def guided(self, guidance: float) -> bool:
        """Whether this strength of guidance takes two passes (negative prompt, prompt)."""

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        """One call at a time, on any thread."""

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        """All in one go, with preemption points inside."""

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        """latents (rows, channels, height, width) scaled for the network, in the model's dtype; times (rows,)
        float32, as the sampler names them. Returns the prediction in the shape of the latents."""


class PatchTransformer:
    """What transformers over square patches of the latents tell of themselves alike, by their config."""

    network: Any

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels)

    @property
    def own_size(self) -> tuple[int, int]:
        side = int(self.network.config.sample_size)
        return side, side

    @property
    def multiple(self) -> int:
        return int(self.network.config.patch_size)

    def guided(self, guidance: float) -> bool:
        return guidance > 1


def stacked(conditioning: Sequence[Conditioning], name: str) -> torch.Tensor:
    """The tensor of that name of all rows, along the first dimension."""
    return torch.cat([each.tensors[name] for each in conditioning])
