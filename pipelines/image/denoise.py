"""The denoising loop: one model evaluation over rows at different steps, prompts, guidance and samplers.

Rows share only their size and how much of the network they need. An evaluation reads the rows' states and
writes none; `advance`, the commit, applies each row's own sampler, and after it at once the steps that the
row's cache predicts, up to the next that needs the network: so no row waits for another's skips. Where
the sampler's steps are weighted sums (`updates`), so are the forecasts between them: the loop then runs over
weights, on the host, and the latents are read and written once, however many steps those are. Guidance takes
one call (negative prompts first, then prompts; Ho and Salimans 2022) or, where that is cheaper, two, and is
skipped for rows with guidance at most 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from kernels import latent_steps
from pipelines.image.backbones.base import Backbone
from pipelines.image.lora import applied
from pipelines.image.samplers import stepped
from pipelines.image.state import ImageState
from pipelines.image.step_cache.base import Decision, Observation
from pipelines.image.step_cache.call import Call, Projections, carrying
from pipelines.image.step_cache.text import computed
from pipelines.image.updates import Update


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
    if row.updates is not None:
        return _at_once(row, seen.output, row.updates)
    while True:
        if row.preview_due:
            shown = Shown(row.step, seen.model_input, seen.output)
        row.latents = stepped(row.sampler, seen.output, row.step, row.latents, row.generator)
        row.step += 1
        if row.step == row.evaluations or row.decision is not Decision.PREDICT:
            return shown
        seen = Observation(row.model_input, row.predicted())
        row.skipped += 1


def _at_once(row: ImageState, output: torch.Tensor, updates: Sequence[Update]) -> Shown | None:
    """`advance` by weights: of the latents, the output, what the cache remembers, the clean image before."""
    memory = row.remembered.noise if row.remembered is not None else ()
    given = [row.latents, output, *(each.value for each in memory)]
    if row.clean is not None:
        given.append(row.clean)
    units = [[float(at == place) for at in range(len(given))] for place in range(len(given))]
    latents, said, clean = units[0], units[1], units[-1]
    shown: tuple[int, list[list[float]]] | None = None
    while True:
        update = updates[row.step]
        if row.preview_due:
            shown = row.step, [[update.scale * x for x in latents], said]
        before, clean = clean, _mixed((update.clean_latents, latents), (update.clean_output, said))
        latents = _mixed((update.latents, latents), (update.output, said), (update.before, before))
        row.step += 1
        if row.step == row.evaluations or row.decision is not Decision.PREDICT:
            break
        said = _forecast(row, [updates[row.step].scale * x for x in latents], units[2:])
        row.skipped += 1
    carried = row.step < row.evaluations and updates[row.step].before != 0.0
    wanted = [latents, *([clean] if carried else ()), *(shown[1] if shown is not None else ())]
    read = [at for at in range(len(given)) if any(weights[at] for weights in wanted)]
    numbers = torch.tensor([[weights[at] for at in read] for weights in wanted])
    made = latent_steps([given[at] for at in read], numbers)
    row.latents, row.clean = made[0], made[1] if carried else None
    return Shown(shown[0], made[-2], made[-1]) if shown is not None else None


def _mixed(*parts: tuple[float, Sequence[float]]) -> list[float]:
    """The weighted sum of weights."""
    total = [0.0] * len(parts[0][1])
    for factor, weights in parts:
        if factor:
            total = [x + factor * weight for x, weight in zip(total, weights, strict=True)]
    return total


def _forecast(row: ImageState, model_input: list[float], units: Sequence[list[float]]) -> list[float]:
    """What the cache predicts, as weights; it is linear, so it takes weights for tensors. units: of what is
    remembered."""
    assert row.cache is not None and row.remembered is not None
    noise = tuple(
        replace(each, value=torch.tensor(unit, dtype=torch.float64))
        for each, unit in zip(row.remembered.noise, units, strict=False)
    )
    asked = torch.tensor(model_input, dtype=torch.float64)
    found: list[float] = row.cache.predict(
        row.schedule, replace(row.remembered, noise=noise), row.step, asked
    ).tolist()
    return found


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
