"""A tiny Moonshine folder with random weights, in the layout of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import MoonshineConfig, MoonshineForConditionalGeneration

TINY: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 2,
    "decoder_num_attention_heads": 2,
    "encoder_num_key_value_heads": 2,
    "decoder_num_key_value_heads": 2,
}


def write_moonshine(folder: Path) -> Path:
    """A folder with config.json, model.safetensors and tokenizer.json; its words are its numbers."""
    torch.manual_seed(0)
    model = MoonshineForConditionalGeneration(MoonshineConfig(**TINY))
    for parameter in model.parameters():
        parameter.data *= 3.0
    model.save_pretrained(folder)
    words = {f"w{number}": number for number in range(TINY["vocab_size"])}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return folder
