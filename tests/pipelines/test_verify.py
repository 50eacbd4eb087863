"""`upbeat verify DIR`: what it says of folders that are right, wrong and unknown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.table import Table
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelBroken
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from pipelines.verify import compare, kind_of, main, verify_text
from tests.pipelines.speech.moonshine_folder import write_moonshine
from tests.text_driver import Folders

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


def test_a_folder_that_is_served_as_transformers_would(folders: Folders) -> None:
    assert verify_text(folders(family="qwen3", head_dim=16), "bfloat16", Table())


def test_a_difference_is_found(folders: Folders, tmp_path: Path) -> None:
    path = folders()
    other = TextPipeline.load(folders(seed=5), name="other", settings=TextSettings())
    found = compare(path, other)
    assert not found.equal
    assert found.worse > 0


def test_the_kind_of_a_folder(folders: Folders, tmp_path: Path) -> None:
    assert kind_of(folders()) == "text"
    assert kind_of(MODELS / "upbeat-image-unet") == "image"
    assert kind_of(MODELS / "upbeat-voice") == "speech"
    with pytest.raises(ModelBroken, match=str(tmp_path)):
        kind_of(tmp_path)
    with pytest.raises(ModelBroken, match=r"there is no such folder$"):
        kind_of(tmp_path / "nowhere")


def test_a_recogniser_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["verify", str(write_moonshine(tmp_path))])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "recogniser, moonshine" in capsys.readouterr().out


def test_an_unsupported_folder_names_the_field(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((folders() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    monkeypatch.setattr(sys, "argv", ["verify", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "model_type" in capsys.readouterr().out


def test_nan_in_the_weights_names_the_tensor(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in folders().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(sys, "argv", ["verify", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "model.norm.weight" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upbeat-text", "upbeat-image-unet", "upbeat-voice"])
def test_the_embedded_models(name: str) -> None:
    command = [sys.executable, "-m", "clients.cli", "verify", str(MODELS / name)]
    subprocess.run(command, check=True, timeout=120)
