"""What `benchmarks.kernels` times: each kernel at the sizes of decoding and denoising, with counted bytes
and floating-point operations, beside the plain torch that would run otherwise and, for attention, SDPA and
FlexAttention.

Bytes are what must be read and written once; operations count a multiplication and an addition as two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernel_checks import PAGE, Heads, firsts, rig
from kernels import quantised, reference, reference_decoder, reference_media, sampling
from kernels.paged import paged_rows
from kernels.reference import Span

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Calls:
    """The same work: by Triton, by plain torch, and by `peers`, which may get their inputs in an order of
    their own. `compiled`: makes peers that are compiled first. `compilable`: torch.compile is tried on the
    plain torch."""

    triton: Call
    torch: Call
    peers: dict[str, Call] = field(default_factory=dict)
    compilable: bool = True
    compiled: dict[str, Callable[[], Call]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """`size`: as dispatch measures the kernel's calls; `dtype`: by which it knows them, None for any that
    the model has. `make` allocates on a device in a dtype."""

    kernel: str
    shape: str
    size: int
    bytes: int
    flops: int
    make: Callable[[torch.device, torch.dtype], Calls]
    dtype: torch.dtype | None = None


LLAMA = Heads(32, 8, 128)
SMALL = Heads(4, 2, 16)


def cases(itemsize: int, *, tiny: bool) -> list[Case]:
    """All of them, for a dtype of `itemsize` bytes; tiny ones run under the interpreter."""
    heads = SMALL if tiny else LLAMA
    width, wide, vocab = (48, 96, 300) if tiny else (4096, 14336, 128256)
    found: list[Case] = []
    for tokens in (2,) if tiny else (8, 512):
        found += [
            rms_norm(tokens, width, itemsize),
            add_rms_norm(tokens, width, itemsize),
            rope_append(tokens, heads, itemsize),
            gate_multiply(tokens, wide, itemsize),
        ]
    for rows, context in ((2, 40),) if tiny else ((1, 8192), (8, 4096), (32, 1024)):
        found.append(paged_decode(rows, context, heads, itemsize))
    found.append(shared_prefix(*((2, 32, 20) if tiny else (32, 4096, 128)), heads, itemsize))
    found.append(paged_prefill(*((2, 20, 40) if tiny else (4, 512, 1536)), heads, itemsize))
    for bits in (8, 4):
        for rows in (2,) if tiny else (1, 8):
            found.append(
                quantised_linear(bits, rows, *((64, 32, 32) if tiny else (4096, 14336, 128)), itemsize)
            )
    for rows in (2,) if tiny else (8, 32):
        found.append(perturbed_argmax(rows, vocab))
    for shape in ((1, 4, 2, 6),) if tiny else ((2, 320, 32, 128), (2, 1280, 32, 32)):
        found.append(group_norm_silu(*shape, itemsize))
    found.append(modulate(*((1, 3, 40) if tiny else (2, 4096, 1152)), itemsize))
    for size in (60,) if tiny else (4 * 128 * 128, 16 * 256 * 256):
        found.append(latent_steps(2, 4, size))
    found.append(overlap_add(*((1, 4, 16, 4) if tiny else (8, 400, 1024, 256))))
    return found


def rms_norm(tokens: int, width: int, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels import norm

        x, weight, eps = norm_inputs(device, dtype)
        return Calls(lambda: norm.rms_norm(x, weight, eps), lambda: reference.rms_norm(x, weight, eps))

    def norm_inputs(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        inputs = rig(str(device), dtype)
        return inputs.normal(tokens, width), inputs.normal(width), torch.tensor(1e-5, device=device)

    count = (2 * tokens * width + width) * item
    return Case("rms_norm", f"{tokens}x{width}", tokens, count, 4 * tokens * width, make)


def add_rms_norm(tokens: int, width: int, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels import norm

        inputs = rig(str(device), dtype)
        x, residual, weight = inputs.normal(tokens, width), inputs.normal(tokens, width), inputs.normal(width)
        eps = torch.tensor(1e-5, device=device)
        return Calls(
            lambda: norm.add_rms_norm(x, residual, weight, eps),
            lambda: reference_decoder.add_rms_norm(x, residual, weight, eps),
        )

    count = (4 * tokens * width + width) * item
    return Case("add_rms_norm", f"{tokens}x{width}", tokens, count, 5 * tokens * width, make)


def rope_append(tokens: int, heads: Heads, item: int) -> Case:
    every = heads.queries + 2 * heads.kv

    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels import rope

        inputs = rig(str(device), dtype)
        mixed = inputs.normal(tokens, every, heads.size)
        angles = inputs.normal(tokens, 1, heads.size // 2, dtype=torch.float32)
        rotation = torch.polar(torch.ones_like(angles), angles)
        cache = inputs.normal(2 * heads.kv, tokens + PAGE, heads.size)
        slots = torch.arange(tokens, device=device)
        return Calls(
            lambda: rope.rope_append(mixed, rotation, cache, slots, heads.queries),
            lambda: reference_decoder.rope_append(mixed, rotation, cache, slots, heads.queries),
        )

    count = tokens * (2 * every * heads.size * item + 4 * heads.size + 8)
    flops = tokens * (heads.queries + heads.kv) * heads.size * 3
    return Case("rope_append", f"{tokens}x{every}x{heads.size}", tokens, count, flops, make)


def gate_multiply(tokens: int, width: int, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels import gate

        x = rig(str(device), dtype).normal(tokens, 2 * width)
        return Calls(
            lambda: gate.gate_multiply(x, "silu"), lambda: reference_decoder.gate_multiply(x, "silu")
        )

    return Case(
        "gate_multiply", f"{tokens}x{width}", tokens, 3 * tokens * width * item, 6 * tokens * width, make
    )


def paged_decode(rows: int, context: int, heads: Heads, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels.paged_decode import paged_decode as fast

        q, cache, pages = paged_inputs(device, dtype, heads, [1] * rows, [context] * rows)
        table = paged_rows(range(rows), [1] * rows, [context] * rows, pages, PAGE, device)
        plan = reference.plan_attention(spans([1] * rows, [context] * rows, pages), cache)
        return Calls(
            lambda: fast(q, cache, table),
            lambda: reference.attend(q, cache, plan),
            *dense_peers(q, cache, pages, rows, 1, context),
        )

    kv = rows * context * 2 * heads.kv * heads.size
    count = (kv + 2 * rows * heads.queries * heads.size) * item
    flops = 4 * rows * context * heads.queries * heads.size
    return Case("paged_decode", f"{rows} rows, {context} tokens", rows * context, count, flops, make)


def shared_prefix(rows: int, prefix: int, own: int, heads: Heads, item: int) -> Case:
    context = prefix + own

    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels.paged_decode import paged_decode as apart
        from kernels.shared_prefix import shared_prefix_decode

        q, cache, pages = paged_inputs(device, dtype, heads, [1] * rows, [context] * rows, prefix // PAGE)
        table = paged_rows(range(rows), [1] * rows, [context] * rows, pages, PAGE, device)
        return Calls(
            lambda: shared_prefix_decode(q, cache, table, prefix),
            lambda: apart(q, cache, table),
            *dense_peers(q, cache, pages, rows, 1, context),
        )

    kv = (prefix + rows * own) * 2 * heads.kv * heads.size
    count = (kv + 2 * rows * heads.queries * heads.size) * item
    flops = 4 * rows * context * heads.queries * heads.size
    return Case("shared_prefix", f"{rows} rows, {prefix} + {own} tokens", prefix, count, flops, make)


def paged_prefill(rows: int, fresh: int, context: int, heads: Heads, item: int) -> Case:
    counts, contexts = [fresh] * rows, [context] * rows

    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels.paged_prefill import paged_prefill as fast
        from kernels.paged_prefill import tiles_of

        q, cache, pages = paged_inputs(device, dtype, heads, counts, contexts)
        table = paged_rows(firsts(counts), counts, contexts, pages, PAGE, device)
        tiles, side = tiles_of(counts, heads.queries // heads.kv, device)
        plan = reference.plan_attention(spans(counts, contexts, pages), cache)
        return Calls(
            lambda: fast(q, cache, table, tiles, side),
            lambda: reference.attend(q, cache, plan),
            *dense_peers(q, cache, pages, rows, fresh, context),
        )

    seen = rows * (fresh * (context - fresh) + fresh * (fresh + 1) // 2)
    count = rows * (context * 2 * heads.kv + 2 * fresh * heads.queries) * heads.size * item
    shape = f"{rows} rows of {fresh}, {context} tokens"
    return Case("paged_prefill", shape, rows * fresh, count, 4 * seen * heads.queries * heads.size, make)


def paged_inputs(
    device: torch.device,
    dtype: torch.dtype,
    heads: Heads,
    counts: list[int],
    contexts: list[int],
    shared: int = 0,
) -> tuple[Tensor, Tensor, list[list[int]]]:
    """(queries, cache, pages of each row) with scattered pages; made on the device."""
    needed = [-(-context // PAGE) - shared for context in contexts]
    order = torch.randperm(sum(needed) + shared, generator=torch.Generator().manual_seed(0)).tolist()
    rest = iter(order[shared:])
    pages = [order[:shared] + [next(rest) for _ in range(number)] for number in needed]
    cache = torch.randn(2 * heads.kv, len(order) * PAGE, heads.size, device=device, dtype=dtype)
    q = torch.randn(sum(counts), heads.queries, heads.size, device=device, dtype=dtype) * heads.size**-0.5
    return q, cache, pages


def spans(counts: list[int], contexts: list[int], pages: list[list[int]]) -> list[Span]:
    """The rows as the reference takes them."""
    places = [torch.tensor([page * PAGE + i for page in row for i in range(PAGE)]) for row in pages]
    rows = zip(firsts(counts), counts, contexts, places, strict=True)
    return [Span(first, count, context, slots[:context]) for first, count, context, slots in rows]


def dense_peers(
    q: Tensor, cache: Tensor, pages: list[list[int]], rows: int, fresh: int, context: int
) -> tuple[dict[str, Call], bool, dict[str, Callable[[], Call]]]:
    """(peers, compilable, compiled) of `Calls`: SDPA and FlexAttention over keys and values gathered
    beforehand, which costs them nothing here."""
    slots = torch.tensor([[page * PAGE + i for page in row for i in range(PAGE)][:context] for row in pages])
    keys, values = cache[:, slots.to(q.device)].transpose(0, 1).contiguous().chunk(2, dim=1)
    queries = q.view(rows, fresh, *q.shape[1:]).transpose(1, 2).contiguous()
    earlier = context - fresh
    ones = torch.ones(fresh, context, dtype=torch.bool, device=q.device)
    mask = None if fresh == 1 else ones.tril(earlier)

    def sdpa() -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values, mask, scale=1.0, enable_gqa=True)

    return {"sdpa": sdpa}, False, {"flex": lambda: _flex(queries, keys, values, earlier)}


def _flex(queries: Tensor, keys: Tensor, values: Tensor, earlier: int) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def causal(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query + earlier

    blocks = None
    if queries.shape[2] > 1:
        blocks = create_block_mask(
            causal, None, None, queries.shape[2], keys.shape[2], device=str(queries.device)
        )
    compiled = torch.compile(flex_attention)
    return lambda: compiled(queries, keys, values, block_mask=blocks, scale=1.0, enable_gqa=True)


def quantised_linear(bits: int, rows: int, inputs: int, outputs: int, group: int, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels.quantised_matvec import quantised_linear as fast

        full = torch.randn(outputs, inputs, device=device, dtype=dtype) * inputs**-0.5
        weight, x = quantised.quantise(full, bits, group), rig(str(device), dtype, 1).normal(rows, inputs)
        peers: dict[str, Call] = {"not rounded": lambda: F.linear(x, full)}
        if bits == 8 and device.type == "cuda":  # torch's own, with one scale an output
            whole, scales = weight.numbers, weight.scales[:, 0].contiguous()
            peers["torch int8"] = lambda: torch._weight_int8pack_mm(x, whole, scales)
        return Calls(lambda: fast(x, weight), lambda: quantised.quantised_linear(x, weight), peers, False)

    read = outputs * inputs * bits // 8 + outputs * inputs // group * item
    count = read + rows * (inputs + outputs) * item
    shape = f"{rows}x{inputs} to {outputs}"
    return Case(f"quantised_linear_{bits}", shape, rows, count, 2 * rows * inputs * outputs, make)


def perturbed_argmax(rows: int, vocab: int) -> Case:
    asked = [sampling.RowSampling(9, seed=row, temperature=0.8, top_k=50, top_p=0.9) for row in range(rows)]

    def make(device: torch.device, _dtype: torch.dtype) -> Calls:
        from kernels.drawing import perturbed_argmax as fast

        logits = rig(str(device), torch.float32).normal(rows, vocab) * 3.0
        return Calls(
            lambda: fast(logits.clone(), asked),
            lambda: sampling.perturbed_argmax(logits.clone(), asked),
            compilable=False,
        )

    count, flops = 4 * rows * vocab, 40 * rows * vocab
    return Case("perturbed_argmax", f"{rows}x{vocab}", rows, count, flops, make, torch.float32)


def group_norm_silu(images: int, channels: int, groups: int, side: int, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels.group_norm import group_norm_silu as fast

        inputs = rig(str(device), dtype)
        x = inputs.normal(images, channels, side, side)
        weight, bias = inputs.normal(channels), inputs.normal(channels)
        return Calls(
            lambda: fast(x, groups, weight, bias, 1e-5),
            lambda: reference_media.group_norm_silu(x, groups, weight, bias, 1e-5),
        )

    size = images * channels * side * side
    shape = f"{images}x{channels}x{side}x{side}"
    return Case("group_norm_silu", shape, size, 3 * size * item, 12 * size, make)


def modulate(images: int, tokens: int, width: int, item: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Calls:
        from kernels.modulation import modulate as fast

        inputs = rig(str(device), dtype)
        x = inputs.normal(images, tokens, width)
        scale, shift = inputs.normal(images, width), inputs.normal(images, width)
        return Calls(
            lambda: fast(x, scale, shift, 1e-6), lambda: reference_media.modulate(x, scale, shift, 1e-6)
        )

    size = images * tokens * width
    shape = f"{images}x{tokens}x{width}"
    return Case("modulate", shape, images * tokens, 2 * (size + images * width) * item, 8 * size, make)


def latent_steps(sums: int, tensors: int, size: int) -> Case:
    """Of one image; dispatch asks with its latents, which are fp32."""

    def make(device: torch.device, _dtype: torch.dtype) -> Calls:
        from kernels.latents import latent_steps as fast

        inputs = rig(str(device), torch.float32)
        given, weights = [inputs.normal(size) for _ in range(tensors)], torch.randn(sums, tensors)
        return Calls(
            lambda: fast(given, weights),
            lambda: reference_media.latent_steps(given, weights),
            compilable=False,
        )

    shape = f"{sums} sums of {tensors} tensors of {size}"
    flops = 2 * sums * tensors * size
    return Case("latent_steps", shape, size, 4 * (sums + tensors) * size, flops, make, torch.float32)


def overlap_add(batch: int, frames: int, length: int, hop: int) -> Case:
    """Of sound, which is fp32."""

    def make(device: torch.device, _dtype: torch.dtype) -> Calls:
        from kernels.overlap import overlap_add as fast

        sound, window = (
            rig(str(device), torch.float32).normal(batch, frames, length),
            torch.hann_window(length),
        )
        window = window.to(device)
        return Calls(
            lambda: fast(sound, hop, window),
            lambda: reference_media.overlap_add(sound, hop, window),
            compilable=False,
        )

    size = batch * frames * length
    count = 4 * size + 4 * batch * (frames - -(-length // hop) + 1) * hop
    return Case(
        "overlap_add", f"{batch}x{frames}x{length}, hop {hop}", size, count, 2 * size, make, torch.float32
    )
