"""Every family that is loaded: latents equal to its own pipeline in diffusers; tiny, random weights."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipelines.errors import InvalidRequest, ModelBroken, Unsupported
from pipelines.image.loader import load_components
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.messages import ImageRequest

WIDTH, TOKENS = 32, 16
Parts = dict[str, Any]
Make = Callable[[Any], Parts]


def clip(tokenizer: Any, projected: bool = False, width: int = WIDTH) -> Any:
    """A CLIP text encoder of two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5_tokenizer() -> Any:
    """Pieces of one character."""
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    letters += [(chr(code), -3.0) for code in range(97, 123)]
    return T5Tokenizer(vocab=letters, extra_ids=0, model_max_length=512)


def t5(tokenizer: Any) -> Any:
    """A T5 encoder of one layer."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def vae(channels: int = 4, shift: float | None = None) -> Any:
    """Four times smaller than the pixels, each way."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        scaling_factor=0.7,
        shift_factor=shift,
    )


def unet(**options: Any) -> Any:
    """Two levels."""
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 16,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
            **options,
        }
    )


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion(clip_tokenizer: Any, **parts: Any) -> Parts:
    """1.x."""
    return {
        "unet": unet(),
        "text_encoder": clip(clip_tokenizer),
        "tokenizer": clip_tokenizer,
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **parts,
    }


def turbo(clip_tokenizer: Any) -> Parts:
    """Noise at every step."""
    own = diffusers.EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    return stable_diffusion(clip_tokenizer, scheduler=own)


def consistency(clip_tokenizer: Any) -> Parts:
    """Guidance told as an embedding, noise at every step."""
    own = diffusers.LCMScheduler(**NOISE)
    return stable_diffusion(clip_tokenizer, scheduler=own, unet=unet(time_cond_proj_dim=14))


def xl(clip_tokenizer: Any, **parts: Any) -> Parts:
    """Two text encoders and the size."""
    network = unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    return {
        "unet": network,
        "text_encoder": clip(clip_tokenizer),
        "text_encoder_2": clip(clip_tokenizer, projected=True),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": clip_tokenizer,
        "vae": vae(),
        "scheduler": diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        **parts,
    }


def lightning(clip_tokenizer: Any) -> Parts:
    """Few steps from the very end."""
    own = diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    return xl(clip_tokenizer, scheduler=own)


def with_control(make: Make) -> Make:
    """The same with a ControlNet of its U-Net."""

    def parts_of(clip_tokenizer: Any) -> Parts:
        parts = make(clip_tokenizer)
        control = diffusers.ControlNetModel.from_unet(
            parts["unet"], conditioning_embedding_out_channels=(8, 8, 16)
        )
        return {**parts, "controlnet": control}

    return parts_of


def pixart_transformer(**options: Any) -> Any:
    """Two blocks."""
    return diffusers.PixArtTransformer2DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "num_layers": 2,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
            "sample_size": 16,
            "patch_size": 2,
            **options,
        }
    )


def pixart(clip_tokenizer: Any) -> Parts:
    """Alpha, with T5, the size told, and a variance that is left out."""
    pieces = t5_tokenizer()
    return {
        "transformer": pixart_transformer(
            out_channels=8,
            sample_size=128,
            interpolation_scale=1,
            num_attention_heads=3,  # the size is told in three parts of the width
            cross_attention_dim=24,
        ),
        "text_encoder": t5(pieces),
        "tokenizer": pieces,
        "vae": vae(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
        ),
    }


def sigma(clip_tokenizer: Any) -> Parts:
    """With a CLIP text encoder, as the embedded transformer has it."""
    own = {
        "out_channels": 4,
        "caption_channels": None,
        "cross_attention_dim": WIDTH,
        "num_attention_heads": 4,
    }
    return {
        "transformer": pixart_transformer(**own),
        "text_encoder": clip(clip_tokenizer),
        "tokenizer": clip_tokenizer,
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(
            **NOISE, clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing"
        ),
    }


def gemma_tokenizer() -> Any:
    """Characters; padding on the left, as Gemma's own has it."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    characters = ["▁", "\n", *(chr(code) for code in range(33, 127))]
    vocab = {token: number for number, token in enumerate((*special, *characters))}
    return GemmaTokenizer(vocab=vocab, merges=[], padding_side="left", model_max_length=4096)


def sana(clip_tokenizer: Any) -> Parts:
    """Linear attention, an autoencoder without a posterior, a language model as text encoder."""
    characters = gemma_tokenizer()
    text = Gemma2Config(
        vocab_size=len(characters),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
    )
    return {
        "transformer": diffusers.SanaTransformer2DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            num_layers=3,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=WIDTH,
            sample_size=8,
        ),
        "text_encoder": Gemma2Model(text),
        "tokenizer": characters,
        "vae": deep_vae(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def deep_vae(widths: tuple[int, ...] = (8, 16, 16), channels: int = 8) -> Any:
    """Residual blocks, and at the bottom linear attention at two scales."""
    levels = len(widths)
    deep: dict[str, Any] = {}
    for end in ("encoder", "decoder"):
        deep[f"{end}_block_types"] = ("ResBlock",) * (levels - 1) + ("EfficientViTBlock",)
        deep[f"{end}_block_out_channels"] = widths
        deep[f"{end}_layers_per_block"] = (1,) * levels
        deep[f"{end}_qkv_multiscales"] = ((),) * (levels - 1) + ((5,),)
    return diffusers.AutoencoderDC(
        latent_channels=channels, attention_head_dim=8, scaling_factor=0.41, **deep
    )


def sd3(clip_tokenizer: Any, **scheduler: Any) -> Parts:
    """A flow, three text encoders."""
    pieces = t5_tokenizer()
    return {
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=48,
            pos_embed_max_size=24,
            qk_norm="rms_norm",
        ),
        "text_encoder": clip(clip_tokenizer, projected=True, width=24),
        "text_encoder_2": clip(clip_tokenizer, projected=True, width=24),
        "text_encoder_3": t5_wide(pieces),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": clip_tokenizer,
        "tokenizer_3": pieces,
        "vae": vae(16, shift=0.1),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
    }


def t5_wide(tokenizer: Any) -> Any:
    """As wide as the joint attention."""
    config = t5(tokenizer).config
    config.d_model = 2 * WIDTH
    return T5EncoderModel(config)


def sd3_shifted(clip_tokenizer: Any) -> Parts:
    """The schedule depends on the size; no T5."""
    parts = sd3(clip_tokenizer, use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=200)
    return {**parts, "text_encoder_3": None, "tokenizer_3": None}


def flux_of(clip_tokenizer: Any, guided: bool, **scheduler: Any) -> Parts:
    """Packed patches; guidance as an input, or none."""
    pieces = t5_tokenizer()
    return {
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guided,
            axes_dims_rope=(4, 4, 8),
        ),
        "text_encoder": clip(clip_tokenizer),
        "text_encoder_2": t5(pieces),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": pieces,
        "vae": vae(4, shift=-0.2),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
    }


def flux_dev(clip_tokenizer: Any) -> Parts:
    """dev."""
    sizes = {"base_image_seq_len": 16, "max_image_seq_len": 200}
    return flux_of(clip_tokenizer, True, shift=3.0, use_dynamic_shifting=True, **sizes)


def flux_schnell(clip_tokenizer: Any) -> Parts:
    """schnell."""
    return flux_of(clip_tokenizer, False, shift=1.0)


CASES: dict[str, tuple[str, Make, dict[str, Any]]] = {
    "sd-control": ("StableDiffusionControlNetPipeline", with_control(stable_diffusion), {}),
    "xl-control": ("StableDiffusionXLControlNetPipeline", with_control(xl), {}),
    "sd": ("StableDiffusionPipeline", stable_diffusion, {}),
    "turbo": ("StableDiffusionPipeline", turbo, {}),
    "lcm": ("LatentConsistencyModelPipeline", consistency, {}),
    "xl": ("StableDiffusionXLPipeline", xl, {}),
    "lightning": ("StableDiffusionXLPipeline", lightning, {}),
    "pixart": ("PixArtAlphaPipeline", pixart, {"clean_caption": False, "use_resolution_binning": False}),
    "sigma": (
        "PixArtSigmaPipeline",
        sigma,
        {"clean_caption": False, "use_resolution_binning": False, "max_sequence_length": TOKENS},
    ),
    "sd3": ("StableDiffusion3Pipeline", sd3, {}),
    "sd3-shifted": ("StableDiffusion3Pipeline", sd3_shifted, {}),
    "sana": ("SanaPipeline", sana, {"clean_caption": False, "use_resolution_binning": False}),
    "flux-dev": ("FluxPipeline", flux_dev, {}),
    "flux-schnell": ("FluxPipeline", flux_schnell, {}),
}
CONTROL = ("sd-control", "xl-control")
FLUX = ("flux-dev", "flux-schnell")


@pytest.fixture(scope="module")
def folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's folder, made once."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    where = tmp_path_factory.mktemp("families")

    def make(name: str) -> Path:
        if not (where / name).is_dir():
            class_name, parts, _ = CASES[name]
            torch.manual_seed(0)
            pipeline = getattr(diffusers, class_name)(**parts(tokenizer))
            for module in pipeline.components.values():
                if isinstance(module, torch.nn.Module):
                    enliven(module)
            pipeline.save_pretrained(where / name)
        return where / name

    return make


def enliven(module: torch.nn.Module) -> None:
    """What starts at zero (gates, last layers) would hide what lies behind it."""
    for parameter in module.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.fixture(scope="module")
def pipelines(folders: Callable[[str], Path]) -> Callable[[str], ImagePipeline]:
    """A family's pipeline, loaded once."""
    made: dict[str, ImagePipeline] = {}

    def load(name: str) -> ImagePipeline:
        if name not in made:
            made[name] = ImagePipeline.load(folders(name), name=name, settings=ImageSettings(max_side=96))
        return made[name]

    return load


def peer_of(path: Path, name: str, class_name: str = "") -> Any:
    """diffusers' own pipeline of the folder."""
    peer_class = getattr(diffusers, class_name or CASES[name][0])
    absent = {
        **dict.fromkeys(("sd", "turbo", "lcm", "sd-control"), ("safety_checker",)),
        "sd3-shifted": ("text_encoder_3", "tokenizer_3"),
    }
    options = dict.fromkeys(absent.get(name, ()))
    peer = peer_class.from_pretrained(path, torch_dtype=torch.float32, **options)
    peer.set_progress_bar_config(disable=True)
    return peer


def call_of(name: str, steps: int, guidance: float, negative: str) -> dict[str, Any]:
    """How diffusers is asked for the same."""
    call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, **CASES[name][2]}
    if negative and name != "lcm":
        call["negative_prompt"] = negative
    return call


def unpacked(latents: torch.Tensor, name: str, width: int, height: int) -> torch.Tensor:
    """As Upbeat keeps them."""
    if name not in FLUX:
        return latents
    return diffusers.FluxPipeline._unpack_latents(latents, height, width, 4)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        *((name, 4.5) for name in CASES if name not in CONTROL),
        *((name, 1.0) for name in ("turbo", "xl", "sd3", "sana")),
    ],
)
def test_latents_equal_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
    name: str,
    guidance: float,
) -> None:
    driver = driver_of(pipelines(name))
    negative = "blue" if guidance > 1 and name not in FLUX else ""
    height = 96 if name == "sana" else 80
    options: dict[str, Any] = {"width": 64, "height": height, "steps": 4, "guidance": guidance, "seed": 5}
    job = driver.admit("a red star", negative_prompt=negative, **options)
    driver.finish(job)
    wanted = peer_of(folders(name), name)(
        "a red star",
        width=64,
        height=height,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
        **call_of(name, 4, guidance, negative),
    ).images
    wanted = unpacked(wanted, name, 64, height)
    assert wanted.std() > 0.1
    torch.testing.assert_close(driver.latents[job.id], wanted, atol=1e-3, rtol=0)
    assert driver.image(job).shape == (height, 64, 3)


def test_pictures_of_deep_autoencoders_equal_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
) -> None:
    """And their latents, where an image is to start from."""
    driver = driver_of(pipelines("sana"))
    job = driver.admit("red", width=64, height=64, steps=2, seed=3)
    driver.finish(job)
    peer = peer_of(folders("sana"), "sana").vae
    scale = peer.config.scaling_factor
    with torch.inference_mode():
        wanted = peer.decode(driver.latents[job.id] / scale, return_dict=False)[0]
        pixels = torch.from_numpy(driver.image(job)).permute(2, 0, 1)[None].float() / 127.5 - 1
        assert (wanted.clamp(-1, 1) - pixels).abs().max() <= 1.01 / 255
        found = pipelines("sana")._parts.vae.encode(driver.image(job), torch.zeros(1))
        torch.testing.assert_close(found, peer.encode(pixels, return_dict=False)[0] * scale)


@pytest.mark.parametrize("name", ["lcm", "xl", "sigma", "sana", "sd3", "flux-dev"])
def test_rows_in_company_equal_rows_alone(
    pipelines: Callable[[str], ImagePipeline], driver_of: Callable[[ImagePipeline], Any], name: str
) -> None:
    driver = driver_of(pipelines(name))
    size = {"width": 64, "height": 64}
    options: list[dict[str, Any]] = [
        {"prompt": "red", "steps": 3, "seed": 1, "guidance": 3.0},
        {"prompt": "a long blue ship", "steps": 4, "seed": 2, "guidance": 1.0},
        {"prompt": "moon", "steps": 2, "seed": 3, "guidance": 6.0},
    ]
    alone = [driver.admit(**size, **option) for option in options]
    driver.finish(*alone)
    mixed = [driver.admit(**size, **option) for option in options]
    seen = driver.together(*mixed)
    assert ("denoise", 3) in seen
    for one, other in zip(alone, mixed, strict=True):
        torch.testing.assert_close(driver.latents[one.id], driver.latents[other.id], atol=1e-4, rtol=1e-5)
    found = [driver.latents[job.id] for job in alone]
    assert all((a - b).abs().max() > 1e-2 for n, a in enumerate(found) for b in found[:n])


IMAGE_TO_IMAGE = {
    "xl": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline",
    "flux-dev": "FluxImg2ImgPipeline",
}


@pytest.mark.parametrize("name", IMAGE_TO_IMAGE)
def test_image_to_image_equals_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
    name: str,
) -> None:
    driver = driver_of(pipelines(name))
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG")
    job = driver.admit(
        "red", width=64, height=64, steps=5, guidance=2.0, seed=8, init_image=data.getvalue(), strength=0.5
    )
    driver.finish(job)
    wanted = peer_of(folders(name), name, IMAGE_TO_IMAGE[name])(
        "red",
        image=picture,
        strength=0.5,
        generator=torch.Generator().manual_seed(8),
        output_type="latent",
        **{"width": 64, "height": 64} if name == "flux-dev" else {},
        **call_of(name, 5, 2.0, ""),
    ).images
    torch.testing.assert_close(driver.latents[job.id], unpacked(wanted, name, 64, 64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CONTROL)
def test_control_images_equal_diffusers(
    pipelines: Callable[[str], ImagePipeline],
    folders: Callable[[str], Path],
    driver_of: Callable[[ImagePipeline], Any],
    name: str,
) -> None:
    """And rows without an image, or with another strength, beside them are as without company."""
    driver = driver_of(pipelines(name))
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG")
    options: dict[str, Any] = {"width": 64, "height": 64, "steps": 3, "guidance": 3.0, "seed": 8}
    control: dict[str, Any] = {"control_image": data.getvalue(), "control_strength": 0.7}
    mixed = [driver.admit("red", **options, **each) for each in ({}, control)]
    driver.slice("encode", *mixed)
    for _ in range(3):
        driver.slice("denoise", *mixed)
    plain = driver.admit("red", **options)
    driver.finish(plain)
    peer = peer_of(folders(name), name)
    wanted = peer(
        "red",
        image=picture,
        controlnet_conditioning_scale=0.7,
        generator=torch.Generator().manual_seed(8),
        output_type="latent",
        **call_of(name, 3, 3.0, ""),
    ).images
    torch.testing.assert_close(driver.latents[mixed[1].id], wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(driver.latents[mixed[0].id], driver.latents[plain.id], atol=1e-4, rtol=0)
    assert (driver.latents[mixed[1].id] - driver.latents[plain.id]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [("turbo", 4, 1.0), ("lightning", 4, 1.0), ("lcm", 4, 8.5), ("xl", 28, 5.0)],
)
def test_few_step_models_are_known(
    pipelines: Callable[[str], ImagePipeline], name: str, steps: int, guidance: float
) -> None:
    plan = pipelines(name).prepare(ImageRequest("red"), None)
    assert (plan.steps, plan.guidance, plan.guided) == (steps, guidance, name == "xl")


def test_consistency_models_take_fifty_steps_at_most(pipelines: Callable[[str], ImagePipeline]) -> None:
    lcm, sd = pipelines("lcm"), pipelines("sd")
    assert (lcm.info.max_steps, sd.info.max_steps) == (50, 150)
    for pipeline, sampler in ((lcm, ""), (sd, "lcm")):
        with pytest.raises(InvalidRequest) as refused:
            pipeline.prepare(ImageRequest("red", steps=51, scheduler=sampler), None)
        assert refused.value.field == "image.steps"
    assert sd.prepare(ImageRequest("red", scheduler="lcm", steps=50), None).steps == 50


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("flux-dev", {"negative_prompt": "blue"}, "image.negative_prompt"),
        ("flux-dev", {"width": 68}, "image.width"),
        ("xl", {"control_image": b"x"}, "image.control_image"),
        ("sd-control", {"control_image": b"x"}, "image.control_image.data"),
        ("sd-control", {"control_image": b"x", "control_strength": 2.0}, "image.control_image.strength"),
        ("sd3", {"height": 200}, "image.height"),
        ("sd3", {"scheduler": "ddim"}, "image.scheduler"),
    ],
)
def test_what_a_family_does_not_take(
    pipelines: Callable[[str], ImagePipeline], name: str, options: dict[str, Any], field: str
) -> None:
    with pytest.raises((InvalidRequest, Unsupported)) as refused:
        pipelines(name).prepare(ImageRequest(prompt="red", **options), None)
    assert refused.value.field == field  # type: ignore[attr-defined]


def test_a_flow_with_another_solver(
    pipelines: Callable[[str], ImagePipeline], driver_of: Callable[[ImagePipeline], Any]
) -> None:
    """DPM-Solver++(2M) over the same flow ends where many Euler steps do."""
    driver = driver_of(pipelines("flux-dev"))
    size: dict[str, Any] = {"width": 64, "height": 64, "seed": 3}
    euler, dpm = (driver.admit("red", steps=60, scheduler=each, **size) for each in ("euler", "dpmpp_2m"))
    driver.finish(euler, dpm)
    one, other = driver.latents[euler.id], driver.latents[dpm.id]
    print(f"distance of the two solvers after 60 steps: {float((one - other).norm() / one.norm()):.3f}")
    assert (one - other).norm() < 0.1 * one.norm()


BROKEN = [
    ("xl", "unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
    ("xl", "model_index.json", {"text_encoder_2": [None, None]}, "text_encoder_2 is missing"),
    (
        "sd3",
        "model_index.json",
        {"transformer": ["diffusers", "FluxTransformer2DModel"]},
        "FluxTransformer2D",
    ),
    ("sd3", "model_index.json", {"_class_name": "StableDiffusion4Pipeline"}, "StableDiffusion4Pipeline"),
]


@pytest.mark.parametrize(("name", "file", "changes", "part"), BROKEN)
def test_what_is_not_supported_is_named(
    folders: Callable[[str], Path], tmp_path: Path, name: str, file: str, changes: dict[str, Any], part: str
) -> None:
    copied = Path(shutil.copytree(folders(name), tmp_path / "model"))
    (copied / file).write_text(json.dumps({**json.loads((copied / file).read_text()), **changes}))
    with pytest.raises((Unsupported, ModelBroken), match=part):
        load_components(copied, ImageSettings())


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_add_ons_of_transformers(
    folders: Callable[[str], Path], driver_of: Callable[[ImagePipeline], Any], tmp_path: Path, name: str
) -> None:
    """As with the change in the weights."""
    stem = "transformer_blocks.0.attn.to_q"
    noise = torch.Generator().manual_seed(4)
    width = 32 if name == "flux-dev" else 16
    down, up = (torch.randn(shape, generator=noise) for shape in ((2, width), (width, 2)))
    tensors = {f"transformer.{stem}.lora_A.weight": down, f"transformer.{stem}.lora_B.weight": up}
    save_file(tensors, tmp_path / "ink.safetensors")
    loras = (("ink", str(tmp_path / "ink.safetensors")),)
    driver = driver_of(ImagePipeline.load(folders(name), name=name, settings=ImageSettings(loras=loras)))
    size: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "guidance": 3.0}
    job, plain = driver.admit("red", loras=(("ink", 0.5),), **size), driver.admit("red", **size)
    driver.finish(job, plain)
    network = driver.pipeline._parts.backbone.network
    with torch.inference_mode():
        network.get_submodule(stem).weight.add_(0.5 * up @ down)
    merged = driver.admit("red", **size)
    driver.finish(merged)
    torch.testing.assert_close(driver.latents[job.id], driver.latents[merged.id], atol=1e-3, rtol=0)
    assert (driver.latents[job.id] - driver.latents[plain.id]).abs().max() > 1e-3
