"""Redis is full (`noeviction`): a pause, and what comes of it where the pause is too long (docs/ARCHITECTURE.md, "How a stream
ends"; docs/decisions/0028)."""

import time

from redis.asyncio import Redis

from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import until_time

BUFFER = 150
"""Events of one job. What is acknowledged is held for a moment too, so it must be above a second of the quick job."""


async def test_writers_hold_what_they_have_until_it_fits(stack: Stack) -> None:
    """Longer than a lease: no other worker takes over. A job that fills its writer's buffer ends as `internal`, with all that
    was generated until then."""
    await stack.start(workers=2, writer_buffer_events=BUFFER, writer_patience_s=0.5, hold_s=0.1)
    slow, quick, cancelled = await stack.submit(45, 12), await stack.submit(400, 100), await stack.submit(400, 20)
    ended = await stack.submit(5, 0)
    await stack.read(ended).to_the_end()
    readings = {job_id: stack.read(job_id) for job_id in (slow, quick, cancelled)}
    for reading in readings.values():
        await reading.until_words(5)

    await _fill(stack.redis)
    full_at = time.monotonic()
    refused = await stack.http.post("/v1/jobs", json={"model": "openai/count:5:0", "prompt": "Count"})
    assert (refused.status_code, refused.json()["code"]) == (503, "redis_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    await _make_room(stack, ended, cancelled)
    await until_time(full_at + 2 * LEASE_S)
    assert [reading.ended for reading in readings.values()] == [None, None, None]
    assert len(await stack.live_workers()) == 2, "leases and announcements are renewed"
    await stack.redis.config_set("maxmemory", 0)
    freed_at = time.monotonic()
    await readings[slow].until_next("token", freed_at)
    figure("tokens flow again after Redis was full", time.monotonic() - freed_at, 1.0 + SLACK_S)

    for reading in readings.values():
        await reading.to_the_end()
        assert (len(reading.starts), reading.rewinds) == (1, 0), "its worker lived"
    readings[slow].assert_whole(counted_text(45))
    assert (readings[quick].ended, readings[quick].reader.lost, readings[quick].reader.doubled) == ("error", 0, 0)
    assert readings[quick].words >= BUFFER
    assert readings[quick].reader.text == counted_text(readings[quick].words)
    job = await stack.job(quick)
    assert (job["status"], job["error"]["code"], job["text"]) == ("failed", "internal", readings[quick].reader.text)
    assert readings[cancelled].ended == "cancelled"
    await assert_all_sound(stack.redis, list(readings))
    await assert_nothing_is_left_in_the_queue(stack.redis, [ended, *readings])


async def _make_room(stack: Stack, ended: str, running: str) -> None:
    """An erasure and a cancel are taken all the same: they free memory."""
    assert (await stack.http.delete(f"/v1/jobs/{ended}")).status_code == 204
    assert (await stack.http.get(f"/v1/jobs/{ended}")).status_code == 404
    assert (await stack.http.post(f"/v1/jobs/{running}/cancel")).status_code == 202


async def _fill(redis: Redis) -> None:
    """As full as it can be: it holds more than it may."""
    await redis.config_set("maxmemory", 1_000_000)
