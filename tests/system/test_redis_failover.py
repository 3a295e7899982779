"""The primary dies, and Sentinel promotes a replica that lacks the end of what it had acknowledged (docs/decisions/0028)."""

import time
from collections.abc import AsyncIterator

import pytest

from tests.support.openai_server import OpenAIServer
from tests.support.processes import Processes
from tests.support.sentinel import Failover, failover
from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import wait_until


@pytest.fixture
async def servers() -> AsyncIterator[Failover]:
    async with failover() as servers:
        yield servers


@pytest.fixture
async def stack(servers: Failover, upstream: OpenAIServer) -> AsyncIterator[Stack]:
    processes = Processes(servers.url, lease_s=LEASE_S, poll_s=0.2, retry_min_ms=100, retry_max_ms=200)
    stack = Stack(servers.primary, upstream, processes, servers.url)
    yield stack
    await stack.close()
    await processes.close()


async def test_a_replica_that_lacks_the_tail_gets_it_again(stack: Stack, servers: Failover) -> None:
    await stack.start(workers=2)
    words = {await stack.submit(170, 50): 170, await stack.submit(40, 50): 40}
    streaming, ended = words
    readings = {job_id: stack.read(job_id) for job_id in words}
    await readings[streaming].until_words(10)
    await servers.cut_the_replica_off()
    words[claimed := await stack.submit(200, 50)] = 200  # which the replica never hears of
    readings[claimed] = stack.read(claimed)
    had = readings[streaming].words
    await readings[streaming].until_words(had + 20)
    await readings[claimed].until_words(5)
    await readings[ended].to_the_end()

    servers.primary.kill()
    had = readings[streaming].words
    await servers.until_failed_over()
    promoted_at = time.monotonic()
    await readings[streaming].until_next("token", promoted_at)
    figure("tokens flow again after a failover", time.monotonic() - promoted_at, 1.0 + SLACK_S)
    for job_id in (streaming, ended):
        await readings[job_id].to_the_end()
        readings[job_id].assert_whole(counted_text(words[job_id]))
        assert (len(readings[job_id].starts), readings[job_id].rewinds) == (1, 0), "its worker lived"
        assert [attempt["number"] for attempt in (await stack.job(job_id))["attempts"]] == [1]
    assert had > 20
    assert (await stack.http.get(f"/v1/jobs/{claimed}")).status_code == 404, "its submit was lost (P2)"

    late = await stack.submit(5, 0)
    reading = stack.read(late)
    await reading.to_the_end()
    reading.assert_whole(counted_text(5))
    await assert_all_sound(stack.redis, [streaming, ended, late])
    await wait_until(lambda: _nothing_runs(stack), message="the attempt of the forgotten job stops")
    await assert_nothing_is_left_in_the_queue(stack.redis, [streaming, ended, late])


async def _nothing_runs(stack: Stack) -> bool:
    return all(worker["running"] == 0 for worker in await stack.live_workers())
