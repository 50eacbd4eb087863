"""The draft model learns what its teacher says, shares its tokenizer, and is worth what the formula tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.eval_text_draft import speed_up
from training.text import Plan, export
from training.text_batches import PackedBatch, batches
from training.text_draft import SHARED, Distiller, Teacher, share_tokenizer
from training.text_model import TextConfig, TextModel
from training.text_tokenizer import Encoded, Encoder, load_tokenizer, save_tokenizer, train_tokenizer

TINY, SMALLER = TextConfig(64, 32, 48, 2, 4, 2, 128), TextConfig(64, 16, 24, 1, 2, 1, 128)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("teacher")
    weights = {name: part * 8 for name, part in TextModel(TINY).named_parameters()}
    export(weights, TINY, Encoder(train_tokenizer(["Hi there."])), path)
    return Teacher(path, CPU, TINY)


def _batch() -> PackedBatch:
    pieces = [Encoded(list(range(start, start + 8)), [False] * 4 + [True] * 4) for start in range(1, 30)]
    return next(batches(pieces, rows=2, length=32, pad=0))


def test_a_teacher_answers_where_the_model_speaks(teacher: Teacher) -> None:
    batch = _batch()
    found = teacher.probabilities(batch)
    assert found.shape == (int((batch.weights > 0).sum()), 64)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(len(found)))


def test_a_draft_comes_to_agree_with_its_teacher(teacher: Teacher) -> None:
    batch = _batch()
    plan = Plan(warm_seconds=0.1, matrix_rate=1e-2, other_rate=1e-2)
    draft = Distiller(plan, SMALLER, CPU, teacher)
    losses = [draft.train(batch) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_tokenizer_is_the_targets_own(tmp_path: Path) -> None:
    target, draft = tmp_path / "target", tmp_path / "draft"
    save_tokenizer(train_tokenizer(["Hi there."]), target)
    draft.mkdir()
    share_tokenizer(draft, target)
    share_tokenizer(draft, target)
    assert all((draft / name).is_symlink() for name in SHARED)
    assert load_tokenizer(draft).get_vocab() == load_tokenizer(target).get_vocab()


@pytest.mark.parametrize(
    ("acceptance", "cost", "check", "count", "expected"),
    [(0.0, 0.1, 1.0, 4, 1 / 1.4), (1.0, 0.0, 1.0, 4, 5.0), (0.5, 0.1, 1.2, 2, 1.75 / 1.4)],
)
def test_the_formula(acceptance: float, cost: float, check: float, count: int, expected: float) -> None:
    assert speed_up(acceptance, cost, check, count) == pytest.approx(expected)
