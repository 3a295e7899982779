"""A worker sleeps through its lease (SIGSTOP) and wakes when another has its job: nothing that it writes appears any more,
and nothing of the new owner's disappears (P5)."""

import os
import signal
import time
from typing import Any

from shared import keys
from shared.events import Started
from tests.support.reading import Reading
from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text, starts, stored_log
from tests.support.waiting import until_time, wait_until

WORDS, RATE = 80, 50.0


async def test_a_zombie_that_wakes_harms_nothing_and_serves_on(stack: Stack) -> None:
    """It wakes while another writes its job, and again after another has ended its job."""
    await stack.start(workers=2)
    job_id, reading, zombie, stopped_at = await _fall_asleep_in_mid_stream(stack)
    takeover = await reading.until_attempts(2)
    figure("takeover after SIGSTOP", takeover.at - stopped_at, LEASE_S + SLACK_S)
    await reading.until_words(5)
    await _wake(stack, zombie)
    await _assert_the_queue_names(stack, job_id, takeover.frame["worker"])
    await _assert_one_takeover(stack, job_id, reading)

    job_id, reading, zombie, _ = await _fall_asleep_in_mid_stream(stack)
    await reading.to_the_end()
    ended = await stack.redis.xinfo_stream(keys.log(job_id))
    await _wake(stack, zombie)
    assert await stack.redis.xinfo_stream(keys.log(job_id)) == ended
    await _assert_one_takeover(stack, job_id, reading)
    await _assert_it_still_serves(stack, zombie)


async def test_whoever_wins_the_race_at_the_leases_end_the_log_has_one_owner_at_a_time(stack: Stack) -> None:
    """Woken at moments around its lease's end, the sleeper keeps its jobs or loses them, and never half."""
    await stack.start(workers=2)
    for asleep_s in (1.4, 1.5, 1.7):
        job_ids = [await stack.submit(40, RATE) for _ in range(4)]
        readings = [stack.read(job_id) for job_id in job_ids]
        for reading in readings:
            await reading.until_words(5)
        sleeper, stopped_at = await stack.kill_owner_of(job_ids[0], signal.SIGSTOP)
        await until_time(stopped_at + asleep_s)
        os.kill(sleeper["pid"], signal.SIGCONT)

        for job_id, reading in zip(job_ids, readings, strict=True):
            await reading.to_the_end()
            reading.assert_whole(counted_text(40))
            log = await stored_log(stack.redis, job_id)
            assert [seen.frame["attempt"] for seen in reading.starts] == [start.attempt for start in starts(log)]
            print(f"asleep {asleep_s} s: {[start.reason for start in starts(log)]}")
        await assert_all_sound(stack.redis, job_ids)
        await assert_nothing_is_left_in_the_queue(stack.redis, job_ids)
        await stack.processes.ready(workers=2)


async def _fall_asleep_in_mid_stream(stack: Stack) -> tuple[str, Reading, dict[str, Any], float]:
    """A job whose worker was stopped while the upstream goes on sending to it; when that was."""
    job_id = await stack.submit(WORDS, RATE)
    reading = stack.read(job_id)
    await reading.until_words(20)
    zombie, stopped_at = await stack.kill_owner_of(job_id, signal.SIGSTOP)
    return job_id, reading, zombie, stopped_at


async def _wake(stack: Stack, zombie: dict[str, Any]) -> None:
    """Returns once its renewals have told it what it lost, and it let go of that."""
    os.kill(zombie["pid"], signal.SIGCONT)
    await wait_until(lambda: _runs_nothing(stack, zombie), message="the zombie let go of the job")


async def _assert_the_queue_names(stack: Stack, job_id: str, owner: str) -> None:
    lease = (await stack.redis.get(keys.arq_in_progress(job_id))).decode()
    assert lease.startswith(owner)
    assert (await stack.field(job_id, "worker"), await stack.field(job_id, "owner")) == (owner, lease)
    assert await stack.redis.zscore(keys.queue("api"), job_id) > time.time() * 1000, "leased: not due for anyone"
    assert await stack.redis.exists(keys.arq_job(job_id)) == 1


async def _assert_one_takeover(stack: Stack, job_id: str, reading: Reading) -> None:
    """The raw log: attempt 1 up to the takeover's `N-0`, and from there on nothing but attempt 2."""
    await reading.to_the_end()
    reading.assert_whole(counted_text(WORDS))
    log = await stack.log(job_id)
    opening = next(i for i, entry in enumerate(log) if isinstance(entry.event, Started) and entry.event.reason == "takeover")
    assert {entry.id.attempt for entry in log[1:opening]} == {1}
    assert {entry.id.attempt for entry in log[opening:]} == {2}
    assert [seen.frame["id"] for seen in reading.starts] == ["1-0", "2-0"], "the reader saw no other attempt either"
    await assert_all_sound(stack.redis, [job_id])
    await assert_nothing_is_left_in_the_queue(stack.redis, [job_id])


async def _assert_it_still_serves(stack: Stack, zombie: dict[str, Any]) -> None:
    """The other worker is told to stop, so that the next job can only be the woken one's."""
    other = next(worker for worker in await stack.live_workers() if worker["id"] != zombie["id"])
    os.kill(other["pid"], signal.SIGTERM)
    await wait_until(lambda: _is_gone(stack, other), message="the other worker stopped")
    job_id = await stack.submit(5, 0)
    reading = stack.read(job_id)
    await reading.to_the_end()
    reading.assert_whole(counted_text(5))
    assert [seen.frame["worker"] for seen in reading.starts] == [zombie["id"]]


async def _is_live(stack: Stack, worker: dict[str, Any]) -> bool:
    return worker["id"] in [live["id"] for live in await stack.live_workers()]


async def _is_gone(stack: Stack, worker: dict[str, Any]) -> bool:
    return not await _is_live(stack, worker)


async def _runs_nothing(stack: Stack, worker: dict[str, Any]) -> bool:
    return [live["running"] for live in await stack.live_workers() if live["id"] == worker["id"]] == [0]
