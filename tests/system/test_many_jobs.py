"""What holds for one job holds for many at once: readers that drop, a worker that dies, a queue longer than the slots."""

import asyncio
import random

from shared.events import Done
from tests.support.stack import Stack
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, assert_sound, counted_text, stored_log
from tests.support.waiting import wait_until

SEED = 20_251_122


async def test_forty_jobs_eighty_dropping_readers_and_a_dead_worker(stack: Stack) -> None:
    await stack.start(workers=3, api_slots=20)
    chance = random.Random(SEED)
    lengths = [chance.randint(40, 90) for _ in range(40)]
    job_ids = await asyncio.gather(*(stack.submit(n, 20) for n in lengths))
    readings = [stack.read(job_id) for job_id in job_ids for _ in range(2)]
    for reading in readings:
        reading.drop_at(*chance.sample(range(1, 120), chance.randint(1, 4)))
    await wait_until(lambda: all(reading.words >= 10 for reading in readings), timeout=30)

    await stack.kill_owner_of(chance.choice(job_ids))
    await asyncio.gather(*(reading.to_the_end(60) for reading in readings))

    for reading, n in zip(readings, [n for n in lengths for _ in range(2)], strict=True):
        reading.assert_whole(counted_text(n))
    taken_over = sum(len(reading.starts) > 1 for reading in readings)
    drops = sum(reading.reader.connections - 1 for reading in readings)
    print(f"figure: {taken_over} readers saw a takeover; {drops} connections were cut; lost 0, doubled 0")
    assert taken_over > 0
    assert drops > 80
    await assert_all_sound(stack.redis, job_ids)
    await assert_nothing_is_left_in_the_queue(stack.redis, job_ids)


async def test_a_queue_far_longer_than_the_slots_drains_whole(stack: Stack) -> None:
    """Submitted while no worker is there yet: the last of them right before the first one is ready."""
    stack.processes.web()
    await stack.processes.ready(workers=0)
    for _ in range(2):
        stack.worker(api_slots=5)
    job_ids = [job_id for _ in range(50) for job_id in await asyncio.gather(*(stack.submit(3, 0) for _ in range(10)))]

    async def drained() -> bool:
        return (
            not (await stack.http.get("/v1/jobs?status=queued&limit=1")).json()["data"]
            and not ((await stack.http.get("/v1/jobs?status=running&limit=1")).json()["data"])
        )

    await wait_until(drained, timeout=60, message="the queue drains")
    owners = set()
    for job_id in job_ids:
        log = await stored_log(stack.redis, job_id)
        assert_sound(log)
        assert isinstance(log[-1].event, Done)
        assert len(log) == 6
        owners.add(await stack.field(job_id, "worker"))
    assert len(owners) == 2, "both worked"
    assert len(stack.upstream.requests) == 500, "no provider was called twice"
    await assert_nothing_is_left_in_the_queue(stack.redis, job_ids)
