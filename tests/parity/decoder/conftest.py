"""The flow and the vocoder of a golden folder: sizes from its `configs.json`, weights from its files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepaudio_runtime.models.flow import Flow
from stepaudio_runtime.models.hift import Hift
from tests.parity.small_models import small_flow, small_hift


@pytest.fixture
def load_flow(golden: Any) -> Callable[[str], Flow]:
    return lambda file: _flow(golden, file)


@pytest.fixture(scope="session")
def flow_once(golden: Any) -> Flow:
    """Shared by the examples of a property test; add no hooks to it."""
    return _flow(golden, "flow_prompt")


def _flow(golden: Any, file: str) -> Flow:
    return small_flow(golden.configs["flow"], golden.tensors("flow_weights"), file)


@pytest.fixture
def hift(golden: Any) -> Hift:
    return _hift(golden)


@pytest.fixture(scope="session")
def hift_once(golden: Any) -> Hift:
    """Shared by the examples of a property test; add no hooks to it."""
    return _hift(golden)


def _hift(golden: Any) -> Hift:
    return small_hift(golden.configs["hift"], golden.tensors("hift_weights"))
