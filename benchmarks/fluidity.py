"""The fluidity-index of a stream (Etalon; Agrawal et al., 2024): the share of deadlines that its chunks kept.

Every chunk that comes early earns slack for the later ones; a late one misses as many deadlines as fit into
its delay, and the slack is gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def fluidity(gaps: Iterable[tuple[float, float]], between_s: float) -> float:
    """gaps: (seconds waited for the chunk, seconds allowed for it), the first with the allowance for the
    first output; a late chunk misses one deadline more for every `between_s`. 1.0: all were kept."""
    slack, missed, total = 0.0, 0, 0
    for waited, allowed in gaps:
        if waited <= allowed + slack:
            slack += allowed - waited
            total += 1
            continue
        lost = math.floor((waited - slack - allowed) / between_s) + 1
        missed, total, slack = missed + lost, total + lost, 0.0
    return 1.0 - missed / total if total else 1.0
