"""`GET /v1/operations`: how full the lanes are, and the last quarter of an hour, from whichever web process (protocol 6)."""

import time
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import EventLog
from shared.events import Error, Timing, Usage
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.operations import STEP_S, STEPS, add, step_of
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.reading import Reading
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker, web_server
from worker.reaper import Reaper
from worker.upstreams import Upstreams

RATE_LIMIT = Error("rate_limit", 'It said "code":"x".', True, True, Usage(), Timing())


async def look(client: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/operations")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def counted(redis: Redis) -> dict[str, int]:
    """What all steps hold together, the one that has only begun too."""
    total: dict[str, int] = {}
    async for name in redis.scan_iter(match=keys.operations("*")):
        assert 0 < await redis.ttl(name) <= 1200
        for field, n in (await redis.hgetall(name)).items():  # type: ignore[misc]  # redis-py types both
            total[field.decode()] = total.get(field.decode(), 0) + int(n)
    return total


async def test_of_nothing_there_is_nothing_to_see(client: httpx2.AsyncClient) -> None:
    seen = await look(client)
    assert seen["lanes"] == [{"lane": "api", "queued": 0, "oldest_s": None, "running": 0, "slots": 0}]
    assert (seen["workers"], seen["errors"]) == ([], {})
    assert seen["web"] == {"streams": 0, "readers": 0}
    history = seen["history"]
    assert history["step_s"] == STEP_S
    assert [later - before for before, later in zip(history["at"], history["at"][1:], strict=False)] == [STEP_S] * (STEPS - 1)
    assert 0 <= seen["at"] - (history["at"][-1] + STEP_S) <= STEP_S, "whole steps alone"
    assert history["ttft_p50_s"] == history["ttft_p99_s"] == [None] * STEPS
    assert history["tokens_per_s"] == history["finished"] == [0] * STEPS


async def test_what_waits_is_told_apart_from_what_runs(client: httpx2.AsyncClient, redis: Redis, new_queued: NewAuthor) -> None:
    """Running jobs stay in the queue, their score pushed past now; one whose worker died waits again."""
    old, running, lapsed, _ = [await new_queued() for _ in range(4)]
    now_ms = int(time.time() * 1000)
    await redis.zadd(keys.queue("api"), {old.job_id: now_ms - 60_000, running.job_id: now_ms + 60_000})
    await redis.zadd(keys.leased("api"), {running.job_id: now_ms + 60_000, lapsed.job_id: now_ms - 1})
    [lane] = (await look(client))["lanes"]
    assert (lane["queued"], lane["running"]) == (3, 1)
    assert lane["oldest_s"] == pytest.approx(60, abs=5)
    text = (await client.get("/metrics")).text
    assert 'lastevent_queue_depth{lane="api"} 3.0' in text
    assert 'lastevent_lane_running_jobs{lane="api"} 1.0' in text
    assert "lastevent_redis_up 1.0" in text


async def test_readers_and_slots_are_those_of_the_moment(
    client: httpx2.AsyncClient, base_url: str, settings: Settings, provider: ScriptedProvider, new_author: NewAuthor
) -> None:
    author = await new_author()
    async with running_worker(settings, provider):
        reading = Reading(base_url, author.job_id, client)
        await reading.until_next("started", 0)
        seen = await look(client)
        assert seen["web"] == {"streams": 1, "readers": 1}
        assert [worker["lane"] for worker in seen["workers"]] == ["api"]
        assert seen["lanes"][0]["slots"] == seen["workers"][0]["slots"] == settings.api_slots
        await reading.close()


async def test_what_a_worker_produced_is_written_by_the_time_it_is_gone(
    redis: Redis, client: httpx2.AsyncClient, base_url: str, settings: Settings, provider: ScriptedProvider
) -> None:
    async with running_worker(settings, provider):
        job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Hi"})).json()
        await Reading(base_url, job["id"], client).to_the_end()
    total = await counted(redis)
    assert (total.pop("tokens"), total.pop("ended")) == (3, 1)
    [ttft] = total
    assert ttft.startswith("ttft:")


async def test_whoever_ends_a_job_it_is_counted_once(
    redis: Redis,
    make_settings: Making,
    event_log: EventLog,
    job_store: JobStore,
    job_queue: JobQueue,
    new_author: NewAuthor,
    new_queued: NewAuthor,
) -> None:
    """Its owner, a cancel, an erasure, the reaper: no worker's attempt wrote the last three."""
    ended, failed = await new_author(), await new_author()
    await ended.end()
    await failed.say("so far")
    await failed.end(RATE_LIMIT)
    await job_queue.cancel((await new_queued()).job_id)
    await job_queue.erase((await new_queued()).job_id)
    late = await new_queued(timeouts={"queue_s": 1})
    await redis.hset(keys.job(late.job_id), "created_at", str(time.time() - 5))  # type: ignore[misc]
    reaper = Reaper(redis, make_settings(), event_log, job_store, Upstreams(redis, {}, "api"), "api", "w9")
    assert await reaper.round() == 1
    assert (reaper.moved, event_log.closed) == (1, {("failed", "expired"): 1})
    assert await counted(redis) == {"ended": 5, "error:rate_limit": 1, "error:expired": 1}


async def test_the_same_ending_sent_twice_is_one(redis: Redis, new_author: NewAuthor) -> None:
    """After a lost reply."""
    author = await new_author()
    before = author.last
    await author.end(RATE_LIMIT)
    author.last = before
    await author.end(RATE_LIMIT)
    assert await counted(redis) == {"ended": 1, "error:rate_limit": 1}


async def test_steps_that_are_over_are_drawn_the_same_by_every_web_process(
    redis: Redis, settings: Settings, client: httpx2.AsyncClient
) -> None:
    now = time.time()
    await add(redis, 150, {10: 98, 20: 2}, now - STEP_S)
    await add(redis, 30, {10: 1}, now - STEPS * STEP_S)
    await add(redis, 7, {}, now - (STEPS + 2) * STEP_S)
    await redis.hset(keys.operations(step_of(now - STEP_S)), mapping={"ended": 4, "error:timeout": 3})  # type: ignore[misc]
    await redis.hset(keys.operations(step_of(now - 9 * STEP_S)), mapping={"ended": 1, "error:timeout": 1})  # type: ignore[misc]
    await redis.expire(keys.operations(step_of(now - 9 * STEP_S)), 60)
    async with web_server(settings) as other, httpx2.AsyncClient(base_url=other) as second:
        seen, same = await look(client), await look(second)
    assert same["history"] == seen["history"]
    history = seen["history"]
    i = history["at"].index(step_of(now - STEP_S))
    assert history["tokens_per_s"][i] == 10
    assert history["finished"][i] == 4
    assert history["ttft_p50_s"][i] == pytest.approx(0.001 * 1.25**9.5, rel=0.13)
    assert history["ttft_p99_s"][i] == pytest.approx(0.001 * 1.25**19.5, rel=0.13)
    assert sum(history["tokens_per_s"]) in (10, 12), "what is older than a quarter of an hour is gone; a step may end meanwhile"
    assert seen["errors"] == {"timeout": 4}


async def test_redis_away_is_told_as_everywhere(make_settings: Making) -> None:
    settings = make_settings(redis_url="redis://127.0.0.1:1/0", redis_timeout_s=0.2)
    async with web_server(settings) as url, httpx2.AsyncClient(base_url=url) as client:
        answer = await client.get("/v1/operations")
    assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
