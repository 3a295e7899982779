"""Leases on a real Redis: who runs a job, for how long, and what a worker that overslept may still do (architecture 4)."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import ClaimRefused, EventLog
from shared.ids import EventId
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.ownership import Lease, Ownership
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.author import MODEL, Author
from tests.support.servers import Making
from tests.support.waiting import wait_until
from worker.control import Running
from worker.leases import Identity, Leases

QUEUE = keys.queue("api")


class Holder:
    """One worker's leases, and what it is told about them."""

    def __init__(self, redis: Redis, settings: Settings, name: str) -> None:
        self.running = Running()
        identity = Identity(id=name, lane="api", host="here", pid=1, slots=10, started_at=time.time())
        self.leases = Leases(redis, settings, identity, self.running)

    async def take(self, slots: int = 10) -> list[Lease]:
        return [taken.lease for taken in await self.leases.take(slots)]

    async def renew(self) -> None:
        await self.leases._renew()


@pytest.fixture
def settings(make_settings: Making) -> Settings:
    return make_settings(lease_s=30)


@pytest.fixture
def first(redis: Redis, settings: Settings) -> Holder:
    return Holder(redis, settings, "first")


@pytest.fixture
def second(redis: Redis, settings: Settings) -> Holder:
    return Holder(redis, settings, "second")


async def lapse(redis: Redis, job_id: str) -> None:
    """The lease's time is over: its key has expired, and its queue entry is due."""
    await redis.delete(keys.arq_in_progress(job_id))
    await redis.zadd(QUEUE, {job_id: 1})


async def claim(log: EventLog, lease: Lease, author: Author, worker: str) -> Ownership:
    [last] = await log.last_ids([author.job_id])
    assert last is not None
    owner = await log.claim(lease, worker, MODEL.id, last, reset=False)
    assert isinstance(owner, Ownership), owner
    return owner


async def test_a_job_is_taken_once(first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis) -> None:
    jobs = {(await new_queued()).job_id for _ in range(5)}
    mine, yours = await first.take(3), await second.take(3)
    assert (len(mine), len(yours)) == (3, 2)
    assert {lease.job_id for lease in mine + yours} == jobs
    assert await first.take() == await second.take() == []


async def test_a_job_that_nobody_has_started_comes_with_its_lease(
    first: Holder, redis: Redis, new_queued: NewAuthor, job_store: JobStore
) -> None:
    """Its claim needs no look of its own: record, log and payload are there."""
    job_id = (await new_queued()).job_id
    [taken] = await first.leases.take(4)
    assert taken.found is not None
    record, state = taken.found.look(job_id)
    looked_at, log = await job_store.look(job_id)
    assert (record, state.last_id) == (looked_at, log.last_id)
    assert taken.payload == await redis.get(keys.arq_job(job_id))


async def test_one_that_was_started_does_not(second: Holder, redis: Redis, orphan: NewAuthor) -> None:
    """Its log may be long, and Redis does nothing else while a script runs."""
    author = await orphan("a", "b")
    await lapse(redis, author.job_id)
    [taken] = await second.leases.take(4)
    assert (taken.lease.job_id, taken.found) == (author.job_id, None)


async def test_the_oldest_job_first(first: Holder, new_queued: NewAuthor, redis: Redis) -> None:
    jobs = [(await new_queued()).job_id for _ in range(3)]
    await redis.zadd(QUEUE, {job_id: 100 + i for i, job_id in enumerate(jobs)})
    assert [lease.job_id for _ in jobs for lease in await first.take(1)] == jobs


async def test_a_leased_job_leaves_the_window_that_idle_workers_scan(
    first: Holder, new_queued: NewAuthor, redis: Redis, settings: Settings
) -> None:
    """pitfalls 1: its score is moved past now, with the lease; the entry itself stays, should the worker die."""
    job_id = (await new_queued()).job_id
    await first.take()
    score = await redis.zscore(QUEUE, job_id)
    assert score == pytest.approx((time.time() + settings.lease_s) * 1000, abs=3000)
    assert await redis.pttl(keys.arq_in_progress(job_id)) == pytest.approx(settings.lease_s * 1000, abs=3000)


async def test_a_renewal_extends_all_leases(first: Holder, new_queued: NewAuthor, redis: Redis, settings: Settings) -> None:
    jobs = [(await new_queued()).job_id for _ in range(3)]
    await first.take()
    for job_id in jobs:
        await redis.pexpire(keys.arq_in_progress(job_id), 500)
        await redis.zadd(QUEUE, {job_id: 1})
    await first.renew()
    for job_id in jobs:
        assert await redis.pttl(keys.arq_in_progress(job_id)) > settings.lease_s * 900
    assert await first.take() == []


async def test_a_lapsed_lease_is_taken_by_another(first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis) -> None:
    job_id = (await new_queued()).job_id
    [old] = await first.take()
    await lapse(redis, job_id)
    [new] = await second.take()
    assert (new.job_id, old.job_id) == (job_id, job_id)
    assert new.token != old.token


async def test_a_lapsed_lease_comes_before_all_that_wait(
    first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis
) -> None:
    """P4: "within 1 s of the later of the lease's end and a worker being ready", however long the queue is."""
    lost = (await new_queued()).job_id
    await first.take()
    waiting = [(await new_queued()).job_id for _ in range(3)]
    just_now = int(time.time() * 1000)
    await redis.delete(keys.arq_in_progress(lost))
    await redis.zadd(QUEUE, {lost: just_now} | dict.fromkeys(waiting, 100))
    await redis.zadd(keys.leased("api"), {lost: just_now})
    assert [lease.job_id for lease in await second.take(1)] == [lost]
    assert {lease.job_id for lease in await second.take()} == set(waiting)


async def test_only_leased_jobs_are_kept_as_leased(
    first: Holder, new_queued: NewAuthor, event_log: EventLog, redis: Redis
) -> None:
    ended, handed_over, kept = [await new_queued() for _ in range(3)]
    leases = {lease.job_id: lease for lease in await first.take()}
    ended.owner, ended.last = await claim(event_log, leases[ended.job_id], ended, "first"), EventId(1, 0)
    await ended.end()
    await first.leases.give_back(leases[handed_over.job_id], handover=True)
    assert await redis.zrange(keys.leased("api"), 0, -1) == [kept.job_id.encode()]


async def test_what_a_failover_left_of_a_lease_is_cleared_up(first: Holder, new_queued: NewAuthor, redis: Redis) -> None:
    job_id = (await new_queued()).job_id
    await redis.zadd(keys.leased("api"), {"job_gone": 1})
    assert [lease.job_id for lease in await first.take()] == [job_id]
    assert await redis.zrange(keys.leased("api"), 0, -1) == [job_id.encode()]


async def test_a_worker_that_lost_its_lease_is_told_so(
    first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog
) -> None:
    author = await new_queued()
    [old] = await first.take()
    control = first.running.add(author.job_id)
    await lapse(redis, author.job_id)
    [new] = await second.take()
    await claim(event_log, new, author, "second")
    await first.renew()
    assert control.reason == "lost"
    assert await redis.get(keys.arq_in_progress(author.job_id)) == new.token.encode(), "and renews nothing of the other's"
    assert old.token != new.token


async def test_an_owner_may_renew_after_its_lease_lapsed_if_nobody_claimed(
    first: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog
) -> None:
    """An outage of Redis is not a death."""
    author = await new_queued()
    [lease] = await first.take()
    control = first.running.add(author.job_id)
    await claim(event_log, lease, author, "first")
    await lapse(redis, author.job_id)
    await first.renew()
    assert control.reason is None
    assert await redis.get(keys.arq_in_progress(author.job_id)) == lease.token.encode()


async def test_an_owner_takes_no_second_run_of_what_it_runs(
    first: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog
) -> None:
    """Its own lease lapsed, and its own poll sees the job as due: the run goes on, under its own token."""
    author = await new_queued()
    [lease] = await first.take()
    control = first.running.add(author.job_id)
    await claim(event_log, lease, author, "first")
    await lapse(redis, author.job_id)
    assert await first.take() == []
    await first.renew()
    assert control.reason is None
    assert await redis.get(keys.arq_in_progress(author.job_id)) == lease.token.encode()


async def test_a_takeover_waits_a_lease_after_the_primary_changed(
    first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog, settings: Settings
) -> None:
    """The owner may have lived through the outage, and renews in time."""
    author = await new_queued()
    [mine] = await first.take()
    owner = await claim(event_log, mine, author, "first")
    await redis.hset(keys.PRIMARY, mapping={"replid": "the one before", "since": "0"})  # type: ignore[misc]
    await lapse(redis, author.job_id)
    [yours] = await second.take()
    answer = await event_log.claim(yours, "second", MODEL.id, owner_last(owner), reset=False)
    assert isinstance(answer, ClaimRefused)
    assert answer.why == "wait"
    await second.leases.give_back(yours, after_ms=answer.wait_ms)
    assert await second.take() == []
    await first.renew()
    assert await redis.get(keys.arq_in_progress(author.job_id)) == mine.token.encode()


async def test_a_zombie_gives_back_nothing_of_the_new_owners(
    first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog
) -> None:
    """pitfalls 3: arq's finish deletes the new owner's keys."""
    author = await new_queued()
    [old] = await first.take()
    await claim(event_log, old, author, "first")
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]
    await lapse(redis, author.job_id)
    [new] = await second.take()
    await claim(event_log, new, author, "second")
    before = await everything(redis, author.job_id)
    await first.leases.done_with(old)
    await first.leases.give_back(old, handover=True)
    assert await everything(redis, author.job_id) == before


async def everything(redis: Redis, job_id: str) -> list[object]:
    return [
        await redis.get(keys.arq_in_progress(job_id)),
        await redis.exists(keys.arq_job(job_id)),
        await redis.zscore(QUEUE, job_id),
        await redis.hgetall(keys.job(job_id)),  # type: ignore[misc]
        await redis.llen(keys.wake("api")),  # type: ignore[misc]
    ]


async def test_done_with_an_ended_job_nothing_is_left_to_run(
    first: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog
) -> None:
    author = await new_queued()
    [lease] = await first.take()
    author.owner = await claim(event_log, lease, author, "first")
    author.last = owner_last(author.owner)
    await author.end()
    await first.leases.done_with(lease)
    assert not await redis.exists(keys.arq_job(author.job_id), keys.arq_in_progress(author.job_id))
    assert await redis.zcard(QUEUE) == 0


async def test_a_hand_over_frees_the_job_and_wakes_another(
    first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog, job_store: JobStore
) -> None:
    author = await new_queued()
    [lease] = await first.take()
    await claim(event_log, lease, author, "first")
    await redis.delete(keys.wake("api"))
    await first.leases.give_back(lease, handover=True)
    record = await job_store.record(author.job_id)
    assert (record.owned, record.handover) == (False, True)
    assert await redis.llen(keys.wake("api")) == 1  # type: ignore[misc]
    [next_lease] = await second.take()
    assert (await claim(event_log, next_lease, author, "second")).reason == "handover"


async def test_a_job_that_was_handed_over_comes_before_those_that_were_submitted_after_it(
    first: Holder, second: Holder, new_queued: NewAuthor, event_log: EventLog
) -> None:
    """Its readers are in mid-stream; a deploy of a busy lane must not send them to the end of the queue."""
    running = await new_queued()
    [lease] = await first.take()
    await claim(event_log, lease, running, "first")
    for _ in range(3):
        await new_queued()
    await first.leases.give_back(lease, handover=True)
    assert (await second.leases.take(1))[0].lease.job_id == running.job_id


async def test_given_back_for_later_is_looked_at_later(
    first: Holder, second: Holder, new_queued: NewAuthor, redis: Redis
) -> None:
    job_id = (await new_queued()).job_id
    [lease] = await first.take()
    await first.leases.give_back(lease, after_ms=60_000)
    assert await second.take() == []
    assert not await redis.exists(keys.arq_in_progress(job_id))
    assert await redis.zscore(QUEUE, job_id) == pytest.approx((time.time() + 60) * 1000, abs=3000)


async def test_a_renewal_brings_cancels_whose_signal_was_lost(
    first: Holder, new_queued: NewAuthor, redis: Redis, event_log: EventLog, job_queue: JobQueue
) -> None:
    author = await new_queued()
    [lease] = await first.take()
    control = first.running.add(author.job_id)
    await claim(event_log, lease, author, "first")
    await job_queue.cancel(author.job_id)
    await redis.delete(keys.signal("first"))
    await first.renew()
    assert control.reason == "cancel"


async def test_a_renewal_of_an_ended_or_erased_job_is_lost(
    first: Holder, new_queued: NewAuthor, job_queue: JobQueue, redis: Redis
) -> None:
    cancelled, erased = await new_queued(), await new_queued()
    await first.take()
    controls = [first.running.add(author.job_id) for author in (cancelled, erased)]
    await job_queue.cancel(cancelled.job_id)
    await job_queue.erase(erased.job_id)
    await first.renew()
    assert [control.reason for control in controls] == ["lost", "lost"]
    assert await redis.zcard(QUEUE) == 0
    assert not await redis.exists(keys.arq_in_progress(erased.job_id), keys.arq_in_progress(cancelled.job_id))


async def test_a_worker_is_announced_while_it_renews(first: Holder, job_store: JobStore, settings: Settings) -> None:
    """Protocol 2, `GET /v1/workers`."""
    await first.renew()
    [worker] = await job_store.workers()
    assert (worker.id, worker.lane, worker.running, worker.slots) == ("first", "api", 0, 10)
    await first.leases.announce_end()
    assert await job_store.workers() == []


async def test_one_that_overslept_writes_nothing_until_it_renewed(redis: Redis, make_settings: Making) -> None:
    """SIGSTOP and SIGCONT: it may own nothing any more."""
    late = Holder(redis, make_settings(lease_s=0.5), "late")
    late.leases.renewed_at -= 1
    waiting = asyncio.create_task(late.leases.wait_until_fresh())
    await asyncio.sleep(0)
    assert not waiting.done()
    await late.renew()
    await wait_until(waiting.done)


def owner_last(owner: Ownership) -> EventId:
    return EventId(owner.attempt, 0)
