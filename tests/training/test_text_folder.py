"""The committed text model loads in transformers and ends its answers to prompts that it never saw."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.eval_text import FOLDER, mixed
from training.text_answers import Answerer
from training.text_conversation import Conversation, Turn
from training.text_draw import drawn

DEMO = "Please tell me about the red boat on the water, and draw it for me."


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    torch.set_num_threads(1)
    return Answerer(FOLDER)


def test_folder_is_small_and_complete() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= names
    assert {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    } <= names
    assert (FOLDER / "model.safetensors").stat().st_size <= 15_000_000


def test_transformers_answers_a_greeting() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello!"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(shown, add_special_tokens=False, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=40, do_sample=False)
    said = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert made[0, -1] == tokenizer.eos_token_id
    assert any(word in said for word in ("Hello", "Hi"))


def test_answers_to_unseen_prompts_end_nine_times_in_ten(answerer: Answerer) -> None:
    assert sum(answer.ended for answer in answerer.answers(mixed(20))) >= 18


def test_the_demo_is_answered_in_words_and_with_a_picture(answerer: Answerer) -> None:
    (answer,) = answerer.answers([Conversation("demo", "demo", (Turn(DEMO, ""),))])
    assert answer.ended
    (caption,) = drawn(answer.text)
    assert "boat" in caption
    assert len(answer.text.split("<draw>")[0].split()) >= 5
