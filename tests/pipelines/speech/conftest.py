"""What tests of models for speech run under: `pytestmark = pytest.mark.usefixtures("inference")`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def inference(one_thread: None) -> Iterator[None]:
    """As on the executor's thread."""
    with torch.inference_mode():
        yield
