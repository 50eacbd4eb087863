"""Position-keyed sampling on the device, without a sort of the vocabulary and without a wait for the host.

Three kernels: penalties on the ids that have any; for rows with filters the lowest score that passes, found
by asking how many scores (or how much probability) lie at or above a value, two bits of the value at a
time; and the argmax of score + noise over the survivors. The noise is that of `kernels.sampling.gumbel`,
bit for bit in its hash; it is computed only for blocks whose best score could still win with the greatest
noise there is. Sources: Gumbel-max (Maddison et al., 2014); selection by digits instead of sorting (Alabi
et al., 2012).

Specification: `kernels.sampling.perturbed_argmax`, from which thresholds may differ where a boundary of top-p
falls within rounding of a score. logits fp32 `[rows, vocab]`, contiguous.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import ceil_to, processors
from kernels.sampling import RowSampling, noise_key, restrict
from kernels.upload import upload

BLOCK = 1024
# One block finds a row's threshold, in up to 36 passes over its scores: as many threads as there may be.
PASS = 8192
PASS_WARPS = 16
# Above the greatest noise: -log(-log((2^32 - 0.5) / 2^32)) = 22.87.
GREATEST_NOISE = tl.constexpr(22.9)


@triton.jit(do_not_specialize=["number"])
def _penalise(
    scores: tl.tensor,
    where: tl.tensor,
    ids: tl.tensor,
    seen: tl.tensor,
    counts: tl.tensor,
    penalties: tl.tensor,
    number: tl.tensor,
    vocab: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Each (row, id) of the list once. penalties `[rows, 3]`: repetition, presence, frequency."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < number
    row = tl.load(where + i, mask=live, other=0).to(tl.int64)
    place = scores + row * vocab + tl.load(ids + i, mask=live, other=0)
    score = tl.load(place, mask=live, other=0.0)
    repetition = tl.load(penalties + 3 * row, mask=live, other=1.0)
    repetition = tl.where(tl.load(seen + i, mask=live, other=0) > 0, repetition, 1.0)
    score = tl.where(score < 0, score * repetition, tl.div_rn(score, repetition))
    count = tl.load(counts + i, mask=live, other=0)
    presence = tl.load(penalties + 3 * row + 1, mask=live, other=0.0)
    frequency = tl.load(penalties + 3 * row + 2, mask=live, other=0.0)
    lowered = score - (presence + frequency * count.to(tl.float32))
    tl.store(place, tl.where(count > 0, lowered, score), mask=live)


@triton.jit
def _ordered(x: tl.tensor) -> tl.tensor:
    """uint32 in the order of the floats. Bits are turned by xor: the interpreters of Triton 3.6 and 3.7 have
    no complement of unsigned numbers."""
    bits = x.to(tl.uint32, bitcast=True)
    return tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def _float(key: tl.tensor) -> tl.tensor:
    bits = tl.where(key >= 0x80000000, key ^ 0x80000000, key ^ 0xFFFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _amount_above(
    scores: tl.tensor,
    vocab: tl.tensor,
    peak: tl.tensor,
    key: tl.tensor,
    MASS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """How many scores lie above `key`, or (MASS) the sum of their exponentials relative to the peak."""
    amount = tl.zeros([BLOCK], tl.float32)
    for at in range(0, vocab, BLOCK):
        i = at + tl.arange(0, BLOCK)
        x = tl.load(scores + i, mask=i < vocab, other=-float("inf"))
        each = tl.exp(x - peak) if MASS else tl.full([BLOCK], 1.0, tl.float32)
        amount += tl.where((i < vocab) & (_ordered(x) > key), each, 0.0)
    return tl.sum(amount, 0)


@triton.jit
def _lowest_with(
    scores: tl.tensor,
    vocab: tl.tensor,
    peak: tl.tensor,
    wanted: tl.tensor,
    MASS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """The greatest key at or above which there is at least `wanted`."""
    found = tl.full([], 0, tl.uint32)
    one = tl.full([], 1 << 30, tl.uint32)
    for _ in range(16):
        first = tl.zeros([BLOCK], tl.float32)
        second = tl.zeros([BLOCK], tl.float32)
        third = tl.zeros([BLOCK], tl.float32)
        for at in range(0, vocab, BLOCK):
            i = at + tl.arange(0, BLOCK)
            x = tl.load(scores + i, mask=i < vocab, other=-float("inf"))
            key = _ordered(x)
            each = tl.exp(x - peak) if MASS else tl.full([BLOCK], 1.0, tl.float32)
            each = tl.where(i < vocab, each, 0.0)
            first += tl.where(key >= found + one, each, 0.0)
            second += tl.where(key >= found + one + one, each, 0.0)
            third += tl.where(key >= found + one + one + one, each, 0.0)
        found = tl.where(
            tl.sum(third, 0) >= wanted,
            found + one + one + one,
            tl.where(
                tl.sum(second, 0) >= wanted,
                found + one + one,
                tl.where(tl.sum(first, 0) >= wanted, found + one, found),
            ),
        )
        one = one >> 2
    return found


@triton.jit
def _threshold(
    scores: tl.tensor,
    filters: tl.tensor,
    top_k: tl.tensor,
    out: tl.tensor,
    vocab: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """filters `[rows, 2]`: top-p, min-p; top_k int32 `[rows]`, the vocabulary for none."""
    row = tl.program_id(0).to(tl.int64)
    scores += row * vocab
    p, least = tl.load(filters + 2 * row), tl.load(filters + 2 * row + 1)
    k = tl.load(top_k + row)
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    for at in range(0, vocab, BLOCK):
        i = at + tl.arange(0, BLOCK)
        best = tl.maximum(best, tl.load(scores + i, mask=i < vocab, other=-float("inf")))
    peak = tl.max(best, 0)
    lowest = tl.full([], 0x007FFFFF, tl.uint32)  # minus infinity
    if k < vocab:
        lowest = tl.maximum(lowest, _lowest_with(scores, vocab, peak, k.to(tl.float32), False, BLOCK))
    if p < 1.0:
        mass = _amount_above(scores, vocab, peak, lowest, True, BLOCK)
        if k < vocab:
            ties = k - _amount_above(scores, vocab, peak, lowest, False, BLOCK)
            mass += ties * tl.exp(_float(lowest) - peak)
        lowest = tl.maximum(lowest, _lowest_with(scores, vocab, peak, p * mass, True, BLOCK))
    if least > 0.0:
        lowest = tl.maximum(lowest, _ordered(peak + tl.log(least)))
    tl.store(out + row, _float(tl.minimum(lowest, _ordered(peak))))


@triton.jit
def _low_bias(x: tl.tensor) -> tl.tensor:
    """Wellons' lowbias32, as in `kernels.sampling`."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _noise(low: tl.tensor, high: tl.tensor, token: tl.tensor) -> tl.tensor:
    """Standard Gumbel noise fp32 of one row's keys."""
    bits = _low_bias(_low_bias(token.to(tl.uint32) + low) ^ high)
    uniform = (bits.to(tl.float64) + 0.5) * 2.3283064365386963e-10
    return (-tl.log(-tl.log(uniform))).to(tl.float32)


@triton.jit(do_not_specialize=["parts"])
def _draw(
    scores: tl.tensor,
    heats: tl.tensor,
    thresholds: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    chosen: tl.tensor,
    vocab: tl.tensor,
    part: tl.tensor,
    parts: tl.tensor,
    FILTER: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """The best of one part of the vocabulary. heats fp32 `[rows]`, 0 for greedy; keys int32 `[rows, 2]`."""
    row, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    drawn = tl.load(heats + row) > 0.0
    low = tl.load(keys + 2 * row).to(tl.uint32, bitcast=True)
    high = tl.load(keys + 2 * row + 1).to(tl.uint32, bitcast=True)
    best = tl.full([], -float("inf"), tl.float32)
    where = number * part
    for at in range(number * part, tl.minimum(number * part + part, vocab), BLOCK):
        i = at + tl.arange(0, BLOCK)
        x = tl.load(scores + row * vocab + i, mask=i < vocab, other=-float("inf"))
        if FILTER:
            x = tl.where(x >= tl.load(thresholds + row), x, -float("inf"))
        if drawn & (tl.max(x, 0) + GREATEST_NOISE > best):
            x += _noise(low, high, i)
        highest = tl.max(x, 0)
        if highest > best:
            where = at + tl.argmax(x, 0)
            best = highest
    tl.store(values + row * parts + number, best)
    tl.store(chosen + row * parts + number, where)


def perturbed_argmax(logits: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    """int64 `[rows]`; `logits` is a copy and is changed where a row has penalties or may not say all."""
    device = logits.device
    number, vocab = logits.shape
    restrict(logits, rows)
    if any(row.penalised for row in rows):
        _apply_penalties(logits, rows)
    columns = ([row.temperature for row in rows], [row.temperature or 1.0 for row in rows])
    heats, divisors = upload(columns, torch.float32, device)
    # Here, by all of the device: the threshold's one block would do it 36 times.
    logits /= divisors.unsqueeze(1)
    keys = upload([_halves(noise_key(row.seed, row.position)) for row in rows], torch.int32, device)
    filtered = any(row.top_k or row.top_p < 1.0 or row.min_p > 0.0 for row in rows)
    thresholds = heats
    if filtered:
        filters = upload([(row.top_p, row.min_p) for row in rows], torch.float32, device)
        limits = upload([row.top_k or vocab for row in rows], torch.int32, device)
        thresholds = torch.empty_like(heats)
        _threshold[(number,)](logits, filters, limits, thresholds, vocab, BLOCK=PASS, num_warps=PASS_WARPS)
    parts = max(1, min(-(-vocab // BLOCK), 2 * processors(device) // number))
    part = ceil_to(-(-vocab // parts), BLOCK)
    parts = -(-vocab // part)
    values = torch.empty((number, parts), dtype=torch.float32, device=device)
    chosen = torch.empty((number, parts), dtype=torch.int64, device=device)
    _draw[(number, parts)](
        logits,
        heats,
        thresholds,
        keys,
        values,
        chosen,
        vocab,
        part,
        parts,
        FILTER=filtered,
        BLOCK=BLOCK,
    )
    return chosen.gather(1, values.argmax(1, keepdim=True)).squeeze(1)


def _apply_penalties(logits: Tensor, rows: Sequence[RowSampling]) -> None:
    """In place; each row's ids once, however often they occurred."""
    listed: list[tuple[int, int, int, int]] = []
    for number, row in enumerate(rows):
        if not row.penalised:
            continue
        seen = set(row.seen) if row.repetition_penalty != 1.0 else set()
        counts = Counter(row.generated if row.presence_penalty or row.frequency_penalty else ())
        listed += [(number, token, token in seen, counts[token]) for token in seen | counts.keys()]
    if not listed:
        return
    columns = upload(listed, torch.int32, logits.device).t().contiguous()
    where, ids, seen_column, count_column = columns
    strengths = [(row.repetition_penalty, row.presence_penalty, row.frequency_penalty) for row in rows]
    penalties = upload(strengths, torch.float32, logits.device)
    _penalise[(triton.cdiv(len(listed), 256),)](
        logits,
        where,
        ids,
        seen_column,
        count_column,
        penalties,
        len(listed),
        logits.shape[1],
        BLOCK=256,
    )


def _halves(key: int) -> tuple[int, int]:
    """64 bits as two int32: low, high."""
    low, high = key & 0xFFFFFFFF, key >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)
