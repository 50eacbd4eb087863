"""Keys and values of the text, computed once a prompt and used at every step: lossless, since the text does
not change while its image is drawn. What is kept belongs to the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipelines.image.divisible import plain
from pipelines.image.step_cache.call import Call, Projections, current


def keep_text_projections(network: Any) -> int:
    """Wraps the key and value projections of all cross attention to text. Returns how many there are."""
    projections = [
        projection
        for module in network.modules()
        if type(module).__name__ == "Attention" and getattr(module, "is_cross_attention", False)
        for projection in (module.to_k, module.to_v)
    ]
    for number, projection in enumerate(projections):
        projection.forward = _kept(number, projection.forward)
    return len(projections)


def computed(call: Call) -> list[Projections | None]:
    """What each pass's row should keep from now on, as memory of its own; None where it has all already."""
    return [
        {number: value[place : place + 1].clone() for number, value in call.new_texts.items()} or None
        for place in range(len(call.texts))
    ]


def _kept(number: int, project: Callable[..., Any]) -> Callable[..., Any]:
    def forward(text: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        call = current()
        if call is None or len(text) != len(call.texts):
            return project(text, *args, **kwargs)
        known = [each[number] for each in call.texts if each is not None and number in each]
        if len(known) == len(call.texts):
            return torch.cat(known)
        values = project(text, *args, **kwargs)
        call.new_texts[number] = plain(values).clone()  # an add-on's hook adds to what is returned, in place
        return values

    return forward
