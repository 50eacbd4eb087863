"""Decoders of a given shape with random weights, and the packed batches that they compute: what the
benchmarks of kernels time. Needs torch alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import Linear, Span, pack, plan_attention, upload
from kernels.linear import pack_grouped
from pipelines.text.captured import whole
from pipelines.text.config import ModelConfig, RopeConfig
from pipelines.text.model import Decoder, FeedForward, Layer, Packed, Weights
from pipelines.text.rope import rotation_tables

PAGE = 16


def shaped(
    *, vocab: int, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, context: int
) -> ModelConfig:
    """A Llama of these sizes."""
    size = hidden // heads
    return ModelConfig(
        vocab=vocab,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        context=context,
        norm_eps=1e-5,
        tied=False,
        attention_bias=False,
        mlp_bias=False,
        rope=RopeConfig(500000.0, "default", {}),
        eos=frozenset(),
        windows=(0,) * layers,
        score_scale=size**-0.5,
    )


LLAMA_3_8B = shaped(
    vocab=128256, hidden=4096, intermediate=14336, layers=32, heads=32, kv_heads=8, context=8192
)
SMALL = shaped(vocab=32000, hidden=2048, intermediate=5632, layers=4, heads=16, kv_heads=4, context=4096)
TINY = shaped(vocab=60, hidden=32, intermediate=64, layers=2, heads=4, kv_heads=2, context=512)


def random_decoder(config: ModelConfig, dtype: torch.dtype, device: torch.device, bits: int = 0) -> Decoder:
    """Weights of unit variance at the output of every product; made on the device. bits: what those of the
    layers are rounded to, as on a GPU."""
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)

    def weight(outputs: int, inputs: int) -> Linear:
        made = torch.randn(outputs, inputs, generator=generator, device=device, dtype=dtype)
        made.mul_(inputs**-0.5)
        return pack_grouped(made, bits) if bits and outputs != config.vocab else pack(made)

    hidden, wide, query = config.hidden, config.intermediate, config.heads * config.head_dim
    ones = torch.ones(hidden, dtype=dtype, device=device)
    layers = tuple(
        Layer(
            attention_norm=ones,
            query_key_value=weight(query + 2 * config.kv_heads * config.head_dim, hidden),
            attended=weight(hidden, query),
            mlp_norm=ones,
            mlp=FeedForward(weight(2 * wide, hidden), weight(hidden, wide)),
        )
        for _ in range(config.layers)
    )
    embedding = torch.randn(config.vocab, hidden, generator=generator, device=device, dtype=dtype)
    rotations = {k: v.to(device) for k, v in rotation_tables(config, config.context).items()}
    return Decoder(config, Weights(embedding, layers, ones, weight(config.vocab, hidden), rotations))


def packed(
    counts: Sequence[int], contexts: Sequence[int], cache: Sequence[Tensor], vocab: int, *, common: int = 0
) -> Packed:
    """Rows of `counts` new tokens that end at `contexts`, in pages handed out from the end of the cache on;
    the first `common` tokens of all lie in the same pages."""
    device, slots = cache[0].device, cache[0].shape[1]
    generator = torch.Generator().manual_seed(len(counts))
    shared = list(range(slots // PAGE - common // PAGE, slots // PAGE))
    free = slots // PAGE - len(shared)
    spans: list[Span] = []
    positions: list[int] = []
    written: list[int] = []
    for count, context in zip(counts, contexts, strict=True):
        own = -(-context // PAGE) - len(shared)
        free -= own
        assert free >= 0, "the cache is too small for the batch"
        pages = torch.tensor([*shared, *range(free, free + own)])
        places = (pages.unsqueeze(1) * PAGE + torch.arange(PAGE)).view(-1)[:context]
        spans.append(Span(len(positions), count, context, places))
        positions += range(context - count, context)
        written += places[context - count :].tolist()
    ids = torch.randint(vocab, (len(positions),), generator=generator).tolist()
    last = [span.first + span.count - 1 for span in spans]
    return Packed(
        upload(ids, torch.int64, device),
        upload(positions, torch.int64, device),
        upload(written, torch.int64, device),
        {0: plan_attention(spans, cache[0])},
        upload(last, torch.int64, device),
    )


def computed(decoder: Decoder, batch: Packed, cache: Sequence[Tensor]) -> Tensor:
    """The logits of one forward pass without a pause."""
    return whole(decoder.forward(batch, cache, decoder.config.layers))
