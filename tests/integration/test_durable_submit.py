"""LASTEVENT_DURABLE_SUBMIT: a submit is answered once it is on Redis' disk (protocol P2)."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.errors import ConfigurationError
from shared.redis_client import check_redis, make_client
from shared.settings import Settings
from tests.support.redis_server import RedisServer
from tests.support.servers import web_server

BODY = {"model": "openai/any", "prompt": "Say hello"}


@pytest.fixture
def durable(durable_redis: RedisServer) -> Settings:
    """For a Redis that syncs its file once a second."""
    return Settings(
        redis_url=durable_redis.url,
        lanes=("api",),
        durable_submit=True,
        durable_timeout_s=1.5,
        openai_base_url="http://127.0.0.1:9/v1",
    )


@pytest.fixture
async def redis(durable: Settings) -> AsyncIterator[Redis]:
    client = make_client(durable)
    await client.config_set("appendfsync", "everysec")
    yield client
    await client.aclose()


@pytest.fixture
async def http(durable: Settings, redis: Redis) -> AsyncIterator[httpx2.AsyncClient]:
    async with web_server(durable) as url, httpx2.AsyncClient(base_url=url, timeout=10) as client:
        yield client


async def test_a_submit_waits_for_the_disk(http: httpx2.AsyncClient, redis: Redis) -> None:
    answers = await asyncio.gather(*(http.post("/v1/jobs", json=BODY) for _ in range(10)))
    assert [answer.status_code for answer in answers] == [202] * 10
    assert (await redis.info("commandstats"))["cmdstat_waitaof"]["calls"] == 10


async def test_a_disk_that_does_not_answer_is_503_and_the_key_finds_the_job(http: httpx2.AsyncClient, redis: Redis) -> None:
    await redis.config_set("appendfsync", "no")
    headers = {"Idempotency-Key": "once"}
    first = await http.post("/v1/jobs", json=BODY, headers=headers)
    assert (first.status_code, first.json()["code"]) == (503, "redis_unavailable")
    assert "Idempotency-Key" in first.json()["detail"]
    assert int(first.headers["retry-after"]) >= 1
    again = await http.post("/v1/jobs", json=BODY, headers=headers)
    assert again.status_code == 503, "what another connection wrote is waited for as well"
    await redis.config_set("appendfsync", "everysec")
    at_last = await http.post("/v1/jobs", json=BODY, headers=headers)
    assert (at_last.status_code, at_last.headers["idempotency-replayed"]) == (202, "true")
    assert len((await http.get("/v1/jobs")).json()["data"]) == 1


async def test_scripts_that_were_flushed_come_back(http: httpx2.AsyncClient, redis: Redis) -> None:
    assert (await http.post("/v1/jobs", json=BODY)).status_code == 202
    await redis.script_flush()
    with pytest.raises(NoScriptError):
        await redis.evalsha("0" * 40, 0)  # type: ignore[misc]
    assert (await http.post("/v1/jobs", json=BODY)).status_code == 202


async def test_without_a_file_it_does_not_start(redis_server: RedisServer) -> None:
    settings = Settings(redis_url=redis_server.url, durable_submit=True)
    client = make_client(settings)
    with pytest.raises(ConfigurationError, match="append-only file"):
        await check_redis(client, settings)
    await client.aclose()


async def test_with_one_it_does(redis: Redis, durable: Settings) -> None:
    await check_redis(redis, durable)


async def test_below_7_2_it_does_not_start(redis: Redis, durable: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = redis.info

    async def info(section: str) -> dict[str, object]:
        return {**await real(section), "redis_version": "7.0.15"}

    monkeypatch.setattr(redis, "info", info)
    with pytest.raises(ConfigurationError, match=r"7\.0\.15; LASTEVENT_DURABLE_SUBMIT needs 7\.2 or newer"):
        await check_redis(redis, durable)
