"""A worker dies without a word (SIGKILL): its jobs go on elsewhere, and no reader loses or doubles anything (P1, P4)."""

import signal
import time

from shared.events import Error
from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, assert_sound, counted_text, starts
from tests.support.waiting import wait_until


async def test_another_worker_takes_over_within_the_lease_and_a_second(stack: Stack) -> None:
    await stack.start(workers=2)
    job_id = await stack.submit(80, 40)
    reading = stack.read(job_id)
    await reading.until_words(20)

    dead, killed_at = await stack.kill_owner_of(job_id)
    takeover = await reading.until_attempts(2)

    figure("takeover after SIGKILL, a worker idle", takeover.at - killed_at, LEASE_S + SLACK_S)
    assert takeover.frame["reason"] == "takeover"
    assert takeover.frame["reset"] is True, "OpenAI cannot go on from a given text"
    assert takeover.frame["worker"] != dead["id"]
    await reading.to_the_end()
    reading.assert_whole(counted_text(80))
    assert reading.reader.connections == 1, "the reader's own connection was not touched"
    assert_sound(await stack.log(job_id))
    await assert_nothing_is_left_in_the_queue(stack.redis, [job_id])


async def test_all_workers_die_in_mid_stream_and_those_that_come_take_over_within_a_second(stack: Stack) -> None:
    """Ten jobs, two workers, both killed; two new ones find ten lapsed leases and a job that waited meanwhile."""
    workers = await stack.start(workers=2, api_slots=5)
    job_ids = [await stack.submit(160, 40) for _ in range(10)]
    readings = [stack.read(job_id) for job_id in job_ids]
    for reading in readings:
        await reading.until_words(10)
    assert len({reading.starts[0].frame["worker"] for reading in readings}) == 2, "each had five"

    for worker in workers:
        worker.kill()
    await wait_until(lambda: _no_worker_is_live(stack), message="the leases are over and nobody is there")
    queued = await stack.submit(5, 0)
    for _ in range(2):
        stack.worker(api_slots=8)
    await wait_until(lambda: _a_worker_is_live(stack), timeout=30)
    ready_at = time.monotonic()

    takeovers = [await reading.until_attempts(2) for reading in readings]
    # Nine of them share one second with the start of the second worker; on cores that other tests use too they take a bit more.
    figure("takeover of ten jobs once a worker is ready", max(seen.at for seen in takeovers) - ready_at, 2 * SLACK_S)
    assert {seen.frame["reason"] for seen in takeovers} == {"takeover"}
    readings.append(stack.read(queued))
    for reading, n in zip(readings, (*[160] * 10, 5), strict=True):
        await reading.to_the_end()
        reading.assert_whole(counted_text(n))
    await assert_all_sound(stack.redis, [*job_ids, queued])
    await assert_nothing_is_left_in_the_queue(stack.redis, [*job_ids, queued])


async def test_a_job_that_kills_its_workers_ends_as_attempts_exhausted(stack: Stack) -> None:
    workers = await stack.start(workers=3, max_losses=1)
    job_id = await stack.submit(2000, 20)
    reading = stack.read(job_id)
    for attempt in (1, 2):
        await reading.until_attempts(attempt)
        await reading.until_words(3)
        await stack.kill_owner_of(job_id)

    await reading.to_the_end()

    log = await stack.log(job_id)
    assert_sound(log)
    end = log[-1].event
    assert isinstance(end, Error)
    assert (end.code, end.partial) == ("attempts_exhausted", True)
    assert [start.reason for start in starts(log)] == ["first", "takeover", "takeover"]
    assert (reading.reader.lost, reading.reader.doubled, reading.ended) == (0, 0, "error")
    assert len(stack.upstream.requests) == 2, "the attempt that ends it calls no provider"
    assert (await stack.job(job_id))["text"] == reading.reader.text != ""
    assert [worker.poll() for worker in workers].count(-signal.SIGKILL) == 2
    await assert_nothing_is_left_in_the_queue(stack.redis, [job_id])


async def test_a_killer_takes_nobody_down_with_it(stack: Stack) -> None:
    """Its mates lose the one worker that they shared with it, and are charged for no other."""
    first, *others = await stack.start(workers=3, max_losses=1, alone_after_losses=1)
    for frozen in others:
        frozen.send_signal(signal.SIGSTOP)  # so that the first one takes them all
    killer = await stack.submit(900, 20)
    mates = [await stack.submit(25, 20) for _ in range(2)]
    readings = [stack.read(job_id) for job_id in mates]
    for reading in readings:
        await reading.until_words(3)
    for deaths, following in enumerate(others, 1):
        await wait_until(lambda: len(stack.upstream.of("count:900:20")) == deaths, timeout=20)  # noqa: B023
        following.send_signal(signal.SIGCONT)
        await stack.kill_owner_of(killer)
    assert first.poll() == -signal.SIGKILL

    for reading in readings:
        await reading.to_the_end()
        reading.assert_whole(counted_text(25))
    ended = stack.read(killer)
    await ended.to_the_end()
    end = (await stack.log(killer))[-1].event
    assert isinstance(end, Error)
    assert end.code == "attempts_exhausted"
    assert [await stack.field(job_id, "losses") for job_id in mates] == ["1", "1"]
    assert [await stack.field(killer, name) for name in ("losses", "lost_alone")] == ["1", None], "the last is not claimed"
    await assert_all_sound(stack.redis, [killer, *mates])
    await assert_nothing_is_left_in_the_queue(stack.redis, [killer, *mates])


async def _no_worker_is_live(stack: Stack) -> bool:
    return not await stack.live_workers()


async def _a_worker_is_live(stack: Stack) -> bool:
    return bool(await stack.live_workers())
