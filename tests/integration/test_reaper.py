"""The safety net: open jobs that nothing would move are moved (protocol P2)."""

import time

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import EventLog
from shared.events import Error
from shared.job_store import JobStore
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker
from tests.support.waiting import wait_until
from worker.reaper import Reaper
from worker.upstreams import Upstreams

QUEUE, OPEN = keys.queue("api"), keys.open_jobs("api")


@pytest.fixture
def reaper(redis: Redis, settings: Settings, event_log: EventLog, job_store: JobStore) -> Reaper:
    return Reaper(redis, settings, event_log, job_store, Upstreams(redis, {}, "api"), "api", "w9")


async def test_a_healthy_lane_is_left_alone(reaper: Reaper, new_queued: NewAuthor, new_author: NewAuthor, redis: Redis) -> None:
    await new_queued()
    await new_author()
    before = await redis.zrange(QUEUE, 0, -1, withscores=True)
    assert await reaper.round() == 0
    assert await redis.zrange(QUEUE, 0, -1, withscores=True) == before


async def test_a_job_that_fell_out_of_the_queue_comes_back(reaper: Reaper, new_author: NewAuthor, redis: Redis) -> None:
    author = await new_author()
    await redis.zrem(QUEUE, author.job_id)
    await redis.delete(keys.arq_job(author.job_id))
    assert await reaper.round() == 1
    assert await redis.zscore(QUEUE, author.job_id) == pytest.approx(time.time() * 1000, abs=5000)
    assert await redis.ttl(keys.arq_job(author.job_id)) > 0
    assert await reaper.round() == 0


async def test_and_is_run_then(
    new_queued: NewAuthor, redis: Redis, make_settings: Making, job_store: JobStore, provider: ScriptedProvider
) -> None:
    author = await new_queued()
    await redis.zrem(QUEUE, author.job_id)
    await redis.delete(keys.arq_job(author.job_id))
    async with running_worker(make_settings(reap_s=0.1), provider):

        async def done() -> bool:
            return (await job_store.record(author.job_id)).status == "done"

        await wait_until(done, message="the reaper found it, and the worker ran it")


async def test_a_claimed_and_silent_log_that_nothing_would_move_ends_as_well(
    orphan: NewAuthor, redis: Redis, make_settings: Making, job_store: JobStore, provider: ScriptedProvider
) -> None:
    """Its worker died, its lease lapsed, and its queue entry is gone too."""
    author = await orphan("Hello")
    provider.continues = True
    await redis.delete(keys.arq_in_progress(author.job_id))
    await redis.zrem(QUEUE, author.job_id)
    async with running_worker(make_settings(reap_s=0.1), provider):

        async def done() -> bool:
            return (await job_store.record(author.job_id)).status == "done"

        await wait_until(done, message="the reaper found it, and the worker took it over")
    job = await job_store.job(author.job_id)
    assert job.text == "Hello, world"
    assert [attempt.number for attempt in job.attempts] == [1, 2]


async def test_a_job_that_waited_too_long_expires(
    reaper: Reaper, new_queued: NewAuthor, redis: Redis, event_log: EventLog, job_store: JobStore
) -> None:
    """Protocol 2.1 `queue_s`: a busy lane would find it only in its turn."""
    author, other = await new_queued(timeouts={"queue_s": 5}), await new_queued(timeouts={"queue_s": 500})
    for job in (author, other):
        await redis.hset(keys.job(job.job_id), "created_at", str(time.time() - 10))  # type: ignore[misc]
    assert await reaper.round() == 1
    end = (await event_log.read(author.job_id))[-1].event
    assert isinstance(end, Error)
    assert end.code == "expired"
    assert (await job_store.record(other.job_id)).status == "queued"


async def test_a_record_that_is_gone_leaves_the_index(reaper: Reaper, new_queued: NewAuthor, redis: Redis) -> None:
    author = await new_queued()
    await redis.delete(keys.job(author.job_id), keys.log(author.job_id))
    assert await reaper.round() == 1
    assert await redis.zcard(OPEN) == 0


async def test_one_worker_of_a_lane_is_on_duty(
    redis: Redis, settings: Settings, event_log: EventLog, job_store: JobStore
) -> None:
    first, second = (
        Reaper(redis, settings, event_log, job_store, Upstreams(redis, {}, "api"), "api", name) for name in ("w1", "w2")
    )
    assert await first._on_duty()
    assert not await second._on_duty()
    assert await Reaper(redis, settings, event_log, job_store, Upstreams(redis, {}, "local"), "local", "w3")._on_duty()
