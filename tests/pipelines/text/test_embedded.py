"""The embedded model: what it says is what transformers would let it say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.messages import Sampling
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver

MODEL = Path(__file__).parents[3] / "models" / "upbeat-text"
PROMPTS = (
    "Hello!",
    "What is 12 + 30?",
    "Tell me about a red boat.",
    "Why is the sky blue?",
    "größer als süß 🙂",
)


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    return model


def test_greedy_text_equals_transformers(reference: torch.nn.Module) -> None:
    driver = Driver(TextPipeline.load(MODEL, name="upbeat-text", settings=TextSettings()))
    jobs = [driver.submit(prompt, Sampling(max_tokens=64)) for prompt in PROMPTS]
    driver.drain()
    for job in jobs:
        tokens, prompt = job.state.tokens, job.state.prompt_length
        with torch.inference_mode():
            logits = reference(torch.tensor([tokens])).logits[0, prompt - 1 : -1]
        chosen = logits.gather(1, torch.tensor(tokens[prompt:]).unsqueeze(1))[:, 0]
        assert bool((chosen >= logits.max(-1).values - 1e-4).all())
        assert driver.text(job)
