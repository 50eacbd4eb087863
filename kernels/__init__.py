"""What the pipelines compute on a device, by name. Kernels import neither grpc, asyncio nor pipelines.

Every name here is specified by its plain torch form in `kernels.reference`, which runs on any device.
"""

from kernels.linear import Linear, linear, linear_add, pack
from kernels.reference import AttentionPlan, Span, append, attend, plan_attention, rms_norm, rotate_
from kernels.sampling import Drawn, RowSampling, draw

__all__ = [
    "AttentionPlan",
    "Drawn",
    "Linear",
    "RowSampling",
    "Span",
    "append",
    "attend",
    "draw",
    "linear",
    "linear_add",
    "pack",
    "plan_attention",
    "rms_norm",
    "rotate_",
]
