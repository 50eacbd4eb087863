"""Prompts for `benchmarks.partial_prompt`, and the larger random model for the long ones."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from pipelines.loading import EMBEDDED
from pipelines.messages import Message
from training.data import data_dir, records
from training.text_conversation import Conversation
from training.text_facts import SLOTS
from training.text_generator import held_out
from training.text_math import NAMES

BINS = ((1, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 1000))
CONTEXT = 16_384
SMALL = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
LARGE = SMALL | {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16}


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, what goes before it, and what the answer should hold ("" where nobody knows)."""

    text: str
    sentences: int
    history: tuple[Message, ...] = ()
    expected: str = ""


def bin_of(sentences: int) -> str:
    """As LiveMind's results are grouped."""
    low, high = next(each for each in BINS if each[0] <= sentences <= each[1])
    return f"{low}-{high}" if high < 1000 else f"over {low - 1}"


def questions(count: int, seed: int = 5) -> list[Case]:
    """Of the shared data, evenly over the groups of length; none where the folder is absent."""
    folder = data_dir()
    if folder is None:
        return []
    groups: dict[str, list[Case]] = {}
    for record in records(folder / "partial" / "questions.jsonl"):
        sentences, text = record["sents"], " ".join(record["sents"])
        if record["src"] in ("gsm8k", "svamp", "mmlu_pro", "bbh") and len(text) < 3000:
            case = Case(text, len(sentences), expected=str(record["answer"]))
            groups.setdefault(bin_of(len(sentences)), []).append(case)
    rng = random.Random(seed)
    share = -(-count // len(groups))
    return [case for group in groups.values() for case in rng.sample(group, min(share, len(group)))][:count]


def problems(count: int) -> list[Case]:
    """Word problems of templates that the embedded model has not seen."""
    return [case_of(made) for made in held_out("math", count)]


def dialogues(count: int) -> list[Case]:
    """The last turns of task dialogues."""
    return [case_of(made) for made in held_out("coffee", count)]


def case_of(made: Conversation) -> Case:
    """The last turn, the ones before it as history."""
    history = tuple(
        message
        for turn in made.turns[:-1]
        for message in (Message("user", turn.user), Message("assistant", turn.assistant))
    )
    text = made.turns[-1].user
    return Case(text, text.count(".") + text.count("?") or 1, history, str(made.expected or ""))


def long_prompt(sentences: int, seed: int) -> Case:
    """Facts about people, and a question on one of them at the end."""
    rng = random.Random(seed)
    told = []
    for _ in range(sentences - 1):
        name, city, job = rng.choice(NAMES), rng.choice(SLOTS["ci"]), rng.choice(SLOTS["j"])
        told.append(
            rng.choice((f"{name} lives in {city}.", f"{name} is a {job}.", f"{name} met a {job} in {city}."))
        )
    return Case(" ".join([*told, f"Where does {rng.choice(NAMES)} live?"]), sentences)


def random_model(folder: Path, shape: dict[str, int]) -> Path:
    """A Llama folder of random weights (seeded) and a context of 16,384 tokens, with the embedded model's
    tokenizer."""
    embedded = EMBEDDED / "upbeat-text"
    folder.mkdir(parents=True)
    for path in embedded.iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "config.json":
            shutil.copy(path, folder / path.name)
    fixed = {"max_position_embeddings": CONTEXT, "torch_dtype": "float32"}
    config = json.loads((embedded / "config.json").read_text()) | shape | fixed
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(config: dict[str, int]) -> dict[str, torch.Tensor]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    queries = config["num_attention_heads"] * config["head_dim"]
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    weights = {
        "model.embed_tokens.weight": draw(config["vocab_size"], hidden),
        "model.norm.weight": torch.ones(hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        weights |= {f"{prefix}{name}.weight": draw(*shape) for name, shape in shapes.items()}
        weights |= {
            f"{prefix}{name}.weight": torch.ones(hidden)
            for name in ("input_layernorm", "post_attention_layernorm")
        }
    return weights
