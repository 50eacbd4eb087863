"""Folders that cannot be loaded: which file, which tensor, which field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelBroken, Unsupported
from pipelines.messages import Sampling
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver, Folders

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("qwen2", {}),
    ("gemma3_text", {"head_dim": 16}),
    ("qwen3_moe", MOE),
]
NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture
def copy(folders: Folders, tmp_path: Path) -> Callable[..., Path]:
    def make(**overrides: Any) -> Path:
        return Path(shutil.copytree(folders(**overrides), tmp_path / "copy"))

    return make


def load(path: Path) -> TextPipeline:
    return TextPipeline.load(path, name="tiny", settings=TextSettings())


def change_json(path: Path, **values: Any) -> None:
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (raw | values).items() if value != "absent"}))


def change_tensor(path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    tensors = load_file(path)
    old = tensors.pop(name)
    if change is not None:
        tensors[name] = change(old)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_broken_shard(copy: Callable[..., Path]) -> None:
    path = copy(shards=True)
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ModelBroken, match=shard.name):
        load(path)


def test_a_missing_shard(copy: Callable[..., Path]) -> None:
    path = copy(shards=True)
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelBroken, match=rf"{shard.name}.*missing"):
        load(path)


def test_a_truncated_file(copy: Callable[..., Path]) -> None:
    path = copy()
    (path / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        load(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file(copy: Callable[..., Path], name: str) -> None:
    path = copy()
    (path / name).unlink()
    with pytest.raises(ModelBroken, match=f"{name}.*missing"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "missing"),
        (lambda tensor: tensor[:-1].clone(), r"shape \(31,\), the config implies \(32,\)"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([3]), torch.nan), "NaN"),
        (lambda tensor: tensor.to(torch.int8), "torch.int8"),
    ],
)
def test_a_bad_tensor(copy: Callable[..., Path], change: Any, message: str) -> None:
    path = copy()
    change_tensor(path / "model.safetensors", NORM, change)
    with pytest.raises(ModelBroken, match=message) as refused:
        load(path)
    assert NORM in refused.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "gpt2"),
        ("architectures", ["LlamaForSequenceClassification"]),
        ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_type": "longrope", "rope_theta": 10000.0}),
        ("quantization_config", {"quant_method": "gptq"}),
        ("partial_rotary_factor", 0.5),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
    ],
)
def test_what_we_cannot_compute_is_named(copy: Callable[..., Path], field: str, value: Any) -> None:
    path = copy()
    change_json(path / "config.json", **{field: value})
    with pytest.raises(Unsupported, match=field) as refused:
        load(path)
    assert refused.value.field.startswith(field)
    assert refused.value.message.startswith(f"{path}/config.json: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "absent"),
        ("num_hidden_layers", 0),
        ("vocab_size", -5),
        ("intermediate_size", "wide"),
        ("num_key_value_heads", 3),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 10000.0}),
        ("vocab_size", 100),
        ("rms_norm_eps", "tiny"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": "large"}),
        ("eos_token_id", "<|end|>"),
    ],
)
def test_a_config_that_makes_no_sense(copy: Callable[..., Path], field: str, value: Any) -> None:
    path = copy()
    (path / "generation_config.json").unlink()
    change_json(path / "config.json", **{field: value})
    with pytest.raises(ModelBroken):
        load(path)


def test_the_older_spelling_of_rope_scaling(copy: Callable[..., Path]) -> None:
    path = copy(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0})
    newer = Driver(load(path))
    change_json(
        path / "config.json",
        rope_parameters="absent",
        rope_theta=500.0,
        rope_scaling={"type": "linear", "factor": 4.0},
    )
    older = Driver(load(path))
    for driver in (newer, older):
        driver.submit("one two three")
        driver.drain()
    assert newer.tokens(newer.jobs[0]) == older.tokens(older.jobs[0])


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_what_is_loaded_is_told(folders: Folders, family: str, options: dict[str, Any]) -> None:
    path = folders(family=family, **options)
    info = load(path).info
    assert (info.modality, info.family, info.context_tokens) == ("text", family, 256)
    weights = load_file(path / "model.safetensors")
    assert info.parameters == sum(tensor.numel() for tensor in weights.values())


def test_experts_in_some_layers_only(copy: Callable[..., Path]) -> None:
    path = copy(family="qwen3_moe", **MOE)
    change_json(path / "config.json", mlp_only_layers=[1])
    with pytest.raises(Unsupported, match="mlp_only_layers"):
        load(path)


@pytest.mark.parametrize(("weights", "near"), [("int8", 0.1), ("int4", 1.0)])
def test_rounded_weights_answer_nearly_the_same(folders: Folders, weights: str, near: float) -> None:
    """Log-probabilities of the first token: 0.03 and 0.35 off at most when this was written."""
    folder = folders(hidden_size=64, intermediate_size=96, initializer_range=0.1)
    logged = []
    for given in ("", weights):
        driver = Driver(TextPipeline.load(folder, name="tiny", settings=TextSettings(weights=given)))
        job = driver.submit("what is seven plus five?", Sampling(max_tokens=1, logprobs=20))
        driver.drain()
        logged.append(dict(driver.chunks(job)[0].top[0]))
    both = logged[0].keys() & logged[1].keys()
    assert len(both) > 8
    assert max(abs(logged[0][token] - logged[1][token]) for token in both) < near


def test_weights_that_cannot_be_rounded_are_refused(folders: Folders) -> None:
    with pytest.raises(ValueError, match="weights: 'int2' is none of int8, int4"):
        TextSettings(weights="int2")
    with pytest.raises(ValueError, match="int4 needs multiples of 32 inputs"):
        TextPipeline.load(folders(), name="tiny", settings=TextSettings(weights="int4"))
