"""How a stream ends, other than by its terminal event: protocol 4, rules 3, 6 and 7, and readers that do not read."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import EventLog
from shared.events import Token
from shared.job_queue import JobQueue
from shared.redis_client import make_client
from tests.integration.conftest import NewAuthor
from tests.support.author import Author
from tests.support.redis_server import RedisServer
from tests.support.servers import Making, Web, running_web
from tests.support.streams import open_stream, read_all, text_of
from tests.support.waiting import wait_until

LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's timer, once a second, at a test's pace."""
    monkeypatch.setattr("web.hub._TICK_S", 0.05)


@asynccontextmanager
async def web_client(make_settings: Making, **changed: object) -> AsyncIterator[tuple[Web, httpx2.AsyncClient]]:
    async with (
        running_web(make_settings(**changed)) as web,
        httpx2.AsyncClient(base_url=web.url, timeout=10) as client,
    ):
        yield web, client


@contextlib.contextmanager
def deaf_reader(web: Web, job_id: str) -> Iterator[socket.socket]:
    """A connection that asks for a stream and never reads it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", int(web.url.rpartition(":")[2])))
        sock.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        yield sock


# --- rule 6: heartbeats --------------------------------------------------------------------------------------------------


async def test_silence_is_broken_by_a_comment(make_settings: Making, new_author: NewAuthor, quick_ticks: None) -> None:
    author = await new_author()
    async with web_client(make_settings, heartbeat_s=0.2) as (_, client), open_stream(client, author.job_id) as stream:
        await stream.until_raw(b"\n\n: hb\n\n: hb\n\n")
        await author.say("a")
        await author.end()
        assert text_of(await stream.to_end()) == "a"


async def test_or_by_an_event_that_a_page_can_see(make_settings: Making, new_author: NewAuthor, quick_ticks: None) -> None:
    author = await new_author()
    async with (
        web_client(make_settings, heartbeat_s=0.2) as (_, client),
        open_stream(client, author.job_id, heartbeat="event") as stream,
    ):
        assert await stream.until("heartbeat") == {"type": "heartbeat"}
        assert b": hb" not in stream.raw
        await author.end()
        await stream.to_end()


# --- rule 7: reconnect ---------------------------------------------------------------------------------------------------


async def test_an_old_connection_is_told_to_come_again(make_settings: Making, new_author: NewAuthor, quick_ticks: None) -> None:
    author = await new_author()
    async with web_client(make_settings, max_connection_s=0.3) as (_, client):
        async with open_stream(client, author.job_id) as stream:
            frames = await stream.to_end()
        await author.end()
        rest = await read_all(client, author.job_id, "1-0")
    assert frames[-1] == {"type": "reconnect", "reason": "connection age"}
    assert [frame["type"] for frame in rest] == ["done"]


async def test_a_draining_server_sends_its_readers_away(make_settings: Making, new_author: NewAuthor) -> None:
    author = await new_author()
    async with web_client(make_settings) as (web, client), open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        web.hub.drain()
        frames = await stream.to_end()
    assert frames[-1] == {"type": "reconnect", "reason": "draining"}


async def test_a_draining_server_answers_new_readers_so_that_they_come_back(
    make_settings: Making, new_author: NewAuthor
) -> None:
    """Rule 3: 200 and `reconnect`; any other status would be final for an EventSource. Submits get 503."""
    author = await new_author()
    async with web_client(make_settings) as (web, client):
        web.hub.drain()
        async with open_stream(client, author.job_id) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["x-accel-buffering"] == "no"
            assert await stream.to_end() == [{"type": "reconnect", "reason": "draining"}]
            assert stream.raw.startswith(b"retry: ")
        refused = await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "hi"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1


async def test_a_server_that_stops_ends_its_streams_whole(make_settings: Making, new_author: NewAuthor) -> None:
    """SIGTERM: the response gets its `reconnect` and its last chunk, it is not cut."""
    author = await new_author()
    async with contextlib.AsyncExitStack() as stack:
        stream = None
        async with running_web(make_settings()) as web:
            client = await stack.enter_async_context(httpx2.AsyncClient(base_url=web.url))
            stream = await stack.enter_async_context(open_stream(client, author.job_id))
            await stream.until_id("1-0")
            ending = asyncio.create_task(stream.to_end())
        assert (await ending)[-1]["type"] == "reconnect"


# --- rule 3: Redis away --------------------------------------------------------------------------------------------------


async def test_redis_away_at_the_start_is_no_reason_to_stop(make_settings: Making, durable_redis: RedisServer) -> None:
    settings = make_settings(redis_url=durable_redis.url, redis_timeout_s=0.5)
    async with running_web(settings) as web, httpx2.AsyncClient(base_url=web.url) as client:
        durable_redis.kill()
        async with open_stream(client, "job_" + "a" * 26) as stream:
            assert stream.status == 200
            assert await stream.to_end() == [{"type": "reconnect", "reason": "redis is away"}]
        answer = await client.get("/v1/jobs/job_" + "a" * 26)
        assert answer.status_code == 503
        assert answer.json()["code"] == "redis_unavailable"
        assert "retry-after" in answer.headers
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


async def test_a_reader_lives_through_a_restart_of_redis(make_settings: Making, durable_redis: RedisServer) -> None:
    """Architecture 7, "Redis, restarted with its data": a pause, then the rest on the same connection."""
    settings = make_settings(redis_url=durable_redis.url)
    redis = make_client(settings)
    log = EventLog(redis, settings)
    author = await Author.submit(redis, log, JobQueue(redis, settings))
    await author.claim()
    async with (
        running_web(settings) as web,
        httpx2.AsyncClient(base_url=web.url, timeout=10) as client,
        open_stream(client, author.job_id) as stream,
    ):
        await author.say("a")
        await stream.until_id("1-1")
        await redis.config_set("appendfsync", "always")
        await author.say("b")
        await stream.until_id("1-2")
        durable_redis.kill()
        await asyncio.to_thread(durable_redis.start)
        await author.say("c")
        await author.end()
        frames = await stream.to_end()
    await redis.aclose()
    assert text_of(frames) == "abc"


# --- readers that do not read --------------------------------------------------------------------------------------------


async def test_a_reader_that_never_reads_slows_nobody(make_settings: Making, new_author: NewAuthor) -> None:
    """Rule 5: no reader slows another."""
    author = await new_author()
    async with web_client(make_settings) as (web, client):
        with deaf_reader(web, author.job_id):
            await wait_until(lambda: len(web.hub) == 1, message="the deaf reader is followed")
            await _overfill(author)
            await wait_until(lambda: _is_blocked(web), message="the deaf reader's socket is full")
            async with open_stream(client, author.job_id, "1-40") as stream:
                for word in "abc":
                    await author.say(word)
                    assert (await stream.frame())["text"] == word
                await author.end()
                await stream.to_end()


async def test_a_reader_that_lagged_gets_all_of_it_later(make_settings: Making, new_author: NewAuthor) -> None:
    """A paused reader is skipped, and goes on from the log once it reads again."""
    author = await new_author()
    async with web_client(make_settings, tail_bytes=4096) as (web, client), open_stream(client, author.job_id) as witness:
        with deaf_reader(web, author.job_id) as sock:
            await wait_until(lambda: len(web.hub) == 2)
            await _overfill(author)
            await wait_until(lambda: _is_blocked(web), message="the lagging reader's socket is full")
            await author.say(*"abc")
            await author.end()
            await witness.to_end()
            body = await asyncio.to_thread(_read, sock)
    frames = [json.loads(line[6:]) for line in _unchunked(body).split(b"\n") if line.startswith(b"data: ")]
    assert text_of(frames) == "x" * 2_400_000 + "abc"
    assert sum(frame.get("n", 1) for frame in frames) == 2 + 40 + 3 + 1


@pytest.mark.parametrize("ended", [False, True])
async def test_a_reader_that_stays_deaf_is_aborted(
    make_settings: Making, new_author: NewAuthor, quick_ticks: None, ended: bool
) -> None:
    """Rule 7: after `stalled_reader_s` without a word, also when nothing but the end is left to be sent."""
    author = await new_author()
    await _overfill(author)
    if ended:
        await author.end()
    async with web_client(make_settings, stalled_reader_s=0.3) as (web, _):
        with deaf_reader(web, author.job_id) as sock:
            await wait_until(lambda: _is_blocked(web), message="the deaf reader's socket is full")
            await wait_until(lambda: len(web.hub) == 0, timeout=5, message="the deaf reader is let go")
            assert not (await asyncio.to_thread(_read, sock)).endswith(LAST_CHUNK)


async def test_a_stalled_end_is_aborted_too(make_settings: Making, new_author: NewAuthor, quick_ticks: None) -> None:
    """The last frame is offered to a full socket: the reader is past its stream's end for the hub, and still gets no rest."""
    author = await new_author()
    await _overfill(author)
    async with web_client(make_settings, stalled_reader_s=0.3, tail_bytes=10_000_000) as (web, _):
        with deaf_reader(web, author.job_id):
            await wait_until(lambda: _is_blocked(web))
            for subscriber in web.hub._subscribers:  # as if its transport had had room until just now
                subscriber.blocked_since = None
                subscriber.end(b"data: {}\n\n", asyncio.get_running_loop().time())
            await wait_until(lambda: len(web.hub) == 0, timeout=5, message="the deaf reader is let go")


async def test_a_reader_that_leaves_is_forgotten(make_settings: Making, redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    async with web_client(make_settings) as (web, client):
        async with open_stream(client, author.job_id) as stream:
            await stream.until_id("1-0")
            assert len(web.hub) == 1
        await wait_until(lambda: len(web.hub) == 0, message="the reader is forgotten")
        assert await redis.exists(keys.log(author.job_id))


async def test_a_reader_that_stays_keeps_nothing_of_its_request(make_settings: Making, new_author: NewAuthor) -> None:
    """Thousands of them wait for hours: its headers, and the layers around the response, are more than all the rest."""
    author = await new_author()
    async with web_client(make_settings) as (web, client), open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        (subscriber,) = web.hub._subscribers
        cycle = subscriber._send.__self__  # type: ignore[attr-defined]  # uvicorn's own `send`, as the server lends it
        await wait_until(lambda: cycle.scope == {"method": "GET"}, message="the layers have returned")
        await author.put(Token("more"))
        await stream.until("token")


async def _overfill(author: Author) -> None:
    """2.4 MB in 40 pushes: more than the sockets between the two ends of a loopback hold."""
    for _ in range(40):
        await author.put(Token("x" * 60_000))


def _is_blocked(web: Web) -> bool:
    return any(subscriber.blocked_since is not None for subscriber in web.hub._subscribers)


def _read(sock: socket.socket) -> bytes:
    """Up to the response's end, or to where it was cut."""
    sock.settimeout(10)
    body = b""
    while not body.endswith(LAST_CHUNK) and (chunk := sock.recv(1 << 20)):
        body += chunk
    return body


def _unchunked(response: bytes) -> bytes:
    """The body of a chunked HTTP/1.1 response."""
    rest, body = response.partition(b"\r\n\r\n")[2], b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
