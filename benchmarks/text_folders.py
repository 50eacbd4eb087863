"""Model folders that the text benchmarks run: the embedded model and random Llamas of the sizes that the
literature measures, all without an end token, so that every answer has the length that was asked for. Weights
are stored in bfloat16, as checkpoints are; in which dtype they are computed is each engine's setting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

EMBEDDED = Path(__file__).parent.parent / "models" / "upbeat-text"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
SIZES = {
    "15M": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6},
    "42M": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8},
    "110M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
VOCABULARY = 32_000
NAMES = ("embedded", *SIZES)


def make(name: str, folder: Path, context: int = 2048) -> Path:
    """The folder of one of `NAMES`, written below `folder`."""
    path = folder / name
    if name == "embedded":
        shutil.copytree(EMBEDDED, path)
    else:
        logging.disable_progress_bar()
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=context, **SIZES[name])
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)  # type: ignore[arg-type]
        for file in TOKENIZER:
            shutil.copy(EMBEDDED / file, path / file)
    for file in ("config.json", "generation_config.json"):
        raw = json.loads((path / file).read_text(encoding="utf-8"))
        (path / file).write_text(json.dumps(raw | {"eos_token_id": None}), encoding="utf-8")
    return path
