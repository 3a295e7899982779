"""Cancel, DELETE, a takeover and the generation's own end, all at the same moment: exactly one terminal event comes of it, and
nothing is claimed, written or pushed after it (protocol 3, P2, P5, P6)."""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared import keys
from shared.errors import GenerationFailed, JobNotFound
from shared.event_log import EventLog
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker
from tests.support.truth import assert_nothing_is_left_in_the_queue, assert_sound, stored_log
from tests.support.waiting import wait_until
from worker.reaper import Reaper
from worker.upstreams import Upstreams

JOBS = 150
SEED = 20_251_125
LONGEST_WAIT_S = 0.06
"""A job is over within this: its cancel may come before its claim, in any of its moments, or after its end."""

Ask = Callable[[str], Awaitable[object]]


class Pushes:
    """What live readers of all logs were told: for each push its header, in order."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = defaultdict(list)

    async def collect(self, pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                self.of[message["channel"].decode()].append(message["data"].split(b"\n", 1)[0].decode())

    def assert_one_end(self, job_id: str) -> None:
        """A header ends with `!` where its push holds the terminal event (shared/lua/_common.lua)."""
        told = self.of[keys.log(job_id)]
        assert [header[-1] for header in told] == ["."] * (len(told) - 1) + ["!"], told


@pytest.fixture
async def pushes(redis: Redis) -> AsyncIterator[Pushes]:
    pushes = Pushes()
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe(keys.log("*"))
        collecting = asyncio.create_task(pushes.collect(pubsub))
        yield pushes
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


@pytest.fixture
def settings(make_settings: Making) -> Settings:
    return make_settings(lease_s=5.0, api_slots=20, retry_base_s=0.02)


@asynccontextmanager
async def two_workers(settings: Settings, provider: ScriptedProvider) -> AsyncIterator[None]:
    async with running_worker(settings, provider), running_worker(settings, provider):
        yield


def scripted(chance: random.Random) -> ScriptedProvider:
    """Answers of a few words, of none, failures that are tried again, and failures for good."""
    busy, refused = GenerationFailed("overloaded", "Busy."), GenerationFailed("auth", "No key.")
    provider = ScriptedProvider(["one ", "two ", "three"], pace_s=0.005)
    provider.scripts = [chance.choice([["one ", busy], ["one ", "two "], [busy], [refused], []]) for _ in range(2 * JOBS)]
    return provider


async def end_at_random(queue: JobQueue, job_id: str, chance: random.Random) -> None:
    """Asked for by nobody, by one, or by two at once."""
    cancel, erase = queue.cancel, queue.erase
    who: list[list[Ask]] = [[], [cancel], [erase], [cancel, cancel], [cancel, erase]]
    await asyncio.gather(*(_ask_later(ask, job_id, chance.uniform(0, LONGEST_WAIT_S)) for ask in chance.choice(who)))


async def _ask_later(ask: Ask, job_id: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    with contextlib.suppress(JobNotFound):
        await ask(job_id)


async def outcome(store: JobStore, job_id: str) -> str:
    """Its status, or `erased`."""
    try:
        return (await store.record(job_id)).status
    except JobNotFound:
        return "erased"


async def test_every_job_ends_once_whoever_asks_for_its_end_and_when(
    redis: Redis,
    settings: Settings,
    job_queue: JobQueue,
    job_store: JobStore,
    event_log: EventLog,
    new_queued: NewAuthor,
    orphan: NewAuthor,
    pushes: Pushes,
) -> None:
    """A third of the jobs are those of a dead worker: their cancels meet the takeover."""
    chance = random.Random(SEED)
    provider = scripted(chance)
    orphans = [(await orphan("so far ")).job_id for _ in range(JOBS // 3)]
    job_ids = list(orphans)

    async def begin(n: int) -> None:
        await asyncio.sleep(n * 0.01)
        if n < len(orphans):
            await _lapse(redis, job_id := orphans[n])
        else:
            job_ids.append(job_id := (await new_queued()).job_id)
        await end_at_random(job_queue, job_id, chance)

    async with two_workers(settings, provider):
        await asyncio.gather(*(begin(n) for n in chance.sample(range(JOBS), JOBS)))
        await wait_until(lambda: _all_over(job_store, job_ids), message="every job has ended")
        await wait_until(lambda: provider.open == 0, message="no provider is called any more")
    outcomes = {job_id: await outcome(job_store, job_id) for job_id in job_ids}
    counts = {how: list(outcomes.values()).count(how) for how in ("done", "failed", "cancelled", "erased")}
    print(f"figure: endings of {JOBS} jobs: {counts}")
    assert min(counts.values()) > 5, "each of them happened"

    logs = {job_id: await stored_log(redis, job_id) for job_id in job_ids}
    for job_id, how in outcomes.items():
        pushes.assert_one_end(job_id)
        if how != "erased":
            assert_sound(logs[job_id])
    await assert_nothing_is_left_in_the_queue(redis, job_ids)

    await _disturb_what_is_over(redis, settings, job_queue, job_store, event_log, job_ids)
    assert {job_id: await stored_log(redis, job_id) for job_id in job_ids} == logs
    assert {job_id: await outcome(job_store, job_id) for job_id in job_ids} == outcomes
    for job_id in job_ids:
        pushes.assert_one_end(job_id)
    erased = {job_id for job_id, how in outcomes.items() if how == "erased"}
    left = [name.decode() async for name in redis.scan_iter() if any(job_id in name.decode() for job_id in erased)]
    assert left == []


async def _disturb_what_is_over(
    redis: Redis, settings: Settings, queue: JobQueue, store: JobStore, log: EventLog, job_ids: list[str]
) -> None:
    """All that comes late: cancels, queue entries, a round of the reaper, and workers that find them."""
    for job_id in job_ids:
        with contextlib.suppress(JobNotFound):
            assert await queue.cancel(job_id) == "over"
    await redis.zadd(keys.queue("api"), dict.fromkeys(job_ids, 1))
    await Reaper(redis, settings, log, store, Upstreams(redis, {}, "api"), "api", "w9").round()
    silent = ScriptedProvider()
    async with running_worker(settings, silent):
        await wait_until(lambda: _queue_is_empty(redis), message="the late entries are cleared away")
    assert silent.calls == []


async def _lapse(redis: Redis, job_id: str) -> None:
    """The dead worker's lease is over: the job is due."""
    await redis.delete(keys.arq_in_progress(job_id))
    await redis.zadd(keys.queue("api"), {job_id: 1}, xx=True)
    await redis.lpush(keys.wake("api"), "1")  # type: ignore[misc]
    await redis.pexpire(keys.wake("api"), 60_000)


async def _all_over(store: JobStore, job_ids: list[str]) -> bool:
    return all([await outcome(store, job_id) not in ("queued", "running") for job_id in job_ids])


async def _queue_is_empty(redis: Redis) -> bool:
    return not await redis.zcard(keys.queue("api"))


async def test_a_job_that_is_cancelled_before_its_claim_reaches_no_provider(
    settings: Settings, job_queue: JobQueue, job_store: JobStore, redis: Redis, new_queued: NewAuthor
) -> None:
    """Cancelled in the very moment in which a worker takes it: whichever comes first, the log tells it."""
    provider, chance = ScriptedProvider(), random.Random(SEED)
    async with two_workers(settings, provider):
        job_ids = list[str]()
        for _ in range(10):  # a few at a time: a worker that is idle takes a single one before its submit is answered
            authors = await asyncio.gather(*(new_queued() for _ in range(4)))
            await asyncio.sleep(max(0.0, chance.uniform(-0.004, 0.006)))
            await asyncio.gather(*(job_queue.cancel(author.job_id) for author in authors))
            job_ids += [author.job_id for author in authors]
        await wait_until(lambda: _all_over(job_store, job_ids))
    called = {call.job_id for call in provider.calls}
    never_started = {job_id for job_id in job_ids if len(await stored_log(redis, job_id)) == 2}
    print(f"figure: {len(never_started)} of {len(job_ids)} were cancelled before their claim")
    assert never_started
    assert not never_started & called
