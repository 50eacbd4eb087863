"""What the pipelines compute on a device, by name. Kernels import neither grpc, asyncio nor pipelines.

All of it is plain torch so far, the specification of what a faster kernel must equal, and runs on any device.
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
