"""Redis dies (SIGKILL) and comes back without the end of its file: the writer writes again what it acknowledged and forgot, the
same under the same ids, so that readers who had it notice nothing (P1, P2, P5; docs/decisions/0028)."""

import asyncio
import os
import signal
import subprocess
import time
from functools import partial

import pytest

from cli.reader import StreamRefused
from shared import keys
from tests.support.reading import Reading
from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import until_time, wait_until


async def test_what_redis_forgot_is_written_again(stack: Stack) -> None:
    """Entries, a claim, an end, and a whole life from claim to end; only a submit that was forgotten is gone."""
    workers = await stack.start(workers=2)  # one to own jobs, one to be tempted
    await _forget(stack, workers, LEASE_S / 5)
    await _forget(stack, workers, 2 * LEASE_S)
    assert [worker.poll() for worker in workers] == [None, None]


async def _forget(stack: Stack, workers: list[subprocess.Popen[bytes]], outage_s: float) -> None:
    streaming = await stack.submit(150, 50)
    readings = {streaming: stack.read(streaming)}
    await readings[streaming].until_words(10)
    _signal(workers, signal.SIGSTOP)
    claimed, whole_life = await stack.submit(100, 50), await stack.submit(6, 0)
    remembered = stack.redis_server.file_size
    _signal(workers, signal.SIGCONT)
    forgotten = await stack.submit(200, 50)
    readings |= {job_id: stack.read(job_id) for job_id in (claimed, whole_life, forgotten)}
    for job_id in (streaming, claimed, forgotten):
        await readings[job_id].until_words(readings[job_id].words + 15)
    await readings[whole_life].to_the_end()

    stack.redis_server.kill()
    stack.redis_server.forget_after(remembered)
    await until_time(time.monotonic() + outage_s)
    had = {job_id: reading.words for job_id, reading in readings.items()}
    await asyncio.to_thread(stack.redis_server.start)
    up_at = time.monotonic()

    for job_id in (streaming, claimed):
        await readings[job_id].until_words(had[job_id] + 1)
    figure(f"tokens flow again after {outage_s:.1f} s and a lost tail", time.monotonic() - up_at, 1.0 + SLACK_S)
    await _assert_whole(stack, {streaming: 150, claimed: 100, whole_life: 6}, readings)
    await _assert_gone(stack, forgotten, readings[forgotten])


async def _assert_whole(stack: Stack, words: dict[str, int], readings: dict[str, Reading]) -> None:
    """One attempt each, told once and whole; and the log says what its readers were told."""
    for job_id, n in words.items():
        await readings[job_id].to_the_end()
        readings[job_id].assert_whole(counted_text(n))
        assert (len(readings[job_id].starts), readings[job_id].rewinds) == (1, 0), "its worker lived"
        assert readings[job_id].reader.connections == 1, "open streams stay open"
        await wait_until(partial(_is_over, stack, job_id), message="the end is written again")
        job = await stack.job(job_id)
        assert (job["text"], job["last_event_id"]) == (counted_text(n), readings[job_id].reader.cursor)
        assert [attempt["number"] for attempt in job["attempts"]] == [1]
    await assert_all_sound(stack.redis, list(words))
    await wait_until(lambda: _queue_is_empty(stack), message="nothing is due any more")
    await assert_nothing_is_left_in_the_queue(stack.redis, list(words))


async def _assert_gone(stack: Stack, job_id: str, reading: Reading) -> None:
    """Protocol P2: Redis does not know it; its attempt stops, its reader is told."""
    assert (await stack.http.get(f"/v1/jobs/{job_id}")).status_code == 404
    with pytest.raises(StreamRefused):
        await reading.to_the_end()
    assert not await stack.redis.exists(keys.job(job_id), keys.log(job_id))


async def _is_over(stack: Stack, job_id: str) -> bool:
    return await stack.field(job_id, "status") == "done"


async def _queue_is_empty(stack: Stack) -> bool:
    return not await stack.redis.zcard(keys.queue("api"))


def _signal(workers: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for worker in workers:
        os.kill(worker.pid, number)
