"""Position-keyed sampling: the token at position t is the argmax over ids of
(processed logits / temperature + Gumbel noise of (seed, t, id)).

The noise comes from a counter-based integer hash, so it needs no generator state and is the same on every
device, in every batch and after every preemption; adding Gumbel noise and taking the argmax draws from the
softmax (Gumbel, 1954; Maddison et al., 2014). Temperature 0 takes the argmax alone.

Processing, in this order: the ids that are allowed, repetition penalty (Keskar et al., 2019) over all ids so
far, presence and frequency penalties over the generated ids, temperature, top-k, top-p (Holtzman et al.,
2019), min-p. Each filter keeps ties with the last id it keeps. Log-probabilities are those of the
unprocessed logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import timings
from kernels.upload import moved, upload

_MASK = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF

PREFIX = 256


@dataclass(frozen=True, slots=True)
class RowSampling:
    """How one row draws its token at `position`. top_k 0, top_p 1, min_p 0 switch a filter off.

    `seen`: all ids so far, needed only with a repetition penalty; `generated`: those after the prompt,
    needed only with presence or frequency penalties. logprobs: how many alternatives to report, -1 for none
    at all (not even the drawn one's). allowed: bool `[vocab]`, the ids that may be drawn, None for
    all.
    """

    position: int
    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seen: Sequence[int] = ()
    generated: Sequence[int] = ()
    logprobs: int = -1
    allowed: Tensor | None = None

    @property
    def plain(self) -> bool:
        """The argmax of the logits as they are."""
        return self.temperature == 0.0 and not self.penalised and self.allowed is None

    @property
    def penalised(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """One row's token. finite is False where the logits held NaN or nothing but infinities; the id then
    means nothing. `top`: (id, log-probability), likeliest first."""

    id: int
    finite: bool
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


def draw(logits: Tensor, rows: Sequence[RowSampling]) -> list[Drawn]:
    """One token a row from `logits` fp32 `[rows, vocab]`; one transfer to the host."""
    peak, chosen = peaks(logits)
    drawing = [i for i, row in enumerate(rows) if not row.plain]
    if len(drawing) == len(rows):
        chosen = _drawn_ids(logits.clone(), rows)
    elif drawing:
        places = upload(drawing, torch.int64, logits.device)
        chosen[places] = _drawn_ids(logits[places], [rows[i] for i in drawing])
    made = torch.stack((chosen, peak.double()), dim=1)
    alternatives = max(row.logprobs for row in rows)
    if alternatives >= 0:
        logged = logits.log_softmax(-1)
        top = logged.topk(min(alternatives, logits.shape[-1]), dim=-1)
        told = (logged.gather(1, chosen.unsqueeze(1)), top.indices, top.values)
        made = torch.cat((made, *told), dim=1)
    table = made.tolist()
    return [_drawn(values, row, alternatives) for values, row in zip(table, rows, strict=True)]


def peaks(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of each row of `[rows, ids]` and the first id that has it, int64; NaN counts as highest.
    `torch.max` goes through a row on a CPU one by one, numpy many at once: an eighth of the time."""
    if scores.device.type != "cpu":
        return scores.max(-1)
    chosen = torch.from_numpy(scores.numpy().argmax(-1))
    return scores.gather(1, chosen.unsqueeze(1)).squeeze(1), chosen


def _drawn(values: list[float], row: RowSampling, alternatives: int) -> Drawn:
    finite = math.isfinite(values[1])
    if row.logprobs < 0 or not finite:
        return Drawn(int(values[0]), finite)
    ids, logs = values[3 : 3 + row.logprobs], values[3 + (len(values) - 3) // 2 :][: row.logprobs]
    return Drawn(
        int(values[0]), finite, values[2], tuple((int(i), v) for i, v in zip(ids, logs, strict=True))
    )


def _drawn_ids(logits: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    if timings.chosen("perturbed_argmax", logits, len(rows)):
        from kernels import drawing

        return drawing.perturbed_argmax(logits, rows)
    return perturbed_argmax(logits, rows)


def perturbed_argmax(logits: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    """The drawn ids, int64 `[rows]`; `logits` fp32 `[rows, vocab]` is a copy and is changed."""
    return perturbed(logits, rows).argmax(-1)


def perturbed(logits: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    """What the argmax is taken of; `logits` is a copy and is changed."""
    restrict(logits, rows)
    for scores, row in zip(logits, rows, strict=True):
        if row.penalised:
            _penalise(scores, row)
    heat = upload([row.temperature for row in rows], logits.dtype, logits.device).unsqueeze(1)
    logits /= torch.where(heat > 0, heat, 1.0)
    if any(row.top_k or row.top_p < 1.0 or row.min_p > 0.0 for row in rows):
        logits.masked_fill_(logits < _thresholds(logits, rows), -math.inf)
    noise = gumbel([(row.seed, row.position) for row in rows], logits.shape[-1], logits.device)
    return logits.add_(noise.mul_(heat > 0))


def restrict(logits: Tensor, rows: Sequence[RowSampling]) -> None:
    """In place: what is not allowed cannot be drawn."""
    for scores, row in zip(logits, rows, strict=True):
        if row.allowed is not None:
            scores.masked_fill_(moved(~row.allowed, scores.device), -math.inf)


def _penalise(scores: Tensor, row: RowSampling) -> None:
    if row.repetition_penalty != 1.0:
        ids = torch.unique(torch.tensor(row.seen, device=scores.device))
        found = scores[ids]
        scores[ids] = torch.where(found < 0, found * row.repetition_penalty, found / row.repetition_penalty)
    if row.generated and (row.presence_penalty or row.frequency_penalty):
        ids, counts = torch.unique(torch.tensor(row.generated, device=scores.device), return_counts=True)
        scores[ids] -= row.presence_penalty + row.frequency_penalty * counts


def _thresholds(scores: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    """The lowest score that passes each row's filters, `[rows, 1]`. Every filter keeps a prefix of the
    ids in descending order, so the last one kept decides. On CPU a short prefix is tried first: sorting a
    large vocabulary would take longer than all else."""
    vocab = scores.shape[-1]
    if scores.device.type == "cpu" and vocab > PREFIX:
        found, inside = _prefix_thresholds(scores, rows, PREFIX)
        if inside:
            return found
    return _prefix_thresholds(scores, rows, vocab)[0]


def _prefix_thresholds(scores: Tensor, rows: Sequence[RowSampling], length: int) -> tuple[Tensor, bool]:
    """The thresholds, and whether the `length` highest scores were enough to find them all."""
    vocab = scores.shape[-1]
    ordered = scores.topk(length).values if length < vocab else scores.sort(descending=True).values
    rank = torch.arange(length, device=scores.device)
    limit = upload([row.top_k or vocab for row in rows], torch.int64, scores.device).unsqueeze(1)
    within = rank < limit
    whole = torch.where(
        limit <= length,
        ordered.masked_fill(~within, -math.inf).logsumexp(-1, True),
        scores.logsumexp(-1, True),
    )
    share = (ordered - whole).exp()
    keep = within & (
        share.cumsum(-1) - share
        < upload([row.top_p for row in rows], scores.dtype, scores.device).unsqueeze(1)
    )
    keep &= share >= share[:, :1] * upload(
        [row.min_p for row in rows], scores.dtype, scores.device
    ).unsqueeze(1)
    keep[:, 0] = True
    kept = keep.sum(-1, keepdim=True)
    cut_short = (limit > length) & ((limit < vocab) | (kept == length))
    return ordered.gather(1, kept - 1), length == vocab or not bool(cut_short.any())


def gumbel(keys: Sequence[tuple[int, int]], vocab: int, device: torch.device | None = None) -> Tensor:
    """Standard Gumbel noise fp32 `[keys, vocab]`, one row for each (seed, position)."""
    mixed = [noise_key(seed, position) for seed, position in keys]
    halves = [[[key & _MASK] for key in mixed], [[key >> 32] for key in mixed]]
    low, high = upload(halves, torch.int64, device or torch.device("cpu"))
    bits = _low_bias((torch.arange(vocab, device=device) + low).bitwise_and_(_MASK))
    bits = _low_bias(bits.bitwise_xor_(high))
    uniform = bits.double().add_(0.5).mul_(2.0**-32)
    return uniform.log_().neg_().log_().neg_().float()


def noise_key(seed: int, position: int) -> int:
    """The 64 bits that seed and position are mixed to."""
    return _split_mix(_split_mix(seed & _MASK64) ^ position)


def _low_bias(x: Tensor) -> Tensor:
    """A 32-bit integer hash (Wellons' lowbias32), in place, in int64 so that nothing overflows differently
    anywhere."""
    x ^= x >> 16
    x.mul_(0x7FEB352D).bitwise_and_(_MASK)
    x ^= x >> 15
    x.mul_(0x846CA68B).bitwise_and_(_MASK)
    x ^= x >> 16
    return x


def _split_mix(x: int) -> int:
    """SplitMix64 (Steele et al., 2014), one step."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)
