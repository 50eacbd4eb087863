"""The training model is the Llama of transformers; packing hides neighbours; ids follow the chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from training.text import Plan, Trainer, export
from training.text_batches import batches
from training.text_conversation import Conversation, Turn
from training.text_model import TextConfig, TextModel, document_mask
from training.text_tokenizer import Encoded, Encoder, save_tokenizer, train_tokenizer

TINY = TextConfig(64, 32, 48, 2, 4, 2, 128)
TALK = Conversation(
    "x", "x", (Turn("Hi there.", "Hello!"), Turn("Draw.", "Yes. <draw>a star</draw>")), "Be kind."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tokenizer(train_tokenizer(["Hi there. Hello! Draw. Yes. a star", "Be kind. 12 plus 7"]), path)
    return path


def test_logits_equal_those_of_transformers(folder: Path) -> None:
    torch.manual_seed(0)
    model = TextModel(TINY)
    theirs = LlamaForCausalLM(LlamaConfig(**TINY.to_hugging_face(0, 4, 5)))
    missing = theirs.load_state_dict(model.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys in ([], ["lm_head.weight"])
    ids = torch.randint(0, 64, (2, 17))
    mask = document_mask(torch.ones_like(ids))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids, mask), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_documents_in_a_row_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    model = TextModel(TINY)
    first, second = torch.randint(0, 64, (1, 6)), torch.randint(0, 64, (1, 5))
    both = torch.cat((first, second), dim=1)
    documents = torch.tensor([[1] * 6 + [2] * 5])
    with torch.inference_mode():
        alone = model(second, document_mask(torch.ones_like(second)))
        packed = model(both, document_mask(documents))[:, 6:]
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_packing_keeps_every_piece_and_weighs_what_is_said() -> None:
    pieces = [
        Encoded([1, 2, 3, 4], [False, False, True, True]),
        Encoded([5, 6], [False, True]),
        Encoded([7] * 9, [True] * 9),
    ]
    batch = next(batches([*pieces, *pieces, *pieces], rows=1, length=5, pad=0))
    assert batch.ids.tolist() == [[1, 2, 3, 5, 0]]
    assert batch.targets.tolist() == [[2, 3, 4, 6, 0]]
    assert batch.documents.tolist() == [[1, 1, 1, 2, 0]]
    torch.testing.assert_close(batch.weights, torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0]]))


def test_encoder_gives_the_ids_of_the_chat_template(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Encoder(train_tokenizer(["Hi there. Hello! Draw. Yes. a star", "Be kind. 12 plus 7"]))
    messages = [{"role": "system", "content": "Be kind."}]
    for turn in TALK.turns:
        messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.assistant}]
    whole = theirs.apply_chat_template(messages, tokenize=False)
    assert theirs(whole, add_special_tokens=False).input_ids == ours.encode(TALK).ids
    asked = theirs.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    assert theirs(asked, add_special_tokens=False).input_ids == ours.prompt(TALK)
    assert theirs.decode(ours.encode(TALK).ids, skip_special_tokens=True).endswith("Yes. <draw>a star</draw>")


def test_a_longer_message_keeps_the_prefix(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)

    def ids(text: str) -> list[int]:
        shown = theirs.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        return list(theirs(shown, add_special_tokens=False).input_ids)

    short, longer = ids("Hi there. Draw"), ids("Hi there. Draw a star")
    assert short[:-1] == longer[: len(short) - 1]


def test_export_loads(folder: Path, tmp_path: Path) -> None:
    model = TextModel(TINY)
    encoder = Encoder(train_tokenizer(["Hi there."]))
    export(dict(model.named_parameters()), TINY, encoder, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    expected = model.model.layers[1].mlp.up_proj.weight.to(torch.bfloat16).float()  # type: ignore[union-attr]
    torch.testing.assert_close(theirs.model.layers[1].mlp.up_proj.weight, expected)
    assert theirs.generation_config.eos_token_id == encoder.end


def test_a_run_starts_from_the_weights_of_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = {name: part.detach() for name, part in TextModel(TINY).named_parameters()}
    export(weights, TINY, Encoder(train_tokenizer(["Hi there."])), tmp_path)
    trainer = Trainer(Plan(seed=2), TINY, torch.device("cpu"))
    trainer.start_from(tmp_path)
    for name, part in trainer.model.named_parameters():
        torch.testing.assert_close(part.detach(), weights[name].to(torch.bfloat16).float())
        torch.testing.assert_close(trainer.average[name], part.detach())
    assert trainer.step == 0


def test_rates_rise_hold_and_fall_to_zero() -> None:
    plan = Plan(hours=1.0, warm_seconds=60.0, decay=0.25)
    assert plan.rate(0.0) < 0.05
    assert plan.rate(1800.0) == 1.0
    assert 0.45 < plan.rate(3150.0) < 0.55
    assert plan.rate(3600.0) == 0.0
