"""What the pipelines compute on a device, by name. Kernels import neither grpc, asyncio nor pipelines.

Every name here is specified by its plain torch form in `kernels.reference`, which runs on any device.
"""

from kernels.reference import Span, append, attend, rms_norm, rotate_
from kernels.sampling import Drawn, RowSampling, draw

__all__ = ["Drawn", "RowSampling", "Span", "append", "attend", "draw", "rms_norm", "rotate_"]
