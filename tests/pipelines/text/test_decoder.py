"""The decoder against transformers' own: logits and greedy text of the same folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.messages import Sampling
from pipelines.text.packing import pack
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver, Folders, finished

Drive = Callable[..., Driver]

CONFIGS: dict[str, dict[str, Any]] = {
    "grouped heads, untied": {},
    "tied": {"tie_word_embeddings": True, "num_key_value_heads": 1},
    "biases, every head its own key": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    "head size of its own, sharded": {"head_dim": 16, "shards": True},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "mistral": {"family": "mistral", "sliding_window": 24},
    "mistral without a window": {"family": "mistral", "sliding_window": None, "head_dim": 16},
    "qwen2": {"family": "qwen2"},
    "qwen2 with windows": {
        "family": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 20,
        "max_window_layers": 1,
    },
    "qwen3": {"family": "qwen3", "head_dim": 16},
    "gemma": {"family": "gemma", "head_dim": 16},
    "gemma3": {
        "family": "gemma3_text",
        "head_dim": 16,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 24,
    },
    "mixtral": {"family": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "family": "qwen3_moe",
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
    },
    "qwen3_moe, shares as they are": {
        "family": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
}
PROMPT = "how many apples are left? one two three four five, größer als süß 🙂 "


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_greedy_text_equal_transformers(name: str, folders: Folders, drive: Drive) -> None:
    path = folders(**CONFIGS[name])
    driver = drive(**CONFIGS[name])
    reference = AutoModelForCausalLM.from_pretrained(path).eval()
    job = driver.submit(PROMPT * 2, Sampling(max_tokens=64, logprobs=20))
    driver.drain()
    tokens, prompt = job.state.tokens, job.state.prompt_length
    assert prompt > 32, "the prompt must take several chunks"
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0].log_softmax(-1)
    logged = [
        pair for chunk in driver.chunks(job) for pair in zip(chunk.token_ids, chunk.logprobs, strict=True)
    ]
    for place, (token, logprob) in enumerate(logged):
        row = expected[prompt - 1 + place]
        assert logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert float(row[token]) >= float(row.max()) - 1e-4, f"token {place} is not transformers' choice"


@pytest.mark.parametrize("name", CONFIGS)
def test_full_logits_equal_transformers(name: str, folders: Folders, drive: Drive) -> None:
    reference = AutoModelForCausalLM.from_pretrained(folders(**CONFIGS[name])).eval()
    driver = drive(**CONFIGS[name])
    job = driver.submit(PROMPT)
    pipeline = driver.pipeline
    with torch.inference_mode():
        packed = pack([job.state], [job.state.pending], [()], pipeline._memory)
        forward = pipeline._decoder.forward(packed, pipeline._memory.cache, 1)
        logits = finished(forward)
        expected = reference(torch.tensor([job.state.tokens])).logits[0, -1]
    torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(drive: Drive, dtype: str) -> None:
    logged = []
    for setting in ("float32", dtype):
        driver = drive(TextSettings(dtype=setting))
        job = driver.submit(PROMPT, Sampling(max_tokens=1, logprobs=5))
        driver.drain()
        logged.append(driver.chunks(job)[0].logprobs[0])
    assert logged[1] == pytest.approx(logged[0], abs=0.5)
