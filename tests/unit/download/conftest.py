"""A hub a test, and what is in a folder when a download says that it is done."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio_runtime.download.partial import WORK
from tests.unit.download.hub import Hub, models


@pytest.fixture
def hub() -> Iterator[Hub]:
    serving = Hub(models())
    yield serving
    serving.close()


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a model folder, without the downloader's own records."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and WORK not in path.parts
    }
