"""Readers that misuse their connection, by the hundred: the others notice nothing, and the web process stays small (rules 5 and
7 of protocol 4)."""

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from shared.event_log import EventLog
from shared.events import Token
from shared.job_queue import JobQueue
from shared.settings import Settings
from tests.support.author import Author
from tests.support.stack import Stack
from tests.support.waiting import until_time, wait_until

HEALTHY, PER_S, EVENTS = 50, 50, 100
DEAF, TRICKLING, LEAVING = 100, 100, 1000
HERD = 2000
HUNG_MIB = 1.5
"""What a reader that does not read may cost the web process: pieces of 64 KiB of history, in a full transport and before it,
and what reading them left behind. It held a whole page once, 2.8 MiB here."""


@pytest.fixture
def few_files() -> Iterator[None]:
    """The limit that a service or a shell starts with; the processes of this test inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_deaf_the_slow_and_the_fickle_slow_nobody(stack: Stack) -> None:
    web = stack.processes.start("web", "--port", str(stack.processes.port), stalled_reader_s=2)
    await stack.processes.ready(workers=0)
    fat = await _author(stack)
    for _ in range(60):
        await fat.put(Token("x" * 60_000))
    calm = await _measured(stack)
    before = psutil.Process(web.pid).memory_info().rss

    async with _crowd(stack, "deaf", fat, DEAF), _crowd(stack, "trickle", fat, TRICKLING):
        thin = await _author(stack)
        async with _crowd(stack, "leave", thin, LEAVING):
            abused = await _measured(stack)
        grown_mib = (psutil.Process(web.pid).memory_info().rss - before) / 2**20
        await wait_until(lambda: _readers(stack, at_most=TRICKLING), message="the deaf are let go")
    await wait_until(lambda: _readers(stack, at_most=0), message="all are let go")

    print(f"figure: p50 / p99 calm {calm['p50_ms']:.1f} / {calm['p99_ms']:.1f} ms, abused {abused['p50_ms']:.1f} / "
          f"{abused['p99_ms']:.1f} ms; the web process grew by {grown_mib:.0f} MiB")  # fmt: skip
    assert grown_mib < (DEAF + TRICKLING) * HUNG_MIB
    # The promise is twice the calm figure; what a machine that is busy with other tests adds is no reader's doing.
    assert abused["p99_ms"] <= max(2 * calm["p99_ms"], 250)


async def test_a_herd_comes_back_after_a_restart_and_none_lost_anything(stack: Stack, few_files: None) -> None:
    web = stack.processes.web()
    await stack.processes.ready(workers=0)
    author = await _author(stack)
    async with _crowd(stack, "follow", author, HERD) as herd:
        await author.say(*"before")
        web.kill()
        await asyncio.to_thread(web.wait)
        await author.say(*"meanwhile")
        web = stack.processes.web()
        await stack.processes.ready(workers=0)
        up_at = time.monotonic()
        await wait_until(lambda: _readers(stack, at_least=HERD), timeout=30, message="all are back")
        await author.say(*"after")
        await author.end()
        told = await _result(herd)
    rss = psutil.Process(web.pid).memory_info().rss / 2**20
    print(f"figure: {HERD} readers back {told['back_at'] - up_at:.1f} s after the restart; the web process holds {rss:.0f} MiB")
    assert (told["readers"], told["lost"], told["doubled"]) == (HERD, 0, 0)
    assert told["connections"] >= 2 * HERD


async def _measured(stack: Stack) -> dict[str, Any]:
    """How late the events of one stream came to its healthy readers, who got all of it."""
    author = await _author(stack)
    async with _crowd(stack, "follow", author, HEALTHY) as crowd:
        began = time.monotonic()
        for i in range(EVENTS):
            await until_time(began + i / PER_S)
            await author.say(f"@{time.monotonic_ns() // 1000:016} ")
        await author.end()
        told = await _result(crowd)
    assert (told["lost"], told["doubled"]) == (0, 0)
    return told


async def _author(stack: Stack) -> Author:
    options = Settings(redis_url=stack.redis_server.url, lanes=("api",), _env_file=None)
    author = await Author.submit(stack.redis, EventLog(stack.redis, options), JobQueue(stack.redis, options))
    await author.claim()
    return author


@asynccontextmanager
async def _crowd(stack: Stack, how: str, author: Author, n: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Readers of a job in a process of their own, once all of them have asked."""
    path = f"/v1/jobs/{author.job_id}/events"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.crowd", how, str(stack.processes.port), path, str(n)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _result(crowd: asyncio.subprocess.Process) -> dict[str, Any]:
    assert crowd.stdout is not None
    async with asyncio.timeout(30):
        told: dict[str, Any] = json.loads(await crowd.stdout.readline())
    return told


async def _readers(stack: Stack, at_least: int = 0, at_most: int = HERD) -> bool:
    """Whether the web process has so many open streams, by its own metrics."""
    lines = (await stack.http.get("/metrics")).text.splitlines()
    readers = next(float(line.split()[1]) for line in lines if line.startswith("lastevent_readers "))
    return at_least <= readers <= at_most
