"""A stack of real processes, each of which a test may end as it likes."""

from collections.abc import AsyncIterator

import pytest

from tests.support.openai_server import OpenAIServer
from tests.support.processes import Processes
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def stack(durable_redis: RedisServer, upstream: OpenAIServer, processes: Processes) -> AsyncIterator[Stack]:
    """Nothing of it runs yet but Redis and the upstream."""
    stack = Stack(durable_redis, upstream, processes)
    yield stack
    await stack.close()
