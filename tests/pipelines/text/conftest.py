from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver, Folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


@pytest.fixture
def drive(folders: Folders) -> Callable[..., Driver]:
    """`drive(settings, **overrides)`: a loaded pipeline of a tiny model with its driver."""

    def make(settings: TextSettings | None = None, **overrides: Any) -> Driver:
        path = folders(**overrides)
        return Driver(TextPipeline.load(path, name="tiny", settings=settings or TextSettings()))

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
