"""The web tier while Redis is away or frozen, and while it drains: readers wait or come again, and none loses anything."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import httpx2
import pytest

from cli.reader import JobReader
from shared.event_log import EventLog
from shared.events import Token
from shared.job_queue import JobQueue
from shared.redis_client import make_client
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.author import Author
from tests.support.redis_server import RedisServer
from tests.support.servers import Making, running_web
from tests.support.streams import ids_of, open_stream, text_of
from tests.support.waiting import wait_until

BODY = {"model": "openai/any", "prompt": "hi"}


@pytest.fixture
def impatient(make_settings: Making, durable_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A Redis that may be struck, and clocks that notice it soon."""
    monkeypatch.setattr("web.hub._TICK_S", 0.05)
    return make_settings(redis_url=durable_redis.url, redis_timeout_s=0.3, heartbeat_s=0.2, log_check_s=0.3)


@pytest.fixture
async def author(impatient: Settings) -> AsyncIterator[Author]:
    redis = make_client(impatient)
    author = await Author.submit(redis, EventLog(redis, impatient), JobQueue(redis, impatient))
    await author.claim()
    yield author
    await redis.aclose()


async def test_a_frozen_redis_is_one_that_is_away(impatient: Settings, durable_redis: RedisServer, author: Author) -> None:
    """It breaks no connection and answers nothing: streams stay open with heartbeats, calls say when to come again."""
    async with (
        running_web(impatient) as web,
        httpx2.AsyncClient(base_url=web.url, timeout=10) as client,
        open_stream(client, author.job_id) as stream,
    ):
        await author.say("a")
        await stream.until_id("1-1")
        os.kill(durable_redis.pid, signal.SIGSTOP)
        try:
            refused, late = await asyncio.gather(
                client.post("/v1/jobs", json=BODY), client.get(f"/v1/jobs/{author.job_id}/events")
            )
            beats = stream.raw.count(b": hb")
            await stream.until_raw(b": hb\n\n" * (beats + 2))
        finally:
            os.kill(durable_redis.pid, signal.SIGCONT)
        assert (refused.status_code, refused.json()["code"]) == (503, "redis_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert (late.status_code, late.text.count('{"type":"reconnect"')) == (200, 1)
        await author.say("b")
        await author.end()
        frames = await stream.to_end()
    assert text_of(frames) == "ab"
    assert ids_of(frames) == ["0-1", "1-0", "1-1", "1-2", "1-3"]


async def test_a_reader_that_comes_during_an_outage_is_served_after_it(
    impatient: Settings, durable_redis: RedisServer, author: Author
) -> None:
    """Protocol 4.3: it is told to come again until Redis is back, and is not sent away for good."""
    await author.say("a", "b")
    async with running_web(impatient) as web:
        durable_redis.kill()
        reader = JobReader(web.url, author.job_id)
        reading = asyncio.create_task(_read(reader))
        await wait_until(lambda: reader.connections >= 2, message="it was told to come again")
        await asyncio.to_thread(durable_redis.start)
        await author.say("c")
        await author.end()
        await asyncio.wait_for(reading, 15)
    assert (reader.text, reader.lost, reader.doubled) == ("abc", 0, 0)


async def test_a_reader_in_mid_replay_loses_nothing_to_a_drain(make_settings: Making, new_author: NewAuthor) -> None:
    """What it was given before `reconnect` is whole frames, and its cursor brings the rest elsewhere."""
    author = await new_author()
    for _ in range(6):
        await author.put(*[Token("x" * 1000) for _ in range(500)])  # three pages of a log
    await author.end()
    async with (
        running_web(make_settings()) as web,
        httpx2.AsyncClient(base_url=web.url) as client,
        open_stream(client, author.job_id, merge=0) as stream,
    ):
        await stream.until_id("1-1")
        web.hub.drain()
        frames = await stream.to_end()
    assert frames[-1] == {"type": "reconnect", "reason": "draining"}
    async with (
        running_web(make_settings()) as web,
        httpx2.AsyncClient(base_url=web.url) as client,
        open_stream(client, author.job_id, ids_of(frames)[-1], merge=0) as stream,
    ):
        rest = await stream.to_end()
    assert ids_of(frames) + ids_of(rest) == ["0-1", "1-0", *(f"1-{i}" for i in range(1, 3002))]


async def test_a_server_that_is_about_to_stop_serves_on_until_balancers_have_noticed(
    make_settings: Making, new_author: NewAuthor
) -> None:
    author = await new_author()
    async with contextlib.AsyncExitStack() as running:
        web = await running.enter_async_context(running_web(make_settings(lame_duck_s=1.5)))
        async with httpx2.AsyncClient(base_url=web.url) as client, open_stream(client, author.job_id) as stream:
            await stream.until("started")
            stopping = asyncio.create_task(running.pop_all().aclose())

            async def unwanted() -> bool:
                return (await client.get("/healthz")).status_code == 503

            await wait_until(unwanted, message="balancers are told")
            assert (await client.post("/v1/jobs", json=BODY)).status_code == 202
            await author.say("still here")
            assert text_of(frames := await stream.to_end()) == "still here"
            assert frames[-1] == {"type": "reconnect", "reason": "draining"}
        await stopping


async def _read(reader: JobReader) -> None:
    async for _ in reader:
        pass
