"""What the integration tests share: logs written step by step, and a worker without arq."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import EventLog
from shared.job_queue import JobQueue
from tests.support.author import Author
from tests.support.bare_worker import BareWorker, bare_worker
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making

NewAuthor = Callable[..., Awaitable[Author]]


@pytest.fixture
def new_author(redis: Redis, event_log: EventLog, job_queue: JobQueue) -> NewAuthor:
    """Submits a job (with these request fields) and claims it."""

    async def make(**fields: object) -> Author:
        author = await Author.submit(redis, event_log, job_queue, **fields)
        await author.claim()
        return author

    return make


@pytest.fixture
def new_queued(redis: Redis, event_log: EventLog, job_queue: JobQueue) -> NewAuthor:
    """The same, but nobody claims it."""

    async def make(**fields: object) -> Author:
        return await Author.submit(redis, event_log, job_queue, **fields)

    return make


@pytest.fixture
def orphan(new_author: NewAuthor, redis: Redis) -> NewAuthor:
    """A job whose worker died after it wrote these words."""

    async def make(*words: str, **fields: object) -> Author:
        author = await new_author(**fields)
        await author.say(*words)
        await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]  # and Redis was up all the time
        return author

    return make


@pytest.fixture
async def bare(redis: Redis, make_settings: Making, provider: ScriptedProvider) -> AsyncIterator[BareWorker]:
    """Claims and writes for real; nobody renews its leases, which are long."""
    async with bare_worker(redis, make_settings(lease_s=60), provider) as worker:
        yield worker
