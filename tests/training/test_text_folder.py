"""The committed text model loads in transformers and ends its answers to prompts that it never saw."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.messages import Message
from pipelines.simultaneous.layout import ACTIONS, more, opening, parse
from pipelines.simultaneous.segments import sentences
from training.eval_text import DRAFT_FOLDER, FOLDER, mixed
from training.eval_text_partial import problems
from training.text_answers import Answerer
from training.text_conversation import Conversation, Turn
from training.text_draw import drawn
from training.text_loop import Loop, drafted
from training.text_orders import HEAD
from training.text_partial import turns_of

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


def test_text_and_draft_are_small_together() -> None:
    paths = [path for folder in (FOLDER, DRAFT_FOLDER) for path in folder.iterdir() if not path.is_symlink()]
    assert sum(path.stat().st_size for path in paths) <= 16_000_000


def test_the_draft_shares_the_tokenizer_and_is_mostly_right() -> None:
    assert (DRAFT_FOLDER / "tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()
    encoder, target, draft = Answerer(FOLDER).encoder, Loop(FOLDER), Loop(DRAFT_FOLDER)
    made = [drafted(target, draft, encoder.prompt(asked), 80, 4) for asked in mixed(9)]
    assert sum(each.accepted for each in made) >= 0.55 * sum(each.checked for each in made)


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


def test_pieces_are_answered_with_actions(answerer: Answerer) -> None:
    asked = [sentences(problem.question)[0] for problem in problems(20)]
    talks = [
        Conversation("partial", "partial", turns_of((Message("user", more(piece)),)), opening(())[0].content)
        for piece in asked
    ]
    said = answerer.answers(talks, 60)
    assert sum(answer.ended and answer.text.startswith(ACTIONS) for answer in said) >= 18
    assert len({parse(answer.text)[0] for answer in said}) >= 2


def test_an_order_is_said_back_in_its_form(answerer: Answerer) -> None:
    talk = (
        Turn("Can I get a mocha, please?", "Is the order on the screen right?"),
        Turn("What is my order?", ""),
    )
    (answer,) = answerer.answers([Conversation("order", "order", talk)])
    assert answer.text.startswith(HEAD)
    assert "mocha" in answer.text
