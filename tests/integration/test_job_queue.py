"""Submit, cancel, erase: each one script, wholly done or not at all (protocol 2)."""

import asyncio

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import IdempotencyConflict, JobNotFound, QueueFull, RedisUnavailable
from shared.event_log import EventLog
from shared.events import Cancelled, Queued
from shared.ids import EventId
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.push import parse_push
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.author import MODEL, Author, request
from tests.support.servers import Making
from web.sse import split_frames

QUEUE, OPEN = keys.queue("api"), keys.open_jobs("api")


async def names_of(redis: Redis) -> set[str]:
    return {name.decode() async for name in redis.scan_iter()}


# --- submit --------------------------------------------------------------------------------------------------------------


async def test_a_submit_is_all_there(redis: Redis, job_queue: JobQueue, event_log: EventLog, job_store: JobStore) -> None:
    """Record, `queued` entry, queue entry, wake-up."""
    job_id = (await job_queue.submit(request(metadata={"who": "me"}), MODEL)).job_id
    assert await names_of(redis) == {
        keys.job(job_id), keys.log(job_id), keys.arq_job(job_id), QUEUE, OPEN, keys.JOBS, keys.wake("api"),
    }  # fmt: skip
    record = await job_store.record(job_id)
    assert (record.status, record.lane, record.request()) == ("queued", "api", request(metadata={"who": "me"}))
    [entry] = await event_log.read(job_id)
    assert (entry.id, entry.event) == (EventId(0, 1), Queued(job_id, MODEL.id, record.created_at))


async def test_no_prompt_is_in_the_queue(redis: Redis, job_queue: JobQueue) -> None:
    """The queue carries the job's id and nothing else."""
    job_id = (await job_queue.submit(request(prompt="a secret"), MODEL)).job_id
    raw = await redis.get(keys.arq_job(job_id))
    assert b"secret" not in raw
    assert job_id.encode() in raw


async def test_a_full_lane_takes_nothing(redis: Redis, make_settings: Making) -> None:
    """503 `queue_full`, and nothing is left of the attempt."""
    queue = JobQueue(redis, make_settings(queue_limit=2))
    for _ in range(2):
        await queue.submit(request(), MODEL)
    before = await names_of(redis)
    with pytest.raises(QueueFull):
        await queue.submit(request(), MODEL, idempotency_key="k")
    assert await names_of(redis) == before


async def test_a_full_redis_takes_nothing(redis: Redis, job_queue: JobQueue) -> None:
    """noeviction: 503, not 500."""
    await redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(RedisUnavailable):
            await job_queue.submit(request(), MODEL)
    finally:
        await redis.config_set("maxmemory", "0")
    assert await names_of(redis) == set()


async def test_the_same_key_and_body_is_the_same_job(redis: Redis, job_queue: JobQueue) -> None:
    """Protocol 2.1 Idempotency-Key."""
    first = await job_queue.submit(request(), MODEL, idempotency_key="k")
    again = await job_queue.submit(request(), MODEL, idempotency_key="k")
    assert (first.replayed, again.replayed) == (False, True)
    assert first.job_id == again.job_id
    assert await redis.zcard(QUEUE) == 1
    assert (await job_queue.submit(request(), MODEL, idempotency_key="other")).job_id != first.job_id


async def test_the_same_key_with_another_body_is_a_conflict(redis: Redis, job_queue: JobQueue) -> None:
    await job_queue.submit(request(), MODEL, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await job_queue.submit(request(prompt="something else"), MODEL, idempotency_key="k")
    assert await redis.zcard(QUEUE) == 1


async def test_many_at_once_with_one_key_are_one_job(redis: Redis, job_queue: JobQueue) -> None:
    answers = await asyncio.gather(*[job_queue.submit(request(), MODEL, idempotency_key="k") for _ in range(10)])
    assert len({answer.job_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1


async def test_a_key_outlives_no_job(redis: Redis, job_queue: JobQueue, new_queued: NewAuthor) -> None:
    """P2: "submit again under the same Idempotency-Key" where a crash forgot the job, or its retention is over."""
    first = await job_queue.submit(request(), MODEL, idempotency_key="k")
    await redis.delete(keys.job(first.job_id), keys.log(first.job_id))
    again = await job_queue.submit(request(), MODEL, idempotency_key="k")
    assert not again.replayed
    assert again.job_id != first.job_id


async def test_a_key_is_stored_as_its_digest(redis: Redis, job_queue: JobQueue, settings: Settings) -> None:
    await job_queue.submit(request(), MODEL, idempotency_key="a customer's number")
    [name] = [name for name in await names_of(redis) if name.startswith(keys.idempotency(""))]
    assert "customer" not in name
    assert await redis.ttl(name) == pytest.approx(settings.idempotency_s, abs=5)


# --- cancel --------------------------------------------------------------------------------------------------------------


async def test_a_queued_job_is_cancelled_at_once(
    redis: Redis, job_queue: JobQueue, new_queued: NewAuthor, event_log: EventLog, job_store: JobStore
) -> None:
    """Protocol 2 and 3: in the answer itself; it ends at `0-2`, and never reaches a provider."""
    author = await new_queued()
    assert await job_queue.cancel(author.job_id) == "ended"
    end = (await event_log.read(author.job_id))[-1]
    assert end.id == EventId(0, 2)
    assert isinstance(end.event, Cancelled)
    assert (await job_store.record(author.job_id)).status == "cancelled"
    assert await redis.zcard(QUEUE) == 0
    assert not await redis.exists(keys.arq_job(author.job_id))


async def test_a_running_jobs_worker_is_told(
    redis: Redis, job_queue: JobQueue, new_author: NewAuthor, job_store: JobStore
) -> None:
    """A signal to its worker, and a flag that outlives the signal."""
    author = await new_author()
    assert await job_queue.cancel(author.job_id) == "asked"
    assert await redis.lrange(keys.signal("w1"), 0, -1) == [f"cancel {author.job_id}".encode()]  # type: ignore[misc]
    record = await job_store.record(author.job_id)
    assert (record.status, record.cancel_asked) == ("running", True)


async def test_an_ended_job_stays_as_it_is(job_queue: JobQueue, new_author: NewAuthor, job_store: JobStore) -> None:
    author = await new_author()
    await author.end()
    before = await job_store.job(author.job_id)
    assert await job_queue.cancel(author.job_id) == "over"
    assert await job_store.job(author.job_id) == before


@pytest.mark.parametrize("job_id", ["job_" + "a" * 26, "$", "", "job_*"])
async def test_what_is_no_job_cannot_be_cancelled_or_erased(job_queue: JobQueue, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        await job_queue.cancel(job_id)
    with pytest.raises(JobNotFound):
        await job_queue.erase(job_id)


# --- erase ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "running", "handed over", "ended"])
async def test_everything_of_a_job_is_erased(redis: Redis, job_queue: JobQueue, event_log: EventLog, state: str) -> None:
    """Protocol 2, DELETE: record, log, queue entry and idempotency key; open ones are cancelled first, for live readers."""

    job_id = (await job_queue.submit(request(), MODEL, idempotency_key="k")).job_id
    author = Author(redis, event_log, job_id)
    if state != "queued":
        await author.claim()
        await author.say("a")
    if state == "handed over":
        await redis.hdel(keys.job(job_id), "owner")  # type: ignore[misc]
        await redis.hset(keys.job(job_id), "handover", "1")  # type: ignore[misc]
    if state == "ended":
        await author.end()
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(keys.log(job_id))
        await pubsub.get_message(timeout=5)
        await job_queue.erase(job_id)
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.2 if state == "ended" else 5)
    left = await names_of(redis) - {keys.PRIMARY, keys.wake("api"), keys.signal("w1")}
    of_it = {name for name in left if not name.startswith(keys.operations(""))}  # an ending was counted, nobody's
    assert of_it == set(), "nothing of it is left, and no empty index"
    if state == "ended":
        assert message is None
    else:
        assert message is not None
        assert b'"type":"cancelled"' in message["data"]
    with pytest.raises(JobNotFound):
        await job_queue.erase(job_id)


async def test_an_erased_running_jobs_worker_is_told(redis: Redis, job_queue: JobQueue, new_author: NewAuthor) -> None:
    author = await new_author()
    await job_queue.erase(author.job_id)
    assert await redis.lrange(keys.signal("w1"), 0, -1) == [f"cancel {author.job_id}".encode()]  # type: ignore[misc]


async def test_an_outside_end_opens_an_attempt_of_its_own(redis: Redis, job_queue: JobQueue, new_author: NewAuthor) -> None:
    """Protocol 3, seen by a live reader of an erased job."""
    author = await new_author()
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(keys.log(author.job_id))
        await pubsub.get_message(timeout=5)
        await job_queue.erase(author.job_id)
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    push = parse_push(message["data"])
    assert (push.before, push.after, push.n, push.terminal) == (EventId(1, 0), EventId(2, 1), 2, True)
    assert [frame.id for frame in split_frames(push.frames)] == [EventId(2, 0), EventId(2, 1)]
