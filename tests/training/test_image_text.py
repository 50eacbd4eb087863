"""The caption tokenizer: CLIP's files and ids, one token a word of the domain, any text accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from training.image_text import MAX_TOKENS, make_tokenizer, new_text_encoder, token_ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), captions=3000)


def test_words_of_the_domain_are_single_tokens(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a small blue star above the green house").input_ids
    assert len(ids) == 8 + 2
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_case_and_spaces_do_not_matter(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer("A  Blue\nBoat!").input_ids == tokenizer("a blue boat !").input_ids


def test_foreign_letters_are_spelled_out_without_an_unknown_token(tokenizer: CLIPTokenizer) -> None:
    assert len(tokenizer("Zürich 東京 🎨").input_ids) > 5


def test_ids_are_padded_and_cut_to_the_encoders_length(tokenizer: CLIPTokenizer) -> None:
    ids = token_ids(tokenizer, ["a red circle", "", "star " * 200])
    assert ids.shape == (3, MAX_TOKENS)
    assert int(ids.max()) < len(tokenizer)
    states = new_text_encoder(tokenizer)(ids).last_hidden_state
    assert states.shape == (3, MAX_TOKENS, 128)


def test_files_are_clips(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    text = "draw me a striped heart, please"
    assert again(text).input_ids == tokenizer(text).input_ids
