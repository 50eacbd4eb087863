"""Parts of networks that are left out, and text that is projected once: on diffusers' own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

from pipelines.image.step_cache.call import Call, carrying, current
from pipelines.image.step_cache.shallow import split
from pipelines.image.step_cache.text import computed, keep_text_projections
from pipelines.interruptible import interruptible, point

ROWS = 2


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def unet(last: str = "UpBlock2D", layers: int = 1) -> tuple[Any, Callable[[], torch.Tensor]]:
    """Three levels, one of them of odd size."""
    first = "DownBlock2D" if last == "UpBlock2D" else "CrossAttnDownBlock2D"
    network = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        layers_per_block=layers,
        down_block_types=(first, "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", last),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()
    x, text = _draw(ROWS, 4, 12, 20), _draw(ROWS, 5, 12)
    return network, lambda: network(x, 7, encoder_hidden_states=text, return_dict=False)[0]


def pixart() -> tuple[Any, Callable[[], torch.Tensor]]:
    """PixArt's, with four blocks."""
    network = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=4,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=8,
        out_channels=4,
        use_additional_conditions=False,
    ).eval()
    x, text = _draw(ROWS, 4, 8, 8), _draw(ROWS, 5, 12)
    time, none = torch.full((ROWS,), 7), {"resolution": None, "aspect_ratio": None}

    def run() -> torch.Tensor:
        made: torch.Tensor = network(
            x, encoder_hidden_states=text, timestep=time, added_cond_kwargs=none, return_dict=False
        )[0]
        return made

    return network, run


def sana() -> tuple[Any, Callable[[], torch.Tensor]]:
    """Sana's, with three blocks."""
    network = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=8,
    ).eval()
    x, text = _draw(ROWS, 4, 8, 8), _draw(ROWS, 5, 12)
    time = torch.full((ROWS,), 7)
    return network, lambda: network(x, text, time, return_dict=False)[0]


def sd3() -> tuple[Any, Callable[[], torch.Tensor]]:
    """Stable Diffusion 3's, with three blocks."""
    network = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
    ).eval()
    x, text, pooled = _draw(ROWS, 4, 8, 8), _draw(ROWS, 5, 12), _draw(ROWS, 10)
    time = torch.full((ROWS,), 7)
    return network, lambda: network(x, text, pooled, time, return_dict=False)[0]


def flux() -> tuple[Any, Callable[[], torch.Tensor]]:
    """Flux's, with blocks of both kinds."""
    network = FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
    ).eval()
    inputs = {
        "hidden_states": _draw(ROWS, 16, 4),
        "encoder_hidden_states": _draw(ROWS, 5, 12),
        "pooled_projections": _draw(ROWS, 10),
        "timestep": torch.full((ROWS,), 0.5),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(5, 3),
    }
    return network, lambda: network(**inputs, return_dict=False)[0]


NETWORKS: dict[str, Callable[[], tuple[Any, Callable[[], torch.Tensor]]]] = {
    "unet": unet,
    "unet with attention at the top": lambda: unet("CrossAttnUpBlock2D", 2),
    "pixart": pixart,
    "sana": sana,
    "sd3": sd3,
    "flux": flux,
}


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    """As the executor runs."""
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("name", NETWORKS)
def test_the_shallow_part_with_what_the_deep_part_said_is_the_whole(name: str) -> None:
    torch.manual_seed(0)
    network, run = NETWORKS[name]()
    whole = run()
    share = split(network)
    assert share is not None and 0 < share < 0.6
    assert torch.equal(run(), whole)
    with carrying(Call((None,) * ROWS, keep_deep=True)) as call:
        assert torch.equal(run(), whole)
    assert call.seen_deep is not None
    deep = call.seen_deep.clone()
    calls: list[str] = []
    blocks = [*getattr(network, "down_blocks", ()), *getattr(network, "transformer_blocks", ())[1:]]
    for block in blocks:
        for part in block.modules():
            part.register_forward_pre_hook(lambda module, _: calls.append(type(module).__name__))
    with carrying(Call((None,) * ROWS, deep=deep)):
        shallow = run()
    torch.testing.assert_close(shallow, whole, atol=1e-6, rtol=1e-5)
    assert len(calls) == len(blocks)  # their entries, and nothing inside
    with carrying(Call((None,) * ROWS, deep=deep * 1.5)):
        assert (run() - whole).abs().max() > 1e-6


def test_networks_of_unknown_blocks_are_not_split() -> None:
    assert split(torch.nn.Linear(2, 2)) is None
    network, _ = pixart()
    network.transformer_blocks = network.transformer_blocks[:2]
    assert split(network) is None


@pytest.mark.parametrize("name", ["unet", "pixart", "sana"])
def test_text_is_projected_once_and_to_the_same_bits(name: str) -> None:
    torch.manual_seed(0)
    network, run = NETWORKS[name]()
    whole, projected = run(), 0

    def counted(project: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def forward(text: Any) -> Any:
            nonlocal projected
            projected += 1
            return project(text)

        return forward

    attentions = [each for each in network.modules() if getattr(each, "is_cross_attention", False)]
    for attention in attentions:
        attention.to_k.forward = counted(attention.to_k.forward)
    assert keep_text_projections(network) == 2 * len(attentions) > 0
    with carrying(Call((None,) * ROWS)) as first:
        assert torch.equal(run(), whole)
    assert projected == len(attentions)
    kept = computed(first)
    with carrying(Call(tuple(kept))) as second:
        assert torch.equal(run(), whole)
    assert projected == len(attentions)
    assert computed(second) == [None, None]
    with carrying(Call((kept[0], None))):  # a newcomer beside a row that is known
        assert torch.equal(run(), whole)
    assert torch.equal(run(), whole)  # outside of any call


def test_suspended_calls_do_not_see_each_other() -> None:
    seen: dict[str, list[bool]] = {"a": [], "b": []}

    def work(name: str, mine: Call) -> None:
        with carrying(mine):
            for _ in range(3):
                seen[name].append(current() is mine)
                point()

    runs = [interruptible(lambda name=name: work(name, Call(()))) for name in seen]  # type: ignore[misc]
    for _ in range(4):
        for each in runs:
            next(each, None)
            assert current() is None
    assert seen == {"a": [True] * 3, "b": [True] * 3}
