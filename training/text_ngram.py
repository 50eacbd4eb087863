"""An interpolated 5-gram model over token ids: what the text model has to beat (Witten and Bell, 1991)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable


class NGram:
    """Counts up to `order` tokens; unseen contexts fall back to shorter ones, at last to a uniform guess."""

    def __init__(self, sequences: Iterable[list[int]], order: int, vocabulary: int) -> None:
        self._order, self._vocabulary = order, vocabulary
        self._counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for ids in sequences:
            for index, token in enumerate(ids):
                for width in range(min(order - 1, index) + 1):
                    self._counts[tuple(ids[index - width : index])][token] += 1

    def probability(self, context: list[int], token: int) -> float:
        """P(token | context), the last `order` - 1 tokens of which count."""
        result = 1.0 / self._vocabulary
        for width in range(min(self._order - 1, len(context)) + 1):
            seen = self._counts.get(tuple(context[len(context) - width :]))
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            result = (seen[token] + kinds * result) / (total + kinds)
        return result

    def nats(self, ids: list[int], said: list[bool]) -> list[float]:
        """-log P of each token that is said, given all before it."""
        start = self._order - 1
        return [
            -math.log(self.probability(ids[max(0, index - start) : index], token))
            for index, (token, spoken) in enumerate(zip(ids, said, strict=True))
            if spoken
        ]
