"""Which records may be trained on: one rule, shared by every recipe."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "dev", "test"]

DEV_PERCENT = 5
TEST_PERCENT = 5


def split_of(record_id: str) -> Split:
    """The split of a record, by the blake2b hash of its id: 5 % dev, 5 % test, the rest train.

    The same id is in the same split for every recipe, on every machine. Training reads `train` alone.
    """
    digest = hashlib.blake2b(record_id.encode("utf-8"), digest_size=8).digest()
    percent = int.from_bytes(digest, "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    return "dev" if percent < TEST_PERCENT + DEV_PERCENT else "train"
