"""Fixtures for every kind of test, and two rules that all of them keep: no task and no key without TTL is left behind."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import PurePath
from typing import Any, Final

import httpx2
import pytest
from redis.asyncio import Redis
from xdist.scheduler import LoadScopeScheduling

from shared import keys
from shared.event_log import EventLog
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.redis_client import make_client
from shared.settings import Settings
from tests.support.processes import Processes
from tests.support.redis_server import RedisServer
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import running_worker, web_server

os.environ["LASTEVENT_CONFIG"] = ""  # a lastevent.toml of whoever runs the tests is none of theirs

LONG_GROUPS: Final = ("processes", "browser", "model")
"""Tests of whole processes kill and measure: two of them at once would measure each other. Those in a browser share one, and
those of the local model share a model."""


def _group_of(path: PurePath) -> str:
    match path.parent.name:
        case "system":
            return "processes"
        case "browser":
            return "browser"
    return "model" if "engine" in path.stem or path.stem == "test_providers_local" else path.stem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long groups come first, so that neither of the two waits for the other at the end."""
    ranks = {group: rank for rank, group in enumerate(LONG_GROUPS)}
    items.sort(key=lambda item: ranks.get(_group_of(item.path), len(ranks)))


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """What has to stay together goes to one of the two as a whole; whoever is done takes one file after the other. (xdist's own
    groups are names that it writes into an item's id, which pytest 9.2 does not read any more: all of them are ignored.)"""

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(PurePath(nodeid.partition("::")[0]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    config.option.loadscopereorder = False  # by the number of tests, which says nothing of their length
    return Groups(config, log)


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """Fails a test that leaves a task of its loop running."""
    yield
    await asyncio.sleep(0)  # what was cancelled in the test's last step ends now
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]
    gc.unfreeze()  # what a worker of the test's own loop kept from collections (shared/garbage.py)
    mine = [task for task in left if "pytest" not in repr(task.get_coro())]
    assert not mine, f"tasks left behind: {mine}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real redis-server for the session; each test finds it empty."""
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """An empty database; afterwards every key must be one that goes by itself, or a permanent one of shared/keys.py."""
    client = make_client(Settings(redis_url=redis_server.url, _env_file=None))
    await client.flushdb()
    yield client
    eternal = [name async for name in client.scan_iter() if await client.ttl(name) == -1]
    await client.aclose()
    leaks = [name.decode() for name in eternal if not keys.is_permanent(name.decode())]
    assert not leaks, f"keys without a TTL: {leaks}"


@pytest.fixture
def make_settings(redis: Redis, redis_server: RedisServer) -> Callable[..., Settings]:
    """Settings for this test's Redis: one lane, a short lease, quick clocks; whatever is given wins."""

    def make(**changed: object) -> Settings:
        quick: dict[str, object] = {
            "redis_url": redis_server.url,
            "lanes": ("api",),
            "lease_s": 1.0,
            "poll_s": 0.1,
            "drain_s": 0.2,
            "retry_min_ms": 10,
            "retry_max_ms": 20,
            "retry_base_s": 0.01,
            "log_check_s": 0.5,
            "openai_base_url": "http://127.0.0.1:9/v1",
        }
        return Settings(**{**quick, **changed})  # type: ignore[arg-type]  # validated by pydantic

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def event_log(redis: Redis, settings: Settings) -> EventLog:
    return EventLog(redis, settings)


@pytest.fixture
def job_store(redis: Redis, event_log: EventLog) -> JobStore:
    return JobStore(redis, event_log)


@pytest.fixture
def job_queue(redis: Redis, settings: Settings) -> JobQueue:
    return JobQueue(redis, settings)


@pytest.fixture
async def base_url(settings: Settings) -> AsyncIterator[str]:
    """A web process' URL, served by a real uvicorn in this loop."""
    async with web_server(settings) as url:
        yield url


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=base_url, timeout=10) as http:
        yield http


@pytest.fixture
def provider() -> ScriptedProvider:
    """What the worker of this test streams from; its answer can be changed before and while it runs."""
    return ScriptedProvider()


@pytest.fixture
async def worker(settings: Settings, provider: ScriptedProvider) -> AsyncIterator[None]:
    """A worker of the lane `api`, live."""
    async with running_worker(settings, provider):
        yield


@pytest.fixture
async def durable_redis() -> AsyncIterator[RedisServer]:
    """A redis-server of this test's own, with an append-only file: it may be killed and started again."""
    server = RedisServer(append_only=True)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.close)


@pytest.fixture
async def processes(durable_redis: RedisServer) -> AsyncIterator[Processes]:
    """An empty stack of real processes on this test's own Redis; the test starts what it needs."""
    stack = Processes(durable_redis.url, lease_s=1.5, poll_s=0.2, retry_min_ms=100, retry_max_ms=200)
    yield stack
    await stack.close()
