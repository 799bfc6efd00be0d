"""The small API server of these tests, started for one test."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.unit.operator_io.api_server import ApiServer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as running:
        yield running
