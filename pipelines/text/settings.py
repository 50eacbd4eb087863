"""What an operator may set for one text pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.text.speculation.drafters import DRAFTERS

DTYPES = ("float32", "bfloat16", "float16")
WEIGHTS = {"": 0, "int8": 8, "int4": 4}


@dataclass(frozen=True, slots=True)
class TextSettings:
    """Validated on construction. Raises: ValueError naming the setting.

    device: a torch device. dtype: of weights and KV cache. weights: "int8" or "int4" rounds those of the
    layers, "" does not. context_tokens: at most this many tokens a job, 0 for the model's own or
    what 1 GiB of KV holds. kv_tokens: size of the KV pool in tokens, 0 for room for eight whole contexts or
    what 1 GiB holds. max_jobs: admitted at a time. max_rows: jobs in one slice. max_chunk: prompt tokens in
    one slice. prefix_reuse: share the KV of equal prompt beginnings inside a tenant. swap: evicted KV may
    wait in host memory, as much as the pool holds at most, rather than be computed again. drafters: what
    guesses tokens for speculation; empty for plain decoding. draft: folder of a small model that guesses
    too, "" for none.
    """

    device: str = "cpu"
    dtype: str = "float32"
    weights: str = ""
    context_tokens: int = 0
    kv_tokens: int = 0
    max_jobs: int = 64
    max_rows: int = 32
    max_chunk: int = 512
    prefix_reuse: bool = True
    swap: bool = True
    drafters: tuple[str, ...] = DRAFTERS
    draft: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is none of {', '.join(DTYPES)}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights: {self.weights!r} is none of {', '.join(WEIGHTS)[2:]}")
        for name in self.drafters:
            if name not in DRAFTERS:
                raise ValueError(f"drafters: {name!r} is none of {', '.join(DRAFTERS)}")
        for name in ("context_tokens", "kv_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be negative")
        for name in ("max_jobs", "max_rows", "max_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
