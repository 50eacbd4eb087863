"""Which folders are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import loading
from pipelines.errors import ModelBroken
from pipelines.loading import image_folders


def test_embedded_image_models_are_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "EMBEDDED", tmp_path)
    with pytest.raises(ModelBroken, match="upbeat-image-unet"):
        image_folders(())
    for name in ("upbeat-image-unet", "upbeat-image-dit"):
        (tmp_path / name).mkdir()
    (tmp_path / "upbeat-image-unet" / "model_index.json").touch()
    assert [folder.name for folder in image_folders(())] == ["upbeat-image-unet"]
    (tmp_path / "upbeat-image-dit" / "model_index.json").touch()
    assert [folder.name for folder in image_folders(())] == ["upbeat-image-unet", "upbeat-image-dit"]


def test_given_image_models_replace_the_embedded_ones(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    given = (str(tmp_path / "two"), str(tmp_path / "one"))
    assert [folder.name for folder in image_folders(given)] == ["two", "one"]
    with pytest.raises(ModelBroken, match="three"):
        image_folders((*given, str(tmp_path / "three")))


def test_an_add_on_has_to_fit_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = loading.LoadPlan(loras={"ink": str(tmp_path / "ink.safetensors")})
    if not (loading.EMBEDDED / "upbeat-image-unet").is_dir():
        pytest.skip("the embedded model is not built yet")
    image = loading._image(plan, loading.EMBEDDED / "upbeat-image-unet")
    with pytest.raises(ModelBroken, match=r"device\.loras\.ink: there is no file ink\.safetensors"):
        loading._check_loras(plan, [image])
    loading._check_loras(loading.LoadPlan(), [image])


def test_the_folder_at_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "sketch").mkdir()
    with pytest.raises(ModelBroken, match=r"sketch: model_index\.json is missing"):
        loading._image(loading.LoadPlan(), tmp_path / "sketch")
    with pytest.raises(ModelBroken, match=r"sketch.config\.json: the file is missing$"):
        loading._speech(loading.LoadPlan(speech=str(tmp_path / "sketch")))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 68719476736 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("a shape is wrong"), False),
    ],
)
def test_a_device_without_room_is_told_as_such(
    error: Exception, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr(loading, "_text", load)
    with pytest.raises(Exception, match="text: the device has no memory" if told else "shape") as caught:
        loading.load_all(loading.LoadPlan())
    assert isinstance(caught.value, ModelBroken) is told
