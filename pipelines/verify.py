"""Says what Upbeat will do with a model folder, and proves it: `python -m pipelines.verify DIR`.

A text folder is loaded and compared with transformers on a few prompts; folders of the other modalities are
loaded. Exit code 1 where the folder is not served as it should be.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from pipelines.alone import alone
from pipelines.contract import Pipeline
from pipelines.errors import ModelBroken, Unsupported, UpbeatError
from pipelines.messages import PromptRevision, Sampling, TextRequest, TokenChunk
from pipelines.text.config import ModelConfig, load_config
from pipelines.text.pipeline import TextPipeline
from pipelines.text.requests import PreparedPrompt
from pipelines.text.settings import TextSettings

PROMPTS = (
    "Say hello to the reader in one short sentence.",
    "There are 7 boxes with 12 pencils each. How many pencils are there? Explain.",
    "Naïve café, größer als süß, 你好 🙂: what languages are these?",
)
TOKENS = 32
TOLERANCE = 1e-4
"""The determinism contract's: log-probabilities in fp32, and where two best tokens are nearer than that."""
PROMISED_MS = 25.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """With transformers in fp32. apart: the largest difference of log-probabilities of said tokens. worse:
    tokens that are not transformers' choice by more than the tolerance. tokens: compared in all."""

    apart: float
    worse: int
    tokens: int

    @property
    def equal(self) -> bool:
        return self.worse == 0 and self.apart <= TOLERANCE


def compare(folder: Path, pipeline: TextPipeline) -> Comparison:
    """Greedy answers of the served path against one forward pass of transformers over each."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    apart, worse, tokens = 0.0, 0, 0
    for prompt in PROMPTS:
        request = TextRequest(sampling=Sampling(max_tokens=TOKENS, logprobs=1))
        revision = PromptRevision(1, prompt, final=True)
        prompt_ids = _ids(pipeline, request, revision)
        chunks = [c for c in alone(pipeline, request, revision) if isinstance(c, TokenChunk)]
        said = [pair for c in chunks for pair in zip(c.token_ids, c.logprobs, strict=True)]
        with torch.inference_mode():
            everything = torch.tensor([[*prompt_ids, *(token for token, _ in said)]])
            expected = reference(everything).logits[0].float().log_softmax(-1)
        for place, (token, logprob) in enumerate(said, start=len(prompt_ids) - 1):
            apart = max(apart, abs(logprob - float(expected[place, token])))
            worse += float(expected[place, token]) < float(expected[place].max()) - TOLERANCE
        tokens += len(said)
    return Comparison(apart, worse, tokens)


def layer_ms(pipeline: TextPipeline, config: ModelConfig) -> float:
    """How long one layer takes in decoding, by the median token: there is no shorter gap between preemption
    points."""
    request = TextRequest(sampling=Sampling(max_tokens=TOKENS))
    times = []
    for _ in ("to warm up", "to measure"):
        revision = PromptRevision(1, PROMPTS[0], final=True)
        times = [time.perf_counter() for _ in alone(pipeline, request, revision)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return 1000 * statistics.median(gaps or [0.0]) / (config.layers + 1)


def verify_text(folder: Path, dtype: str, table: Table) -> bool:
    """Fills the table; whether the folder is served as transformers would."""
    config = load_config(folder)
    pipeline = TextPipeline.load(folder, name=folder.name, settings=TextSettings())
    per_token = config.layers * 2 * config.kv_heads * config.head_dim * getattr(torch, dtype).itemsize
    found = compare(folder, pipeline)
    served = pipeline if dtype == "float32" else _served(folder, dtype)
    gap_ms = layer_ms(served, config)
    for name, value in (
        (
            "architecture",
            f"{config.family}, {config.layers} layers, {config.parameters / 1e6:,.1f} M parameters",
        ),
        ("context", f"{config.context:,} tokens" + _windows(config)),
        ("positions", config.rope.kind),
        ("KV cache", f"{per_token / 1024:,.1f} KiB a token in {dtype}"),
        ("ends an answer", ", ".join(map(str, sorted(config.eos))) or "nothing: answers run to their limit"),
        ("against transformers", f"{found.tokens} tokens, log-probabilities {found.apart:.1e} apart at most"),
        ("verdict", "equal" if found.equal else f"DIFFERS: {found.worse} tokens are not its choice"),
        ("one layer, decoding", f"{gap_ms:.2f} ms in {dtype}" + _too_slow(gap_ms)),
        ("will do", "partial prompts, prefix reuse, speculation, penalties, stop strings, log-probabilities"),
        ("will not do", "images or audio in the prompt, tool calls, adapters"),
    ):
        table.add_row(name, value)
    return found.equal


def verify_other(folder: Path, kind: str, table: Table) -> bool:
    """Fills the table for a folder that is no text model; True where it loads."""
    info = _LOADERS[kind](folder).info
    for name, value in (
        ("kind", f"{kind}, {info.family}, {info.parameters / 1e6:,.1f} M parameters"),
        ("sizes", _joined(f"{width}x{height}" for width, height in info.sizes)),
        ("schedulers", _joined(info.schedulers)),
        ("voices", _joined(info.voices)),
        ("sample rate", f"{info.sample_rate} Hz" if info.sample_rate else ""),
        ("languages", _joined(info.languages)),
        ("verdict", "loaded; not compared with its library's own pipeline"),
    ):
        if value:
            table.add_row(name, value)
    return True


def kind_of(folder: Path) -> str:
    """ "text", "image", "speech" or "recogniser", by the files in the folder. Raises: ModelBroken."""
    if (folder / "model_index.json").is_file():
        return "image"
    if not folder.is_dir():
        raise ModelBroken(f"{folder}: there is no such folder")
    path = folder / "config.json"
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type", "")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelBroken(
            f"{folder}: neither model_index.json nor a readable config.json ({error})"
        ) from error
    return {"vits": "speech", "upbeat-voice": "speech", "moonshine": "recogniser"}.get(
        str(model_type), "text"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="upbeat verify", description=__doc__)
    parser.add_argument("folder", type=Path, help="Hugging Face or diffusers folder")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="of the weights"
    )
    options = parser.parse_args()
    console = Console(highlight=False)
    table = Table(title=str(options.folder), show_header=False)
    try:
        kind = kind_of(options.folder)
        with console.status("loading and comparing"):
            if kind == "text":
                good = verify_text(options.folder, options.dtype, table)
            else:
                good = verify_other(options.folder, kind, table)
    except Unsupported as error:
        console.print(f"not supported: {error.message}", style="red", markup=False)
        raise SystemExit(1) from None
    except (UpbeatError, ValueError) as error:
        console.print(f"cannot be loaded: {error}", style="red", markup=False)
        raise SystemExit(1) from None
    console.print(table)
    raise SystemExit(0 if good else 1)


def _ids(pipeline: TextPipeline, request: TextRequest, revision: PromptRevision) -> tuple[int, ...]:
    prepared = pipeline.prepare(request, revision)
    assert isinstance(prepared, PreparedPrompt)
    return tuple(prepared.ids)


def _served(folder: Path, dtype: str) -> TextPipeline:
    return TextPipeline.load(folder, name=folder.name, settings=TextSettings(dtype=dtype))


def _image(folder: Path) -> Pipeline:
    from pipelines.image.pipeline import ImagePipeline

    return ImagePipeline.load(folder, name=folder.name)


def _speech(folder: Path) -> Pipeline:
    from pipelines.speech.pipeline import SpeechPipeline

    return SpeechPipeline.load(folder, name=folder.name)


def _recogniser(folder: Path) -> Pipeline:
    from pipelines.speech.transcriber import TranscriberPipeline

    return TranscriberPipeline.load(folder, name=folder.name)


_LOADERS = {"image": _image, "speech": _speech, "recogniser": _recogniser}


def _windows(config: ModelConfig) -> str:
    windowed = [window for window in config.windows if window]
    return f"; {len(windowed)} layers see the last {max(windowed)}" if windowed else ""


def _too_slow(gap_ms: float) -> str:
    if gap_ms <= PROMISED_MS:
        return ""
    return f": longer than the promised delay of {PROMISED_MS:.0f} ms, urgent work may wait as long"


def _joined(values: Iterable[str]) -> str:
    return ", ".join(values)


if __name__ == "__main__":
    main()
