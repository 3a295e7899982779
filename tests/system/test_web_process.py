"""A web process dies or is told to stop while readers read: they go on at another one, or at the next on the same port."""

import asyncio
import signal
import socket
import time

import httpx2

from tests.support.redis_server import free_port
from tests.support.stack import Stack, figure
from tests.support.truth import counted_text
from tests.support.waiting import wait_until

WEB_DRAIN_S = 3.0


async def test_killed_and_started_again_on_its_port(stack: Stack) -> None:
    web = stack.processes.web()
    stack.worker()
    await stack.processes.ready()
    readings = [stack.read(job_id) for job_id in [await stack.submit(300, 50) for _ in range(3)] for _ in range(2)]
    for reading in readings:
        await reading.until_words(20)

    killed_at = time.monotonic()
    web.kill()
    await asyncio.to_thread(web.wait)
    stack.processes.web()
    await stack.processes.ready()
    up_at = time.monotonic()
    back = [await reading.until_next("token", up_at) for reading in readings]

    # A reader doubles its wait with each try, so it is back after as long again as the server was away, at the latest.
    figure("readers back after a web process was killed", max(seen.at for seen in back) - up_at, up_at - killed_at + 1.0)
    for reading in readings:
        await reading.to_the_end()
        reading.assert_whole(counted_text(300))
        assert reading.reader.connections > 1
        assert len(reading.starts) == 1, "no worker noticed"


async def test_a_cursor_is_good_at_any_web_process(stack: Stack) -> None:
    first, port = stack.processes.web(), free_port()
    stack.processes.web(port)
    stack.worker()
    await stack.processes.ready()
    other = f"http://127.0.0.1:{port}"
    job_id = await stack.submit(150, 50)
    at_first, at_both = stack.read(job_id), stack.read(job_id, other)
    await at_first.until_words(30)

    first.kill()
    await at_first.until_next("dropped", 0)
    moved = stack.read(job_id, other, cursor=at_first.reader.cursor)
    await moved.to_the_end()
    await at_both.to_the_end()

    assert at_first.reader.text + moved.reader.text == counted_text(150)
    assert (moved.reader.lost, moved.reader.doubled, moved.ended) == (0, 0, "done")
    at_both.assert_whole(counted_text(150))


async def test_told_to_stop_it_sends_its_readers_away_and_exits_within_its_drain(stack: Stack) -> None:
    web = stack.processes.start("web", "--port", str(stack.processes.port), web_drain_s=WEB_DRAIN_S)
    stack.worker()
    await stack.processes.ready()
    readings = [stack.read(job_id) for job_id in [await stack.submit(250, 50) for _ in range(2)] for _ in range(3)]
    for reading in readings:
        await reading.until_words(20)

    stopped_at = time.monotonic()
    web.terminate()
    await wait_until(lambda: _refuses_or_drains(stack), message="balancers route elsewhere")
    for reading in readings:
        away = await reading.until_next("reconnect", stopped_at)
        assert away.frame == {"type": "reconnect", "reason": "draining"}
    assert await asyncio.to_thread(web.wait, 15) in (0, -signal.SIGTERM)
    figure("exit of a web process with readers, after SIGTERM", time.monotonic() - stopped_at, WEB_DRAIN_S)
    for reading in readings:
        kinds = [seen.frame["type"] for seen in reading.seen if seen.at > stopped_at]
        assert set(kinds[: kinds.index("reconnect")]) <= {"token"}, "nothing broke before"

    stack.processes.web()
    for reading in readings:
        await reading.to_the_end()
        reading.assert_whole(counted_text(250))


async def test_a_reader_that_does_not_read_holds_up_no_stop(stack: Stack) -> None:
    """Nothing can be said to it; the others get their `reconnect`, and the process exits within its drain all the same."""
    web = stack.processes.start("web", "--port", str(stack.processes.port), web_drain_s=1)
    stack.worker()
    await stack.processes.ready()
    long = await stack.submit(12_000, 0)
    await stack.read(long).to_the_end()
    reading = stack.read(await stack.submit(150, 50))
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", stack.processes.port))
        deaf.sendall(f"GET /v1/jobs/{long}/events?merge=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await reading.until_words(5)

        stopped_at = time.monotonic()
        web.terminate()
        assert (await reading.until_next("reconnect", stopped_at)).frame["reason"] == "draining"
        assert await asyncio.to_thread(web.wait, 15) in (0, -signal.SIGTERM)
        figure("exit of a web process with a deaf reader, after SIGTERM", time.monotonic() - stopped_at, 2.5)
        assert "Traceback" not in stack.processes.logs(), "a reader that does not read is no fault of ours"

    stack.processes.web()
    await reading.to_the_end()
    reading.assert_whole(counted_text(150))


async def _refuses_or_drains(stack: Stack) -> bool:
    try:
        return (await stack.http.get("/healthz")).status_code == 503
    except httpx2.TransportError:
        return True
