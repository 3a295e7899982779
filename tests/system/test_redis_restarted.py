"""Redis dies (SIGKILL) in mid-stream and comes back with its append-only file: a pause, no new attempt while the worker
lives, and nothing lost (P1, P2; docs/ARCHITECTURE.md, "What can die")."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.reader import sse_frames
from tests.support.stack import LEASE_S, SLACK_S, Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import until_time, wait_until


async def test_a_restart_costs_a_pause_and_no_attempt(stack: Stack) -> None:
    stack.processes.start("web", "--port", str(stack.processes.port), heartbeat_s=1)
    workers = [stack.worker(), stack.worker()]  # one to own jobs, one to be tempted
    await stack.processes.ready(workers=2)

    await _live_through(stack, LEASE_S / 3)
    await _live_through(stack, 2 * LEASE_S)

    assert [worker.poll() for worker in workers] == [None, None]


async def _live_through(stack: Stack, outage_s: float) -> None:
    job_ids = [await stack.submit(250, 50) for _ in range(4)]
    readings = [stack.read(job_id) for job_id in job_ids]
    for reading in readings:
        await reading.until_words(20)

    async with _heartbeats(stack, job_ids[0]) as heartbeats:
        stack.redis_server.kill()
        killed_at = time.monotonic()
        if outage_s > LEASE_S:
            await _assert_calls_say_so(stack, job_ids[0])
            await wait_until(lambda: any(at > killed_at + 0.5 for at in heartbeats), message="open streams stay alive")
        await until_time(killed_at + outage_s)
        await asyncio.to_thread(stack.redis_server.start)
        up_at = time.monotonic()
        back = [await reading.until_next("token", up_at) for reading in readings]
    figure(f"tokens flow again after an outage of {up_at - killed_at:.1f} s", max(s.at for s in back) - up_at, 1.0 + SLACK_S)

    late = await stack.submit(5, 0)
    readings.append(stack.read(late))
    for reading, n in zip(readings, (250, 250, 250, 250, 5), strict=True):
        await reading.to_the_end()
        reading.assert_whole(counted_text(n))
        assert len(reading.starts) == 1, "its worker lived"
        assert reading.reader.connections == 1, "open streams stay open"
    for job_id in job_ids:
        assert [attempt["number"] for attempt in (await stack.job(job_id))["attempts"]] == [1]
    await assert_all_sound(stack.redis, [*job_ids, late])
    await assert_nothing_is_left_in_the_queue(stack.redis, [*job_ids, late])


async def _assert_calls_say_so(stack: Stack, job_id: str) -> None:
    """503 with Retry-After, but 200 and `reconnect` for an event stream: any other status would end an EventSource."""
    body = {"model": "openai/count:5:0", "prompt": "Count"}
    submit, look, stream, health = await asyncio.gather(
        stack.http.post("/v1/jobs", json=body),
        stack.http.get(f"/v1/jobs/{job_id}"),
        stack.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": "1-5"}),
        stack.http.get("/healthz"),
    )
    for refused in (submit, look):
        assert (refused.status_code, refused.json()["code"]) == (503, "redis_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
    assert stream.status_code == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.startswith("retry: ")
    assert '{"type":"reconnect"' in stream.text
    assert health.status_code == 200, "the process itself is well"


@asynccontextmanager
async def _heartbeats(stack: Stack, job_id: str) -> AsyncIterator[list[float]]:
    """The moments at which an open stream got a heartbeat."""
    moments: list[float] = []
    opened = asyncio.Event()

    async def listen() -> None:
        async with stack.http.stream("GET", f"/v1/jobs/{job_id}/events?heartbeat=event") as response:
            async for frame in sse_frames(response.aiter_bytes()):
                if frame.get("type") == "heartbeat":
                    moments.append(time.monotonic())
                opened.set()

    listening = asyncio.create_task(listen())
    await opened.wait()
    yield moments
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
