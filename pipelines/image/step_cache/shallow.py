"""Leaving out the deep part of a network that we did not write, and taking what it said.

U-Nets (diffusers' UNet2DConditionModel): shallow are the first convolution, the last block's last layer and
the output; the deep part is what reaches that layer from below (DeepCache's branch 0). Modules that are left
out return placeholders of the right shape that take no memory. Transformers: shallow is the first block; the
deep part is what the others add to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from pipelines.image.divisible import plain
from pipelines.image.step_cache.call import current

Forward = Callable[..., Any]
_PAIRS: Final = ("JointTransformerBlock", "FluxTransformerBlock", "FluxSingleTransformerBlock")
_SINGLES: Final = ("BasicTransformerBlock", "SanaTransformerBlock")


def split(network: Any) -> float | None:
    """Makes the network's calls obey `Call.deep` and `keep_deep`. Returns the share of its weights that the
    shallow part runs, None where it cannot be split."""
    kept = _split_unet(network) if hasattr(network, "up_blocks") else _split_transformer(network)
    if kept is None:
        return None
    shallow = sum(weight.numel() for module in kept for weight in module.parameters())
    return float(shallow / sum(weight.numel() for weight in network.parameters()))


# --- U-Nets ------------------------------------------------------------------------------------------------


def _split_unet(network: Any) -> list[Any] | None:
    last = network.up_blocks[-1]
    if len(last.resnets) < 2:
        return None
    for block in network.down_blocks:
        _leave_out(block, _down(block))
    if network.mid_block is not None:
        _leave_out(network.mid_block, _hidden)
    for block in network.up_blocks[:-1]:
        _leave_out(block, _up(block))
    for resnet in last.resnets[:-1]:
        _leave_out(resnet, _like(resnet.out_channels))
    attentions = list(getattr(last, "attentions", ()))
    for attention in attentions[:-1]:
        _leave_out(attention, lambda *args, **kwargs: (_hidden(*args, **kwargs),))
    resnet = last.resnets[-1]
    resnet.forward = _exchange(resnet.forward, resnet.in_channels - network.conv_in.out_channels)
    return [network.conv_in, resnet, *attentions[-1:], network.time_embedding, network.conv_out]


def _leave_out(module: Any, placeholder: Forward) -> None:
    module.forward = _unless_partial(module.forward, placeholder)


def _unless_partial(forward: Forward, placeholder: Forward) -> Forward:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = current()
        return placeholder(*args, **kwargs) if call is not None and call.partial else forward(*args, **kwargs)

    return wrapped


def _exchange(forward: Forward, channels: int) -> Forward:
    """The last layer's input: its first channels come from the deep part."""

    def wrapped(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        call = current()
        if call is not None and call.deep is not None:
            hidden = torch.cat([call.deep.to(hidden.dtype), hidden[:, channels:]], dim=1)
        elif call is not None and call.keep_deep:
            call.seen_deep = plain(hidden)[:, :channels]
        return forward(hidden, *args, **kwargs)

    return wrapped


def _down(block: Any) -> Forward:
    def placeholders(*args: Any, **kwargs: Any) -> Any:
        hidden = _hidden(*args, **kwargs)
        height, width = hidden.shape[2:]
        made = [_empty(hidden, resnet.out_channels, height, width) for resnet in block.resnets]
        if block.downsamplers is not None:
            made.append(_empty(hidden, block.resnets[-1].out_channels, (height + 1) // 2, (width + 1) // 2))
        return made[-1], tuple(made)

    return placeholders


def _up(block: Any) -> Forward:
    def placeholder(*args: Any, **kwargs: Any) -> Any:
        hidden = _hidden(*args, **kwargs)
        height, width = hidden.shape[2:]
        if block.upsamplers is not None:
            size = kwargs.get("upsample_size")
            height, width = size if size is not None else (2 * height, 2 * width)
        return _empty(hidden, block.resnets[-1].out_channels, height, width)

    return placeholder


def _like(channels: int) -> Forward:
    return lambda hidden, *args, **kwargs: _empty(hidden, channels, *hidden.shape[2:])


def _hidden(*args: Any, **kwargs: Any) -> torch.Tensor:
    tensor: torch.Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    return tensor


def _empty(like: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
    """(rows, channels, height, width) of one element's memory."""
    return like.new_zeros(1).expand(len(like), channels, height, width)


# --- transformers ------------------------------------------------------------------------------------------


def _split_transformer(network: Any) -> list[Any] | None:
    blocks = [
        *getattr(network, "transformer_blocks", ()),
        *getattr(network, "single_transformer_blocks", ()),
    ]
    if len(blocks) < 3 or any(type(block).__name__ not in (*_PAIRS, *_SINGLES) for block in blocks):
        return None
    blocks[0].forward = _first(blocks[0].forward)
    for block in blocks[1:-1]:
        _leave_out(block, _passed_on(type(block).__name__ in _PAIRS))
    blocks[-1].forward = _last(blocks[-1].forward, type(blocks[-1]).__name__ in _PAIRS)
    listed = {id(weight) for block in blocks[1:] for weight in block.parameters()}
    return [_Others([weight for weight in network.parameters() if id(weight) not in listed])]


class _Others:
    """Weights that belong to no block but the first."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self._weights = weights

    def parameters(self) -> list[torch.Tensor]:
        """As a module's."""
        return self._weights


def _passed_on(pair: bool) -> Forward:
    def outputs(*args: Any, **kwargs: Any) -> Any:
        hidden = _hidden(*args, **kwargs)
        return (kwargs["encoder_hidden_states"], hidden) if pair else hidden

    return outputs


def _first(forward: Forward) -> Forward:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        made = forward(*args, **kwargs)
        call = current()
        if call is not None:
            call.first = plain(_image_of(made))
        return made

    return wrapped


def _last(forward: Forward, pair: bool) -> Forward:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = current()
        if call is not None and call.deep is not None:
            hidden = _hidden(*args, **kwargs)
            hidden = hidden + call.deep.to(hidden.dtype)
            return (kwargs["encoder_hidden_states"], hidden) if pair else hidden
        made = forward(*args, **kwargs)
        if call is not None and call.keep_deep:
            assert call.first is not None
            call.seen_deep = plain(_image_of(made)) - call.first
        return made

    return wrapped


def _image_of(made: Any) -> torch.Tensor:
    """The picture's hidden states: blocks of two streams return the text's first."""
    tensor: torch.Tensor = made[1] if isinstance(made, tuple) else made
    return tensor
