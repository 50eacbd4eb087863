"""The loop over the served decoder: greedy as `transformers`', and unchanged by any draft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from training.text import export
from training.text_loop import Loop, drafted
from training.text_model import TextConfig, TextModel
from training.text_tokenizer import Encoder, train_tokenizer

TARGET, DRAFT = TextConfig(64, 32, 48, 2, 4, 2, 128), TextConfig(64, 16, 24, 1, 2, 1, 128)
PROMPT = [0, 9, 12, 33]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.manual_seed(5)
    encoder = Encoder(train_tokenizer(["Hi there."]))
    made = []
    for config in (TARGET, DRAFT):
        path = tmp_path_factory.mktemp("model")
        weights = {name: part * 8 for name, part in TextModel(config).named_parameters()}
        export(weights, config, encoder, path)
        made.append(path)
    return made[0], made[1]


def test_the_plain_loop_is_greedy(folders: tuple[Path, Path]) -> None:
    theirs = LlamaForCausalLM.from_pretrained(folders[0], dtype=torch.float32)
    made = theirs.generate(torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False, pad_token_id=5)
    assert Loop(folders[0]).greedy(PROMPT, 20) == made[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_bad_draft_changes_nothing(folders: tuple[Path, Path], count: int) -> None:
    target, draft = Loop(folders[0]), Loop(folders[1])
    plain = target.greedy(PROMPT, 30)
    made = drafted(target, draft, PROMPT, 30, count)
    assert made.said[:30] == plain
    assert made.accepted <= made.checked


def test_its_own_draft_is_always_right(folders: tuple[Path, Path]) -> None:
    target = Loop(folders[0])
    made = drafted(target, Loop(folders[0]), PROMPT, 30, 4)
    assert made.accepted == made.checked > 0
    assert made.said[:30] == target.greedy(PROMPT, 30)
