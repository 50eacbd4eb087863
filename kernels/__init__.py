"""What the pipelines compute on a device, by name. Kernels import neither grpc, asyncio nor pipelines.

Every function here has a specification in plain torch, which runs on any device, and a Triton kernel in a
file of its own, which must equal it. `kernels.timings` decides from committed results which of the two runs
a call; a kernel that was not timed on the device at hand is off. (The kernels of drawing and of rounded
weights are chosen where they are called, in `sampling` and `linear`.)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels import reference, reference_decoder, reference_media
from kernels.linear import Linear, linear, linear_add, pack, pack_rounded
from kernels.paged_plan import attend_paged, plan_paged
from kernels.reference import AttentionPlan, Span
from kernels.sampling import Drawn, RowSampling, draw, peaks
from kernels.timings import chosen, possible
from kernels.upload import upload

__all__ = [
    "AttentionPlan",
    "Drawn",
    "Linear",
    "RowSampling",
    "Span",
    "add_rms_norm",
    "attend",
    "draw",
    "gate_multiply",
    "group_norm_silu",
    "latent_steps",
    "linear",
    "linear_add",
    "linear_add_norm",
    "modulate",
    "overlap_add",
    "pack",
    "pack_rounded",
    "peaks",
    "plan_attention",
    "rms_norm",
    "rope_append",
    "upload",
]


def plan_attention(spans: Sequence[Span], cache: Tensor, window: int = 0) -> AttentionPlan:
    """`reference.plan_attention`, or the paged kernels' plan where they run."""
    paged = plan_paged(spans, cache, window) if possible(cache) else None
    if paged is not None:
        return AttentionPlan((), (), None, paged)
    return reference.plan_attention(spans, cache, window)


def attend(q: Tensor, cache: Tensor, plan: AttentionPlan) -> Tensor:
    """`reference.attend`."""
    if plan.paged is not None:
        return attend_paged(q, cache, plan.paged)
    return reference.attend(q, cache, plan)


def rms_norm(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """`reference.rms_norm`."""
    if chosen("rms_norm", x, x.shape[0]):
        from kernels import norm

        return norm.rms_norm(x, weight, eps)
    return reference.rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """`reference_decoder.add_rms_norm`."""
    if chosen("add_rms_norm", x, x.shape[0]):
        from kernels import norm

        return norm.add_rms_norm(x, residual, weight, eps)
    return reference_decoder.add_rms_norm(x, residual, weight, eps)


def linear_add_norm(
    x: Tensor, layer: Linear, residual: Tensor, weight: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """(`linear_add`, its `rms_norm`): the sum joins whichever of its neighbours has a kernel for it."""
    if chosen("add_rms_norm", x, x.shape[0]):
        return add_rms_norm(linear(x, layer), residual, weight, eps)
    total = linear_add(x, layer, residual)
    return total, rms_norm(total, weight, eps)


def rope_append(
    mixed: Tensor,
    rotation: Tensor,
    cache: Tensor,
    slots: Tensor,
    heads: int,
    norms: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """`reference_decoder.rope_append`."""
    if chosen("rope_append", mixed, mixed.shape[0]):
        from kernels import rope

        rope.rope_append(mixed, rotation, cache, slots, heads, norms)
    else:
        reference_decoder.rope_append(mixed, rotation, cache, slots, heads, norms)


def gate_multiply(gate_up: Tensor, act: str) -> Tensor:
    """`reference_decoder.gate_multiply`."""
    if chosen("gate_multiply", gate_up, gate_up.shape[0]):
        from kernels import gate

        return gate.gate_multiply(gate_up, act)
    return reference_decoder.gate_multiply(gate_up, act)


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool = True
) -> Tensor:
    """`reference_media.group_norm_silu`."""
    if x.is_contiguous() and chosen("group_norm_silu", x, x.numel()):
        from kernels import group_norm

        return group_norm.group_norm_silu(x, groups, weight, bias, eps, silu=silu)
    return reference_media.group_norm_silu(x, groups, weight, bias, eps, silu=silu)


def modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """`reference_media.modulate`."""
    if x.stride(2) == 1 and chosen("modulate", x, x.shape[0] * x.shape[1]):
        from kernels import modulation

        return modulation.modulate(x, scale, shift, eps)
    return reference_media.modulate(x, scale, shift, eps)


def latent_steps(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """`reference_media.latent_steps`."""
    if all(each.is_contiguous() for each in tensors) and chosen(
        "latent_steps", tensors[0], tensors[0].numel()
    ):
        from kernels import latents

        return latents.latent_steps(tensors, weights)
    return reference_media.latent_steps(tensors, weights)


def overlap_add(frames: Tensor, hop: int, window: Tensor | None = None) -> Tensor:
    """`reference_media.overlap_add`."""
    if chosen("overlap_add", frames, frames.numel()):
        from kernels import overlap

        return overlap.overlap_add(frames, hop, window)
    return reference_media.overlap_add(frames, hop, window)
