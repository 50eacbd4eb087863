"""Packing conversations into rows of equal length, several to a row, each blind to its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.text_tokenizer import Encoded

# Weight of the digits, names and other words of an answer that only the prompt can tell, beside 1 for its
# other words and 0 for what the user says.
TELLING_WEIGHT = 4.0
# Weight of the part of an answer that decides, and of the rest of such an answer.
KEY_WEIGHT, BESIDE_KEY_WEIGHT = 8.0, 2.0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """All `[rows, length]`: ids and targets int64, documents int64 (numbers within a row), weights fp32."""

    ids: Tensor
    targets: Tensor
    documents: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """The same on `device`."""
        parts = (self.ids, self.targets, self.documents, self.weights)
        return PackedBatch(*(part.to(device) for part in parts))


class _Row:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.targets: list[int] = []
        self.documents: list[int] = []
        self.weights: list[float] = []
        self.count = 0

    def add(self, piece: Encoded, telling: frozenset[int]) -> None:
        self.count += 1
        self.ids += piece.ids[:-1]
        self.targets += piece.ids[1:]
        self.documents += [self.count] * (len(piece.ids) - 1)
        keys = piece.key or [None] * len(piece.ids)
        for token, said, key in zip(piece.ids[1:], piece.said[1:], keys[1:], strict=True):
            usual = TELLING_WEIGHT if token in telling else 1.0
            heavy = usual if key is None else KEY_WEIGHT if key else BESIDE_KEY_WEIGHT
            self.weights.append(heavy if said else 0.0)

    def padded(self, length: int, pad: int) -> tuple[list[int], list[int], list[int], list[float]]:
        rest = length - len(self.ids)
        return (
            self.ids + [pad] * rest,
            self.targets + [pad] * rest,
            self.documents + [0] * rest,
            self.weights + [0.0] * rest,
        )


def batches(
    pieces: Iterable[Encoded], rows: int, length: int, pad: int, telling: frozenset[int] = frozenset()
) -> Iterator[PackedBatch]:
    """First fit into `rows` open rows; a batch leaves when a piece fits nowhere.

    Pieces longer than a row are left out. `telling` are ids that weigh more where the model says them.
    """
    open_rows = [_Row() for _ in range(rows)]
    for piece in pieces:
        need = len(piece.ids) - 1
        if need > length:
            continue
        fitting = next((row for row in open_rows if len(row.ids) + need <= length), None)
        if fitting is None:
            yield _tensors(open_rows, length, pad)
            open_rows = [_Row() for _ in range(rows)]
            fitting = open_rows[0]
        fitting.add(piece, telling)


def _tensors(rows: list[_Row], length: int, pad: int) -> PackedBatch:
    ids, targets, documents, weights = zip(*(row.padded(length, pad) for row in rows), strict=True)
    return PackedBatch(
        torch.tensor(ids), torch.tensor(targets), torch.tensor(documents), torch.tensor(weights)
    )
