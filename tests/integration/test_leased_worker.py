"""A whole worker on a real Redis, arq and all: prompt, owned, and never silent about how a job ended (architecture 4)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import EventLog
from shared.events import Cancelled, Done, Error, Started
from shared.ids import EventId
from shared.job import Status
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.author import MODEL, request
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker
from tests.support.waiting import wait_until
from worker.leased_worker import TAKE_AT_ONCE, LeasedWorker
from worker.leases import Leases


async def submit(queue: JobQueue, n: int = 1, **fields: object) -> list[str]:
    return [(await queue.submit(request(**fields), MODEL)).job_id for _ in range(n)]


async def until_status(store: JobStore, job_id: str, status: Status) -> None:
    async def reached() -> bool:
        return (await store.record(job_id)).status == status

    await wait_until(reached, message=f"{job_id} is {status}")


async def until_all_done(store: JobStore, job_ids: list[str]) -> None:
    for job_id in job_ids:
        await until_status(store, job_id, "done")


@asynccontextmanager
async def gated(provider: ScriptedProvider) -> AsyncIterator[asyncio.Event]:
    """No word leaves until the gate is set; afterwards it is open, so that workers stop at once."""
    provider.gate = asyncio.Event()
    try:
        yield provider.gate
    finally:
        provider.gate.set()


# --- slots and wake-ups --------------------------------------------------------------------------------------------------


async def test_more_jobs_than_slots_all_run(
    job_queue: JobQueue, job_store: JobStore, make_settings: Making, provider: ScriptedProvider
) -> None:
    """A freed slot looks at once: with a poll of a minute, ten jobs in two slots would take minutes."""
    provider.pace_s = 0.005
    async with running_worker(make_settings(api_slots=2, poll_s=5.0), provider):
        jobs = await submit(job_queue, 10)
        started = time.monotonic()
        await until_all_done(job_store, jobs)
        assert time.monotonic() - started < 4


async def test_sixty_jobs_at_once(job_queue: JobQueue, settings: Settings, provider: ScriptedProvider) -> None:
    """pitfalls 1: running jobs fill arq's window, and with stock arq the rest never start."""
    async with gated(provider), running_worker(settings, provider), running_worker(settings, provider):
        jobs = await submit(job_queue, 60)
        await wait_until(lambda: provider.open == 60, message="all sixty run at once")
        assert {call.job_id for call in provider.calls} == set(jobs)


async def test_a_burst_is_started_a_few_jobs_at_a_time_and_without_a_pause(
    job_queue: JobQueue,
    redis: Redis,
    make_settings: Making,
    provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Starting hundreds in one go would hold up the tokens of all that run."""
    asked: list[int] = []

    async def take(leases: Leases, slots: int, original: Any = Leases.take) -> Any:
        asked.append(slots)
        return await original(leases, slots)

    monkeypatch.setattr(Leases, "take", take)
    await submit(job_queue, 3 * TAKE_AT_ONCE)
    await redis.delete(keys.wake("api"))
    async with gated(provider), running_worker(make_settings(poll_s=30.0), provider):
        await wait_until(lambda: provider.open == 3 * TAKE_AT_ONCE, message="all run, long before the next poll")
    assert max(asked) == TAKE_AT_ONCE


async def test_no_worker_takes_more_than_its_slots(
    job_queue: JobQueue, job_store: JobStore, make_settings: Making, provider: ScriptedProvider
) -> None:
    async with gated(provider) as gate, running_worker(make_settings(api_slots=3), provider):
        jobs = await submit(job_queue, 7)
        await wait_until(lambda: provider.open == 3)
        assert [(await job_store.record(job_id)).status for job_id in jobs].count("queued") == 4
        gate.set()
        await until_all_done(job_store, jobs)


async def test_an_idle_worker_is_woken(
    job_queue: JobQueue, job_store: JobStore, make_settings: Making, provider: ScriptedProvider
) -> None:
    """It does not wait for its poll, which is set to seconds here."""
    async with running_worker(make_settings(poll_s=5.0), provider):
        waits = []
        for _ in range(5):
            asked = time.monotonic()
            [job_id] = await submit(job_queue)
            await until_status(job_store, job_id, "done")
            waits.append(time.monotonic() - asked)
        assert min(waits) < 0.1, waits
        assert max(waits) < 2, waits


async def test_without_a_wake_up_the_poll_finds_it(
    job_queue: JobQueue, job_store: JobStore, redis: Redis, settings: Settings, provider: ScriptedProvider
) -> None:
    [job_id] = await submit(job_queue)
    await redis.delete(keys.wake("api"))
    async with running_worker(settings, provider):
        await until_all_done(job_store, [job_id])
    assert len(provider.calls) == 1


# --- what cannot be run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [None, b"garbage", b"{}", b'{"t":1,"f":"unknown","a":[],"k":{},"et":1}', b'{"t":1,"f":"generate","a":[],"k":{},"et":1}'],
)
async def test_a_job_that_arq_cannot_run_still_ends(
    job_queue: JobQueue,
    job_store: JobStore,
    event_log: EventLog,
    redis: Redis,
    settings: Settings,
    provider: ScriptedProvider,
    payload: bytes | None,
) -> None:
    """pitfalls 4: arq would end it without calling our code; here it gets a terminal event."""
    [job_id] = await submit(job_queue)
    if payload is None:
        await redis.delete(keys.arq_job(job_id))
    else:
        await redis.set(keys.arq_job(job_id), payload, ex=60)
    async with running_worker(settings, provider):
        await until_status(job_store, job_id, "failed")
    end = (await event_log.read(job_id))[-1].event
    assert isinstance(end, Error)
    assert (end.code, provider.calls) == ("internal", [])
    assert await redis.zcard(keys.queue("api")) == 0
    assert not await redis.exists(keys.arq_job(job_id), keys.arq_in_progress(job_id))


async def test_a_queue_entry_without_a_job_is_cleared_away(
    redis: Redis, settings: Settings, provider: ScriptedProvider
) -> None:
    await redis.zadd(keys.queue("api"), {"job_" + "a" * 26: 1})
    async with running_worker(settings, provider):
        await wait_until(lambda: _queue_is_empty(redis))


async def _queue_is_empty(redis: Redis) -> bool:
    return not await redis.zcard(keys.queue("api"))


async def test_nothing_of_a_finished_job_stays_in_the_queue(
    job_queue: JobQueue, job_store: JobStore, redis: Redis, worker: None
) -> None:
    [job_id] = await submit(job_queue)
    await until_status(job_store, job_id, "done")
    await wait_until(lambda: _queue_is_empty(redis))
    left = [name.decode() async for name in redis.scan_iter("arq:*")]
    assert left == []


# --- stopping ------------------------------------------------------------------------------------------------------------


async def test_a_stopping_worker_lets_its_jobs_finish(
    job_queue: JobQueue, job_store: JobStore, make_settings: Making, provider: ScriptedProvider
) -> None:
    async with gated(provider) as gate, running_worker(make_settings(drain_s=5.0), provider) as process:
        [job_id] = await submit(job_queue)
        await wait_until(lambda: provider.open == 1)
        process.stop()
        gate.set()
        await until_status(job_store, job_id, "done")
    assert [attempt.reason for attempt in (await job_store.job(job_id)).attempts] == ["first"]


async def test_and_hands_over_what_does_not(
    job_queue: JobQueue, job_store: JobStore, event_log: EventLog, make_settings: Making, provider: ScriptedProvider
) -> None:
    """P4: "a worker that is told to stop hands its jobs over at once"; the text goes on where it stopped."""
    provider.script, provider.continues, provider.pace_s = ["a", "b", "c", "d"], True, 0.02
    settings = make_settings(drain_s=0.05, lease_s=10, poll_s=5.0)
    async with running_worker(settings, provider) as old:
        [job_id] = await submit(job_queue)
        async with gated(provider) as gate:
            gate.set()
            await wait_until(lambda: _has(event_log, job_id, EventId(1, 1)))
            gate.clear()
            async with running_worker(settings, provider):
                old.stop()
                stopped = time.monotonic()
                await wait_until(lambda: _has(event_log, job_id, EventId(2, 0)), message="the next attempt")
                assert time.monotonic() - stopped < 1
                gate.set()
                await until_status(job_store, job_id, "done")
    job = await job_store.job(job_id)
    assert [attempt.reason for attempt in job.attempts] == ["first", "handover"]
    assert job.text == "abcd"


async def _has(log: EventLog, job_id: str, event_id: EventId) -> bool:
    return any(entry.id >= event_id for entry in await log.read(job_id))


async def test_a_stopped_worker_is_gone_from_the_list(
    job_store: JobStore, settings: Settings, provider: ScriptedProvider
) -> None:
    async with running_worker(settings, provider) as process:
        assert [worker.id for worker in await job_store.workers()] == [process.identity.id]
    assert await job_store.workers() == []


# --- cancelling ----------------------------------------------------------------------------------------------------------


async def test_a_cancel_stops_the_provider_at_once(
    job_queue: JobQueue, job_store: JobStore, event_log: EventLog, settings: Settings, provider: ScriptedProvider
) -> None:
    """P6: within 100 ms of the answer to the call. The best of three, on a machine that does other things too."""
    took = []
    async with gated(provider), running_worker(settings, provider):
        for _ in range(3):
            [job_id] = await submit(job_queue)
            await wait_until(lambda: provider.open == 1)
            await job_queue.cancel(job_id)
            answered = time.monotonic()
            await wait_until(lambda: provider.open == 0)
            took.append(time.monotonic() - answered)
            await until_status(job_store, job_id, "cancelled")
            assert isinstance((await event_log.read(job_id))[-1].event, Cancelled)
    assert min(took) < 0.1, took


async def test_a_cancel_whose_push_was_lost_is_found_by_the_next_renewal(
    job_queue: JobQueue, job_store: JobStore, redis: Redis, settings: Settings, provider: ScriptedProvider
) -> None:
    """The durable flag behind the push is all that is left of it; renewals come three times a lease."""
    async with gated(provider), running_worker(settings, provider):
        [job_id] = await submit(job_queue)
        await wait_until(lambda: provider.open == 1)
        asked = time.monotonic()
        await redis.hset(keys.job(job_id), "cancel", "1")  # type: ignore[misc]
        await until_status(job_store, job_id, "cancelled")
        assert time.monotonic() - asked < settings.lease_s
        assert provider.open == 0


async def test_a_crowd_of_cancels_is_obeyed_in_one_round(
    job_queue: JobQueue, redis: Redis, settings: Settings, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that closes, a client that gives up: the last of fifty does not wait for fifty rounds of the worker's loop."""
    look, rounds = LeasedWorker._poll_iteration, 0

    async def counted(self: LeasedWorker) -> bool:
        nonlocal rounds
        rounds += 1
        return await look(self)

    monkeypatch.setattr(LeasedWorker, "_poll_iteration", counted)
    async with gated(provider), running_worker(settings, provider) as process:
        jobs = await submit(job_queue, 50)
        await wait_until(lambda: provider.open == 50)
        rounds, signal = 0, keys.signal(process.identity.id)
        async with redis.pipeline(transaction=True) as pipe:
            pipe.rpush(signal, *(f"cancel {job_id}" for job_id in jobs))
            pipe.pexpire(signal, keys.LIST_TTL_MS)
            await pipe.execute()
        await wait_until(lambda: provider.open == 0)
        assert rounds < 10


async def test_a_job_cancelled_before_it_started_never_reaches_a_provider(
    job_queue: JobQueue, job_store: JobStore, redis: Redis, settings: Settings, provider: ScriptedProvider
) -> None:
    cancelled, kept = await submit(job_queue, 2)
    await job_queue.cancel(cancelled)
    async with running_worker(settings, provider):
        await until_status(job_store, kept, "done")
    assert [call.job_id for call in provider.calls] == [kept]


async def test_a_deleted_job_stops_its_provider(
    job_queue: JobQueue, redis: Redis, settings: Settings, provider: ScriptedProvider
) -> None:
    async with gated(provider), running_worker(settings, provider):
        [job_id] = await submit(job_queue)
        await wait_until(lambda: provider.open == 1)
        await job_queue.erase(job_id)
        await wait_until(lambda: provider.open == 0)
    assert not [name async for name in redis.scan_iter(f"*{job_id}*")]


# --- losing a lease, taking over -----------------------------------------------------------------------------------------


async def test_a_lost_lease_stops_the_attempt(
    job_queue: JobQueue, event_log: EventLog, redis: Redis, settings: Settings, provider: ScriptedProvider
) -> None:
    """Another claimed the job meanwhile: this worker learns it from its renewal, though its provider says nothing."""
    async with gated(provider), running_worker(settings, provider):
        [job_id] = await submit(job_queue)
        await wait_until(lambda: provider.open == 1)
        await redis.hset(keys.job(job_id), mapping={"owner": "another's", "worker": "w9"})  # type: ignore[misc]
        await redis.set(keys.arq_in_progress(job_id), "another's", px=60_000)
        await wait_until(lambda: provider.open == 0, message="the attempt stops")
        assert not (await event_log.read(job_id))[-1].event.terminal
        assert await redis.get(keys.arq_in_progress(job_id)) == b"another's"


async def test_a_dead_workers_job_is_taken_over(
    orphan: NewAuthor, redis: Redis, job_store: JobStore, event_log: EventLog, settings: Settings, provider: ScriptedProvider
) -> None:
    """P4: within the lease plus 1 s."""
    provider.script, provider.continues = ["a", "b", "c"], True
    author = await orphan("a")
    await redis.pexpire(keys.arq_in_progress(author.job_id), int(settings.lease_s * 1000))
    died = time.monotonic()
    async with running_worker(settings, provider):
        await wait_until(lambda: _has(event_log, author.job_id, EventId(2, 0)))
        assert time.monotonic() - died < settings.lease_s + 1
        await until_status(job_store, author.job_id, "done")
    assert (await job_store.job(author.job_id)).text == "abc"
    started = [entry.event for entry in await event_log.read(author.job_id) if isinstance(entry.event, Started)]
    assert [event.reason for event in started] == ["first", "takeover"]
    assert isinstance((await event_log.read(author.job_id))[-1].event, Done)


async def test_two_workers_run_each_job_once(
    job_queue: JobQueue, job_store: JobStore, settings: Settings, provider: ScriptedProvider
) -> None:
    async with running_worker(settings, provider), running_worker(settings, provider):
        jobs = await submit(job_queue, 30)
        await until_all_done(job_store, jobs)
    assert sorted(call.job_id for call in provider.calls) == sorted(jobs)
