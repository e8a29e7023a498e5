"""What many tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from ganzoo.testing.tiny import tiny_data, tiny_trainer
from ganzoo.trainer import Trainer


@pytest.fixture
def make() -> Callable[..., Trainer]:
    """The function that builds a trainer of made-up plugins; labels=True gives it two classes."""

    def build(*, labels: bool = False, **parts) -> Trainer:
        return tiny_trainer(data=tiny_data(classes=2 if labels else 0), **parts)

    return build


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks run fastest, and to the same bits everywhere, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
