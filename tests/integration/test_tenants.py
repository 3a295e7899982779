"""Tenants: what each of them sees, and how much each may take (protocol 2, docs/SECURITY.md)."""

import asyncio
import time

import httpx2
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import JobNotFound, LasteventError, RateLimited, TooManyJobs
from shared.event_log import EventLog
from shared.ids import START
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.settings import Settings
from tests.support.author import MODEL, Author, request
from tests.support.bare_worker import BareWorker
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, web_server
from tests.support.tenants import API_KEYS, tenant_client

BODY = {"model": "openai/any", "prompt": "hi"}


async def submit(queue: JobQueue, tenant: str, idempotency_key: str | None = None) -> str:
    return (await queue.submit(request(), MODEL, tenant=tenant, idempotency_key=idempotency_key)).job_id


# --- what each of them sees ----------------------------------------------------------------------------------------------


async def test_a_provider_is_told_whose_job_it_is(bare: BareWorker, provider: ScriptedProvider, job_queue: JobQueue) -> None:
    await bare.run(await submit(job_queue, "web"))
    assert provider.calls[0].tenant == "web"


async def test_a_job_is_its_tenants_alone(job_queue: JobQueue, job_store: JobStore, event_log: EventLog) -> None:
    job_id = await submit(job_queue, "web")
    assert (await job_store.job(job_id, "web")).id == job_id
    assert await event_log.place(job_id, START, "web") is not None
    for other in ("batch", ""):
        for call in (job_store.job, job_store.check, job_queue.cancel, job_queue.erase):
            with pytest.raises(JobNotFound):
                await call(job_id, other)
        assert await event_log.place(job_id, START, other) is None
    assert (await job_store.record(job_id)).status == "queued", "nobody else cancelled it"


async def test_each_lists_its_own_jobs(job_queue: JobQueue, job_store: JobStore) -> None:
    jobs = {tenant: [await submit(job_queue, tenant) for _ in range(2)] for tenant in ("web", "batch", "")}
    for tenant, ids in jobs.items():
        assert {job.id for job in (await job_store.page(tenant)).jobs} == set(ids)
    with pytest.raises(JobNotFound):
        await job_store.page("web", after=jobs["batch"][0])
    await job_queue.erase(jobs["web"][0], "web")
    assert [job.id for job in (await job_store.page("web")).jobs] == [jobs["web"][1]]


async def test_a_listing_goes_with_the_last_job_in_it(redis: Redis, job_queue: JobQueue, settings: Settings) -> None:
    """It is no permanent key: names of tenants come and go."""
    await submit(job_queue, "web")
    for name in (keys.jobs_of("web"), keys.active("web")):
        assert await redis.ttl(name) == pytest.approx(settings.open_ttl_s + settings.retention_s, abs=5)


async def test_jobs_from_before_there_were_keys_are_nobodys(
    make_settings: Making, job_queue: JobQueue, redis: Redis, event_log: EventLog
) -> None:
    """Their records have no tenant. They run to their end and expire; no key opens them, as nobody knows whose they were."""
    before = await submit(job_queue, "")
    assert await redis.hget(keys.job(before), "tenant") is None  # type: ignore[misc]
    async with web_server(make_settings(api_keys=API_KEYS)) as url, tenant_client(url, "web") as client:
        assert (await client.get(f"/v1/jobs/{before}")).status_code == 404
        assert (await client.get("/v1/jobs")).json()["data"] == []
    author = Author(redis, event_log, before)
    await author.claim()
    await author.end()


async def test_an_idempotency_key_is_its_tenants_own(job_queue: JobQueue) -> None:
    ids = {tenant: await submit(job_queue, tenant, idempotency_key="k") for tenant in ("web", "batch", "")}
    assert len(set(ids.values())) == 3
    for tenant, job_id in ids.items():
        assert await submit(job_queue, tenant, idempotency_key="k") == job_id


# --- submits a minute ----------------------------------------------------------------------------------------------------


async def outcomes(queue: JobQueue, tenant: str, n: int) -> list[str]:
    """What came of so many submits at once: `ok`, or the error's code."""

    async def one() -> str:
        try:
            await submit(queue, tenant)
        except LasteventError as error:
            return error.code
        return "ok"

    return sorted(await asyncio.gather(*[one() for _ in range(n)]))


async def test_as_many_as_a_minute_holds_at_once_then_each_in_its_turn(redis: Redis, make_settings: Making) -> None:
    """Counted in Redis, so that it does not matter how many web processes take them."""
    settings = make_settings(tenant_submits_per_minute=3)
    assert await outcomes(JobQueue(redis, settings), "web", 4) == ["ok", "ok", "ok", "rate_limited"]
    with pytest.raises(RateLimited) as refused:
        await submit(JobQueue(redis, settings), "web")
    assert 18 <= refused.value.retry_after_s <= 20, "a third of a minute"
    assert await outcomes(JobQueue(redis, settings), "batch", 1) == ["ok"], "another tenant's are its own"
    assert await outcomes(JobQueue(redis, settings), "", 5) == ["ok"] * 5, "without keys there are no tenants"


async def test_what_was_taken_comes_back_with_the_time(redis: Redis, make_settings: Making) -> None:
    queue = JobQueue(redis, make_settings(tenant_submits_per_minute=600))
    await redis.set(keys.rate("web"), (time.time() + 60.02) * 1000, px=60_000)  # all of it gone, and 20 ms more
    with pytest.raises(RateLimited) as refused:
        await submit(queue, "web")
    assert refused.value.retry_after_s == 1
    await redis.set(keys.rate("web"), (time.time() + 59.8) * 1000, px=60_000)
    assert await outcomes(queue, "web", 2) == ["ok", "ok"]
    assert 59_000 < await redis.pttl(keys.rate("web")) <= 60_000, "gone once all of it is back"


async def test_what_is_refused_or_replayed_is_not_charged(redis: Redis, make_settings: Making) -> None:
    queue = JobQueue(redis, make_settings(tenant_submits_per_minute=2, tenant_jobs_at_once=1))
    job_id = await submit(queue, "web", idempotency_key="k")
    for _ in range(3):
        assert await submit(queue, "web", idempotency_key="k") == job_id
        assert await outcomes(queue, "web", 1) == ["too_many_jobs"]
    await queue.cancel(job_id, "web")
    assert await outcomes(queue, "web", 1) == ["ok"]


# --- jobs at once --------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_at_once(redis: Redis, make_settings: Making) -> JobQueue:
    return JobQueue(redis, make_settings(tenant_jobs_at_once=2))


async def test_no_more_open_jobs_than_the_limit(two_at_once: JobQueue, redis: Redis) -> None:
    assert await outcomes(two_at_once, "web", 5) == ["ok", "ok", *["too_many_jobs"] * 3]
    assert await redis.zcard(keys.active("web")) == await redis.zcard(keys.queue("api")) == 2
    with pytest.raises(TooManyJobs, match=r"2 jobs waiting and running, and may have 2") as refused:
        await submit(two_at_once, "web")
    assert refused.value.retry_after_s > 0
    assert await outcomes(two_at_once, "batch", 1) == ["ok"]


async def _ends(author: Author, _queue: JobQueue) -> None:
    await author.claim()
    await author.end()


async def _is_cancelled_while_queued(author: Author, queue: JobQueue) -> None:
    await queue.cancel(author.job_id, "web")


async def _is_erased_while_running(author: Author, queue: JobQueue) -> None:
    await author.claim()
    await queue.erase(author.job_id, "web")


@pytest.mark.parametrize("happens", [_ends, _is_cancelled_while_queued, _is_erased_while_running])
async def test_whatever_ends_a_job_makes_room_for_one(
    two_at_once: JobQueue, redis: Redis, event_log: EventLog, happens: object
) -> None:
    first, _ = [await submit(two_at_once, "web") for _ in range(2)]
    await happens(Author(redis, event_log, first), two_at_once)  # type: ignore[operator]
    assert await outcomes(two_at_once, "web", 2) == ["ok", "too_many_jobs"]


async def test_a_running_job_counts_until_it_has_ended(two_at_once: JobQueue, redis: Redis, event_log: EventLog) -> None:
    for _ in range(2):
        author = Author(redis, event_log, await submit(two_at_once, "web"))
        await author.claim()
    await two_at_once.cancel(author.job_id, "web")  # asked for; its worker still runs it
    assert await outcomes(two_at_once, "web", 1) == ["too_many_jobs"]
    await author.end()
    assert await outcomes(two_at_once, "web", 1) == ["ok"]


async def test_a_job_that_expired_or_was_ended_by_an_older_release_is_not_counted(two_at_once: JobQueue, redis: Redis) -> None:
    """Neither took it off its tenant's list: the one ran no script, the other knows of no tenants."""
    expired, ended = [await submit(two_at_once, "web") for _ in range(2)]
    await redis.delete(keys.job(expired), keys.log(expired))
    await redis.hset(keys.job(ended), "status", "done")  # type: ignore[misc]
    assert await outcomes(two_at_once, "web", 3) == ["ok", "ok", "too_many_jobs"]


# --- over HTTP -----------------------------------------------------------------------------------------------------------


async def test_over_a_limit_is_429_with_retry_after_from_every_web_process(make_settings: Making) -> None:
    """Protocol 2.1."""
    settings = make_settings(api_keys=API_KEYS, tenant_submits_per_minute=2, tenant_jobs_at_once=2)
    async with web_server(settings) as first, web_server(settings) as second:
        async with tenant_client(first, "web") as here, tenant_client(second, "web") as there:
            job = (await here.post("/v1/jobs", json=BODY)).json()
            assert (await there.post("/v1/jobs", json=BODY)).status_code == 202
            assert is_limit(await here.post("/v1/jobs", json=BODY), "too_many_jobs")
            assert is_limit(await there.post("/v1/jobs", json=BODY, headers={"Accept": "text/event-stream"}), "too_many_jobs")
            await here.delete(f"/v1/jobs/{job['id']}")
            refused = await there.post("/v1/jobs", json=BODY)
            assert is_limit(refused, "rate_limited")
            assert 25 <= int(refused.headers["retry-after"]) <= 30
        async with tenant_client(second, "batch") as other:
            assert (await other.post("/v1/jobs", json=BODY)).status_code == 202


def is_limit(answer: httpx2.Response, code: str) -> bool:
    assert (answer.status_code, answer.json()["code"]) == (429, code), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    return True
