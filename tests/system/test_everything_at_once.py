"""Web, worker and Redis die in the same moment, in mid-stream, and a provider fails: started again, all is as if nothing had
been (P1, P2)."""

import asyncio
import time

from tests.support.openai_server import Status, answer, error_body
from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import wait_until

LENGTHS = (10, 100, 100, 100, 100, 10, 10)
BUSY = Status(429, error_body("Slow down.", "rate_limit_exceeded"), {"retry-after": "25"})


async def test_after_the_restart_every_job_is_told_whole_and_ends_once(stack: Stack) -> None:
    web, worker = stack.processes.web(), stack.worker()
    await stack.processes.ready()
    ended = await stack.submit(10, 0)
    running = [await stack.submit(100, 40) for _ in range(4)]
    stack.upstream.on("busy", BUSY)
    stack.upstream.on("busy", *answer(counted_text(10)))
    running.append(await stack.submit(10, 0, model="openai/busy"))
    readings = [stack.read(job_id) for job_id in (ended, *running)]
    for reading in readings[:-1]:
        await reading.until_words(10)
    await wait_until(lambda: bool(stack.upstream.of("busy")), message="one job pauses before its retry")

    queued = []
    worker.kill()
    queued.append(await stack.submit(10, 0))
    web.kill()
    stack.redis_server.kill()
    await asyncio.to_thread(web.wait)
    await asyncio.to_thread(stack.redis_server.start)
    stack.processes.web()
    stack.worker()
    await stack.processes.ready()
    ready_at = time.monotonic()

    readings.append(stack.read(queued[0]))
    takeovers = [await reading.until_attempts(2) for reading in readings[1:-1]]
    figure("takeover after everything died, a worker ready", max(s.at for s in takeovers) - ready_at, LEASE_S + 2 * SLACK_S)
    for reading, n in zip(readings, LENGTHS, strict=True):
        await reading.to_the_end()
        reading.assert_whole(counted_text(n))
    for job_id, n in zip((ended, *running, *queued), LENGTHS, strict=True):
        late = stack.read(job_id)
        await late.to_the_end()
        late.assert_whole(counted_text(n))
        job = await stack.job(job_id)
        assert (job["status"], job["text"]) == ("done", counted_text(n))
    await assert_all_sound(stack.redis, [ended, *running, *queued])
    await assert_nothing_is_left_in_the_queue(stack.redis, [ended, *running, *queued])
