"""A worker is told to stop (SIGTERM): it hands over what it could not finish, at once, and goes (P4)."""

import asyncio
import signal
import subprocess
import time

from tests.support.stack import SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text

DRAIN_S = 0.2


async def test_it_hands_its_jobs_over_at_once_and_exits(stack: Stack) -> None:
    workers = await stack.start(workers=2, drain_s=DRAIN_S)
    job_ids = [await stack.submit(100, 40) for _ in range(5)]
    short = await stack.submit(2, 40)
    readings = [stack.read(job_id) for job_id in job_ids]
    for reading in readings:
        await reading.until_words(10)

    owner, stopped_at = await stack.kill_owner_of(job_ids[0], signal.SIGTERM)
    theirs = [reading for reading in readings if reading.starts[0].frame["worker"] == owner["id"]]
    handovers = [await reading.until_attempts(2) for reading in theirs]
    stopped = next(worker for worker in workers if worker.pid == owner["pid"])
    assert await _exit_code(stopped) == 0
    figure("exit of a worker with jobs, after SIGTERM and drain", time.monotonic() - stopped_at - DRAIN_S, 4.0)

    figure("handover after SIGTERM and drain", max(seen.at for seen in handovers) - stopped_at - DRAIN_S, SLACK_S)
    assert {seen.frame["reason"] for seen in handovers} == {"handover"}
    assert owner["id"] not in {seen.frame["worker"] for seen in handovers}
    assert owner["id"] not in [worker["id"] for worker in await stack.live_workers()], "it said goodbye"
    for reading in readings:
        await reading.to_the_end()
        reading.assert_whole(counted_text(100))
        assert len(reading.starts) == (2 if reading in theirs else 1)
    assert await stack.field(job_ids[0], "losses") is None, "a hand-over is no loss"
    await assert_all_sound(stack.redis, [*job_ids, short])
    await assert_nothing_is_left_in_the_queue(stack.redis, [*job_ids, short])


async def test_jobs_that_end_within_the_drain_end_where_they_are_and_an_idle_worker_exits_at_once(stack: Stack) -> None:
    workers = await stack.start(workers=2, drain_s=10)
    job_id = await stack.submit(80, 40)
    reading = stack.read(job_id)
    await reading.until_words(10)
    owner = await stack.owner_of(job_id)
    busy = next(worker for worker in workers if worker.pid == owner["pid"])
    idle = next(worker for worker in workers if worker is not busy)

    stopped_at = time.monotonic()
    busy.terminate()
    idle.terminate()
    assert await _exit_code(idle) == 0
    figure("exit of an idle worker after SIGTERM", time.monotonic() - stopped_at, 3.0)
    late = await stack.submit(5, 0)
    await reading.to_the_end()
    assert await _exit_code(busy) == 0
    figure("exit of a worker after its last job ended", time.monotonic() - reading.seen[-1].at, 3.0)

    reading.assert_whole(counted_text(80))
    assert len(reading.starts) == 1
    assert (await stack.job(late))["status"] == "queued", "nothing new was taken"
    assert await stack.live_workers() == []


async def _exit_code(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, 15)
