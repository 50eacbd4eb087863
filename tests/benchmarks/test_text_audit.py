"""Timing does not tell what another tenant asked; without the salt it would."""

from __future__ import annotations

import pytest
import torch

from benchmarks.text_audit import auc, audit
from pipelines.loading import EMBEDDED

FOLDER = EMBEDDED / "upbeat-text"


def test_auc() -> None:
    assert auc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert auc([1.0, 2.0], [3.0]) == 0.0
    assert auc([1.0, 2.0], [1.0, 2.0]) == 0.5
    assert auc([1.0, 3.0], [2.0]) == 0.5


@pytest.mark.slow
def test_another_tenants_prompt_is_not_found() -> None:
    torch.set_num_threads(1)
    for value in audit(FOLDER, 2_000, salted=True).values():
        assert 0.45 < value < 0.55


@pytest.mark.slow
def test_without_the_salt_it_is() -> None:
    torch.set_num_threads(1)
    assert audit(FOLDER, 500, salted=False)["first token"] >= 0.9
