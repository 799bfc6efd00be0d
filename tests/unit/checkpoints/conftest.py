"""One nano folder for all tests of checkpoints, and copies of it to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stepaudio_runtime.checkpoints.nano import generate_random_nano


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly generated folder; not to be changed."""
    folder = tmp_path_factory.mktemp("nano")
    generate_random_nano(folder)
    return folder


@pytest.fixture
def copy(nano: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed: files are linked, so replace them, do not write into them."""
    folder = tmp_path / "models"
    shutil.copytree(nano, folder, copy_function=_link)
    return folder


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target
