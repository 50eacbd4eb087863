"""Long operations in pieces: preemption points *inside* a convolution or an attention.

At large sizes one operation takes longer than the promised delay, so points at the entries of submodules are
too far apart. A `Divisible` tensor runs through a model that knows nothing of it; `__torch_function__` sees
each operation, computes the long ones piece by piece with a `point` between two, and lets the others pass.

Rules:
  1. How an operation is cut depends on shapes alone, so suspension never changes a bit. Against the
     operation in one go, convolutions and products may differ by rounding.
  2. It is the tensor that is special and not the thread: nothing has to be put aside at a switch.
  3. What is not known here runs in one go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch.nn import functional as nnf

from pipelines.interruptible import point

# 5 to 8 ms each on one core of a server of 2023.
PIECE_MACS: Final = 150_000_000
PIECE_ELEMENTS: Final = 1_500_000
WORTH_DIVIDING_MACS: Final = 2 * PIECE_MACS
SCORE_MACS: Final = 24  # what one attention score costs beside its products: exponential, rescaling
_LEAST_CHANNELS: Final = 16  # fewer outputs of a convolution cost as much as these
_ELEMENT_MACS: Final = 48  # what it costs to read or write an element of an image, fresh memory included
Function = Callable[..., Any]


class Divisible(torch.Tensor):
    """A tensor whose long operations are divided; a view of a plain one."""

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        divide = _DIVIDERS.get(func)
        with torch._C.DisableTorchFunctionSubclass():
            if divide is None:
                return _divisible(func(*args, **(kwargs or {})))
            args, kwargs = _plain(args), _plain(kwargs or {})
        result = divide(func, *args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return _divisible(result)


def divisible(tensor: torch.Tensor, macs: float) -> torch.Tensor:
    """The same memory, as a tensor whose long operations are divided. `macs`: multiply-adds of the longest
    operation to come, roughly; where all are short the tensor stays plain, and on a GPU, where an operation
    returns before it has run."""
    if macs <= WORTH_DIVIDING_MACS or tensor.is_cuda:
        return tensor
    return tensor.as_subclass(Divisible)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Back again; does nothing to a plain tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(torch.Tensor)


def _plain(value: Any) -> Any:
    if isinstance(value, Divisible):
        return value.as_subclass(torch.Tensor)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _divisible(value: Any) -> Any:
    if type(value) is torch.Tensor:
        return value.as_subclass(Divisible)
    if type(value) in (list, tuple):
        return type(value)(_divisible(item) for item in value)
    return value


# --- how each operation is divided -------------------------------------------------------------------------


def _conv2d(
    func: Function,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Images; where one is too long, rows of its output, each from the rows that it needs."""
    if isinstance(padding, str):
        return _in_one_go(func, x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]
    step, pad_h, pad_w = _pair(stride)[0], *_pair(padding)
    reach = (weight.shape[2] - 1) * _pair(dilation)[0] + 1
    height = (x.shape[2] + 2 * pad_h - reach) // step + 1
    width = (x.shape[3] + 2 * pad_w - (weight.shape[3] - 1) * _pair(dilation)[1] - 1) // _pair(stride)[1] + 1
    pixel_macs = max(weight.shape[0], _LEAST_CHANNELS) * weight[0].numel()
    row_macs = (pixel_macs + _ELEMENT_MACS * (x.shape[1] + weight.shape[0])) * width
    if x.shape[0] * height * row_macs <= PIECE_MACS:
        return _in_one_go(func, x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]
    out = x.new_empty((x.shape[0], weight.shape[0], height, width))
    images, rows = _share(PIECE_MACS, row_macs * height, x.shape[0]), _share(PIECE_MACS, row_macs, height)
    for image in range(0, x.shape[0], images):
        for first in range(0, height, rows):
            point()
            last = min(first + rows, height)
            low, high = first * step - pad_h, (last - 1) * step - pad_h + reach
            piece = x[image : image + images, :, max(low, 0) : min(high, x.shape[2])]
            if low < 0 or high > x.shape[2]:
                piece = nnf.pad(piece, (0, 0, max(-low, 0), max(high - x.shape[2], 0)))
            part = func(piece, weight, bias, stride, (0, pad_w), dilation, groups)
            out[image : image + images, :, first:last] = part
    return out


def _linear(
    func: Function, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Rows of the input."""
    flat = x.reshape(-1, x.shape[-1])
    rows = _share(PIECE_MACS, weight.numel(), len(flat))
    if len(flat) <= rows:
        return _in_one_go(func, x, weight, bias)  # type: ignore[no-any-return]
    out = x.new_empty((len(flat), weight.shape[0]))
    for first in range(0, len(flat), rows):
        point()
        out[first : first + rows] = func(flat[first : first + rows], weight, bias)
    return out.reshape(*x.shape[:-1], weight.shape[0])


def _attention(
    func: Function,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """Queries, one image and head after the other."""
    a_query = key.shape[-2] * (2 * query.shape[-1] + SCORE_MACS)
    if is_causal or query.dim() != 4 or query[..., 0].numel() * a_query <= PIECE_MACS:
        return _in_one_go(func, query, key, value, attn_mask, dropout_p, is_causal, **kwargs)  # type: ignore[no-any-return]
    mask = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for here, queries in _heads(query.shape, a_query):
        heard = None if mask is None else mask[queries]
        out[queries] = func(query[queries], key[here], value[here], heard, dropout_p, **kwargs)
    return out


def _matmul(func: Function, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Attention written out, linear attention too: rows on the left, one image and head after the other."""
    a_row = y.shape[-1] * (x.shape[-1] + _ELEMENT_MACS)
    if x.dim() != 4 or x.shape[:2] != y.shape[:2] or x[..., 0].numel() * a_row <= PIECE_MACS:
        return _in_one_go(func, x, y)  # type: ignore[no-any-return]
    out = x.new_empty((*x.shape[:3], y.shape[3]))
    for here, rows in _heads(x.shape, a_row):
        out[rows] = func(x[rows], y[here])
    return out


def _heads(shape: Any, a_row: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Of (images, heads, rows, ...): heads, and of these rows, with a point before each."""
    images, heads, length = shape[:3]
    rows = _share(PIECE_MACS, a_row, length)
    together = max(1, PIECE_MACS // (a_row * length))
    for image in range(images):
        for head in range(0, heads, together):
            here = (slice(image, image + 1), slice(head, head + together))
            for first in range(0, length, rows):
                point()
                yield here, (*here, slice(first, first + rows))


def _group_norm(
    func: Function,
    x: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Groups, one image after the other: they do not depend on each other."""
    if x.numel() <= PIECE_ELEMENTS:
        return _in_one_go(func, x, num_groups, weight, bias, eps)  # type: ignore[no-any-return]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    channels = x.shape[1] // num_groups
    groups = _share(PIECE_ELEMENTS, x[0].numel() // num_groups, num_groups)
    for image in range(x.shape[0]):
        for first in range(0, num_groups, groups):
            point()
            count = min(groups, num_groups - first)
            here = slice(first * channels, (first + count) * channels)
            scale = None if weight is None else weight[here]
            shift = None if bias is None else bias[here]
            out[image : image + 1, here] = func(x[image : image + 1, here], count, scale, shift, eps)
    return out


def _piecewise(func: Function, *args: Any, **kwargs: Any) -> Any:
    """Functions of single elements."""
    return _in_slices(lambda *parts: func(*parts, **kwargs), args, PIECE_ELEMENTS)


def _planewise(func: Function, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Functions of what lies beyond the first two dimensions; the other arguments are not divided. The
    result may be four times as large (an upsampler's)."""
    return _in_slices(lambda piece: func(piece, *args, **kwargs), (x,), PIECE_ELEMENTS // 4)


def _rowwise(func: Function, x: torch.Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Functions along the last dimension."""
    if dim not in (-1, [-1], (-1,)) or x.dim() < 3:
        return _in_one_go(func, x, dim, *args, **kwargs)
    return _planewise(func, x, dim, *args, **kwargs)


def _pad(func: Function, x: torch.Tensor, pad: Any, *args: Any, **kwargs: Any) -> Any:
    """Of what lies beyond the first two dimensions."""
    if len(pad) > 2 * (x.dim() - 2):
        return _in_one_go(func, x, pad, *args, **kwargs)
    return _planewise(func, x, pad, *args, **kwargs)


def _repeat_interleave(
    func: Function, x: torch.Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> torch.Tensor:
    """Channels."""
    if dim != 1 or not isinstance(repeats, int) or x.numel() * repeats <= PIECE_ELEMENTS:
        return _in_one_go(func, x, repeats, dim, output_size=output_size)  # type: ignore[no-any-return]
    out = x.new_empty((x.shape[0], x.shape[1] * repeats, *x.shape[2:]))
    for image, channels in _pieces(x.shape, PIECE_ELEMENTS // repeats):
        point()
        there = slice(channels.start * repeats, channels.stop * repeats)
        out[image, there] = func(x[image, channels], repeats, dim)
    return out


def _pixel_shuffle(func: Function, x: torch.Tensor, factor: int) -> torch.Tensor:
    """Output channels, of all images together."""
    group = factor * factor
    channels = x.shape[1] // group
    together = _share(PIECE_ELEMENTS, x.numel() // channels, channels)
    if together == channels:
        return _in_one_go(func, x, factor)  # type: ignore[no-any-return]
    out = x.new_empty((x.shape[0], channels, x.shape[2] * factor, x.shape[3] * factor))
    for first in range(0, channels, together):
        point()
        piece = x[:, first * group : (first + together) * group]
        out[:, first : first + together] = func(piece, factor)
    return out


def _in_slices(func: Function, args: tuple[Any, ...], limit: int) -> Any:
    """Slices of the first two dimensions, tensors broadcast against each other."""
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    largest = max(tensors, key=torch.numel)
    if largest.numel() <= limit or largest.dim() < 2:
        if largest.numel() * 8 > limit:
            point()
        return func(*args)
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))  # type: ignore[no-untyped-call]
    wide = [arg.expand(shape) if isinstance(arg, torch.Tensor) else arg for arg in args]
    out: torch.Tensor | None = None
    for here in _pieces(shape, limit):
        point()
        part = func(*(arg[here] if isinstance(arg, torch.Tensor) else arg for arg in wide))
        if out is None:
            out = part.new_empty((*shape[:2], *part.shape[2:]))
        out[here] = part
    return out


def _cat(func: Function, tensors: Any, dim: int = 0) -> Any:
    """Channels, one image after the other."""
    first = tensors[0]
    total = sum(tensor.numel() for tensor in tensors)
    if dim != 1 or first.dim() != 4 or total <= PIECE_ELEMENTS:
        return _in_one_go(func, tensors, dim)
    out = first.new_empty((first.shape[0], sum(tensor.shape[1] for tensor in tensors), *first.shape[2:]))
    offset = 0
    for tensor in tensors:
        for image, channels in _pieces(tensor.shape, PIECE_ELEMENTS):
            point()
            there = slice(channels.start + offset, min(channels.stop, tensor.shape[1]) + offset)
            out[image, there] = tensor[image, channels]
        offset += tensor.shape[1]
    return out


def _reshape(func: Function, x: torch.Tensor, *shape: Any, **named: Any) -> Any:
    """Where it copies, the copy is divided."""
    if x.numel() <= PIECE_ELEMENTS or x.is_contiguous():
        return func(x, *shape, **named)
    return func(_piecewise(torch.Tensor.contiguous, x), *shape, **named)


def _in_one_go(func: Function, *args: Any, **kwargs: Any) -> Any:
    point()
    return func(*args, **kwargs)


def _pieces(shape: Any, limit: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the first two dimensions."""
    step = _share(limit, math.prod(shape[2:]), shape[1])
    for image in range(shape[0]):
        for first in range(0, shape[1], step):
            yield slice(image, image + 1), slice(first, first + step)


def _share(limit: int, cost: int, count: int) -> int:
    """How many of `count`, at `cost` each, stay within the limit: at least one."""
    return max(1, min(count, limit // max(cost, 1)))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


_DIVIDERS: Final[dict[Any, Function]] = {
    torch.conv2d: _conv2d,
    nnf.linear: _linear,
    nnf.scaled_dot_product_attention: _attention,
    nnf.group_norm: _group_norm,
    nnf.layer_norm: _planewise,
    nnf.interpolate: _planewise,
    nnf.pixel_shuffle: _pixel_shuffle,
    nnf.pad: _pad,
    nnf.softmax: _rowwise,
    torch.Tensor.mean: _rowwise,
    torch.matmul: _matmul,
    torch.Tensor.repeat_interleave: _repeat_interleave,
    torch.cat: _cat,
    torch.Tensor.reshape: _reshape,
    **dict.fromkeys(
        (
            nnf.silu,
            nnf.gelu,
            nnf.relu,
            torch.sigmoid,
            torch.tanh,
            torch.Tensor.add,
            torch.Tensor.mul,
            torch.Tensor.sub,
            torch.Tensor.div,
            torch.Tensor.pow,
            torch.Tensor.contiguous,
            torch.Tensor.clone,
        ),
        _piecewise,
    ),
}
