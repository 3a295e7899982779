"""Scenario A: one stream, many readers. What one delivered event costs the web process, and how late it comes.

Ours beside the tutorial design, in turn, on one Redis. The events are written by this process, each with the time in its text:
ours through the worker's own writer, the tutorial's by a plain `XADD`. The readers are one process in C.
"""

import asyncio
import json
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from redis.asyncio import Redis

from bench.figures import OURS, Finding, Row, Target
from bench.owned_log import owned_log
from bench.stage import ROOT, Child, Stage
from shared.events import Token
from shared.redis_client import make_client
from worker.log_handle import LogHandle

TUTORIAL: Final = "tutorial"
_PER_S: Final = 50.0
_LENGTH_S, _LENGTH_QUICK_S = 8.0, 3.0
_READERS, _READERS_QUICK = (100, 1000), (100,)
_WARM_UP_S: Final = 1.0
_LAG_S: Final = 5.0
"""How long after the last event the readers go on listening."""

_LAG_NOTE: Final = (
    "A server that lags takes many events at once: where p99 is long, its CPU an event is less than it were without."
)


class Stream(ABC):
    """One stream that readers follow at `path` of the web process `web`."""

    def __init__(self, web: Child, port: int, path: str) -> None:
        self.web, self.port, self.path = web, port, path

    @abstractmethod
    async def write(self, text: str) -> None:
        """Writes one event."""


class OurStream(Stream):
    def __init__(self, web: Child, port: int, out: LogHandle) -> None:
        super().__init__(web, port, f"/v1/jobs/{out.owner.job_id}/events")
        self._out = out

    async def write(self, text: str) -> None:
        await self._out.append(Token(text))


class TutorialStream(Stream):
    def __init__(self, web: Child, port: int, redis: Redis, name: str) -> None:
        super().__init__(web, port, f"/{name}/events")
        self._redis = redis
        self._name = name

    async def write(self, text: str) -> None:
        await self._redis.xadd(self._name, {"text": text})


class Crowd(NamedTuple):
    """The command line of the load client, without its arguments, and what is to be known about it."""

    command: tuple[str, ...]
    note: str


async def run(stage: Stage) -> Finding:
    redis = await stage.redis()
    crowd = await _load_client(stage)
    ours = await _our_web(stage)
    tutorial = await _tutorial_web(stage)
    rows = []
    for readers in _READERS_QUICK if stage.quick else _READERS:
        async with _our_stream(stage, *ours) as stream:
            rows.append(await _measure(stage, crowd, stream, OURS, readers, redis))
        async with _tutorial_stream(stage, *tutorial, name=f"tokens{readers}") as stream:
            rows.append(await _measure(stage, crowd, stream, TUTORIAL, readers, redis))
    a, b = rows[0].figures["CPU µs/event"], rows[1].figures["CPU µs/event"]
    return Finding(
        letter="A",
        title="Fan-out: one stream at 50 events/s",
        rows=rows,
        compare="CPU µs/event",
        targets=[Target("CPU per delivered event at 100 readers / the tutorial's", round(a / b, 4), 0.1, "")],
        notes=[_LAG_NOTE, *([crowd.note] if crowd.note else [])],
    )


async def _measure(stage: Stage, crowd: Crowd, stream: Stream, server: str, readers: int, redis: Child) -> Row:
    length_s = _LENGTH_QUICK_S if stage.quick else _LENGTH_S
    events = int(length_s * _PER_S)
    rss_before = stream.web.rss_bytes
    arguments = (stream.port, stream.path, readers, events, _WARM_UP_S + length_s + _LAG_S)
    client = await stage.start("load client", *crowd.command, *map(str, arguments), may_end=True)
    stage.say(f"fan-out: {readers:,} readers, {server}")
    if await client.line() != "connected":
        raise AssertionError("the load client says `connected` first")
    await _produce(stream, int(_WARM_UP_S * _PER_S), stamped=False)
    cpu, redis_cpu, rss = stream.web.cpu_s, redis.cpu_s, stream.web.rss_bytes
    await _produce(stream, events, stamped=True)
    seen = json.loads(await client.line(length_s + 2 * _LAG_S))
    cpu, redis_cpu = stream.web.cpu_s - cpu, redis.cpu_s - redis_cpu
    await client.stop()
    delivered = max(1, seen["events"])
    figures = {
        "CPU µs/event": round(cpu / delivered * 1e6, 2),
        "Redis µs/event": round(redis_cpu / delivered * 1e6, 2),
        "p50 ms": seen["p50_ms"],
        "p99 ms": seen["p99_ms"],
        "RSS KB/reader": round((rss - rss_before) / readers / 1024, 1),
        "delivered %": round(100 * seen["events"] / seen["wanted"], 2),
    }
    return Row(f"{readers:,} readers", server, figures)


async def _produce(stream: Stream, n: int, *, stamped: bool) -> None:
    """Writes `n` events on a fixed beat, so that a slow write makes none later than itself."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for i in range(n):
        await asyncio.sleep(max(0.0, begun + i / _PER_S - loop.time()))
        mark = "@" if stamped else "~"
        await stream.write(f"{mark}{time.monotonic_ns() // 1000:016d} word ")


@asynccontextmanager
async def _our_stream(stage: Stage, web: Child, port: int) -> AsyncIterator[Stream]:
    async with owned_log(stage.settings()) as out:
        yield OurStream(web, port, out)


@asynccontextmanager
async def _tutorial_stream(stage: Stage, web: Child, port: int, *, name: str) -> AsyncIterator[Stream]:
    redis = make_client(stage.settings())
    try:
        yield TutorialStream(web, port, redis, name)
    finally:
        await redis.aclose()


async def _our_web(stage: Stage) -> tuple[Child, int]:
    env = stage.environment(log_level="info", log_json="1")
    web = await stage.python("cli.main", "web", "--port", "0", **env)
    return web, int(json.loads(await web.logged("web is listening"))["port"])


async def _tutorial_web(stage: Stage) -> tuple[Child, int]:
    command = ("uvicorn", "bench.tutorial_app:app", "--port", "0", "--no-access-log", "--no-use-colors")
    web = await stage.python(*command, BENCH_REDIS_URL=stage.redis_url)
    return web, int((await web.logged("Uvicorn running on")).partition("127.0.0.1:")[2].split()[0])


async def _load_client(stage: Stage) -> Crowd:
    """In C where there is a compiler, else in Python."""
    compiler = shutil.which("cc")
    if compiler is None:
        note = "No C compiler: the readers are a Python process, whose own limits show at 1,000 readers."
        return Crowd((sys.executable, "-m", "bench.load_client"), note)
    program = stage.dir / "load_client"
    source = Path(__file__).parent / "load_client.c"
    process = await asyncio.create_subprocess_exec(compiler, "-O2", "-o", str(program), str(source), cwd=ROOT)
    if await process.wait() != 0:
        raise RuntimeError(f"{compiler} could not compile {source}")
    return Crowd((str(program),), "")
