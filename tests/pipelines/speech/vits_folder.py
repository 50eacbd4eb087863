"""A tiny VITS folder with random weights, in the layout of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import VitsConfig, VitsModel

LETTERS = "_abcdefghijklmnopqrstuvwxyz '"
TINY: dict[str, Any] = {
    "vocab_size": len(LETTERS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 32,
    "flow_size": 16,
    "spectrogram_bins": 9,
    "duration_predictor_filter_channels": 16,
    "duration_predictor_num_flows": 2,
    "duration_predictor_flow_bins": 4,
    "prior_encoder_num_flows": 2,
    "prior_encoder_num_wavenet_layers": 2,
    "posterior_encoder_num_wavenet_layers": 1,
    "upsample_initial_channel": 16,
    "upsample_rates": [8, 4],
    "upsample_kernel_sizes": [16, 8],
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
    "sampling_rate": 8000,
    "speaking_rate": 1.5,
}


def write_vits(folder: Path, **changes: Any) -> Path:
    """A folder with config.json, model.safetensors, vocab.json and tokenizer_config.json."""
    torch.manual_seed(0)
    VitsModel(VitsConfig(**{**TINY, **changes})).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(LETTERS)}))
    tokenizer = {
        "add_blank": True,
        "normalize": True,
        "phonemize": False,
        "language": "eng",
        "pad_token": "_",
    }
    tokenizer |= {"unk_token": "'", "tokenizer_class": "VitsTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder
