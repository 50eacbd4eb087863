"""The denoising loop: one model evaluation over rows at different steps, prompts, guidance and samplers.

Rows share only their size and how much of the network they need. An evaluation reads the rows' states and
writes none; `advance`, the commit, applies each row's own sampler, and after it at once the steps that the
row's cache predicts, up to the next that needs the network: so no row waits for another's skips. Guidance
takes one call (negative prompts first, then prompts; Ho and Salimans 2022) or, where that is cheaper, two,
and is skipped for rows with guidance at most 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipelines.image.backbones.base import Backbone
from pipelines.image.lora import applied
from pipelines.image.samplers import stepped
from pipelines.image.state import ImageState
from pipelines.image.step_cache.base import Decision, Observation
from pipelines.image.step_cache.call import Call, Projections, carrying
from pipelines.image.step_cache.text import computed


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """One row's evaluation. texts: keys and values of its prompts, for each pass, None where known."""

    decision: Decision
    seen: Observation
    texts: tuple[Projections | None, ...]

    @property
    def finite(self) -> bool:
        """False where the model computed NaN or infinity."""
        return bool(torch.isfinite(self.seen.output).all())


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a step was given and made of it, kept for a preview."""

    step: int
    model_input: torch.Tensor
    output: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """What one call said: outputs, new texts and what the deep part said, for each of its passes."""

    raw: torch.Tensor
    texts: list[Projections | None]
    deep: torch.Tensor | None


def evaluate(
    backbone: Backbone, rows: Sequence[ImageState], decision: Decision, apart: bool = False
) -> list[Evaluated]:
    """One evaluation for each row, FULL or PARTIAL for all, guidance applied, in one call of the network, or
    `apart`: negative prompts in a call of their own. Writes to no state."""
    scaled = [row.model_input for row in rows]
    guided = [index for index, row in enumerate(rows) if row.plan.guided]
    # Negative prompts of the guided rows, then all prompts; (row, which of its passes).
    order = [*((index, 0) for index in guided), *((index, -1) for index in range(len(rows)))]
    calls = (order[: len(guided)], order[len(guided) :]) if apart and guided else (order,)
    said = [_called(backbone, rows, scaled, call, decision) for call in calls]
    raw = torch.cat([each.raw for each in said])
    texts = [text for each in said for text in each.texts]
    kept = [each.deep for each in said if each.deep is not None]
    deeps = torch.cat(kept) if kept else None
    evaluated: list[Evaluated] = []
    for index, row in enumerate(rows):
        places = [place for place, (owner, _) in enumerate(order) if owner == index]
        outputs = [raw[place : place + 1] for place in places]
        output = outputs[-1]
        if row.plan.guided:
            output = outputs[0] + row.plan.guidance * (outputs[1] - outputs[0])
        deep = deeps[places] if deeps is not None and row.wants_deep else None
        seen = Observation(scaled[index], output, deep)
        evaluated.append(Evaluated(decision, seen, tuple(texts[place] for place in places)))
    return evaluated


def advance(row: ImageState, evaluated: Evaluated) -> Shown | None:
    """Commit of one row: its sampler's step, and those that need no network. The last of them that a preview
    is due for."""
    seen, shown = evaluated.seen, None
    row.keep_texts(evaluated.texts)
    if evaluated.decision is Decision.PARTIAL:
        row.skipped += 1
    else:
        row.observe(seen)
    while True:
        if row.preview_due:
            shown = Shown(row.step, seen.model_input, seen.output)
        row.latents = stepped(row.sampler, seen.output, row.step, row.latents, row.generator)
        row.step += 1
        if row.step == row.evaluations or row.decision is not Decision.PREDICT:
            return shown
        seen = Observation(row.model_input, row.predicted())
        row.skipped += 1


def _called(
    backbone: Backbone,
    rows: Sequence[ImageState],
    scaled: Sequence[torch.Tensor],
    order: Sequence[tuple[int, int]],
    decision: Decision,
) -> _Said:
    """One call of the network over these passes: (row, which of its passes)."""
    latents = torch.cat([scaled[index] for index, _ in order]).to(next(backbone.network.parameters()))
    times = [float(rows[index].sampler.timesteps[rows[index].step]) for index, _ in order]
    loras = [rows[index].plan.loras for index, _ in order]
    call = _call(rows, order, decision)
    with carrying(call), applied(loras, latents.device):
        conditioning = [rows[index].conditioning_of(which) for index, which in order]
        raw = backbone.evaluate(latents, torch.tensor(times, device=latents.device), conditioning).float()
    return _Said(raw, computed(call), call.seen_deep)


def _call(rows: Sequence[ImageState], order: Sequence[tuple[int, int]], decision: Decision) -> Call:
    """What the network is told beside its inputs."""
    texts = tuple(rows[index].texts[which] for index, which in order)
    if decision is Decision.FULL:
        return Call(texts, keep_deep=any(row.wants_deep for row in rows))
    deep = [row.predicted_deep() for row in rows]
    pieces = [deep[index][which : which + 1 or None] for index, which in order]
    return Call(texts, deep=torch.cat(pieces))
