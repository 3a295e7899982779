"""A deploy stops every worker of a lane, one after the other, again and again: it counts against none of a job's limits
(architecture 4: "hand-overs and Redis outages count in neither"), and no job waits for a lease (P4)."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.models import resolve
from shared.providers import provider_configs
from shared.settings import Settings
from tests.support.author import request
from tests.support.openai_server import DEFAULT_TEXT, OpenAIServer, Stall, Status, answer, error_body, text
from tests.support.servers import Making, running_worker
from tests.support.stack import SLACK_S, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, starts, stored_log
from tests.support.waiting import wait_until
from worker.providers.openai import OpenAIProvider

ROUNDS, WORKERS, SLOTS = 3, 2, 4
DRAIN_S = 0.05
LEASE_S = 60.0
"""Nobody waits for it: a test that did would time out."""

BUSY = Status(429, error_body("Slow down.", "rate_limit_exceeded"), {"retry-after": "25"})


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
def settings(make_settings: Making, upstream: OpenAIServer) -> Settings:
    """Limits so tight that one loss or failed call too many ends a job."""
    return make_settings(
        openai_base_url=upstream.url, lease_s=LEASE_S, drain_s=DRAIN_S, poll_s=5.0, api_slots=SLOTS,
        max_losses=1, model_tries=2, max_failures=2,
    )  # fmt: skip


class Lane:
    """The workers of a deployment, oldest first; each is replaced by a new one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: list[AsyncExitStack] = []

    async def start(self) -> None:
        worker, provider = AsyncExitStack(), OpenAIProvider(provider_configs(self._settings)["openai"])
        await worker.enter_async_context(running_worker(self._settings, provider))
        self._workers.append(worker)

    async def stop_oldest(self) -> None:
        """As SIGTERM does; returns once it is gone."""
        await self._workers.pop(0).aclose()

    async def close(self) -> None:
        while self._workers:
            await self.stop_oldest()


@pytest.fixture
async def lane(settings: Settings) -> AsyncIterator[Lane]:
    lane = Lane(settings)
    for _ in range(WORKERS):
        await lane.start()
    yield lane
    await lane.close()


async def submit(queue: JobQueue, settings: Settings, name: str) -> str:
    model = resolve(f"openai/{name}", settings)
    return (await queue.submit(request(model=model.id), model)).job_id


async def test_rolling_deploys_count_against_no_limit_of_any_job(
    redis: Redis, settings: Settings, job_queue: JobQueue, job_store: JobStore, upstream: OpenAIServer, lane: Lane
) -> None:
    """In mid-stream, in the pause before a retry, and in the queue behind them."""
    for i in range(WORKERS * SLOTS):
        for _ in range(ROUNDS):
            upstream.on(f"m{i}", *([text("so far "), Stall()] if i % 2 else [BUSY]))
        upstream.on(f"m{i}", *answer())
    running = [await submit(job_queue, settings, f"m{i}") for i in range(WORKERS * SLOTS)]
    await wait_until(lambda: len(upstream.requests) == len(running), message="all slots are busy")
    queued = [await submit(job_queue, settings, f"q{i}") for i in range(3)]

    slowest_s = 0.0
    for deploy in range(ROUNDS):
        for place in range(WORKERS):
            await lane.stop_oldest()
            drained_at = time.monotonic()
            await lane.start()
            begun = len(running) * (deploy + 1) + SLOTS * (place + 1)
            await wait_until(lambda begun=begun: len(upstream.requests) >= begun, message="the next worker has them all")  # type: ignore[misc]
            slowest_s = max(slowest_s, time.monotonic() - drained_at)
            if deploy < ROUNDS - 1:
                assert {await redis.hget(keys.job(job_id), "status") for job_id in queued} == {b"queued"}  # type: ignore[misc]
    figure(f"{ROUNDS * WORKERS} hand-overs of {SLOTS} jobs, the slowest, drain's end to started", slowest_s, SLACK_S)

    for job_id in (*running, *queued):
        await wait_until(lambda job_id=job_id: _is_done(job_store, job_id), message="done")  # type: ignore[misc]
        assert (await job_store.job(job_id)).text == DEFAULT_TEXT
        assert await redis.hget(keys.job(job_id), "losses") is None  # type: ignore[misc]
    assert [await _reasons(redis, job_id) for job_id in running] == [["first"] + ["handover"] * ROUNDS] * len(running)
    assert [await _reasons(redis, job_id) for job_id in queued] == [["first"]] * len(queued)
    await assert_all_sound(redis, [*running, *queued])
    await assert_nothing_is_left_in_the_queue(redis, [*running, *queued])


async def _is_done(store: JobStore, job_id: str) -> bool:
    return (await store.record(job_id)).status == "done"


async def _reasons(redis: Redis, job_id: str) -> list[str]:
    return [started.reason for started in starts(await stored_log(redis, job_id))]
