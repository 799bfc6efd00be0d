"""What tests of real processes share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """The nano preset's model folder."""
    from stepaudio_runtime.checkpoints.nano import generate_nano

    folder = tmp_path_factory.mktemp("nano")
    generate_nano(folder)
    return folder
