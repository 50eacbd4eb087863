"""Bad input: each a clear error that names the field and its limit."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipelines.errors import InvalidRequest, UpbeatError
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.request import ImagePlan
from pipelines.image.settings import ImageSettings
from pipelines.messages import ImageRequest, SpeechText, TextRequest

BAD: list[tuple[dict[str, Any], type[UpbeatError], str, str]] = [
    ({"prompt": ""}, InvalidRequest, "image.prompt", "at least one"),
    ({"prompt": " \n\t"}, InvalidRequest, "image.prompt", "at least one"),
    ({"prompt": "a" * 4001}, InvalidRequest, "image.prompt", "at most 4000"),
    ({"negative_prompt": "a" * 4001}, InvalidRequest, "image.negative_prompt", "at most 4000"),
    ({"width": 1}, InvalidRequest, "image.width", "64 to 256 in multiples of 16"),
    ({"width": 100_000}, InvalidRequest, "image.width", "not 100000"),
    ({"height": -64}, InvalidRequest, "image.height", "not -64"),
    ({"height": 72}, InvalidRequest, "image.height", "multiples of 16"),
    ({"height": 272}, InvalidRequest, "image.height", "64 to 256"),
    ({"steps": 151}, InvalidRequest, "image.steps", "150"),
    ({"steps": 10_000}, InvalidRequest, "image.steps", "not 10000"),
    ({"steps": -1}, InvalidRequest, "image.steps", "not -1"),
    ({"guidance": math.nan}, InvalidRequest, "image.guidance", "nan"),
    ({"guidance": math.inf}, InvalidRequest, "image.guidance", "to 30"),
    ({"guidance": -1.0}, InvalidRequest, "image.guidance", "not -1"),
    ({"guidance": 30.5}, InvalidRequest, "image.guidance", "to 30"),
    ({"preview_every": 151}, InvalidRequest, "image.preview_every", "150"),
    ({"preview_every": -1}, InvalidRequest, "image.preview_every", "not -1"),
    ({"seed": -1}, InvalidRequest, "image.seed", "not -1"),
    ({"seed": 2**64}, InvalidRequest, "image.seed", str(2**64 - 1)),
    ({"mime": "image/gif"}, InvalidRequest, "image.mime", "'image/webp'"),
    ({"mime": ""}, InvalidRequest, "image.mime", "''"),
    ({"quality": 0}, InvalidRequest, "image.quality", "1 to 100"),
    ({"quality": 101}, InvalidRequest, "image.quality", "not 101"),
    ({"scheduler": "pndm"}, InvalidRequest, "image.scheduler", "'dpmpp_2m'"),
    ({"cache_level": "faster"}, InvalidRequest, "image.cache_level", "'faster'"),
]


@pytest.mark.parametrize(("options", "error", "field", "part"), BAD)
def test_bad_input(
    loaded: ImagePipeline, options: dict[str, Any], error: type[UpbeatError], field: str, part: str
) -> None:
    with pytest.raises(error) as refused:
        loaded.prepare(ImageRequest(**{"prompt": "red", **options}), None)
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field}: ")
    assert part in refused.value.message


def test_what_is_left_open_is_filled_in(loaded: ImagePipeline) -> None:
    plan = loaded.prepare(ImageRequest(prompt="red"), None)
    assert (plan.width, plan.height, plan.steps, plan.guidance) == (128, 128, 6, 4.0)
    assert plan.guided


@pytest.mark.parametrize("guidance", [0.5, 1.0])
def test_little_guidance_takes_one_pass(loaded: ImagePipeline, guidance: float) -> None:
    plan = loaded.prepare(ImageRequest(prompt="red", guidance=guidance), None)
    assert len(plan.passes) == 1


@pytest.mark.parametrize("options", [{"width": 64, "height": 256}, {"steps": 150}, {"seed": 2**64 - 1}])
def test_the_limits_themselves_are_allowed(loaded: ImagePipeline, options: dict[str, Any]) -> None:
    assert isinstance(loaded.prepare(ImageRequest(prompt="red", **options), None), ImagePlan)


def test_long_prompts_are_cut(loaded: ImagePipeline) -> None:
    plan = loaded.prepare(ImageRequest(prompt="red " * 999), None)
    assert {len(each.prompt[0].ids) for each in plan.passes} == {16}


def test_other_requests_are_refused(loaded: ImagePipeline) -> None:
    with pytest.raises(InvalidRequest, match="TextRequest"):
        loaded.prepare(TextRequest(), None)
    with pytest.raises(InvalidRequest, match="no later input"):
        loaded.prepare(ImageRequest(prompt="red"), SpeechText("more", True))


def test_threads_do_not_disturb_each_other(loaded: ImagePipeline) -> None:
    requests = [ImageRequest(prompt="red " * (n % 7 + 1), guidance=1.0 + n % 2) for n in range(60)]
    wanted = [loaded.prepare(request, None) for request in requests]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda request: loaded.prepare(request, None), requests)) == wanted


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_jobs", 0), ("max_rows", 0), ("max_side", 63), ("max_characters", 0), ("dtype", "int8")],
)
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"image.{field}"):
        ImageSettings(**{field: value})
